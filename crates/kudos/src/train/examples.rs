//! Encoded groups: what the loop trains on and what it is measured with.

use super::log::Evaluation;
use super::loss::{Judged, group_loss};
use super::settings::Settings;
use crate::data::{Comparison, Group, Loaded};
use crate::eval::{EvalError, EvalOptions, evaluate};
use crate::models::Input;
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
}

/// Every pair as a group of its own, the chosen response first, in the order of the files: what TRL sees.
/// Ties and votes have no place there; margins do.
pub fn each_pair_alone(loaded: &Loaded) -> Vec<Group> {
    let mut pairs = Vec::new();
    for (g, group) in loaded.groups.iter().enumerate() {
        for (c, comparison) in group.comparisons.iter().enumerate() {
            let Some((chosen, rejected)) = comparison.better_worse() else { continue };
            let location = loaded.comparison_location(g, c).clone();
            let comparison = Comparison { first: 0, second: 1, target: 1.0, weight: 1.0, ..*comparison };
            let responses = [chosen, rejected].map(|r| group.responses[r].clone()).to_vec();
            let order = (loaded.origins[g].file, location.line);
            let extra = group.extra.clone();
            let prompt = group.prompt.clone();
            pairs.push((order, Group { prompt, responses, comparisons: vec![comparison], location, extra }));
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
    let mut place = vec![None; sequences.len()];
    let mut used = 0;
    for index in 0..sequences.len() {
        if group.comparisons.iter().any(|c| c.weight > 0.0 && (c.first == index || c.second == index)) {
            place[index] = Some(used);
            used += 1;
        }
    }
    let comparisons: Vec<_> = group
        .comparisons
        .iter()
        .filter_map(|c| Some(Comparison { first: place[c.first]?, second: place[c.second]?, ..*c }))
        .filter(|c| c.weight > 0.0)
        .collect();
    let kept = |i: &usize| place[*i].is_some();
    let ranks = (0..sequences.len()).filter(kept).map(|i| group.responses[i].rank).collect();
    let sequences = sequences.into_iter().zip(&place).filter_map(|(s, p)| p.map(|_| s)).collect();
    (!comparisons.is_empty()).then_some(Example { sequences, comparisons, ranks })
}

/// Share of the encoded responses that did not fit the token limit.
pub fn truncated_share(examples: &[Example]) -> f64 {
    let all = examples.iter().flat_map(|e| &e.sequences);
    let (cut, count) = all.fold((0, 0), |(cut, n), s| (cut + usize::from(s.truncated), n + 1));
    cut as f64 / f64::from(count.max(1))
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

impl HeldOut {
    /// Encodes held-out groups.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn encode(name: &str, groups: Vec<Group>, encoder: &Encoder) -> Result<Self, TextError> {
        let sequences = encode_groups(&groups, encoder)?.into_iter().flatten().collect();
        Ok(Self { name: name.into(), groups, sequences })
    }

    /// Flat scores cut into those of each group.
    pub fn grouped(&self, scores: &[f32]) -> Vec<Vec<f32>> {
        let mut scores = scores.iter().copied();
        self.groups.iter().map(|g| scores.by_ref().take(g.responses.len()).collect()).collect()
    }

    /// Metrics of the scores under the settings' loss.
    ///
    /// # Errors
    /// [`EvalError`] for scores that are no numbers.
    pub fn evaluation(&self, settings: &Settings, step: u64, scores: &[f32]) -> Result<Evaluation, EvalError> {
        let grouped = self.grouped(scores);
        let options = EvalOptions { bootstrap: 0, ..EvalOptions::default() };
        let metrics = evaluate(&self.name, &self.groups, &grouped, &options)?.metrics;
        let (mut loss, mut counted) = (0.0, 0usize);
        let (mut margin, mut pairs) = (0.0, 0usize);
        for (group, scores) in self.groups.iter().zip(&grouped) {
            if group.comparisons.is_empty() {
                continue;
            }
            let ranks: Vec<_> = group.responses.iter().map(|r| r.rank).collect();
            let judged = Judged { comparisons: &group.comparisons, ranks: &ranks };
            let center = settings.center_coefficient;
            loss += group_loss(settings.loss, center, judged, scores, 0.0, &mut vec![0.0; scores.len()]);
            counted += 1;
            for (better, worse) in group.comparisons.iter().filter_map(Comparison::better_worse) {
                margin += f64::from(scores[better]) - f64::from(scores[worse]);
                pairs += 1;
            }
        }
        Ok(Evaluation {
            step,
            eval_loss: loss / counted.max(1) as f64,
            eval_accuracy: metrics.accuracy,
            eval_margin: (pairs > 0).then(|| margin / pairs as f64),
            eval_mean_reward: metrics.score_mean,
            eval_min_reward: scores.iter().copied().fold(f32::INFINITY, f32::min),
            eval_max_reward: scores.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        })
    }
}
