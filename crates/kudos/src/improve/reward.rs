//! Judged responses, and what each is worth against the others of its group.

use super::sample::Response;
use crate::data::Content;
use crate::models::{RewardModel, Workspace};

/// Scores of groups of responses, and why the first without one has none.
pub(super) struct Judged {
    /// By prompt and response; `None` where the judge cannot score a response.
    pub scores: Vec<Vec<Option<f64>>>,
    /// Of those without a score, the first's reason.
    pub failure: Option<String>,
}

impl Judged {
    /// All scores that there are.
    pub fn all(&self) -> impl Iterator<Item = f64> {
        self.scores.iter().flatten().flatten().copied()
    }
}

/// Scores the responses to each prompt.
pub(super) fn judge(
    judge: &RewardModel,
    workspace: &mut Workspace,
    prompts: &[&Content],
    groups: &[Vec<Response>],
) -> Judged {
    let texts: Vec<Vec<Content>> =
        groups.iter().map(|group| group.iter().map(|one| Content::Text(one.text.clone())).collect()).collect();
    let inputs: Vec<_> =
        prompts.iter().zip(&texts).flat_map(|(prompt, group)| group.iter().map(|text| (Some(*prompt), text))).collect();
    let mut failure = None;
    let mut score = |rated: Result<crate::models::Rated, crate::models::ScoreError>| match rated {
        Ok(rated) => Some(f64::from(rated.scored.score)),
        Err(error) => {
            failure.get_or_insert_with(|| error.to_string());
            None
        }
    };
    let mut scores = judge.rate_inputs(&inputs, workspace).into_iter().map(&mut score).collect::<Vec<_>>().into_iter();
    let scores = groups.iter().map(|group| scores.by_ref().take(group.len()).collect()).collect();
    Judged { scores, failure }
}

/// What each response is worth: (score − mean) / standard deviation of the group; 0 where all are equal, and for a response
/// without a score.
pub fn advantages(scores: &[Option<f64>]) -> Vec<f64> {
    let known: Vec<f64> = scores.iter().flatten().copied().collect();
    let (low, high) =
        known.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(*s), high.max(*s)));
    if known.len() < 2 || low == high {
        return vec![0.0; scores.len()];
    }
    let (mean, deviation) = mean_and_deviation(&known);
    scores.iter().map(|score| score.map_or(0.0, |score| (score - mean) / deviation)).collect()
}

/// 1 for the best response of a group, of equals the first, and 0 for the others; 0 for all where none has a score.
pub fn best(scores: &[Option<f64>]) -> Vec<f64> {
    let of = |place: usize| scores[place].unwrap_or(f64::NEG_INFINITY);
    let best = (0..scores.len()).reduce(|best, next| if of(next) > of(best) { next } else { best });
    let best = best.filter(|best| scores[*best].is_some());
    (0..scores.len()).map(|place| f64::from(u8::from(Some(place) == best))).collect()
}

/// Mean and standard deviation (of a sample, over n − 1); 0 deviation for fewer than two.
pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_relative_to_the_group() {
        let found = advantages(&[Some(1.0), Some(3.0), None, Some(2.0)]);
        assert_eq!(found, [-1.0, 1.0, 0.0, 0.0]);
        for equal in [&[Some(0.3), Some(0.3)][..], &[Some(0.3), None], &[None, None], &[Some(2.0)], &[]] {
            assert!(advantages(equal).iter().all(|advantage| *advantage == 0.0), "{equal:?}");
        }
        // Scores that differ in their last bit are not equal, and give numbers.
        let near = advantages(&[Some(0.3), Some(0.3 + f64::EPSILON / 4.0), Some(0.3)]);
        assert!(near.iter().all(|advantage| advantage.is_finite() && advantage.abs() < 2.0), "{near:?}");
    }

    #[test]
    fn the_best_is_the_first_of_equals() {
        assert_eq!(best(&[Some(1.0), None, Some(2.0), Some(2.0)]), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(best(&[None, Some(-5.0)]), [0.0, 1.0]);
        assert_eq!(best(&[None, None]), [0.0, 0.0]);
    }
}
