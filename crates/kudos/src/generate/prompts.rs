//! The prompts of a file, each once, in the order of the file.
//!
//! Any table will do that has a column `prompt`: the rankings of last week as well as a list made for the purpose.
//! All other columns are ignored. Plain text is one prompt a line. What can go wrong with a file is the business
//! of `data`; here it is only decided what counts as a prompt, and that asking the same twice is asking once.

use super::job::Prompt;
use crate::data::{Content, DataError, Location, Options, PROMPT, RowProblem, Rows, prompt};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Names shown of the columns that are there instead of `prompt`.
const NAMES_SHOWN: usize = 12;

/// The distinct prompts of a file, and what there is to tell about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptList {
    /// In the order in which they first occur.
    pub prompts: Vec<Prompt>,
    /// Rows that repeat an earlier prompt; each prompt is kept once.
    pub repeated: usize,
    /// Rows without a usable prompt; they are left out.
    pub problems: Vec<RowProblem>,
}

/// Why no prompts could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The file cannot be read, breaks off, or is empty.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A table without prompts.
    #[error(
        "{location}: expected a column `prompt`, found {found}; rename the column that has the prompts (or give plain text, one prompt a line, as .txt)"
    )]
    NoColumn {
        /// Header line, or the first row.
        location: Location,
        /// The columns there are.
        found: String,
    },
    /// Rows, but no prompt in any.
    #[error("{file}: expected a prompt, found none in {rows} rows; the first: {first}")]
    NoPrompt {
        /// The file as the user named it.
        file: Arc<str>,
        /// All rows of the file.
        rows: usize,
        /// What is wrong with the first.
        first: RowProblem,
    },
}

/// Reads the prompts of a file (`-` is standard input): plain text, CSV, JSON, Parquet, Arrow or a workbook, also with
/// `.gz` or `.zst` around it.
///
/// A file named `.txt` is plain text: one prompt a line, white space around it aside, blank lines skipped. So is any other that
/// has no table's name (`.csv`, `.jsonl`, …), begins with no object or list, and has no `prompt` in its first line.
///
/// # Errors
/// If the file cannot be read to its end, or has no prompt.
pub fn read_prompts(path: &Path) -> Result<PromptList, PromptError> {
    let mut rows = Rows::open_table_or_text(path, PROMPT, Options::default().max_row_bytes)?;
    if let Some((names, location)) = rows.columns()? {
        has_prompt(names.into_iter(), location)?;
    }
    let mut list = PromptList::default();
    let mut seen = HashSet::new();
    while let Some((location, fields)) = rows.next()? {
        let first = list.prompts.is_empty() && list.problems.is_empty();
        if let (true, Ok(fields)) = (first, &fields) {
            has_prompt(fields.keys().map(String::as_str), location.clone())?;
        }
        list.add(location, fields, &mut seen);
    }
    match list.problems.first() {
        Some(first) if list.prompts.is_empty() => {
            let (file, rows) = (rows.file().clone(), list.problems.len());
            Err(PromptError::NoPrompt { file, rows, first: first.clone() })
        }
        _ => Ok(list),
    }
}

fn has_prompt<'a>(names: impl Iterator<Item = &'a str>, location: Location) -> Result<(), PromptError> {
    let names: Vec<&str> = names.collect();
    if names.contains(&PROMPT) {
        return Ok(());
    }
    let mut found: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name:.40}`")).collect();
    if names.len() > NAMES_SHOWN {
        found.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    Err(PromptError::NoColumn { location, found })
}

impl PromptList {
    fn add(&mut self, location: Location, fields: Result<Map<String, Value>, RowProblem>, seen: &mut HashSet<Content>) {
        let content = fields.and_then(|fields| {
            let place = location.clone();
            prompt(&fields).map_err(|kind| RowProblem { location: place, kind })
        });
        match content {
            Err(problem) => self.problems.push(problem),
            Ok(content) if seen.contains(&content) => self.repeated += 1,
            Ok(content) => {
                seen.insert(content.clone());
                self.prompts.push(Prompt { content, place: location.to_string() });
            }
        }
    }

    /// SHA-256 of the prompts in their order, in hexadecimal: what decides whether a run may be continued. The
    /// rest of the file does not change it.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for prompt in &self.prompts {
            hash.update(prompt.content.to_value().to_string());
            hash.update("\n");
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Message, OutputFormat, Writer};
    use serde_json::json;

    fn read(name: &str, bytes: &[u8]) -> Result<PromptList, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_prompts(&path).map_err(|error| error.to_string())
    }

    fn texts(list: &PromptList) -> Vec<String> {
        list.prompts.iter().map(|prompt| prompt.content.to_value().to_string()).collect()
    }

    #[test]
    fn every_kind_of_file() {
        let cases: [(&str, &str, &[&str]); 9] = [
            ("p.txt", "a\n\nb\r\na\nc", &["\"a\"", "\"b\"", "\"c\""]),
            ("p", "\u{feff}a\nb", &["\"a\"", "\"b\""]),
            ("p.csv", "prompt,answer,rank\np,a,1\np,b,2\nq,c,1\n", &["\"p\"", "\"q\""]),
            ("p.csv", "id,prompt\n1,\"two\nlines\"\n", &["\"two\\nlines\""]),
            (
                "p.csv",
                "prompt\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"x\"\"}]\"\n[y]\n",
                &[r#"[{"role":"user","content":"x"}]"#, "\"[y]\""],
            ),
            ("p.jsonl", "{\"prompt\":\"p\"}\n{\"prompt\":\"q\",\"chosen\":\"a\"}", &["\"p\"", "\"q\""]),
            ("p.json", "[{\"prompt\":\"p\"},{\"prompt\":\"p\",\"x\":1}]", &["\"p\""]),
            ("p", "{\"prompt\":[{\"role\":\"user\",\"content\":\"x\"}]}", &[r#"[{"role":"user","content":"x"}]"#]),
            ("p.txt", "{\"prompt\":\"p\"}", &[r#""{\"prompt\":\"p\"}""#]),
        ];
        for (name, text, expected) in cases {
            let list = read(name, text.as_bytes()).unwrap();
            assert_eq!(texts(&list), expected, "{name} {text}");
            assert!(list.problems.is_empty());
        }
    }

    #[test]
    fn parquet_and_compressed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["p.parquet", "p.csv.gz", "p.jsonl.zst"] {
            let path = directory.path().join(name);
            let mut writer = Writer::create(&path, OutputFormat::of_name(&path)).unwrap();
            for id in 0..3 {
                let row = json!({"id": id, "prompt": [{"role": "user", "content": format!("ask {}", id % 2)}]});
                writer.write(row.as_object().unwrap()).unwrap();
            }
            writer.finish().unwrap();
            let list = read_prompts(&path).unwrap();
            let message = Message { role: "user".into(), content: "ask 1".into() };
            assert_eq!(list.prompts[1].content, Content::Messages(vec![message]), "{name}");
            assert_eq!((list.prompts.len(), list.repeated), (2, 1), "{name}");
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let list = read("p.jsonl", b"{\"prompt\":\"a\"}\n{\"prompt\":\" \"}\n{\"x\":1}\n{\"prompt\":7}\n{\n").unwrap();
        let lines: Vec<u64> = list.problems.iter().map(|problem| problem.location.line).collect();
        assert_eq!((texts(&list).len(), lines), (1, vec![2, 3, 4, 5]));
        assert!(list.problems[0].to_string().ends_with("p.jsonl:2: column `prompt`: expected text, found nothing"));
        let list = read("p.txt", b"a\n\xff\nb\na\n").unwrap();
        assert_eq!((list.prompts.len(), list.repeated, list.problems[0].location.line), (2, 1, 2));
        assert!(list.prompts[1].place.ends_with("p.txt:3"), "{}", list.prompts[1].place);
    }

    #[test]
    fn no_prompt_is_an_error() {
        let cases: [(&str, &str, &str); 7] = [
            ("p.txt", "\n \n", "expected at least one row, found an empty file"),
            ("p.csv", "prompt\n", "found a header and no rows"),
            ("p.csv", "question,id\nq,1\n", "p.csv:1: expected a column `prompt`, found `question`, `id`; rename"),
            ("p.tsv", "id\tquestion\n1\tp\n", "p.tsv:1: expected a column `prompt`, found `id`, `question`; rename"),
            ("p.jsonl", "\n{\"text\":\"p\"}", "p.jsonl:2: expected a column `prompt`, found `text`"),
            ("p.csv", "prompt,x\n,1\n \n", "expected a prompt, found none in 2 rows; the first: "),
            ("p.json", "[]", "found an empty list"),
        ];
        for (name, text, expected) in cases {
            let error = read(name, text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
    }

    #[test]
    fn the_hash_is_of_the_prompts_alone() {
        let of = |name: &str, text: &str| read(name, text.as_bytes()).unwrap().sha256();
        assert_eq!(of("p.txt", "a\nb\n"), of("p.csv", "id,prompt\n1,a\n2,b\n3,a\n"));
        assert_ne!(of("p.txt", "a\nb\n"), of("p.txt", "b\na\n"));
        assert_ne!(of("p.txt", "[]"), of("p.txt", "[[]]"));
    }
}
