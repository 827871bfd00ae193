//! What a score means: where it lies among the scores of the file.

/// Counts of equal-width bins.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub low: f64,
    /// Upper edge of the last bin, which holds its edge.
    pub high: f64,
    /// Scores in each bin; empty without scores.
    pub counts: Vec<usize>,
}

/// The scores of all responses of the file.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ScoreSection {
    /// Scores.
    pub count: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation (of the population).
    pub std: Option<f64>,
    /// Thirty bins from the least to the greatest score.
    pub histogram: Histogram,
    /// Percentiles 1 to 99 (NumPy's default, linear interpolation): a score at `percentiles[79]` is
    /// above 80 % of the responses. Empty without scores.
    pub percentiles: Vec<f64>,
    /// For each of those percentiles, the probability of beating a typical response: the mean over
    /// all scores s of σ((x − s) / T) at x = the percentile, with the stored temperature T.
    pub beats_typical: Vec<f64>,
}
