//! LLMBar: `Dataset/LLMBar/{Natural,Adversarial/{Neighbor,GPTInst,GPTOut,Manual}}/dataset.json` of
//! princeton-nlp/LLMBar, lists of `{input, output_1, output_2, label}` with label 1 or 2.
//!
//! Its tables average the accuracies of the five sets, and of the four adversarial ones.

use super::{Headline, Outcome, SuiteError, accuracy, mean_of_all, present, rows};
use crate::data::{Content, Group};
use std::path::{Path, PathBuf};

const SETS: [&str; 5] =
    ["Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut", "Adversarial/Manual"];
const EXPECTED: &str = "a dataset.json of LLMBar, or a directory with Natural/dataset.json and \
    Adversarial/{Neighbor,GPTInst,GPTOut,Manual}/dataset.json (the repository, its Dataset, or Dataset/LLMBar)";

pub(super) fn read(path: &Path) -> Result<Vec<Group>, SuiteError> {
    let mut groups = Vec::new();
    for (file, set) in files(path)? {
        for row in rows::read(&file)? {
            let target = match row.integer("label")? {
                1 => 1.0,
                2 => 0.0,
                _ => return Err(row.unlike("a label 1 or 2", "label")),
            };
            let responses = vec![row.content("output_1")?, row.content("output_2")?];
            let prompt = Content::Text(row.text("input")?.to_owned());
            groups.push(row.group(prompt, responses, &[(0, 1, target)], set));
        }
    }
    Ok(groups)
}

/// The sets that are there, with their names.
fn files(path: &Path) -> Result<Vec<(PathBuf, &'static str)>, SuiteError> {
    if path.is_file() {
        return Ok(vec![(path.into(), set_of(path))]);
    }
    let below = |root: &str, set: &str| path.join(root).join(set).join("dataset.json");
    let of_set = |set: &&'static str| {
        let places = ["", "LLMBar", "Dataset/LLMBar"].map(|root| below(root, set));
        places.into_iter().find(|file| file.is_file()).map(|file| (file, *set))
    };
    let mut found: Vec<_> = SETS.iter().filter_map(of_set).collect();
    let own = path.join("dataset.json");
    if own.is_file() {
        found.push((own.clone(), set_of(&own)));
    }
    match found.is_empty() {
        true => Err(SuiteError::Missing { path: path.into(), expected: EXPECTED }),
        false => Ok(found),
    }
}

/// The set that a file belongs to, by its directory.
fn set_of(file: &Path) -> &'static str {
    let directory = file.parent().unwrap_or(Path::new(""));
    SETS.into_iter().find(|set| directory.ends_with(set.rsplit('/').next().unwrap_or(set))).unwrap_or("other")
}

pub(super) fn headline(outcomes: &[Outcome]) -> Headline {
    let of_sets = SETS.map(|set| accuracy(outcomes, |subset| subset == set));
    let named = SETS.iter().zip(of_sets).map(|(set, value)| ((*set).to_owned(), value));
    Headline {
        definition: "LLMBar: mean of the accuracies of the five sets; equal scores are wrong",
        score: mean_of_all(&of_sets),
        parts: present(named.chain([("Adversarial, mean of four".to_owned(), mean_of_all(&of_sets[1..]))])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{files, scores};
    use super::super::{Suite, outcomes};
    use super::*;

    fn set(rows: usize) -> String {
        let row =
            |n: usize| format!(r#"{{"input": "ask {n}", "output_1": "a", "output_2": "b", "label": {}}}"#, 1 + n % 2);
        format!("[{}]", (0..rows).map(row).collect::<Vec<_>>().join(",\n"))
    }

    #[test]
    fn five_sets_count_alike() {
        let named: Vec<(String, String)> = SETS
            .iter()
            .zip([4, 1, 1, 1, 1])
            .map(|(s, n)| (format!("Dataset/LLMBar/{s}/dataset.json"), set(n)))
            .collect();
        let dir = files(&named.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect::<Vec<_>>());
        for root in ["", "Dataset", "Dataset/LLMBar"] {
            let groups = Suite::Llmbar.read(&[dir.path().join(root)]).unwrap();
            assert_eq!((groups.len(), groups[1].comparisons[0].target), (8, 0.0));
            let scores = scores(&groups, |group| group < 4);
            let found = headline(&outcomes(&groups, &scores));
            assert_eq!(found.score, Some(0.2));
            assert_eq!(found.parts.last().unwrap(), &("Adversarial, mean of four".to_owned(), 0.0));
        }
        let one = read(&dir.path().join("Dataset/LLMBar/Adversarial/GPTOut")).unwrap();
        assert_eq!(one[0].responses[0].extra["subset"], "Adversarial/GPTOut");
        assert_eq!(headline(&outcomes(&one, &scores(&one, |_| true))).score, None);
    }

    #[test]
    fn other_files_are_errors() {
        let dir = files(&[("x.json", r#"[{"input": "q", "output_1": "a", "output_2": "b", "label": 3}]"#)]);
        let error = read(&dir.path().join("x.json")).unwrap_err().to_string();
        assert!(error.contains("expected a label 1 or 2, found 3"), "{error}");
        assert!(read(dir.path()).unwrap_err().to_string().contains("Natural/dataset.json"));
    }
}
