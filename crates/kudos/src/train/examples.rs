//! Encoded groups: what the loop trains on and what it is measured with.

use super::attributes::attribute_loss;
use super::log::Evaluation;
use super::loss::{Judged, group_loss};
use super::settings::Settings;
use crate::data::{Comparison, Group, Loaded, Location};
use crate::eval::{DataReport, EvalError, EvalOptions, attribute_metrics, evaluate, first_temperature};
use crate::models::{AttributeHead, Input};
use crate::text::{Encoded, Encoder, TextError};

/// One group, encoded.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its responses.
    pub sequences: Vec<Encoded>,
    /// What is known of their order.
    pub comparisons: Vec<Comparison>,
    /// Their ranks, lower is better.
    pub ranks: Vec<Option<f64>>,
    /// Their standardised ratings, `[responses][labels]`; empty where the order alone is learnt.
    pub ratings: Vec<Vec<Option<f32>>>,
    /// What tells its prompt from others ([`Group::prompt_key`]).
    pub prompt: String,
    /// First row of the group, for messages.
    pub location: Location,
}

impl Example {
    /// Encodes the groups there is something to learn from, each whole but for the responses that stand in
    /// no comparison.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn encode(groups: &[Group], encoder: &Encoder) -> Result<Vec<Example>, TextError> {
        let sequences = encode_groups(groups, encoder)?;
        Ok(groups.iter().zip(sequences).filter_map(|(group, sequences)| Self::of(group, sequences)).collect())
    }

    /// A group whose responses are encoded, without idle ones; `None` when nothing is compared.
    pub fn of(group: &Group, sequences: Vec<Encoded>) -> Option<Example> {
        whole(group, sequences)
    }

    /// Encodes the responses that are rated for any of the attributes.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn encode_rated(groups: &[Group], head: &AttributeHead, encoder: &Encoder) -> Result<Vec<Example>, TextError> {
        let groups: Vec<Group> = groups.iter().filter_map(|group| rated_part(group, head)).collect();
        let sequences = encode_groups(&groups, encoder)?;
        let example = |(group, sequences): (&Group, _)| Example {
            sequences,
            comparisons: group.comparisons.clone(),
            ranks: group.responses.iter().map(|r| r.rank).collect(),
            ratings: group.responses.iter().map(|r| head.standardised(&r.attributes)).collect(),
            prompt: group.prompt_key(),
            location: group.location.clone(),
        };
        Ok(groups.iter().zip(sequences).map(example).collect())
    }
}

/// True if a response of the group is rated for any of the attributes.
pub fn is_rated(group: &Group, names: &[String]) -> bool {
    group.responses.iter().any(|r| names.iter().any(|name| r.attributes.contains_key(name)))
}

/// The group without the responses that have no rating; `None` when nothing is left.
fn rated_part(group: &Group, head: &AttributeHead) -> Option<Group> {
    let is_rated = |r: &usize| head.names.iter().any(|name| group.responses[*r].attributes.contains_key(name));
    let rated: Vec<usize> = (0..group.responses.len()).filter(is_rated).collect();
    (!rated.is_empty()).then(|| group.part(&rated, |c| group.comparisons[c].counts()))
}

/// Every pair as a group of its own, the chosen response first, in the order of the files: what TRL sees.
/// Ties, votes and weights have no place there; margins do. A comparison of weight 0 is none.
pub fn each_pair_alone(loaded: &Loaded) -> Vec<Group> {
    let mut pairs = Vec::new();
    for (g, group) in loaded.groups.iter().enumerate() {
        for (c, comparison) in group.comparisons.iter().enumerate().filter(|(_, c)| c.counts()) {
            let Some((chosen, rejected)) = comparison.better_worse() else { continue };
            let location = group.comparison_location(c).clone();
            let comparisons = vec![Comparison { first: 0, second: 1, target: 1.0, weight: 1.0, ..*comparison }];
            let order = (loaded.origins[g].file, location.line);
            let pair = group.part(&[chosen, rejected], |other| other == c);
            pairs.push((order, Group { comparisons, location, ..pair }));
        }
    }
    pairs.sort_by_key(|(order, _)| *order);
    pairs.into_iter().map(|(_, group)| group).collect()
}

/// The responses of each group, encoded.
pub(super) fn encode_groups(groups: &[Group], encoder: &Encoder) -> Result<Vec<Vec<Encoded>>, TextError> {
    let inputs: Vec<Input> =
        groups.iter().flat_map(|g| g.responses.iter().map(|r| (g.prompt.as_ref(), &r.content))).collect();
    let mut encoded = encoder.encode_batch(&inputs)?.into_iter();
    Ok(groups.iter().map(|g| encoded.by_ref().take(g.responses.len()).collect()).collect())
}

/// The group as it is, without idle responses; `None` when nothing is compared.
fn whole(group: &Group, sequences: Vec<Encoded>) -> Option<Example> {
    let compared = compared(group);
    let mut used = 0..;
    let place: Vec<Option<usize>> = compared.iter().map(|compared| compared.then(|| used.next()).flatten()).collect();
    let moved = |c: &Comparison| Some(Comparison { first: place[c.first]?, second: place[c.second]?, ..*c });
    let comparisons: Vec<_> = group.counted().filter_map(moved).collect();
    if comparisons.is_empty() {
        return None;
    }
    let ranks = group.responses.iter().zip(&compared).filter(|(_, compared)| **compared).map(|(r, _)| r.rank).collect();
    let sequences = sequences.into_iter().zip(&compared).filter(|(_, compared)| **compared).map(|(s, _)| s).collect();
    let (prompt, location) = (group.prompt_key(), group.location.clone());
    Some(Example { sequences, comparisons, ranks, ratings: Vec::new(), prompt, location })
}

/// Whether each response stands in a comparison that counts.
fn compared(group: &Group) -> Vec<bool> {
    let mut compared = vec![false; group.responses.len()];
    group.counted().for_each(|c| (compared[c.first], compared[c.second]) = (true, true));
    compared
}

/// Comparisons with a preferred side.
pub fn preferred_pairs(examples: &[Example]) -> usize {
    examples.iter().flat_map(|e| &e.comparisons).filter(|c| !c.is_tie()).count()
}

/// Share of the encoded responses that did not fit the token limit.
pub fn truncated_share(examples: &[Example]) -> f64 {
    let all = examples.iter().flat_map(|e| &e.sequences);
    let (cut, count) = all.fold((0, 0), |(cut, n), s| (cut + usize::from(s.truncated), n + 1));
    cut as f64 / f64::from(count.max(1))
}

/// The scores that a model's outputs stand for.
pub(super) fn overall(outputs: &[f32], head: Option<&AttributeHead>) -> Vec<f32> {
    head.map_or_else(|| outputs.to_vec(), |head| head.overalls(outputs))
}

/// Held-out groups with their encoded responses end to end.
pub struct HeldOut {
    /// What reports call it.
    pub name: String,
    /// The groups.
    pub groups: Vec<Group>,
    /// All responses of all groups.
    pub sequences: Vec<Encoded>,
}

/// A judge on held-out data.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The figures, at the temperature.
    pub report: DataReport,
    /// The scores behind them: those of each group, in the order of its responses.
    pub scores: Vec<Vec<f32>>,
    /// What makes its margins probabilities, fitted to these comparisons.
    pub temperature: f32,
}

impl HeldOut {
    /// Encodes held-out groups.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn encode(name: &str, groups: Vec<Group>, encoder: &Encoder) -> Result<Self, TextError> {
        let sequences = encode_groups(&groups, encoder)?.into_iter().flatten().collect();
        Ok(Self { name: name.into(), groups, sequences })
    }

    /// The groups as what could be trained on.
    pub(super) fn examples(&self) -> Vec<Example> {
        let mut sequences = self.sequences.iter().cloned();
        let own = |group: &Group| Example::of(group, sequences.by_ref().take(group.responses.len()).collect());
        self.groups.iter().filter_map(own).collect()
    }

    /// The row of the response whose text is the `index`th of `sequences`.
    pub(super) fn place(&self, index: usize) -> Option<&Location> {
        self.groups.iter().flat_map(|group| &group.responses).nth(index).map(|response| &response.location)
    }

    /// Flat scores cut into those of each group.
    pub fn grouped(&self, scores: &[f32]) -> Vec<Vec<f32>> {
        let mut scores = scores.iter().copied();
        self.groups.iter().map(|g| scores.by_ref().take(g.responses.len()).collect()).collect()
    }

    /// Outputs `[sequences, labels]` cut into those of each response of each group.
    fn grouped_outputs(&self, outputs: &[f32], labels: usize) -> Vec<Vec<Vec<f32>>> {
        let mut rows = outputs.chunks_exact(labels).map(<[f32]>::to_vec);
        self.groups.iter().map(|g| rows.by_ref().take(g.responses.len()).collect()).collect()
    }

    /// What a model's outputs, scores or ratings of attributes, are worth.
    ///
    /// # Errors
    /// [`EvalError`] for scores that are no numbers.
    pub fn measure(&self, outputs: &[f32], head: Option<&AttributeHead>) -> Result<Measured, EvalError> {
        let scores = self.grouped(&overall(outputs, head));
        let temperature = first_temperature(&self.groups, &scores)?;
        let options = EvalOptions { temperature, ..EvalOptions::default() };
        let mut report = evaluate(&self.name, &self.groups, &scores, &options)?;
        if let Some(head) = head {
            let outputs = self.grouped_outputs(outputs, head.names.len());
            report.attributes = attribute_metrics(&head.names, &self.groups, &outputs);
        }
        report.truncated = Some(self.sequences.iter().filter(|s| s.truncated).count());
        Ok(Measured { report, scores, temperature })
    }

    /// Metrics of standardised outputs `[sequences, labels]`: the accuracy is the mean over the attributes of the share of
    /// pairs in the right order, the margin and the rewards are of the overall score.
    ///
    /// # Errors
    /// [`EvalError`] for outputs that are no numbers.
    pub fn attribute_evaluation(
        &self,
        settings: &Settings,
        head: &AttributeHead,
        step: u64,
        outputs: &[f32],
    ) -> Result<Evaluation, EvalError> {
        let labels = head.names.len();
        let mut evaluation = self.evaluation(settings, step, &head.overalls(&head.ratings(outputs)))?;
        let grouped = self.grouped_outputs(outputs, labels);
        let metrics = attribute_metrics(&head.names, &self.groups, &grouped);
        let accuracies: Vec<f64> = metrics.values().filter_map(|m| m.accuracy).collect();
        evaluation.eval_accuracy =
            (!accuracies.is_empty()).then(|| accuracies.iter().sum::<f64>() / accuracies.len() as f64);
        evaluation.losses.clear();
        evaluation.places.clear();
        for (group, outputs) in self.groups.iter().zip(&grouped).filter(|(group, _)| is_rated(group, &head.names)) {
            let ratings: Vec<_> = group.responses.iter().map(|r| head.standardised(&r.attributes)).collect();
            let ratings: Vec<&[Option<f32>]> = ratings.iter().map(Vec::as_slice).collect();
            let outputs = outputs.concat();
            evaluation.losses.push(attribute_loss(&ratings, &outputs, 0.0, &mut vec![0.0; outputs.len()]));
            evaluation.places.push(group.location.clone());
        }
        evaluation.eval_loss = mean(&evaluation.losses);
        Ok(evaluation)
    }

    /// Metrics of the scores under the settings' loss.
    ///
    /// # Errors
    /// [`EvalError`] for scores that are no numbers.
    pub fn evaluation(&self, settings: &Settings, step: u64, scores: &[f32]) -> Result<Evaluation, EvalError> {
        let grouped = self.grouped(scores);
        let options = EvalOptions { bootstrap: 0, ..EvalOptions::default() };
        let metrics = evaluate(&self.name, &self.groups, &grouped, &options)?.metrics;
        let (mut losses, mut places) = (Vec::with_capacity(self.groups.len()), Vec::new());
        let (mut margin, mut pairs) = (0.0, 0usize);
        for (group, scores) in self.groups.iter().zip(&grouped) {
            if group.counted().next().is_none() {
                continue;
            }
            let compared = compared(group);
            let ranks: Vec<_> =
                group.responses.iter().zip(compared).map(|(r, known)| r.rank.filter(|_| known)).collect();
            let judged = Judged { comparisons: &group.comparisons, ranks: &ranks };
            let center = settings.center_coefficient;
            losses.push(group_loss(settings.loss, center, judged, scores, 0.0, &mut vec![0.0; scores.len()]));
            places.push(group.location.clone());
            for (better, worse) in group.counted().filter_map(Comparison::better_worse) {
                margin += f64::from(scores[better]) - f64::from(scores[worse]);
                pairs += 1;
            }
        }
        Ok(Evaluation {
            step,
            eval_loss: mean(&losses),
            losses,
            places,
            eval_accuracy: metrics.accuracy,
            eval_margin: (pairs > 0).then(|| margin / pairs as f64),
            eval_mean_reward: metrics.score_mean,
            eval_min_reward: scores.iter().copied().fold(f32::INFINITY, f32::min),
            eval_max_reward: scores.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        })
    }
}

/// 0 for none.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
