//! The report: what a judge can and cannot do, as one HTML file that needs nothing else.
//!
//! The page is written for somebody who has to decide whether to rely on the judge. It opens with the verdict in plain
//! words; every figure stands beside what it must be compared with, and says how much the data could show at all. It
//! holds no script, loads nothing, prints, and follows the reader's light or dark theme.
//!
//! [`render`] is a pure function: the same input gives the same bytes. It must not compute statistics (those are
//! [`Analysis`]) nor know models or files. Everything that comes from data is escaped by `html.rs`. Figures that `eval
//! --json` has too are marked with their place there (`data-key`), so that a test can compare the two.
//!
//! | file | section |
//! |---|---|
//! | `verdict.rs`, `accuracy.rs` | 1. the verdict in words, and the judge beside the trivial judges |
//! | `attributes.rs` | the outputs of a judge that has several |
//! | `calibration.rs` | 2. whether its probabilities hold, and what a score means |
//! | `length.rs` | 3. how much the score follows length |
//! | `choice.rs`, `bars.rs` | 4. ties, order, picking the best, and the scores of each response |
//! | `mistakes.rs` | 5. the hardest mistakes, and labels that look wrong |
//! | `training.rs`, `data.rs` | 6. how it was trained, on what, and how to do it again |
//! | `html.rs`, `svg.rs`, `style.css` | words, charts and their looks |

mod accuracy;
mod attributes;
mod bars;
mod calibration;
mod choice;
mod data;
mod html;
mod length;
mod mistakes;
mod svg;
#[cfg(test)]
mod tests;
mod training;
mod verdict;

pub use training::TrainingStep;

use super::Analysis;
use crate::data::{FileInfo, check};
use html::{escape, name};
use serde_json::Value;

/// What the page says of the judge itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgeInfo {
    /// What to call it.
    pub name: String,
    /// `reward.json`: base, recipe, rendering; `null` for a checkpoint that has none.
    pub reward: Value,
    /// Arithmetic it scored in.
    pub precision: String,
    /// Files of its directory with their SHA-256.
    pub hashes: Vec<(String, String)>,
    /// Mean and standard deviation of the scores that its training ended with (`calibration`).
    pub trained_spread: Option<[f64; 2]>,
}

/// The training run behind a judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingInfo {
    /// The lines of `run/metrics.jsonl`.
    pub steps: Vec<TrainingStep>,
    /// Step whose weights were kept, where it is known.
    pub kept: Option<u64>,
}

/// Everything the page shows.
#[derive(Clone, Debug, Default)]
pub struct ReportInput<'a> {
    /// The judge.
    pub judge: JudgeInfo,
    /// One analysis a data set, in the order of `eval --json`; empty when nothing was held out.
    pub analyses: &'a [Analysis],
    /// The training run; `None` when the judge's directory has none.
    pub training: Option<TrainingInfo>,
    /// The data as `kudos check` sees it: of the training for a training's report, else the evaluated.
    pub check: Option<&'a check::Report>,
    /// The evaluated files.
    pub files: &'a [FileInfo],
    /// How to make this report again.
    pub command: String,
    /// Resamples and seed of the bootstrap.
    pub bootstrap: (usize, u64),
    /// A sentence the reader must know first, such as how the weights were chosen.
    pub caution: Option<String>,
}

const STYLE: &str = include_str!("style.css");

/// The page. Its size grows with the number of data sets and of shown texts, not with the number of pairs.
pub fn render(input: &ReportInput) -> String {
    let sections = [
        ("verdict", "What this judge can and cannot do", accuracy::section(input)),
        ("attributes", "Attribute by attribute", attributes::section(input)),
        ("calibration", "What a score means", calibration::section(input)),
        ("length", "Length", length::section(input)),
        ("choice", "Choosing with it", choice::section(input)),
        ("mistakes", "Where it is wrong", mistakes::section(input)),
        ("training", "How it was made", training::section(input) + &data::section(input)),
    ];
    let shown: Vec<_> = sections.into_iter().filter(|(_, _, body)| !body.is_empty()).collect();
    let mut page = head(input);
    for (number, (id, title, body)) in shown.iter().enumerate() {
        page += &format!(
            "<section id=\"{id}\"><h2><span class=\"number\">{}</span> {title}</h2><div class=\"body\">{body}</div></section>\n",
            number + 1
        );
    }
    page + "</main>\n</body>\n</html>\n"
}

fn head(input: &ReportInput) -> String {
    let judge = escape(&input.judge.name);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>Report on {judge}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header><p class=\"kind\">Report on a judge</p>\
         <h1>{}</h1>{}{}</header>\n",
        name(&input.judge.name),
        verdict::lead(input),
        verdict::about(input),
    )
}

/// The block of each data set under one heading a set; no heading when there is only one.
fn per_data_set(input: &ReportInput, block: impl Fn(usize, &Analysis) -> String) -> String {
    let mut html = String::new();
    for (index, analysis) in input.analyses.iter().enumerate() {
        let body = block(index, analysis);
        let heading = match input.analyses.len() > 1 && !body.is_empty() {
            true => format!("<h3 class=\"set\">{}</h3>", name(&analysis.data.file)),
            false => String::new(),
        };
        html += &format!("{heading}{body}");
    }
    html
}
