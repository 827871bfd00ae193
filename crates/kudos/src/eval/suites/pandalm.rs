//! PandaLM: `data/testset-v1.json` of WeOpenML/PandaLM, a list of `{cmp_key, instruction, input,
//! response1, response2, annotator1, annotator2, annotator3}`, votes 0 (tie), 1 or 2; a missing input is
//! `NaN`.
//!
//! Its `compute_metrics.py` takes the majority of the three votes (the first where all differ) as one of
//! three classes, ties included, and prints accuracy and macro-averaged precision, recall and F1. A judge
//! of single responses says "tie" only for exactly equal scores, so ties cost it accuracy.

use super::rows::{self, SuiteRow};
use super::{Headline, SuiteError};
use crate::data::{Content, Group};
use serde_json::Value;
use std::path::Path;

const EXPECTED: &str = "PandaLM's testset-v1.json, or the directory that holds it";

pub(super) fn read(path: &Path) -> Result<Vec<Group>, SuiteError> {
    let mut groups = Vec::new();
    for file in rows::files(path, EXPECTED, |name| name == "testset-v1.json")? {
        for row in rows::read_python_json(&file)? {
            groups.push(group(&row)?);
        }
    }
    Ok(groups)
}

fn group(row: &SuiteRow) -> Result<Group, SuiteError> {
    let votes = [row.integer("annotator1")?, row.integer("annotator2")?, row.integer("annotator3")?];
    let majority = if votes[1] == votes[2] { votes[1] } else { votes[0] };
    let target = match majority {
        0 => 0.5,
        1 => 1.0,
        2 => 0.0,
        _ => return Err(row.unlike("votes 0, 1 or 2", "annotator1")),
    };
    let responses = vec![row.content("response1")?, row.content("response2")?];
    let subset = row.text("cmp_key").unwrap_or("all");
    Ok(row.group(Content::Text(prompt(row)?), responses, &[(0, 1, target)], subset))
}

/// The instruction, and the input below it where there is one.
fn prompt(row: &SuiteRow) -> Result<String, SuiteError> {
    let instruction = row.text("instruction")?;
    let input = if row.columns.get("input").is_some_and(Value::is_null) { "" } else { row.text("input")? };
    if input.trim().is_empty() { Ok(instruction.to_owned()) } else { Ok(format!("{instruction}\n\n{input}")) }
}

/// Counts of (class of people, class of the judge): tie, first, second.
type Confusion = [[f64; 3]; 3];

pub(super) fn headline(groups: &[Group], scores: &[Vec<f32>]) -> Headline {
    let mut confusion: Confusion = [[0.0; 3]; 3];
    for (group, scores) in groups.iter().zip(scores) {
        for c in &group.comparisons {
            let judged = f64::from(scores[c.first]) - f64::from(scores[c.second]);
            confusion[class(f64::from(c.target) - 0.5)][class(judged)] += 1.0;
        }
    }
    let all: f64 = confusion.as_flattened().iter().sum();
    let right: f64 = (0..3).map(|i| confusion[i][i]).sum();
    let [precision, recall, f1] = macro_averages(&confusion);
    Headline {
        definition: "PandaLM: accuracy over tie, first and second, by the majority of three votes",
        score: (all > 0.0).then(|| right / all),
        parts: [("macro precision", precision), ("macro recall", recall), ("macro F1", f1)]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
    }
}

fn class(difference: f64) -> usize {
    match difference {
        d if d > 0.0 => 1,
        d if d < 0.0 => 2,
        _ => 0,
    }
}

/// Precision, recall and F1, each the mean over the three classes; 0 where it is undefined.
fn macro_averages(confusion: &Confusion) -> [f64; 3] {
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let mut sums = [0.0; 3];
    for class in 0..3 {
        let right = confusion[class][class];
        let precision = ratio(right, (0..3).map(|people| confusion[people][class]).sum());
        let recall = ratio(right, confusion[class].iter().sum());
        let f1 = ratio(2.0 * precision * recall, precision + recall);
        sums = [sums[0] + precision, sums[1] + recall, sums[2] + f1];
    }
    sums.map(|sum| sum / 3.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::files;
    use super::*;

    #[test]
    fn votes_become_classes_and_nan_is_no_input() {
        let row = |input: &str, votes: [u8; 3]| {
            let [a, b, c] = votes;
            format!(
                r#"{{"cmp_key": "x_y", "instruction": "Do", "input": {input}, "response1": "r", "response2": "s",
                "annotator1": {a}, "annotator2": {b}, "annotator3": {c}}}"#
            )
        };
        let rows = [row("NaN", [1, 1, 2]), row("\"this\"", [2, 0, 2]), row("\"\"", [0, 1, 2]), row("NaN", [1, 2, 2])];
        let dir = files(&[("testset-v1.json", &format!("[{}]", rows.join(",\n")))]);
        let groups = read(dir.path()).unwrap();
        let targets: Vec<f32> = groups.iter().map(|g| g.comparisons[0].target).collect();
        assert_eq!(targets, [1.0, 0.0, 0.5, 0.0]);
        let prompts: Vec<_> = groups.iter().map(|g| g.prompt.clone().unwrap()).collect();
        assert_eq!(prompts[..2], [Content::Text("Do".into()), Content::Text("Do\n\nthis".into())]);
        // The judge: first, first, tie, second. sklearn: precision (1 + .5 + 1) / 3, recall (1 + 1 + .5) / 3.
        let scores = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]].map(|s| s.to_vec());
        let found = headline(&groups, &scores);
        assert_eq!(found.score, Some(0.75));
        let expected = [2.5 / 3.0, 2.5 / 3.0, (1.0 + 2.0 / 3.0 + 2.0 / 3.0) / 3.0];
        for ((name, value), expected) in found.parts.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12, "{name} {value}");
        }
    }
}
