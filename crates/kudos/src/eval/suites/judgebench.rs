//! JudgeBench: `data/dataset=judgebench,response_model=….jsonl` of ScalerLab/JudgeBench, rows of
//! `{pair_id, source, question, response_A, response_B, label}` with label `A>B` or `B>A`.
//!
//! Its score for judges of single responses (`--single_game`) is the share of all pairs whose decision
//! is the label; its board also shows four kinds of question.

use super::{Headline, Outcome, SuiteError, accuracy, present, rows};
use crate::data::Group;
use std::path::Path;

const KINDS: [&str; 4] = ["knowledge", "reasoning", "math", "coding"];
const EXPECTED: &str = "a JSONL file of JudgeBench, or its directory data with dataset=judgebench,….jsonl";

pub(super) fn read(path: &Path) -> Result<Vec<Group>, SuiteError> {
    let mut groups = Vec::new();
    for file in rows::files(path, EXPECTED, |name| name.starts_with("dataset=judgebench"))? {
        for row in rows::read(&file)? {
            let target = match row.text("label")? {
                "A>B" => 1.0,
                "B>A" => 0.0,
                _ => return Err(row.unlike("a label A>B or B>A", "label")),
            };
            let responses = vec![row.content("response_A")?, row.content("response_B")?];
            groups.push(row.group(row.content("question")?, responses, &[(0, 1, target)], kind(row.text("source")?)));
        }
    }
    Ok(groups)
}

fn kind(source: &str) -> &'static str {
    match source {
        s if s.starts_with("mmlu-pro") => "knowledge",
        s if s.starts_with("livebench-reasoning") => "reasoning",
        s if s.starts_with("livebench-math") => "math",
        s if s.starts_with("livecodebench") => "coding",
        _ => "other",
    }
}

pub(super) fn headline(outcomes: &[Outcome]) -> Headline {
    let of_kind = |kind: &str| (kind.to_owned(), accuracy(outcomes, |subset| subset == kind));
    Headline {
        definition: "JudgeBench: accuracy over all pairs; equal scores are wrong",
        score: accuracy(outcomes, |_| true),
        parts: present(KINDS.map(of_kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::super::testing::{files, scores};
    use super::*;

    #[test]
    fn kinds_and_equal_scores() {
        let row = |source: &str, label: &str| {
            format!(
                r#"{{"pair_id": "x", "source": "{source}", "question": "q", "response_A": "a", "response_B": "b", "label": "{label}"}}"#
            )
        };
        let text = [row("mmlu-pro-law", "A>B"), row("livebench-math", "B>A"), row("livecodebench", "A>B")].join("\n");
        let dir = files(&[("dataset=judgebench,response_model=m.jsonl", &text), ("README.md", "no")]);
        let groups = read(dir.path()).unwrap();
        assert_eq!(groups[1].comparisons[0].target, 0.0);
        let mut scores = scores(&groups, |group| group < 2);
        scores[2] = vec![0.0, 0.0];
        let found = headline(&outcomes(&groups, &scores));
        assert_eq!(found.score, Some(2.0 / 3.0));
        let expected = [("knowledge", 1.0), ("math", 1.0), ("coding", 0.0)].map(|(n, v)| (n.to_owned(), v));
        assert_eq!(found.parts, expected);
    }
}
