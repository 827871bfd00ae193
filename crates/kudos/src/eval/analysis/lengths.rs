//! Score against length, and what the judge would say if the length were taken out.

use super::Rate;

/// One response.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct LengthPoint {
    /// ln(1 + characters).
    pub log_length: f64,
    /// The score, or the height of the curve.
    pub score: f64,
}

/// What subtracting the curve from the scores changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct LengthCorrection {
    /// With the scores as they are.
    pub before: Rate,
    /// With score − curve(log length).
    pub after: Rate,
    /// Pairs whose verdict is another one after it.
    pub changed: usize,
    /// Of those, pairs that became right.
    pub mended: usize,
    /// Of those, pairs that became wrong.
    pub broken: usize,
}

/// How the score follows the length.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct LengthSection {
    /// Responses, at most 1000 of them, evenly spaced through the file.
    pub points: Vec<LengthPoint>,
    /// Local linear regression (LOWESS, tricube weights, two thirds of the responses, no robustness
    /// steps) of score on log length over all responses, at rising lengths.
    pub curve: Vec<LengthPoint>,
    /// As in [`Metrics`](crate::eval::Metrics).
    pub partial_correlation: Option<f64>,
    /// Pairs whose better side is the longer one.
    pub longer_right_pairs: usize,
    /// The judge on them.
    pub longer_right: Rate,
    /// Pairs whose better side is the shorter one.
    pub longer_wrong_pairs: usize,
    /// The judge on them.
    pub longer_wrong: Rate,
    /// The correction by the curve; `None` without pairs or without a curve.
    pub correction: Option<LengthCorrection>,
}
