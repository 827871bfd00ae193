//! JSON values → [`Content`]: a text, or the messages of a conversation in any of the forms that people store.
//!
//! Read are `{role, content}` and `{from, value}` (ShareGPT), a single message for a list of one, contents in parts
//! (`[{type: "text", text}]`), and the JSON or Python text of such a list. Roles get one name each.

use super::error::ProblemKind;
use super::integer;
use super::literal;
use super::record::{ASSISTANT, Content, Message, USER};
use serde_json::Value;

/// What a content should have been.
const EXPECTED: &str = "text or a list of {role, content} messages";

/// The names of roles in other tools, and ours.
const ROLES: [(&str, &str); 11] = [
    (USER, USER),
    (ASSISTANT, ASSISTANT),
    ("system", "system"),
    ("human", USER),
    ("prompter", USER),
    ("gpt", ASSISTANT),
    ("chatgpt", ASSISTANT),
    ("bard", ASSISTANT),
    ("bing", ASSISTANT),
    ("bot", ASSISTANT),
    ("model", ASSISTANT),
];

/// Our name of a role.
pub(super) fn role(name: &str) -> String {
    let same = |(other, _): &&(&str, &str)| other.eq_ignore_ascii_case(name.trim());
    ROLES.iter().find(same).map_or(name, |(_, ours)| ours).to_owned()
}

impl Content {
    /// The content that a JSON value stands for, as the data files have it: a text, a list of messages in any of the forms
    /// that people store, or a lone message. `name` is what the value is called in an error.
    ///
    /// # Errors
    /// For anything else: what was expected, and what was found.
    pub fn from_json(value: &Value, name: &str) -> Result<Content, ProblemKind> {
        content(value, || name.to_owned(), false)
    }
}

/// The content of a column; `is_cell` says that it was a cell of a table without types, where a list that was written as text
/// is meant as a list.
pub(super) fn content(value: &Value, column: impl Fn() -> String, is_cell: bool) -> Result<Content, ProblemKind> {
    match value {
        Value::String(text) => text_content(text, column, is_cell),
        Value::Array(turns) => messages(turns, &column).map(Content::Messages),
        Value::Object(_) if is_message(value) => Ok(Content::Messages(vec![message(value, 1, &column)?])),
        _ => Err(wrong_type(column(), EXPECTED, value)),
    }
}

fn text_content(text: &str, column: impl Fn() -> String, is_cell: bool) -> Result<Content, ProblemKind> {
    if !literal::looks_serialised(text) {
        return Ok(Content::Text(text.to_owned()));
    }
    match literal::parse(text) {
        Some(Value::Array(turns)) if !turns.is_empty() && turns.iter().all(is_message) => {
            messages(&turns, &column).map(Content::Messages)
        }
        Some(turn) if is_message(&turn) => Ok(Content::Messages(vec![message(&turn, 1, &column)?])),
        _ if is_cell && !text.trim_start().starts_with('{') => {
            Err(ProblemKind::Serialised { column: column(), found: shorten(text) })
        }
        _ => Ok(Content::Text(text.to_owned())),
    }
}

/// True for what is meant as a turn, whether it can be read or not.
fn is_message(value: &Value) -> bool {
    let has = |key: &str| value.get(key).is_some();
    value.is_object() && (has("role") && (has("content") || has("tool_calls")) || has("from") && has("value"))
}

/// A list of turns.
pub(super) fn messages(turns: &[Value], column: &impl Fn() -> String) -> Result<Vec<Message>, ProblemKind> {
    turns.iter().enumerate().map(|(at, turn)| message(turn, at + 1, column)).collect()
}

/// Turn number `at` of a column.
fn message(value: &Value, at: usize, column: &impl Fn() -> String) -> Result<Message, ProblemKind> {
    let problem = |found: String| ProblemKind::Message { column: column(), number: at, found };
    let Some((role_value, content)) = sides(value) else {
        return Err(problem(describe(value)));
    };
    let Some(name) = role_value.as_str() else {
        return Err(problem(format!("{} for a role", describe(role_value))));
    };
    Ok(Message { role: role(name), content: turn_text(content, value).map_err(problem)? })
}

/// Role and content of a turn.
fn sides(value: &Value) -> Option<(&Value, &Value)> {
    let named = |role: &str, content: &str| Some((value.get(role)?, value.get(content)?));
    named("role", "content").or_else(|| named("from", "value")).or_else(|| Some((value.get("role")?, &Value::Null)))
}

/// The text of a turn; the error says what was found instead.
fn turn_text(content: &Value, turn: &Value) -> Result<String, String> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Null if turn.get("tool_calls").is_some_and(|calls| !calls.is_null()) => {
            Err("a tool call without a text".to_owned())
        }
        Value::Array(parts) => parts.iter().map(part).collect(),
        Value::Object(_) => part(content).map(str::to_owned),
        other => Err(format!("{} for a text", describe(other))),
    }
}

/// A part of a content.
fn part(part: &Value) -> Result<&str, String> {
    let kind = part.get("type").and_then(Value::as_str);
    match (part, kind, part.get("text")) {
        (Value::String(text), _, _) => Ok(text),
        (_, None | Some("text" | "input_text" | "output_text"), Some(Value::String(text))) => Ok(text),
        (_, Some("text"), None) if part.get("value").is_some_and(Value::is_string) => {
            Ok(part["value"].as_str().unwrap_or_default())
        }
        (_, Some(kind), _) => Err(format!("a part of the type {:?}, which is no text", shorten(kind))),
        _ => Err(format!("{} for a part of a text", describe(part))),
    }
}

/// A problem with a value of another type.
pub(super) fn wrong_type(column: String, expected: &'static str, found: &Value) -> ProblemKind {
    ProblemKind::WrongType { column, expected, found: describe(found) }
}

/// A value in a few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("{:?}", shorten(text)),
        Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
        Value::Array(list) => format!("a list that begins with {}", describe_item(&list[0])),
        Value::Object(_) => match integer::digits(value) {
            Some(digits) => format!("the number {digits}"),
            None => describe_item(value),
        },
    }
}

/// The same, one level deep.
fn describe_item(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(map) if map.is_empty() => "an empty object".to_owned(),
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().take(KEYS_SHOWN).map(|key| format!("`{}`", shorten(key))).collect();
            let more = if map.len() > KEYS_SHOWN { ", …" } else { "" };
            format!("an object of {}{more}", keys.join(", "))
        }
        other => describe(other),
    }
}

const KEYS_SHOWN: usize = 4;
const SHOWN_CHARS: usize = 40;

/// The beginning of a text.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value, is_cell: bool) -> Result<Content, String> {
        content(&value, || "c".to_owned(), is_cell).map_err(|problem| problem.to_string())
    }

    fn chat(turns: &[(&str, &str)]) -> Content {
        let turn = |(role, content): &(&str, &str)| Message { role: role.to_string(), content: content.to_string() };
        Content::Messages(turns.iter().map(turn).collect())
    }

    #[test]
    fn every_form_of_a_conversation() {
        let expected = chat(&[("user", "a"), ("assistant", "b")]);
        let forms = [
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]),
            json!([{"role": "User", "content": "a", "name": "x"}, {"role": "model", "content": "b"}]),
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]),
            json!([{"role": "user", "content": ["a"]}, {"role": "assistant", "content": {"text": "b"}}]),
            json!(r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#),
            json!("[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]"),
            json!("[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'assistant'}]"),
        ];
        for form in forms {
            assert_eq!(read(form.clone(), false), Ok(expected.clone()), "{form}");
            assert_eq!(read(form.clone(), true), Ok(expected.clone()), "{form}");
        }
        assert_eq!(read(json!({"from": "gpt", "value": "b"}), false), Ok(chat(&[("assistant", "b")])));
    }

    #[test]
    fn texts_stay_texts_and_lists_in_cells_are_no_texts() {
        for text in ["[1, 2]", "[a]", "{x}", "a [b]", ""] {
            assert_eq!(read(json!(text), true), Ok(Content::Text(text.to_owned())), "{text}");
        }
        for text in [r#"["a", "b"]"#, "[{'x': 1}]", "[{'role': 'user', 'content': 'a'} ... {'role': 'x'}]"] {
            assert_eq!(read(json!(text), false), Ok(Content::Text(text.to_owned())), "{text}");
            let error = read(json!(text), true).unwrap_err();
            assert!(error.contains("looks like a list that was written as text"), "{error}");
        }
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        let cases = [
            (
                json!([{"role": "assistant", "content": null, "tool_calls": [{}]}]),
                "message 1: expected a text, found a tool call",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant"}]),
                "message 2: expected a text, found nothing",
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "of the type \"image_url\"",
            ),
            (json!([{"role": 1, "content": "a"}]), "the number 1 for a role"),
            (json!(["a"]), "message 1: expected a text, found \"a\""),
            (json!(7), "found the number 7"),
            (json!({"a": 1, "b": 2}), "found an object of `a`, `b`"),
        ];
        for (value, expected) in cases {
            let error = read(value.clone(), false).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
