//! Python's methods of strings and Jinja2's filters, where minijinja's differ from them.
//!
//! White space is what Python takes for it: with the separators U+001C to U+001F, which Rust does not count. A
//! template that ends a turn with `content | trim` would otherwise leave them, and the model would read other ids.

use super::growth;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, StringInput, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::sync::LazyLock;
use tokenizers::utils::SysRegex;

/// Calls a method of a value.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(text), "strip" | "lstrip" | "rstrip") => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Ok(strip(text, name, chars).into())
        }
        (Some(text), "split" | "rsplit") => {
            let (separator, limit, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?);
            let limit = limit.or(named.get("maxsplit")?).and_then(|limit| usize::try_from(limit).ok());
            named.assert_all_used()?;
            split(text, name == "rsplit", separator, limit)
        }
        (Some(text), "splitlines") => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            Ok(lines(text, keep).into_iter().collect())
        }
        (Some(text), "isspace") => {
            let () = from_args(args)?;
            Ok((!text.is_empty() && text.chars().all(is_space)).into())
        }
        (Some(text), "title") => {
            let () = from_args(args)?;
            title(state, text).map(Value::from)
        }
        (Some(text), "removeprefix" | "removesuffix") => {
            let (part,): (&str,) = from_args(args)?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Ok(rest.unwrap_or(text).into())
        }
        (Some(text), "partition" | "rpartition") => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, name == "rpartition", separator)
        }
        (Some(text), "replace") => {
            growth::of_replace(text, args).and_then(|()| unknown_method_callback(state, value, name, args))
        }
        (Some(text), "join") => {
            growth::of_join(text, args).and_then(|()| unknown_method_callback(state, value, name, args))
        }
        (Some(text), "format") => {
            growth::of_pattern(text, '{', args).and_then(|()| unknown_method_callback(state, value, name, args))
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// `indent(width, first, blank)`. The engine makes the indent whole even where no line gets it, and charges no fuel.
pub(super) fn indent(
    value: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    const WIDEST: usize = 1000;
    let asked = width.or(named.get("width")?).unwrap_or(4);
    if asked > WIDEST {
        let reason = format!("indent: expected at most {WIDEST} spaces, found {asked}");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    growth::allow(value.as_str().lines().count().saturating_mul(asked))?;
    minijinja::filters::indent(value, width, first, blank, named)
}

/// What Python's `str.isspace` is true for.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

fn strip<'t>(text: &'t str, name: &str, chars: Option<&str>) -> &'t str {
    let goes = |letter: char| chars.map_or_else(|| is_space(letter), |chars| chars.contains(letter));
    match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    }
}

fn split(text: &str, from_end: bool, separator: Option<&str>, limit: Option<usize>) -> Result<Value, Error> {
    let parts = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut found: Vec<&str> = match (separator, from_end) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "split: empty separator")),
        (Some(separator), false) => text.splitn(parts, separator).collect(),
        (Some(separator), true) => text.rsplitn(parts, separator).collect(),
        (None, false) => words(text, parts),
        (None, true) => words_from_end(text, parts),
    };
    if from_end {
        found.reverse();
    }
    Ok(found.into_iter().map(Value::from).collect())
}

/// Words between white space; the last of `parts` is the rest of the text.
fn words(text: &str, parts: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(is_space).filter(|_| found.len() + 1 < parts).unwrap_or(rest.len());
        found.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    found
}

/// As [`words`], from the end of the text.
fn words_from_end(text: &str, parts: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        let space = rest.char_indices().rfind(|(_, letter)| is_space(*letter)).filter(|_| found.len() + 1 < parts);
        let start = space.map_or(0, |(at, letter)| at + letter.len_utf8());
        found.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    found
}

fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |letter: char| matches!(letter, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(ends).unwrap_or(rest.len());
        let width = match &rest[end..] {
            both if both.starts_with("\r\n") => 2,
            one => one.chars().next().map_or(0, char::len_utf8),
        };
        found.push(&rest[..end + if keep { width } else { 0 }]);
        rest = &rest[end + width..];
    }
    found
}

/// Every letter after one that is none becomes large, the others small.
fn title(state: &State, text: &str) -> Result<String, Error> {
    let is_cased = |letter: char| letter.is_uppercase() || letter.is_lowercase() || ('ǅ'..='ǲ').contains(&letter);
    let mut titled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_cased) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|letter| !is_cased(letter)).unwrap_or(word.len()));
        titled.push_str(before);
        let word = Value::from(word);
        titled.push_str(&minijinja::filters::capitalize(StringInput::new(state, &word)?).to_string());
        rest = after;
    }
    Ok(titled + rest)
}

fn partition(text: &str, from_end: bool, separator: &str) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "partition: empty separator"));
    }
    let found = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// Jinja2's `trim`: the value's text, stripped.
pub(super) fn trim(value: &Value, chars: Option<&str>) -> String {
    strip(&value.to_string(), "strip", chars).to_owned()
}

/// Jinja2's `wordcount`: the number of runs of what Python's `\w` matches.
pub(super) fn word_count(value: &Value) -> usize {
    static WORD: LazyLock<SysRegex> = LazyLock::new(|| SysRegex::new(r"[\p{L}\p{N}_]+").expect("a sound pattern"));
    WORD.find_iter(&value.to_string()).count()
}

/// Python's `text % values`: a tuple has the values, anything else is the only one.
pub(super) fn percent(text: &str, values: &Value) -> Result<String, Error> {
    let tuple = values.downcast_object_ref::<Tuple>();
    let all: &[Value] = tuple.map_or(std::slice::from_ref(values), |tuple| tuple);
    let may_be_left = tuple.is_none() && matches!(values.kind(), ValueKind::Map | ValueKind::Seq);
    growth::of_pattern(text, '%', all)?;
    let formatted = format(FormatStyle::Printf, text, all)?;
    match all.split_last() {
        // What can be written without the last value does not use it.
        Some((_, others)) if !may_be_left && format(FormatStyle::Printf, text, others).is_ok() => {
            let reason = format!("{text:?} % …: expected as many values as it has fields, found {}", all.len());
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        }
        _ => Ok(formatted),
    }
}
