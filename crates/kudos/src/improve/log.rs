//! `run/metrics.jsonl`: one line a step.

use super::learn::Learnt;
use super::reward::{Judged, mean_and_deviation};
use super::sample::Response;
use crate::generate::{Distinct, duplicates};
use serde::Serialize;

/// The metrics of one step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean score of the step's responses.
    pub mean_reward: f64,
    /// Standard deviation of the scores within the groups, mean over groups.
    pub std_reward: f64,
    /// Lowest score.
    pub min_reward: f64,
    /// Highest score.
    pub max_reward: f64,
    /// Mean size of the advantages.
    pub advantage: f64,
    /// Weighted cross-entropy and penalty, before the update.
    pub loss: f64,
    /// KL divergence from the start model a token, estimated from the step's tokens (k3).
    pub kl: f64,
    /// Entropy of the policy a token, estimated from the step's tokens.
    pub entropy: f64,
    /// Mean tokens of a response.
    pub length: f64,
    /// Share of responses that were cut at the limit of tokens.
    pub truncated: f64,
    /// Share of responses that repeat another one to the same prompt.
    pub duplicates: f64,
    /// Share of responses without a word.
    pub empty: f64,
    /// Responses that the judge could not score.
    pub unscored: usize,
    /// Euclidean norm of the gradient.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Tokens of the responses.
    pub tokens: usize,
    /// Seconds that drawing the responses took.
    pub sampling_seconds: f64,
    /// Seconds that judging them took.
    pub judging_seconds: f64,
    /// Seconds that the update took.
    pub learning_seconds: f64,
    /// Seconds of the step.
    pub seconds: f64,
}

impl StepMetrics {
    /// Of what was drawn, judged and learnt.
    pub(super) fn of(groups: &[Vec<Response>], judged: &Judged, learnt: Learnt) -> Self {
        let all: Vec<f64> = judged.all().collect();
        let spread =
            |scores: &Vec<Option<f64>>| mean_and_deviation(&scores.iter().flatten().copied().collect::<Vec<_>>()).1;
        let Writing { length, truncated, duplicates, empty } = Writing::of(groups);
        Self {
            mean_reward: mean_and_deviation(&all).0,
            std_reward: mean_and_deviation(&judged.scores.iter().map(spread).collect::<Vec<_>>()).0,
            min_reward: all.iter().copied().fold(f64::INFINITY, f64::min),
            max_reward: all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            unscored: judged.scores.iter().flatten().filter(|score| score.is_none()).count(),
            loss: learnt.loss,
            kl: learnt.kl,
            entropy: learnt.entropy,
            tokens: learnt.tokens,
            length,
            truncated,
            duplicates,
            empty,
            ..Self::default()
        }
    }
}

/// How responses look, whatever they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Writing {
    /// Mean tokens of a response.
    pub length: f64,
    /// Share that was cut at the limit of tokens.
    pub truncated: f64,
    /// Share that repeats an earlier one to the same prompt, white space aside.
    pub duplicates: f64,
    /// Share without a word.
    pub empty: f64,
}

impl Writing {
    /// Of groups of responses, each to one prompt.
    pub fn of(groups: &[Vec<Response>]) -> Self {
        let all = || groups.iter().flatten();
        let share = |count: usize| count as f64 / all().count().max(1) as f64;
        let repeated = |group: &Vec<Response>| {
            duplicates(&group.iter().map(|one| one.text.as_str()).collect::<Vec<_>>(), Distinct::Exact).len()
        };
        Self {
            length: share(all().map(|one| one.ids.len()).sum()),
            truncated: share(all().filter(|one| one.cut).count()),
            duplicates: share(groups.iter().map(repeated).sum()),
            empty: share(all().filter(|one| one.is_empty()).count()),
        }
    }

    /// Whether each group of several says one thing or nothing.
    pub(super) fn is_degenerate(groups: &[Vec<Response>]) -> Option<&'static str> {
        let empty = groups.iter().flatten().all(Response::is_empty);
        let same = groups.iter().all(|group| group.len() > 1 && group.iter().all(|one| one.text == group[0].text));
        if empty { Some("all responses are empty") } else { same.then_some("all responses to a prompt are the same") }
    }
}
