//! Published test suites: their files as they were published, and their own headline scores.
//!
//! Each suite has a file that says what it reads and how its authors score it. Ours stands beside
//! that: accuracy over all pairs with its interval, by the same rules for every suite. The two differ
//! where a suite averages over subsets, counts ties, or gives equal scores no half point. A row that
//! cannot be read is an error, as a headline over fewer rows would not be the suite's. This is the
//! one part of `eval` that reads files.

mod judgebench;
mod llmbar;
mod pandalm;
mod rewardbench;
mod rewardbench_2;
mod rm_bench;
mod rows;
mod xstest;

use super::{mean, subset};
use crate::data::{DataError, Group, Location, RowProblem};
use std::path::{Path, PathBuf};

/// The suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// LLMBar (Zeng et al. 2024): instruction following; in four sets of five the worse response looks better.
    Llmbar,
    /// The PandaLM test set (Wang et al. 2024): three votes a pair, ties among them.
    Pandalm,
    /// JudgeBench (Tan et al. 2025): one correct answer and one wrong one.
    Judgebench,
    /// RewardBench (Lambert et al. 2024), version 1.
    Rewardbench,
    /// RewardBench 2 (Malik et al. 2025): one right response of four, and prompts with many right ones.
    #[serde(rename = "rewardbench-2")]
    Rewardbench2,
    /// RM-Bench (Liu et al. 2025): three styles of each response.
    RmBench,
    /// XSTest (Röttger et al. 2024): answer the safe, refuse the unsafe.
    Xstest,
}

/// A suite's own score.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Headline {
    /// How the suite defines it.
    pub definition: &'static str,
    /// The score; `None` when the files given lack a part that it needs.
    pub score: Option<f64>,
    /// The figures it is made of, and those the suite prints beside it.
    pub parts: Vec<(String, f64)>,
}

/// Why a suite cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The file itself.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A row that does not have the published layout.
    #[error("{location}: expected {expected}, found {found}; is this the file that the suite published?")]
    Row {
        /// Where.
        location: Location,
        /// What the suite's rows have.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A row that cannot be read at all.
    #[error("{0}; a suite needs all of its rows: write or fetch the file again")]
    Broken(RowProblem),
    /// No file of the suite at the path.
    #[error("{path}: expected {expected}")]
    Missing {
        /// What was given.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Suite {
    /// Reads the suite's files, or the directories that hold them, as published. Every comparison has its
    /// subset in the extra columns of its row.
    ///
    /// # Errors
    /// [`SuiteError`].
    pub fn read(self, paths: &[PathBuf]) -> Result<Vec<Group>, SuiteError> {
        let read: fn(&Path) -> Result<Vec<Group>, SuiteError> = match self {
            Suite::Xstest => return xstest::read(paths), // its pairs have a side in each of two files
            Suite::Llmbar => llmbar::read,
            Suite::Pandalm => pandalm::read,
            Suite::Judgebench => judgebench::read,
            Suite::Rewardbench => rewardbench::read,
            Suite::Rewardbench2 => rewardbench_2::read,
            Suite::RmBench => rm_bench::read,
        };
        let groups: Result<Vec<Vec<Group>>, SuiteError> = paths.iter().map(|path| read(path)).collect();
        Ok(groups?.concat())
    }

    /// The suite's own score of its groups; `scores[g][r]` is the score of response `r` of group `g`.
    pub fn headline(self, groups: &[Group], scores: &[Vec<f32>]) -> Headline {
        match self {
            Suite::Llmbar => llmbar::headline(&outcomes(groups, scores)),
            Suite::Pandalm => pandalm::headline(groups, scores),
            Suite::Judgebench => judgebench::headline(&outcomes(groups, scores)),
            Suite::Rewardbench => rewardbench::headline(&outcomes(groups, scores)),
            Suite::Rewardbench2 => rewardbench_2::headline(groups, scores),
            Suite::RmBench => rm_bench::headline(groups, scores),
            Suite::Xstest => xstest::headline(&outcomes(groups, scores)),
        }
    }
}

/// One comparison, judged as the suites do: equal scores are wrong.
struct Outcome {
    subset: String,
    right: bool,
}

fn outcomes(groups: &[Group], scores: &[Vec<f32>]) -> Vec<Outcome> {
    let of_group = |(group, scores): (&Group, &Vec<f32>)| -> Vec<Outcome> {
        let outcome = |c: usize| {
            let (better, worse) = group.comparisons[c].better_worse()?;
            Some(Outcome { subset: subset(group, c).unwrap_or_default(), right: scores[better] > scores[worse] })
        };
        (0..group.comparisons.len()).filter_map(outcome).collect()
    };
    groups.iter().zip(scores).flat_map(of_group).collect()
}

/// Share that is right, of the outcomes whose subset `wanted` picks.
fn accuracy(outcomes: &[Outcome], wanted: impl Fn(&str) -> bool) -> Option<f64> {
    let chosen = outcomes.iter().filter(|outcome| wanted(&outcome.subset));
    mean(chosen.map(|outcome| f64::from(u8::from(outcome.right))))
}

/// Mean of parts that must all be there.
fn mean_of_all(parts: &[Option<f64>]) -> Option<f64> {
    let known: Option<Vec<f64>> = parts.iter().copied().collect();
    mean(known?)
}

/// The named parts that are there.
fn present(parts: impl IntoIterator<Item = (String, Option<f64>)>) -> Vec<(String, f64)> {
    parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A directory with the given files.
    pub fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    /// Scores by which exactly the better sides of the groups that `right` picks win.
    pub fn scores(groups: &[Group], right: impl Fn(usize) -> bool) -> Vec<Vec<f32>> {
        let of_group = |(index, group): (usize, &Group)| {
            let mut scores = vec![0.0; group.responses.len()];
            for (better, _, _) in group.pairs() {
                scores[better] = if right(index) { 1.0 } else { -1.0 };
            }
            scores
        };
        groups.iter().enumerate().map(of_group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::files;
    use super::*;

    /// What each suite says of a file with one row that is not as published.
    #[test]
    fn a_row_that_is_not_as_published_ends_the_suite() {
        let llmbar = |more: &str| format!(r#"{{"input": "q", "output_2": "b", "label": 1, {more}}}"#);
        let panda = |more: &str| {
            let votes = r#""annotator1": 1, "annotator2": 1, "annotator3": 1"#;
            format!(r#"{{"instruction": "q", "response1": "a", "response2": "b", {votes}, {more}}}"#)
        };
        let rewardbench = |more: &str| format!(r#"{{"prompt": "q", "rejected": "b", "subset": "s", {more}}}"#);
        let domain = |domain: &str| {
            let three = r#"["a", "b", "c"]"#;
            format!(r#"{{"prompt": "q", "chosen": {three}, "rejected": {three}, "domain": "{domain}"}}"#)
        };
        let long = format!(r#""output_1": ["{}"]"#, "é".repeat(100));
        let wide: Vec<String> = (0..1000).map(|n| format!(r#""column {n}": 1"#)).collect();
        let csv = |row: &str| format!("prompt,type,completion,final_label\nq,homonyms,a,1_full\n{row}\n");
        let cases = [
            (Suite::Llmbar, llmbar(r#""output_1": []"#), "rows:1: expected a text `output_1`, found []"),
            (Suite::Llmbar, llmbar(&long), "é…; is this the file that the suite published?"),
            (Suite::Llmbar, llmbar(&wide.join(",")), "column 24, column 25, …; is this"),
            (Suite::Llmbar, llmbar(r#""output_1": "a""#) + "\n{\"input", "rows:2: expected a JSON object, found EOF"),
            (Suite::Llmbar, "{\"input".to_owned(), "a suite needs all of its rows: write or fetch the file again"),
            (Suite::Pandalm, panda(r#""id": 1"#), "expected a text `input`, found the columns"),
            (Suite::Pandalm, panda(r#""input": 7"#), "expected a text `input`, found 7"),
            (Suite::Rewardbench, rewardbench(r#""chosen": []"#), "expected a text `chosen`, found []"),
            (
                Suite::Rewardbench,
                rewardbench(r#""chosen": ["a"], "num_correct": 1"#),
                "expected a row of RewardBench 1, found one of version 2 (--suite rewardbench-2)",
            ),
            (Suite::RmBench, domain("poetry"), "expected a `domain` of chat, code, math or safety, found \"poetry\""),
            (Suite::Xstest, csv("q,,b,2_full"), "rows:3: expected a `type` of prompt, found \"\""),
            (Suite::Xstest, csv("q,homonyms"), "rows:3: expected 4 fields as in the header, found 2; a suite needs"),
        ];
        for (suite, text, expected) in cases {
            let dir = files(&[("rows", &text)]);
            let error = suite.read(&[dir.path().join("rows")]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 600, "{suite:?}: {error}");
        }
    }
}
