//! How good a judge is, and how sure one can be of it.
//!
//! One accuracy figure hides more than it shows: it moves by several points between two draws of a
//! hundred prompts, a judge that only counts characters reaches .6 on many data sets, and a judge
//! that ranks well may still be far too sure of itself. So every figure here stands beside what it
//! must be compared with: the accuracy beside its interval, beside "the longer one wins" and "the
//! first listed wins"; the picks of best-of-n beside a random pick and the best possible one.
//!
//! The module takes groups and scores, and gives numbers. It must not know models, tokens or files,
//! so that anything that scores (a judge, a remote model, a column of a table) is measured by the
//! same rules. Everything is computed in `f64`; nothing depends on the order in which a group lists
//! its responses, except `first_listed_accuracy`, whose subject it is. Definitions and sources
//! stand at the fields of [`Metrics`].
//!
//! | file | subject |
//! |---|---|
//! | `pairs.rs` | groups → pairs, right and wrong, the two baselines |
//! | `bootstrap.rs` | the interval of the accuracy, over prompts |
//! | `ranking.rs` | Kendall, Spearman, NDCG: whole rankings |
//! | `best_of_n.rs` | what picking by this judge would bring |
//! | `calibration.rs` | whether 80 % sure means right in 80 % |
//! | `length.rs` | how much the score follows length |
//! | `attributes.rs` | ratings of single attributes: one judge output each |
//! | `report.rs` | all of it together, for a file and its subsets |
//! | `table.rs` | the same for the terminal |
//! | `verdict.rs` | the same in words, with what to do next |
//! | `compare.rs` | two judges on the same pairs |
//! | `suites/` | published test suites and their own scores; alone in reading files |
//! | `analysis/` | the sections of the report: trivial judges, calibration, length, mistakes |
//! | `page/` | the report as an HTML file |

mod analysis;
mod attributes;
mod best_of_n;
mod bootstrap;
mod calibration;
mod compare;
mod length;
pub mod page;
mod pairs;
mod ranking;
mod report;
mod suites;
mod table;
mod verdict;

pub(crate) use analysis::excerpt;
pub use analysis::{
    AccuracyRow, AccuracyTable, Analysis, AnalysisOptions, Bar, Calibrated, CalibrationSection, Histogram, JudgedPair,
    LearningPoint, LengthCorrection, LengthPoint, LengthSection, OrderSection, PromptBars, Rate, ScoreSection,
    SmallestDifference, TieSection, analyse,
};
pub use attributes::{AttributeMetrics, attribute_metrics};
pub use best_of_n::BestOfN;
pub use calibration::Bin;
pub use compare::{JudgeComparison, McNemar, Verdict, compare};
pub(crate) use report::subset;
pub use report::{
    DataReport, EvalError, EvalOptions, Metrics, evaluate, first_temperature, fit_temperature, reliability,
};
pub use suites::{Headline, Suite, SuiteError};
pub use table::render_table;
pub use verdict::{Cause, Finding, Outcome, verdict};

use crate::data::Group;

/// A group with the judge's scores of its responses: what every metric is computed from.
#[derive(Clone, Copy)]
struct ScoredGroup<'a> {
    group: &'a Group,
    /// Its place among the groups.
    index: usize,
    /// One a response, in the order of the group.
    scores: &'a [f32],
    /// Number of its prompt: equal for groups with equal prompts.
    prompt: usize,
}

/// Mean of the values; `None` of nothing.
fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Builders of small groups, for the tables of cases of this module.
#[cfg(test)]
mod testing {
    use super::ScoredGroup;
    use crate::data::{Comparison, Content, Group, Location, Response};
    use serde_json::{Map, Value};

    fn location(line: u64) -> Location {
        Location { file: "cases.jsonl".into(), line }
    }

    /// A group of unranked responses with the given texts, without comparisons.
    pub fn unranked(prompt: &str, texts: &[&str]) -> Group {
        let response = |text: &&str| Response {
            content: Content::Text(text.to_string()),
            rank: None,
            score: None,
            attributes: Default::default(),
            location: location(1),
            extra: Default::default(),
        };
        Group {
            prompt: Some(Content::Text(prompt.into())),
            responses: texts.iter().map(response).collect(),
            comparisons: Vec::new(),
            judged: Vec::new(),
            location: location(1),
        }
    }

    /// Puts all rows of a group into a subset.
    pub fn name_subset(group: &mut Group, subset: Value) {
        for response in &mut group.responses {
            response.extra = Map::from_iter([("subset".to_owned(), subset.clone())]).into();
        }
    }

    /// A comparison with margin 0 and weight 1.
    pub fn comparison(first: usize, second: usize, target: f32) -> Comparison {
        Comparison { first, second, target, margin: 0.0, weight: 1.0 }
    }

    /// A group ranked as given, with all its comparisons; the texts have 1, 2, 3, … characters.
    pub fn ranked(prompt: &str, ranks: &[f64]) -> Group {
        let texts: Vec<String> = (1..=ranks.len()).map(|n| "é".repeat(n)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut group = unranked(prompt, &texts);
        for (response, rank) in group.responses.iter_mut().zip(ranks) {
            response.rank = Some(*rank);
        }
        for first in 0..ranks.len() {
            for second in first + 1..ranks.len() {
                let target = match ranks[first].total_cmp(&ranks[second]) {
                    std::cmp::Ordering::Less => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Greater => 0.0,
                };
                group.comparisons.push(comparison(first, second, target));
            }
        }
        group
    }

    /// The groups with their scores, each prompt on its own.
    pub(super) fn scored<'a>(groups: &'a [Group], scores: &'a [Vec<f32>]) -> Vec<ScoredGroup<'a>> {
        let number = |(index, (group, scores)): (usize, (&'a Group, &'a Vec<f32>))| ScoredGroup {
            group,
            index,
            scores,
            prompt: index,
        };
        groups.iter().zip(scores).enumerate().map(number).collect()
    }
}
