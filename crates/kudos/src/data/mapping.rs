//! What the user says of a file's columns: `--columns`, `--labels`, `--rating`, `--rank`, `--group-by`.
//!
//! A mapping names the columns of our own kinds of row, and where each stands: a column, or a path into one
//! (`question.full_text`, `answers.0.text`). It wins over whatever a column is called.

use super::literal;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What a file's columns are, as far as the user says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    columns: Vec<(String, Source)>,
    labels: Vec<(String, f32)>,
    group_by: Option<Source>,
}

/// A mapping as it is typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MappingText {
    /// Each `name=column`, or several with commas.
    pub columns: Vec<String>,
    /// Each `a=value`, `b=value` or `tie=value`, or several with commas.
    pub labels: Vec<String>,
    /// The column of ratings: higher is better.
    pub rating: Option<String>,
    /// The column of ranks: 1 is best.
    pub rank: Option<String>,
    /// The column that says whose ranking a row belongs to.
    pub group_by: Option<String>,
}

/// A mapping that cannot be meant.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MappingError {
    /// No `=` in it.
    #[error("--{flag} {found:?}: expected {expected}")]
    Form {
        /// The flag.
        flag: &'static str,
        /// What was typed.
        found: String,
        /// The form.
        expected: &'static str,
    },
    /// A name that no kind of row has.
    #[error("--columns {found:?}: expected one of {}, or attribute:NAME, before the `=`", TARGETS.join(", "))]
    Unknown {
        /// What was typed.
        found: String,
    },
    /// One name for two columns, or one column for two names.
    #[error("--columns: expected each name and each column once, found `{found}` twice")]
    Twice {
        /// The name or the column.
        found: String,
    },
    /// One value with two meanings.
    #[error("--labels: expected one meaning of each value, found {found:?} twice")]
    LabelTwice {
        /// The value.
        found: String,
    },
    /// Ratings and ranks.
    #[error("expected either ratings (higher is better) or ranks (1 is best), found both")]
    RatingAndRank,
}

/// The columns of our own kinds of row.
const TARGETS: [&str; 16] = [
    "prompt",
    "system",
    "history",
    "answer",
    "response",
    "responses",
    "rank",
    "rating",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "label",
    "margin",
    "weight",
    "attributes",
];

/// The columns that say which response is better, and not what the responses are.
const VERDICTS: [&str; 3] = ["label", "rating", "rank"];
/// The columns that stand beside a prompt and its responses.
const BESIDE: [&str; 5] = ["margin", "weight", "system", "history", "attributes"];

impl Mapping {
    /// Reads what was typed.
    ///
    /// # Errors
    /// [`MappingError`].
    pub fn parse(text: &MappingText) -> Result<Mapping, MappingError> {
        let mut mapping = Mapping::default();
        for piece in pieces(&text.columns, |name| TARGETS.contains(&name) || name.starts_with("attribute:")) {
            let (name, column) = sides("columns", &piece, "name=column, such as prompt=question")?;
            if !(TARGETS.contains(&name) || name.starts_with("attribute:")) {
                return Err(MappingError::Unknown { found: name.to_owned() });
            }
            mapping.add(name, column)?;
        }
        for (name, column) in [("rating", &text.rating), ("rank", &text.rank)] {
            if let Some(column) = column {
                mapping.add(name, column)?;
            }
        }
        if mapping.source("rating").is_some() && mapping.source("rank").is_some() {
            return Err(MappingError::RatingAndRank);
        }
        for piece in pieces(&text.labels, |name| share(name).is_some()) {
            const FORM: &str = "a=value, b=value or tie=value, such as a=1,b=0";
            let (name, value) = sides("labels", &piece, FORM)?;
            let form = || MappingError::Form { flag: "labels", found: piece.clone(), expected: FORM };
            mapping.add_label(share(name).ok_or_else(form)?, value)?;
        }
        mapping.group_by = text.group_by.as_deref().map(Source::new);
        Ok(mapping)
    }

    fn add(&mut self, name: &str, column: &str) -> Result<(), MappingError> {
        let source = Source::new(column);
        for (known, other) in &self.columns {
            if known == name || *other == source {
                let found = if known == name { name } else { column };
                return Err(MappingError::Twice { found: found.to_owned() });
            }
        }
        self.columns.push((name.to_owned(), source));
        Ok(())
    }

    fn add_label(&mut self, share: f32, value: &str) -> Result<(), MappingError> {
        if self.labels.iter().any(|(known, _)| known == value.trim()) {
            return Err(MappingError::LabelTwice { found: value.to_owned() });
        }
        self.labels.push((value.trim().to_owned(), share));
        Ok(())
    }

    /// The names that are mapped, and where each stands.
    pub(super) fn columns(&self) -> &[(String, Source)] {
        &self.columns
    }

    /// Where a name stands, if the user says it.
    pub(super) fn source(&self, name: &str) -> Option<&Source> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, source)| source)
    }

    /// The column of the verdict, where nothing but that (and what stands beside) is mapped: a published layout may know it.
    pub(super) fn verdict(&self) -> Option<&Source> {
        let only = |name: &str| VERDICTS.contains(&name) || BESIDE.contains(&name);
        let verdict = VERDICTS.iter().find_map(|name| self.source(name));
        verdict.filter(|_| self.columns.iter().all(|(name, _)| only(name)))
    }

    /// True if it says what the prompt or the responses are.
    pub(super) fn says_texts(&self) -> bool {
        self.columns.iter().any(|(name, _)| !VERDICTS.contains(&name.as_str()) && !BESIDE.contains(&name.as_str()))
    }

    /// The values of labels and the share of votes for a that each means.
    pub(super) fn labels(&self) -> &[(String, f32)] {
        &self.labels
    }

    /// The column that says whose ranking a row belongs to.
    pub(super) fn group_by(&self) -> Option<&Source> {
        self.group_by.as_ref()
    }
}

/// The share of votes for a that a side stands for.
fn share(name: &str) -> Option<f32> {
    match name {
        "a" => Some(1.0),
        "b" => Some(0.0),
        "tie" => Some(0.5),
        _ => None,
    }
}

/// `x=1,y=2` → `x=1` and `y=2`. A comma separates only where a known name and `=` follow, as columns and values may have commas.
fn pieces(typed: &[String], known: impl Fn(&str) -> bool) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for text in typed {
        let first = pieces.len();
        for part in text.split(',') {
            let begins = part.split_once('=').is_some_and(|(name, _)| known(name.trim()));
            if pieces.len() > first && !begins {
                let last = pieces.last_mut().expect("one was pushed");
                *last = format!("{last},{part}");
            } else {
                pieces.push(part.to_owned());
            }
        }
    }
    pieces
}

fn sides<'a>(flag: &'static str, piece: &'a str, expected: &'static str) -> Result<(&'a str, &'a str), MappingError> {
    let found = piece.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
    let filled = found.filter(|(name, value)| !name.is_empty() && !value.is_empty());
    filled.ok_or_else(|| MappingError::Form { flag, found: piece.to_owned(), expected })
}

/// Where a value stands: a column, or a path into one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(String);

impl Source {
    pub fn new(path: &str) -> Source {
        Source(path.to_owned())
    }

    /// As it was typed.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The column that it begins with, of those there are: the longest name that the path has or starts with.
    pub fn column(&self, has: impl Fn(&str) -> bool) -> Option<&str> {
        let ends = self.0.rmatch_indices('.').map(|(at, _)| at);
        [self.0.len()].into_iter().chain(ends).map(|end| &self.0[..end]).find(|name| has(name))
    }

    /// The value there.
    pub fn find<'a>(&self, fields: &'a Map<String, Value>) -> Option<Cow<'a, Value>> {
        let column = self.column(|name| fields.contains_key(name))?;
        let value = Cow::Borrowed(fields.get(column)?);
        let mut steps = self.0[column.len()..].split('.').skip(1);
        steps.try_fold(value, into)
    }
}

/// A member of an object or an item of a list, also of one that stands there as text.
fn into<'a>(value: Cow<'a, Value>, step: &str) -> Option<Cow<'a, Value>> {
    let parsed = value.as_str().map(literal::parse);
    let value = match parsed {
        Some(parsed) => Cow::Owned(parsed?),
        None => value,
    };
    let item = |list: &Vec<Value>| step.parse::<usize>().ok().filter(|at| *at < list.len());
    match value {
        Cow::Borrowed(Value::Object(map)) => map.get(step).map(Cow::Borrowed),
        Cow::Borrowed(Value::Array(list)) => item(list).map(|at| Cow::Borrowed(&list[at])),
        Cow::Owned(Value::Object(mut map)) => map.remove(step).map(Cow::Owned),
        Cow::Owned(Value::Array(mut list)) => item(&list).map(|at| Cow::Owned(list.swap_remove(at))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(typed: &[&str]) -> Result<Vec<(String, String)>, String> {
        let text = MappingText { columns: typed.iter().map(|t| t.to_string()).collect(), ..MappingText::default() };
        let mapping = Mapping::parse(&text).map_err(|e| e.to_string())?;
        Ok(mapping.columns.into_iter().map(|(name, source)| (name, source.0)).collect())
    }

    #[test]
    fn columns_as_typed() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            columns(&["prompt=q.x,answer=A, the reply,rank=R"]),
            Ok(vec![pair("prompt", "q.x"), pair("answer", "A, the reply"), pair("rank", "R"),])
        );
        assert_eq!(columns(&["prompt=prompt", "label=a=b"]), Ok(vec![pair("prompt", "prompt"), pair("label", "a=b")]));
        for (typed, expected) in [
            (&["prompt"][..], "expected name=column"),
            (&["=x"], "expected name=column"),
            (&["prompt="], "expected name=column"),
            (&["question=prompt"], "expected one of prompt, system"),
            (&["prompt=a,prompt=b"], "found `prompt` twice"),
            (&["response_a=x", "response_b=x"], "found `x` twice"),
            (&["rating=x,rank=y"], "found both"),
        ] {
            let error = columns(typed).unwrap_err();
            assert!(error.contains(expected), "{typed:?}: {error}");
        }
    }

    #[test]
    fn labels_as_typed() {
        let labels = |typed: &[&str]| {
            let text = MappingText { labels: typed.iter().map(|t| t.to_string()).collect(), ..MappingText::default() };
            Mapping::parse(&text).map(|mapping| mapping.labels).map_err(|e| e.to_string())
        };
        let expected = vec![("1".to_owned(), 1.0), ("0".to_owned(), 0.0), ("tie (bothbad), x".to_owned(), 0.5)];
        assert_eq!(labels(&["a=1,b=0,tie=tie (bothbad), x"]), Ok(expected));
        assert!(labels(&["c=1"]).unwrap_err().contains("expected a=value"));
        assert!(labels(&["a=1,b=1"]).unwrap_err().contains("\"1\" twice"));
    }

    #[test]
    fn paths_into_values() {
        let fields =
            json!({"q": {"full_text": "a", "x.y": 1}, "q.z": "b", "list": [{"t": "c"}], "cell": "[{'t': 'd'}]"});
        let cases = [
            ("q.full_text", Some("a")),
            ("q.z", Some("b")),
            ("list.0.t", Some("c")),
            ("cell.0.t", Some("d")),
            ("list.1.t", None),
            ("list.-1.t", None),
            ("q.full_text.x", None),
            ("none", None),
            ("q.", None),
        ];
        for (path, expected) in cases {
            let found = Source::new(path).find(fields.as_object().unwrap());
            assert_eq!(found.as_ref().and_then(|v| v.as_str()), expected, "{path}");
        }
    }
}
