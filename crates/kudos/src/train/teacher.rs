//! Learning from a judge instead of from people: its margins are soft targets (Hinton et al. 2015, "Distilling the knowledge
//! in a neural network"). It needs no labels, only prompts with two responses or more.

use crate::data::{Comparison, Group};
use crate::models::{Input, RewardModel, Workspace};

/// What a teacher made of groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taught {
    /// The groups, with a comparison for every two responses that differ.
    pub groups: Vec<Group>,
    /// How many comparisons these are.
    pub comparisons: usize,
    /// Responses that the teacher cannot score; they are left out.
    pub unscored: usize,
}

/// Replaces what is known of the order in each group by what the teacher says: the Bradley-Terry probability, at the
/// teacher's temperature, that the one response is better than the other. Groups of fewer than two responses that it can
/// score, or of equal ones, are left out.
pub fn teach(groups: &[Group], teacher: &RewardModel) -> Taught {
    let inputs: Vec<Input> =
        groups.iter().flat_map(|group| group.responses.iter().map(|r| (group.prompt.as_ref(), &r.content))).collect();
    let mut scores =
        teacher.rate_inputs(&inputs, &mut Workspace::default()).into_iter().map(|rated| Some(rated.ok()?.scored.score));
    let mut taught = Taught::default();
    for group in groups {
        let own: Vec<Option<f32>> = scores.by_ref().take(group.responses.len()).collect();
        taught.unscored += own.iter().filter(|score| score.is_none()).count();
        taught.groups.extend(by_scores(group, &own, teacher.reward.temperature()));
    }
    taught.comparisons = taught.groups.iter().map(|group| group.comparisons.len()).sum();
    taught
}

/// The group with a comparison for every two of its responses that have a score and differ; `None` without one.
fn by_scores(group: &Group, scores: &[Option<f32>], temperature: f32) -> Option<Group> {
    let alike = group.first_alike();
    let scored: Vec<usize> = (0..scores.len()).filter(|r| scores[*r].is_some() && alike[*r] == *r).collect();
    let mut group = group.part(&scored, |_| false);
    group.responses.iter_mut().for_each(|response| response.rank = None);
    let scores: Vec<f32> = scored.iter().filter_map(|r| scores[*r]).collect();
    for first in 0..scores.len() {
        for second in first + 1..scores.len() {
            let margin = f64::from(scores[first] - scores[second]) / f64::from(temperature);
            let target = (1.0 / (1.0 + (-margin).exp())) as f32;
            group.comparisons.push(Comparison { first, second, target, margin: 0.0, weight: 1.0 });
        }
    }
    (!group.comparisons.is_empty()).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Attributes, Content, Extra, Location, Response};

    fn group(texts: &[&str]) -> Group {
        let location = Location { file: "f".into(), line: 1 };
        let response = |text: &&str| Response {
            content: Content::Text((*text).into()),
            rank: Some(1.0),
            score: None,
            attributes: Attributes::new(),
            location: location.clone(),
            extra: Extra::default(),
        };
        let responses = texts.iter().map(response).collect();
        Group { prompt: None, responses, comparisons: vec![Comparison::BETTER], judged: Vec::new(), location }
    }

    #[test]
    fn margins_become_probabilities_at_the_teachers_temperature() {
        let taught = by_scores(&group(&["a", "b", "c"]), &[Some(2.0), Some(0.0), Some(2.0)], 0.5).unwrap();
        let targets: Vec<(usize, usize, f32)> =
            taught.comparisons.iter().map(|c| (c.first, c.second, (c.target * 1e4).round() / 1e4)).collect();
        assert_eq!(targets, [(0, 1, 0.982), (0, 2, 0.5), (1, 2, 0.018)]);
        assert!(
            taught.responses.iter().all(|response| response.rank.is_none()),
            "people's ranks are not the teacher's"
        );
    }

    #[test]
    fn what_is_equal_or_has_no_score_teaches_nothing() {
        let taught = by_scores(&group(&["a", "b", "a"]), &[Some(1.0), None, Some(1.0)], 1.0);
        assert!(taught.is_none());
        let taught = by_scores(&group(&["a", "b", "c"]), &[Some(1.0), None, Some(1.0)], 1.0).unwrap();
        assert_eq!((taught.responses.len(), taught.comparisons.len()), (2, 1));
    }
}
