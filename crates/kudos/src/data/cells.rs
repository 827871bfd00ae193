//! One row under the names that a layout reads it by.
//!
//! A layout asks for `prompt`; the file may call it `Prompt`, or the user may have said that it is `question.full_text`. Which is
//! which was settled once for all rows ([`View`]); here the values are found and given their types.

use super::content::{self, wrong_type};
use super::error::ProblemKind;
use super::integer;
use super::literal;
use super::mapping::Source;
use super::record::{Content, Message, USER};
use super::transcript;
use super::verdict;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Where the columns of a layout stand in the rows of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    /// Columns that stand elsewhere than under their name.
    pub aliases: Vec<(String, Source)>,
    /// The user's meaning of labels; empty for the usual one.
    pub labels: Vec<(String, f32)>,
    /// The column, of those a layout knows several, that says which is better.
    pub verdict: Option<String>,
    /// Answers and their ranks or ratings, of a table with a row a prompt.
    pub wide: Vec<(String, String)>,
    /// True for CSV and spreadsheets, whose cells have no types.
    pub is_cell: bool,
}

impl View {
    /// Where a column stands, if not under its name.
    pub fn alias(&self, column: &str) -> Option<&str> {
        self.aliases.iter().find(|(name, _)| name == column).map(|(_, source)| source.path())
    }
}

/// What is remembered from row to row.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether the first pair of texts repeated its prompt; the others follow it.
    pub repeats_prompt: Cell<Option<bool>>,
    /// True if the prompt of the row has the marks of HH transcripts.
    pub is_marked: Cell<bool>,
    /// The last prompt, for blank cells below it.
    pub last_prompt: RefCell<Option<Content>>,
    /// Messages of threads by their id: the parent's id and the turn.
    pub messages: RefCell<HashMap<String, (Option<String>, Message)>>,
    notes: RefCell<Vec<Cow<'static, str>>>,
}

impl Memory {
    /// Something to be said once of the file.
    pub fn note(&self, note: impl Into<Cow<'static, str>>) {
        let note = note.into();
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// All that was noted.
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().iter().map(|note| note.to_string()).collect()
    }
}

/// A row as a layout sees it.
#[derive(Clone, Copy)]
pub(super) struct Cells<'a> {
    pub fields: &'a Map<String, Value>,
    pub view: &'a View,
    pub memory: &'a Memory,
}

impl<'a> Cells<'a> {
    /// The value of a column (or of a path into one) that is not null.
    pub fn get(&self, column: &str) -> Option<Cow<'a, Value>> {
        let alias = self.view.aliases.iter().find(|(name, _)| name == column);
        let value = match alias {
            Some((_, source)) => source.find(self.fields)?,
            None => match self.fields.get(column) {
                Some(value) => Cow::Borrowed(value),
                None if column.contains('.') => Source::new(column).find(self.fields)?,
                None => return None,
            },
        };
        (!value.is_null()).then_some(value)
    }

    /// The same, null where there is none.
    pub fn value(&self, column: &str) -> Cow<'a, Value> {
        self.get(column).unwrap_or(Cow::Owned(Value::Null))
    }

    /// The name that messages use for a column: the file's.
    pub fn name(&self, column: &str) -> String {
        self.view.alias(column).unwrap_or(column).to_owned()
    }

    /// True if the user, or the spelling of the header, says where a column stands.
    pub fn is_mapped(&self, column: &str) -> bool {
        self.view.alias(column).is_some()
    }

    /// A text or a conversation that must be there; it may be empty.
    pub fn content(&self, column: &str) -> Result<Content, ProblemKind> {
        self.optional(column)?.ok_or_else(|| ProblemKind::EmptyText { column: self.name(column) })
    }

    /// A text or a conversation that may be absent or null, or a list of no message.
    pub fn optional(&self, column: &str) -> Result<Option<Content>, ProblemKind> {
        match self.get(column).as_deref() {
            None => Ok(None),
            Some(Value::Array(turns)) if turns.is_empty() => Ok(None),
            Some(value) => self.content_of(value, || self.name(column)).map(Some),
        }
    }

    /// A value as a text or a conversation.
    pub fn content_of(&self, value: &Value, column: impl Fn() -> String) -> Result<Content, ProblemKind> {
        content::content(value, column, self.view.is_cell)
    }

    /// A text that says something; `None` where it is absent or blank.
    pub fn some_text(&self, column: &str) -> Result<Option<String>, ProblemKind> {
        match self.get(column).as_deref() {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.trim().is_empty())),
            Some(other) => Err(wrong_type(self.name(column), "a text", other)),
        }
    }

    /// A list that must be there, also as JSON or Python text.
    pub fn list(&self, column: &str) -> Result<Vec<Value>, ProblemKind> {
        match self.value(column).into_owned() {
            Value::Array(list) => Ok(list),
            Value::String(text) => match literal::parse(&text) {
                Some(Value::Array(list)) => Ok(list),
                _ => Err(wrong_type(self.name(column), "a list", &Value::String(text))),
            },
            other => Err(wrong_type(self.name(column), "a list", &other)),
        }
    }

    /// A finite number, also as text; `None` if absent, null or empty.
    pub fn number(&self, column: &str) -> Result<Option<f64>, ProblemKind> {
        number(self.get(column).as_deref(), || self.name(column))
    }

    /// A number that fits 32 bits, or `default` where there is none.
    pub fn single(&self, column: &str, default: f32) -> Result<f32, ProblemKind> {
        let Some(value) = self.number(column)? else { return Ok(default) };
        let single = value as f32;
        if single.is_finite() {
            Ok(single)
        } else {
            Err(out_of_range(&self.name(column), "a number that fits 32 bits", value))
        }
    }

    /// A whole number that must be there.
    pub fn whole(&self, column: &str) -> Result<i64, ProblemKind> {
        let value = self.value(column);
        verdict::whole(&value).ok_or_else(|| wrong_type(self.name(column), "a whole number", &value))
    }

    /// True or false, also as the numbers 1 and 0, or as text.
    pub fn truth(&self, column: &str) -> Result<bool, ProblemKind> {
        let value = self.value(column);
        truth(&value).ok_or_else(|| wrong_type(self.name(column), "true or false", &value))
    }

    /// The verdict's column, of those a layout knows: the user's, else the layout's.
    pub fn verdict<'b>(&'b self, usual: &'b str) -> &'b str {
        self.view.verdict.as_deref().unwrap_or(usual)
    }

    /// The prompt of a row, with what a system and a history column put in front; `None` where there is none. A prompt in the
    /// form of HH transcripts is a conversation.
    pub fn asked(&self, column: &str) -> Result<Option<Content>, ProblemKind> {
        let Some(prompt) = self.optional(column)? else { return Ok(None) };
        let turns = match &prompt {
            Content::Text(text) => transcript::prompt(text),
            Content::Messages(_) => None,
        };
        self.memory.is_marked.set(turns.is_some());
        self.with_context(turns.map_or(prompt, Content::Messages)).map(Some)
    }

    /// A reply to a prompt with the marks of HH transcripts, without its own mark and the white space around it; any other as it is.
    pub fn reply(&self, reply: Content) -> Content {
        match reply {
            Content::Text(text) if self.memory.is_marked.get() => Content::Text(transcript::reply(&text).to_owned()),
            reply => reply,
        }
    }

    /// A prompt after the turns that the columns `system` and `history` hold.
    pub fn with_context(&self, prompt: Content) -> Result<Content, ProblemKind> {
        let mut turns = Vec::new();
        if let Some(system) = self.some_text("system")? {
            turns.push(Message { role: "system".to_owned(), content: system });
        }
        turns.extend(self.history()?);
        if turns.is_empty() {
            return Ok(prompt);
        }
        turns.extend(prompt.turns(USER).iter().cloned());
        Ok(Content::Messages(turns))
    }

    /// Earlier turns: messages, or lists of a question and its answer.
    fn history(&self) -> Result<Vec<Message>, ProblemKind> {
        const COLUMN: &str = "history";
        let blank = |value: &Value| value.as_str().is_some_and(|text| text.trim().is_empty());
        if self.get(COLUMN).is_none_or(|value| blank(&value)) {
            return Ok(Vec::new());
        }
        let mut turns = Vec::new();
        for (at, item) in self.list(COLUMN)?.iter().enumerate() {
            let place = || format!("{}[{}]", self.name(COLUMN), at + 1);
            match item {
                Value::Array(exchange) => {
                    let [Value::String(asked), Value::String(answered)] = &exchange[..] else {
                        return Err(wrong_type(place(), "a question and its answer", item));
                    };
                    let turn = |role: &str, text: &String| Message { role: content::role(role), content: text.clone() };
                    turns.extend([turn("human", asked), turn("gpt", answered)]);
                }
                other => turns.extend(content::messages(std::slice::from_ref(other), &place)?),
            }
        }
        Ok(turns)
    }
}

/// A finite number, also as text: with a decimal comma, or as an ordinal (`1st`). `None` if absent, null or empty.
pub(super) fn number(value: Option<&Value>, column: impl Fn() -> String) -> Result<Option<f64>, ProblemKind> {
    let found = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => number_of_text(text.trim()),
        Some(other) => integer::digits(other).map_or_else(|| other.as_f64(), |digits| digits.parse().ok()),
    };
    match found {
        Some(number) if number.is_finite() => Ok(Some(number)),
        Some(number) => Err(out_of_range(&column(), "a finite number", number)),
        None => Err(wrong_type(column(), "a number", value.unwrap_or(&Value::Null))),
    }
}

fn number_of_text(text: &str) -> Option<f64> {
    let plain = text.parse().ok();
    plain.or_else(|| ordinal(text)).or_else(|| decimal_comma(text))
}

/// `1st`, `2nd`, `3rd`, `11th`, `1.`
fn ordinal(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    let digits = ["st", "nd", "rd", "th", "."].iter().find_map(|end| lower.strip_suffix(end))?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `1,5`; three digits after the comma may be thousands, and are no number.
fn decimal_comma(text: &str) -> Option<f64> {
    let (whole, part) = text.split_once(',')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits(whole.trim_start_matches('-')) && digits(part) && part.len() != 3;
    plain.then(|| format!("{whole}.{part}").parse().ok())?
}

pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        },
        other => match verdict::whole(other) {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
    }
}

pub(super) fn out_of_range(column: &str, expected: &'static str, found: f64) -> ProblemKind {
    ProblemKind::OutOfRange { column: column.to_owned(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_as_people_write_them() {
        let cases = [
            (json!("1.5"), Some(1.5)),
            (json!(" 1,5 "), Some(1.5)),
            (json!("1st"), Some(1.0)),
            (json!("22ND"), Some(22.0)),
            (json!("3."), Some(3.0)),
            (json!("-0,25"), Some(-0.25)),
            (json!(""), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            assert_eq!(number(Some(&value), || "c".into()), Ok(expected), "{value}");
        }
        for text in ["1,500", "best", "st", "1,5,2", "1th2", "NaN", "1e999"] {
            assert!(number(Some(&json!(text)), || "c".into()).is_err(), "{text}");
        }
    }

    #[test]
    fn system_and_history_stand_before_the_prompt() {
        let roles = |row: Value| {
            let (view, memory) = (View::default(), Memory::default());
            let cells = Cells { fields: row.as_object().unwrap(), view: &view, memory: &memory };
            let prompt = cells.asked("prompt").map_err(|problem| problem.to_string())?.unwrap();
            let turns = prompt.turns(USER).iter().map(|m| format!("{}:{}", m.role, m.content)).collect::<Vec<_>>();
            Ok::<String, String>(turns.join(" "))
        };
        let cases = [
            (json!({"prompt": "p", "system": "s"}), "system:s user:p"),
            (json!({"prompt": "p", "system": " ", "history": null}), "user:p"),
            (json!({"prompt": "p", "history": [["q", "a"]]}), "user:q assistant:a user:p"),
            (json!({"prompt": "p", "history": "[['q', 'a']]"}), "user:q assistant:a user:p"),
            (json!({"prompt": "p", "history": [{"from": "human", "value": "q"}]}), "user:q user:p"),
            (json!({"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"}), "user:a assistant:b user:c"),
        ];
        for (row, expected) in cases {
            assert_eq!(roles(row.clone()).as_deref(), Ok(expected), "{row}");
        }
        assert!(roles(json!({"prompt": "p", "history": [["q"]]})).unwrap_err().contains("a question and its answer"));
        assert!(roles(json!({"prompt": "p", "system": 3})).unwrap_err().contains("`system`"));
    }
}
