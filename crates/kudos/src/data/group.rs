//! A group: one prompt, its k responses, and a partial order over them. Pairs are groups of two.

use super::record::{Content, Location};
use serde_json::{Map, Value};

/// One prompt with its responses and every comparison known between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `None` when the responses are whole transcripts (HH-RLHF style).
    pub prompt: Option<Content>,
    /// The responses, in the order of the file.
    pub responses: Vec<Response>,
    /// What is known of the order: empty for unlabelled data.
    pub comparisons: Vec<Comparison>,
    /// First row of the group.
    pub location: Location,
    /// Extra columns of the first row (`id`, `subset`, …).
    pub extra: Map<String, Value>,
}

/// One response of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its text or messages.
    pub content: Content,
    /// Place in the ranking: lower is better, equal is a tie, `None` is unranked.
    pub rank: Option<f64>,
    /// The rating it was ranked by, when the file gives one (higher is better).
    pub score: Option<f64>,
    /// The row it came from.
    pub location: Location,
}

/// A judgement between two responses of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Index in [`Group::responses`] of the one listed first.
    pub first: usize,
    /// Index of the one listed second.
    pub second: usize,
    /// Probability (share of votes) that `first` is better: 1, 0, 0.5 for a tie, or between.
    pub target: f32,
    /// How much better the better one is, where the file says; 0 otherwise (TRL's `margin`).
    pub margin: f32,
    /// Weight of this judgement; 1 unless the file says.
    pub weight: f32,
}

impl Group {
    /// Every preference as `(chosen, rejected, margin)`, indices into [`Group::responses`]; ties make none.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, f32)> + '_ {
        self.comparisons.iter().filter_map(|comparison| {
            let (chosen, rejected) = comparison.better_worse()?;
            Some((chosen, rejected, comparison.margin))
        })
    }

    /// Comparisons that prefer neither side.
    pub fn ties(&self) -> usize {
        self.comparisons
            .iter()
            .filter(|comparison| comparison.is_tie())
            .count()
    }
}

impl Comparison {
    /// True when neither side is preferred.
    pub fn is_tie(&self) -> bool {
        self.target == 0.5
    }

    /// `(better, worse)` indices, or `None` for a tie.
    pub fn better_worse(&self) -> Option<(usize, usize)> {
        match self.target.partial_cmp(&0.5)? {
            std::cmp::Ordering::Greater => Some((self.first, self.second)),
            std::cmp::Ordering::Less => Some((self.second, self.first)),
            std::cmp::Ordering::Equal => None,
        }
    }
}
