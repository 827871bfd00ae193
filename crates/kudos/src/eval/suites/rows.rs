//! Rows of a suite's files, with errors that say which column is not as published, and the groups made of them.

use super::SuiteError;
use crate::data::{Comparison, Content, Extra, Group, Location, Message, Response, Rows};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of one row.
const LONGEST_ROW: usize = 64 << 20;

/// One row and its place.
pub(super) struct SuiteRow {
    pub location: Location,
    pub columns: Map<String, Value>,
}

/// All rows of a file: CSV, JSONL, a JSON list or Parquet.
pub(super) fn read(path: &Path) -> Result<Vec<SuiteRow>, SuiteError> {
    collect(Rows::open(path, LONGEST_ROW)?)
}

/// The same of JSON as Python writes it, in which `NaN` stands for a missing value.
pub(super) fn read_python_json(path: &Path) -> Result<Vec<SuiteRow>, SuiteError> {
    let name = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|_| SuiteError::Missing { path: path.into(), expected: "a readable file" })?;
    collect(Rows::of_bytes(&name, null_for_nan(bytes), LONGEST_ROW)?)
}

fn collect(mut rows: Rows) -> Result<Vec<SuiteRow>, SuiteError> {
    let mut all = Vec::new();
    while let Some((location, columns)) = rows.next()? {
        let columns = columns.map_err(SuiteError::Broken)?;
        all.push(SuiteRow { location, columns });
    }
    Ok(all)
}

/// Writes `null` over each `NaN` outside strings, and a space, so that nothing moves to another line.
fn null_for_nan(bytes: Vec<u8>) -> Vec<u8> {
    let (mut out, mut in_string, mut escaped) = (Vec::with_capacity(bytes.len()), false, false);
    let mut rest = bytes.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        if !in_string && rest.starts_with(b"NaN") {
            out.extend(b"null");
            rest = &rest[3..];
            continue;
        }
        in_string ^= byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
        out.push(byte);
        rest = after;
    }
    out
}

/// The files of a directory whose names `wanted` picks, in order; a file is itself.
pub(super) fn files(path: &Path, expected: &'static str, wanted: fn(&str) -> bool) -> Result<Vec<PathBuf>, SuiteError> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let named = entries.filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    let mut found: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    found.sort();
    match found.is_empty() {
        true => Err(SuiteError::Missing { path: path.into(), expected }),
        false => Ok(found),
    }
}

impl SuiteRow {
    /// A column that must be text.
    pub fn text(&self, column: &str) -> Result<&str, SuiteError> {
        self.columns
            .get(column)
            .and_then(Value::as_str)
            .ok_or_else(|| self.unlike(&format!("a text `{column}`"), column))
    }

    /// A column that must be a whole number.
    pub fn integer(&self, column: &str) -> Result<i64, SuiteError> {
        let number = |v: &Value| v.as_i64().or_else(|| v.as_str()?.trim().parse().ok());
        let expected = || self.unlike(&format!("a whole number `{column}`"), column);
        self.columns.get(column).and_then(number).ok_or_else(expected)
    }

    /// A column that must be a text, or a list of one `{role, content}` or more.
    pub fn content(&self, column: &str) -> Result<Content, SuiteError> {
        let value = self.columns.get(column);
        let some = |messages: &Vec<Message>| !messages.is_empty();
        let messages = |v: &Value| serde_json::from_value(v.clone()).ok().filter(some).map(Content::Messages);
        let content = value.and_then(|v| v.as_str().map(|t| Content::Text(t.to_owned())).or_else(|| messages(v)));
        content.ok_or_else(|| self.unlike(&format!("a text `{column}`"), column))
    }

    /// A column that must be a list of `count` texts.
    pub fn texts(&self, column: &str, count: usize) -> Result<Vec<Content>, SuiteError> {
        let expected = || self.unlike(&format!("a list `{column}` of {count} texts"), column);
        self.list_of_texts(column).filter(|texts| texts.len() == count).ok_or_else(expected)
    }

    /// A column that must be a list of one text or more.
    pub fn some_texts(&self, column: &str) -> Result<Vec<Content>, SuiteError> {
        let expected = || self.unlike(&format!("a list `{column}` of texts"), column);
        self.list_of_texts(column).filter(|texts| !texts.is_empty()).ok_or_else(expected)
    }

    fn list_of_texts(&self, column: &str) -> Option<Vec<Content>> {
        let list = self.columns.get(column)?.as_array()?;
        list.iter().map(|text| Some(Content::Text(text.as_str()?.to_owned()))).collect()
    }

    /// A column that must be the number `count`, which is of `things`.
    pub fn expect_count(&self, column: &str, count: usize, things: &str) -> Result<(), SuiteError> {
        match usize::try_from(self.integer(column)?) {
            Ok(found) if found == count => Ok(()),
            _ => Err(self.unlike(&format!("`{column}` {count} ({things})"), column)),
        }
    }

    /// An error if the row is of the other version of RewardBench.
    pub fn expect_version(&self, version: u8, is_other: bool) -> Result<(), SuiteError> {
        if !is_other {
            return Ok(());
        }
        let (other, suite) = if version == 1 { (2, "rewardbench-2") } else { (1, "rewardbench") };
        let found = format!("one of version {other} (--suite {suite})");
        let expected = format!("a row of RewardBench {version}");
        Err(SuiteError::Row { location: self.location.clone(), expected, found })
    }

    /// The error for a column that is not as published.
    pub fn unlike(&self, expected: &str, column: &str) -> SuiteError {
        let found = match self.columns.get(column) {
            None => format!("the columns {}", cut(&self.columns.keys().cloned().collect::<Vec<_>>().join(", "), 300)),
            Some(value) => cut(&value.to_string(), 60),
        };
        SuiteError::Row { location: self.location.clone(), expected: expected.to_owned(), found }
    }

    /// The group of this row: its responses and (better or first, other, target) comparisons.
    pub fn group(
        &self,
        prompt: Content,
        responses: Vec<Content>,
        compared: &[(usize, usize, f32)],
        subset: &str,
    ) -> Group {
        group(&self.location, prompt, responses, compared, subset)
    }
}

/// The first characters of a text.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A group with its subset.
fn group(
    location: &Location,
    prompt: Content,
    responses: Vec<Content>,
    compared: &[(usize, usize, f32)],
    subset: &str,
) -> Group {
    let extra: Extra = Map::from_iter([("subset".to_owned(), subset.into())]).into();
    let response = |content| Response {
        content,
        rank: None,
        score: None,
        attributes: BTreeMap::new(),
        location: location.clone(),
        extra: extra.clone(),
    };
    let comparison =
        |&(first, second, target): &(usize, usize, f32)| Comparison { first, second, target, margin: 0.0, weight: 1.0 };
    Group {
        prompt: Some(prompt),
        responses: responses.into_iter().map(response).collect(),
        comparisons: compared.iter().map(comparison).collect(),
        judged: Vec::new(),
        location: location.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_null_outside_strings_alone() {
        let cases = [
            (r#"{"a": NaN, "b": "NaN"}"#, r#"{"a": null, "b": "NaN"}"#),
            (r#"{"a": "\"NaN", "b": NaN}"#, r#"{"a": "\"NaN", "b": null}"#),
            (r#"{"a": "\\", "b": NaN}"#, r#"{"a": "\\", "b": null}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(String::from_utf8(null_for_nan(text.into())).unwrap(), expected);
        }
    }
}
