//! Everything that the report says about a judge on one file, beyond the figures of `eval --json`.
//!
//! [`evaluate`](super::evaluate) answers "how good"; this answers "compared with what, how sure, and
//! where it goes wrong". It is what the HTML report draws: each struct here is one section of it, in
//! numbers and excerpts, and knows nothing of drawing. All of it is a function of groups, scores and
//! options, so the same call gives the same bytes; whatever is fitted to the labels (the temperature,
//! the response-only model) is fitted on other prompts than those it is measured on.
//!
//! | file | subject |
//! |---|---|
//! | `accuracy.rs` | the judge beside the trivial judges, and the smallest difference the data could show |
//! | `response_only.rs` | the trivial judge that reads the response without its prompt |
//! | `calibrated.rs` | reliability before and after the temperature |
//! | `distribution.rs` | what a score means: histogram, percentiles, chance against a typical response |
//! | `lowess.rs`, `lengths.rs` | score against length, and what taking the length out changes |
//! | `ties.rs` | whether the judge is undecided where people are, and the order of the list |
//! | `examples.rs` | scores of a few prompts, the hardest mistakes, labels that look wrong |
//! | `material.rs`, `folds.rs` | what the sections share; prompts dealt into folds |

mod accuracy;
mod calibrated;
mod distribution;
mod examples;
mod folds;
mod lengths;
mod lowess;
mod material;
mod response_only;
mod ties;

pub use accuracy::{AccuracyRow, AccuracyTable, Rate, SmallestDifference};
pub use calibrated::{Calibrated, CalibrationSection};
pub use distribution::{Histogram, ScoreSection};
pub(crate) use examples::excerpt;
pub use examples::{Bar, JudgedPair, PromptBars};
pub use lengths::{LengthCorrection, LengthPoint, LengthSection};
pub use ties::{OrderSection, TieSection};

use super::report::matched;
use super::{DataReport, EvalError, EvalOptions};
use crate::data::Group;
use material::Material;

/// How to analyse.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnalysisOptions<'a> {
    /// Bootstrap, seed and the judge's stored temperature.
    pub eval: EvalOptions,
    /// Scores of the same groups by judges that were trained without the group's prompt (from
    /// folds), in the shape of the scores: labels are doubted by these alone.
    pub held_out_scores: Option<&'a [Vec<f32>]>,
}

/// A judge on one file, section by section.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Analysis {
    /// The figures of `eval --json`: accuracy, rank correlations, best of n, subsets.
    pub data: DataReport,
    /// The judge beside the trivial judges, for the file and each subset.
    pub accuracy: AccuracyTable,
    /// Reliability, before and after the temperature.
    pub calibration: CalibrationSection,
    /// What a score means.
    pub scores: ScoreSection,
    /// Score and length.
    pub length: LengthSection,
    /// Where people were undecided.
    pub ties: TieSection,
    /// The order in which responses are listed.
    pub order: OrderSection,
    /// The scores of the first prompts of the file, at most twenty.
    pub bars: Vec<PromptBars>,
    /// Pairs that the judge gets wrong, widest margin first, at most twenty.
    pub mistakes: Vec<JudgedPair>,
    /// Pairs whose label has a probability below .1 by held-out scores, least probable first; `None`
    /// without [`AnalysisOptions::held_out_scores`].
    pub suspects: Option<Vec<JudgedPair>>,
    /// Accuracy by number of training prompts; `None` unless folds were run, which fill it in.
    pub learning_curve: Option<Vec<LearningPoint>>,
}

/// One point of a learning curve.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct LearningPoint {
    /// Prompts trained on.
    pub prompts: usize,
    /// Held-out accuracy and its interval.
    #[serde(flatten)]
    pub rate: Rate,
}

/// Analyses the scores of one file: `scores[g][r]` is the score of response `r` of group `g`.
///
/// # Errors
/// When the scores do not fit the groups or are not finite, or the temperature is not positive.
pub fn analyse(
    file: &str,
    groups: &[Group],
    scores: &[Vec<f32>],
    options: &AnalysisOptions,
) -> Result<Analysis, EvalError> {
    let data = super::evaluate(file, groups, scores, &options.eval)?;
    let material = Material::new(matched(groups, scores)?, options.eval);
    let suspects = match options.held_out_scores {
        Some(held_out) => Some(examples::suspects(&Material::new(matched(groups, held_out)?, options.eval))),
        None => None,
    };
    Ok(Analysis {
        data,
        accuracy: accuracy::table(&material),
        calibration: calibrated::section(&material),
        scores: distribution::section(&material),
        length: lengths::section(&material),
        ties: ties::section(&material),
        order: ties::order(&material),
        bars: examples::bars(&material),
        mistakes: examples::mistakes(&material),
        suspects,
        learning_curve: None,
    })
}
