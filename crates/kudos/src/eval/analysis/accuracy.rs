//! The judge beside judges that need no judgement, and the smallest difference the data could show.

use std::collections::BTreeMap;

/// An accuracy with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Rate {
    /// Share of the pairs that are right; what is undecided counts one half. `None` without pairs.
    pub accuracy: Option<f64>,
    /// 95 % bootstrap interval over prompts; `None` with fewer than two prompts.
    pub accuracy_ci95: Option<[f64; 2]>,
}

/// The judge and the trivial judges on the same pairs, all with intervals from the same resamples.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AccuracyRow {
    /// Pairs with a preferred side.
    pub pairs: usize,
    /// Prompts they belong to.
    pub prompts: usize,
    /// The judge: the figures of [`Metrics`](crate::eval::Metrics).
    pub judge: Rate,
    /// "The longer response wins" (characters).
    pub longer_wins: Rate,
    /// "The shorter response wins".
    pub shorter_wins: Rate,
    /// "The response listed first wins"; `None` where the format lists the better one first.
    pub first_listed: Option<Rate>,
    /// A bag-of-words model of the response that never sees a prompt, fitted on other prompts of
    /// this file; `None` when there are fewer than ten prompts to fit it on.
    pub response_only: Option<Rate>,
    /// What this number of prompts could show at all; `None` with fewer than two prompts.
    pub smallest_difference: Option<SmallestDifference>,
}

/// The minimal detectable difference in accuracy: found in 80 % of such samples by a two-sided test
/// at 5 %.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SmallestDifference {
    /// Standard error of the judge's accuracy, clustered by prompt.
    pub standard_error: f64,
    /// From a known figure (a coin's .5, a published accuracy): (z.975 + z.80) × standard error.
    pub from_a_figure: f64,
    /// Between two judges on the same pairs whose errors are unrelated, √2 times as much. Judges
    /// that err on the same pairs can be told apart by less: see `kudos eval --judge A --judge B`.
    pub between_judges: f64,
}

/// One row for the file and one for each subset.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct AccuracyTable {
    /// The whole file.
    pub all: AccuracyRow,
    /// By the column `subset`.
    pub subsets: BTreeMap<String, AccuracyRow>,
}
