//! Whether the judge is undecided where people are, and whether the order of the list matters.

use super::Rate;

/// Ties of people against decided pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct TieSection {
    /// Comparisons without a preferred side.
    pub ties: usize,
    /// Comparisons with one.
    pub pairs: usize,
    /// Share of the ties about which the judge is at most 60 % sure.
    pub unsure_of_ties: Option<f64>,
    /// Share of the pairs about which it is at most 60 % sure: to compare the above with.
    pub unsure_of_pairs: Option<f64>,
    /// Probability that a random pair has a wider margin than a random tie (area under the ROC
    /// curve of |margin|): .5, margins do not tell ties from pairs.
    pub auc: Option<f64>,
}

/// The order in which a comparison lists its two sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct OrderSection {
    /// Share of the comparisons with the same verdict when the two sides change places. A judge of
    /// single responses never sees the other side, so this is 1 by construction; it is counted all
    /// the same. `None` without comparisons.
    pub consistency: Option<f64>,
    /// Pairs whose better side is listed first.
    pub first_better_pairs: usize,
    /// The judge on them.
    pub first_better: Rate,
    /// Pairs whose better side is listed second.
    pub second_better_pairs: usize,
    /// The judge on them.
    pub second_better: Rate,
}
