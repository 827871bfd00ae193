//! Columns → [`Record`]: which kind of row it is, and what its values say.
//!
//! This is the one place that knows column names and their types. It sees JSON values only, whatever
//! the format they came from.

use super::conversation;
use super::error::ProblemKind;
use super::group::Attributes;
use super::integer;
use super::record::{ASSISTANT, Candidate, Content, Kind, Message, Record};
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// The kinds in the order they are tried, with the columns that make them.
const KINDS: [(Kind, &[&str]); 7] = [
    (Kind::Groups, &["prompt", "responses"]),
    (Kind::Pairs, &["chosen", "rejected"]),
    (Kind::Comparisons, &["prompt", "response_a", "response_b", "label"]),
    (Kind::Ranked, &["prompt", "answer", "rank"]),
    (Kind::Ranked, &["prompt", "response", "rank"]),
    (Kind::Unlabelled, &["prompt", "answer"]),
    (Kind::Unlabelled, &["prompt", "response"]),
];

/// The kind of a row, by its columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    kind: Kind,
    required: &'static [&'static str],
}

impl Shape {
    /// The kind whose columns are all there, or what is missing.
    pub fn recognise(names: &[&str]) -> Result<Shape, Unrecognised> {
        let has_all = |required: &[&str]| required.iter().all(|name| names.contains(name));
        let found = KINDS.iter().find(|(_, required)| has_all(required));
        found.map(|(kind, required)| Shape { kind: *kind, required }).ok_or_else(|| Unrecognised::new(names))
    }

    /// Columns that the record holds; all others are extra.
    pub fn holds(&self, column: &str) -> bool {
        let optional: &[&str] = if self.kind == Kind::Pairs { &["prompt", "margin", "weight"] } else { &[] };
        self.required.contains(&column) || optional.contains(&column) || self.is_rating(column)
    }

    /// As [`Self::holds`], for one row: an object `attributes` is held too, anything else of that name is extra.
    pub fn holds_value(&self, column: &str, value: &Value) -> bool {
        let is_object = || value.is_object() && integer::digits(value).is_none();
        self.holds(column) || (self.has_one_response() && column == ATTRIBUTES && is_object())
    }

    fn has_one_response(&self) -> bool {
        matches!(self.kind, Kind::Ranked | Kind::Unlabelled)
    }

    fn is_rating(&self, column: &str) -> bool {
        self.has_one_response() && column.starts_with(RATING)
    }

    /// A CSV cell as the value its column calls for. Cells that do not parse stay text.
    pub fn type_cell(&self, column: &str, cell: String) -> Value {
        match column {
            ATTRIBUTES if self.has_one_response() && cell.starts_with('{') => json_cell(cell),
            _ if !self.holds(column) => cell.into(),
            _ if self.is_rating(column) => number_cell(cell),
            "rank" | "margin" | "weight" | "label" => number_cell(cell),
            "responses" => json_cell(cell),
            // The one column that may say nothing: an empty cell is no prompt, where other texts are empty texts.
            "prompt" if self.kind == Kind::Pairs && cell.is_empty() => Value::Null,
            _ => messages_cell(cell),
        }
    }

    /// What the row says.
    pub fn record(&self, fields: &Fields) -> Result<Record, ProblemKind> {
        match self.kind {
            Kind::Ranked => {
                let (prompt, response) = one_response(fields, self.required[1])?;
                let rank = number(fields.get("rank"), || "rank".into())?;
                Ok(Record::Ranked { prompt, response, rank, attributes: attributes_of_row(fields)? })
            }
            Kind::Unlabelled => {
                let (prompt, response) = one_response(fields, self.required[1])?;
                Ok(Record::Unlabelled { prompt, response, attributes: attributes_of_row(fields)? })
            }
            Kind::Pairs => pair(fields),
            Kind::Comparisons => comparison(fields),
            Kind::Groups => group(fields),
        }
    }
}

/// Columns that make no kind of row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unrecognised {
    pub expected: String,
    pub found: String,
}

impl Unrecognised {
    /// Names the nearest kind: the one with the greatest share of its columns present.
    fn new(names: &[&str]) -> Self {
        let missing = |required: &[&'static str]| -> Vec<&'static str> {
            required.iter().filter(|name| !names.contains(*name)).copied().collect()
        };
        // Every kind has a prompt, so having one tells nothing.
        let share = |required: &[&'static str]| {
            let telling = || required.iter().filter(|name| **name != "prompt");
            telling().filter(|name| names.contains(*name)).count() * 12 / telling().count()
        };
        let nearest = KINDS.iter().rev().max_by_key(|(_, required)| share(required));
        let expected = match nearest.filter(|(_, required)| share(required) > 0) {
            Some((kind, required)) => {
                format!("the columns {} ({kind}; missing: {})", quoted(required), quoted(&missing(required)))
            }
            None => "the columns prompt, answer, rank, or prompt, chosen, rejected, or prompt, response_a, \
                     response_b, label, or prompt, responses, or prompt, response"
                .to_owned(),
        };
        let found = if names.is_empty() { "none".to_owned() } else { quoted(names) };
        Unrecognised { expected, found }
    }
}

impl From<Unrecognised> for ProblemKind {
    fn from(Unrecognised { expected, found }: Unrecognised) -> Self {
        ProblemKind::Missing { expected, found }
    }
}

const NAMES_SHOWN: usize = 12;

fn quoted(names: &[&str]) -> String {
    let mut list: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{}`", shorten(name))).collect();
    if names.len() > NAMES_SHOWN {
        list.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    list.join(", ")
}

/// A prompt and the reply to it.
fn one_response(fields: &Fields, column: &str) -> Result<(Content, Content), ProblemKind> {
    let (prompt, response) = (text(fields, PROMPT)?, response(fields, column)?);
    let other = |_| ProblemKind::OtherPrompt { column: column.to_owned() };
    let (prompt, mut replies) = conversation::replies(prompt, vec![response]).map_err(other)?;
    Ok((prompt, replies.remove(0)))
}

/// A prompt, if there is one, and two replies or whole transcripts.
fn two_responses(fields: &Fields, columns: [&str; 2]) -> Result<(Option<Content>, [Content; 2]), ProblemKind> {
    let sides = [response(fields, columns[0])?, response(fields, columns[1])?];
    let Some(prompt) = optional_text(fields, PROMPT)? else {
        return Ok(match conversation::shared_start(&sides[0], &sides[1]) {
            Some((prompt, sides)) => (Some(Content::Messages(prompt)), sides),
            None => (None, sides),
        });
    };
    let other = |at: usize| ProblemKind::OtherPrompt { column: columns[at].to_owned() };
    let (prompt, sides) = conversation::replies_of_two(prompt, sides).map_err(other)?;
    Ok((Some(prompt), sides))
}

fn pair(fields: &Fields) -> Result<Record, ProblemKind> {
    let (prompt, [chosen, rejected]) = two_responses(fields, ["chosen", "rejected"])?;
    let margin = number(fields.get("margin"), || "margin".into())?.unwrap_or(0.0);
    let weight = number(fields.get("weight"), || "weight".into())?.unwrap_or(1.0);
    if weight < 0.0 {
        return Err(out_of_range("weight", "a number of at least 0", weight));
    }
    let (margin, weight) = (single(margin, "margin")?, single(weight, "weight")?);
    Ok(Record::Pair { prompt, chosen, rejected, margin, weight })
}

fn comparison(fields: &Fields) -> Result<Record, ProblemKind> {
    let (prompt, [a, b]) = two_responses(fields, ["response_a", "response_b"])?;
    let target = label(fields.get("label").unwrap_or(&Value::Null))?;
    Ok(Record::Comparison { prompt, a, b, target })
}

fn group(fields: &Fields) -> Result<Record, ProblemKind> {
    let prompt = text(fields, "prompt")?;
    let responses = fields.get("responses").unwrap_or(&Value::Null);
    let Value::Array(list) = responses else {
        return Err(wrong_type("responses".into(), "a list", responses));
    };
    if list.is_empty() {
        return Err(ProblemKind::TooFew { found: 0 });
    }
    let candidates = list.iter().enumerate().map(|(at, value)| candidate(at + 1, value));
    let mut candidates: Vec<Candidate> = candidates.collect::<Result<_, _>>()?;
    let contents = candidates.iter().map(|candidate| candidate.content.clone()).collect();
    let other = |at| ProblemKind::OtherPrompt { column: format!("responses[{}].text", at + 1) };
    let (prompt, replies) = conversation::replies(prompt, contents).map_err(other)?;
    candidates.iter_mut().zip(replies).for_each(|(candidate, reply)| candidate.content = reply);
    Ok(Record::Group { prompt, responses: candidates })
}

/// One element of `responses`, number `at` from 1: an object, or the text (or messages) alone.
fn candidate(at: usize, value: &Value) -> Result<Candidate, ProblemKind> {
    let place = |key: &str| format!("responses[{at}]{key}");
    let Value::Object(fields) = value else {
        let attributes = Attributes::new();
        return Ok(Candidate { content: content(value, || place(""))?, rank: None, score: None, attributes });
    };
    let text = fields.get("text").unwrap_or(&Value::Null);
    Ok(Candidate {
        content: content(text, || place(".text"))?,
        rank: number(fields.get("rank"), || place(".rank"))?,
        score: number(fields.get("score"), || place(".score"))?,
        attributes: match fields.get(ATTRIBUTES) {
            None | Some(Value::Null) => Attributes::new(),
            Some(Value::Object(ratings)) => attributes(ratings, |name| place(&format!(".{ATTRIBUTES}.{name}")))?,
            Some(other) => return Err(wrong_type(place(".attributes"), "an object of numbers by name", other)),
        },
    })
}

/// The key, or column, of all ratings of a response.
const ATTRIBUTES: &str = "attributes";
/// What the columns of single ratings start with; the attribute's name follows.
pub(crate) const RATING: &str = "attribute:";

/// The numbers among ratings by name; what is null, or empty in a CSV cell, is missing.
fn attributes(ratings: &Fields, column: impl Fn(&str) -> String) -> Result<Attributes, ProblemKind> {
    let mut attributes = Attributes::new();
    for (name, value) in ratings {
        if let Some(rating) = number(Some(value), || column(name))? {
            attributes.insert(name.clone(), rating);
        }
    }
    Ok(attributes)
}

/// The ratings of a row with one response: its columns `attribute:NAME`, and `attributes` where that is an object.
fn attributes_of_row(fields: &Fields) -> Result<Attributes, ProblemKind> {
    let mut all = match fields.get(ATTRIBUTES) {
        Some(Value::Object(ratings)) => attributes(ratings, |name| format!("{ATTRIBUTES}.{name}"))?,
        _ => Attributes::new(),
    };
    for (column, value) in fields {
        let Some(name) = column.strip_prefix(RATING) else { continue };
        let Some(rating) = number(Some(value), || column.clone())? else { continue };
        if all.insert(name.to_owned(), rating).is_some_and(|other| other != rating) {
            return Err(wrong_type(column.clone(), "the rating that `attributes` has too", value));
        }
    }
    Ok(all)
}

/// A response. Its text may be empty: that can be scored, though nothing is learnt from it.
fn response(fields: &Fields, column: &str) -> Result<Content, ProblemKind> {
    match fields.get(column) {
        None | Some(Value::Null) => Err(ProblemKind::EmptyText { column: column.to_owned() }),
        Some(value) => content(value, || column.to_owned()),
    }
}

/// Why nothing can be learnt from a record that can be read; `names` are its columns.
pub(super) fn unusable(record: &Record, names: &Map<String, Value>) -> Option<ProblemKind> {
    let answer = if names.contains_key("answer") { "answer" } else { "response" };
    let sides = match record {
        Record::Ranked { response, .. } | Record::Unlabelled { response, .. } => {
            [(answer, response), (answer, response)]
        }
        Record::Pair { chosen, rejected, .. } => [("chosen", chosen), ("rejected", rejected)],
        Record::Comparison { a, b, .. } => [("response_a", a), ("response_b", b)],
        Record::Group { .. } => return None,
    };
    if let Some((column, _)) = sides.iter().find(|(_, content)| content.is_blank()) {
        return Some(ProblemKind::EmptyText { column: (*column).to_owned() });
    }
    let [first, second] = sides.map(|(_, content)| content.reading(ASSISTANT));
    (sides[0].0 != sides[1].0 && first == second).then_some(ProblemKind::Identical)
}

/// The column of prompts.
pub(crate) const PROMPT: &str = "prompt";

/// The prompt of a row of any kind, or of none. It must ask something.
pub(crate) fn prompt(fields: &Fields) -> Result<Content, ProblemKind> {
    let prompt = text(fields, PROMPT)?;
    if prompt.is_blank() { Err(ProblemKind::EmptyText { column: PROMPT.to_owned() }) } else { Ok(prompt) }
}

/// A CSV cell as a value, where only prompts matter.
pub(crate) fn prompt_cell(column: &str, cell: String) -> Value {
    if column == PROMPT { messages_cell(cell) } else { cell.into() }
}

/// A column that must be there. Its text may be empty.
fn text(fields: &Fields, column: &str) -> Result<Content, ProblemKind> {
    optional_text(fields, column)?.ok_or_else(|| ProblemKind::EmptyText { column: column.to_owned() })
}

/// A column that may be absent or null, or a list of no message.
fn optional_text(fields: &Fields, column: &str) -> Result<Option<Content>, ProblemKind> {
    match fields.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(turns)) if turns.is_empty() => Ok(None),
        Some(value) => content(value, || column.to_owned()).map(Some),
    }
}

fn content(value: &Value, column: impl Fn() -> String) -> Result<Content, ProblemKind> {
    match value {
        Value::String(text) => Some(Content::Text(text.clone())),
        Value::Array(turns) => turns.iter().map(message).collect::<Option<_>>().map(Content::Messages),
        _ => None,
    }
    .ok_or_else(|| wrong_type(column(), "text or a list of {role, content} messages", value))
}

fn message(value: &Value) -> Option<Message> {
    let text = |key| value.get(key)?.as_str().map(str::to_owned);
    Some(Message { role: text("role")?, content: text("content")? })
}

/// A finite number, also as text; `None` if absent, null or empty.
fn number(value: Option<&Value>, column: impl Fn() -> String) -> Result<Option<f64>, ProblemKind> {
    let found = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(other) => integer::digits(other).map_or_else(|| other.as_f64(), |digits| digits.parse().ok()),
    };
    match found {
        Some(number) if number.is_finite() => Ok(Some(number)),
        Some(number) => Err(out_of_range(&column(), "a finite number", number)),
        None => Err(wrong_type(column(), "a number", value.unwrap_or(&Value::Null))),
    }
}

fn single(value: f64, column: &str) -> Result<f32, ProblemKind> {
    let single = value as f32;
    if single.is_finite() { Ok(single) } else { Err(out_of_range(column, "a number that fits 32 bits", value)) }
}

fn label(value: &Value) -> Result<f32, ProblemKind> {
    let unknown = || ProblemKind::UnknownLabel { found: describe(value) };
    let share = match value.as_str().map(str::trim) {
        Some(name) if name.eq_ignore_ascii_case("a") => 1.0,
        Some(name) if name.eq_ignore_ascii_case("b") => 0.0,
        Some(name) if name.eq_ignore_ascii_case("tie") => 0.5,
        Some(text) => text.parse().map_err(|_| unknown())?,
        None => value.as_f64().ok_or_else(unknown)?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share as f32) } else { Err(unknown()) }
}

/// A cell that holds JSON; text where it does not parse.
fn json_cell(cell: String) -> Value {
    integer::parse(&cell).unwrap_or(Value::String(cell))
}

fn number_cell(cell: String) -> Value {
    let trimmed = cell.trim();
    if trimmed.is_empty() {
        return Value::Null;
    }
    if let Ok(whole) = trimmed.parse::<i64>() {
        return whole.into();
    }
    let real = trimmed.parse().ok().and_then(serde_json::Number::from_f64);
    real.map_or(Value::String(cell), Value::Number)
}

/// A cell that is the JSON of a list of messages is that list (this is how we write one to CSV).
fn messages_cell(cell: String) -> Value {
    let parsed = if cell.starts_with('[') { integer::parse(&cell).ok() } else { None };
    match parsed {
        Some(Value::Array(turns)) if !turns.is_empty() && turns.iter().all(|turn| message(turn).is_some()) => {
            Value::Array(turns)
        }
        _ => Value::String(cell),
    }
}

fn out_of_range(column: &str, expected: &'static str, found: f64) -> ProblemKind {
    ProblemKind::OutOfRange { column: column.to_owned(), expected, found }
}

fn wrong_type(column: String, expected: &'static str, found: &Value) -> ProblemKind {
    ProblemKind::WrongType { column, expected, found: describe(found) }
}

/// A value in a few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("{:?}", shorten(text)),
        Value::Array(_) => "a list of something else".to_owned(),
        Value::Object(_) => match integer::digits(value) {
            Some(digits) => format!("the number {digits}"),
            None => "an object".to_owned(),
        },
    }
}

const SHOWN_CHARS: usize = 40;

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(row: Value) -> Result<Record, ProblemKind> {
        let fields = row.as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        Shape::recognise(&names)?.record(fields)
    }

    #[test]
    fn labels() {
        let cases = [
            (json!("a"), Some(1.0)),
            (json!(" B "), Some(0.0)),
            (json!("Tie"), Some(0.5)),
            (json!(0.25), Some(0.25)),
            (json!("1"), Some(1.0)),
            (json!(1.01), None),
            (json!(-1), None),
            (json!("nan"), None),
            (json!("model_a"), None),
            (json!(true), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            assert_eq!(label(&value).ok(), expected, "{value}");
        }
    }

    #[test]
    fn numbers() {
        let cases = [
            (json!(null), Ok(None)),
            (json!(" "), Ok(None)),
            (json!(2), Ok(Some(2.0))),
            (json!(" 1.5 "), Ok(Some(1.5))),
            (json!("NaN"), Err("out_of_range")),
            (json!("inf"), Err("out_of_range")),
            (json!("1st"), Err("wrong_type")),
            (json!([1]), Err("wrong_type")),
            (json!(false), Err("wrong_type")),
        ];
        for (value, expected) in cases {
            let found = number(Some(&value), || "rank".into()).map_err(|problem| problem.name());
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn contents() {
        let chat = json!([{"role": "user", "content": "x", "name": "n"}]);
        let cases = [
            (json!("x"), true),
            (chat, true),
            (json!([]), true),
            (json!(["x"]), false),
            (json!([{"role": "user"}]), false),
            (json!([{"role": "user", "content": null}]), false),
            (json!({"role": "user", "content": "x"}), false),
            (json!(1), false),
        ];
        for (value, good) in cases {
            assert_eq!(content(&value, String::new).is_ok(), good, "{value}");
        }
    }

    #[test]
    fn attributes_of_responses() {
        let group = |attributes: Value| json!({"prompt": "p", "responses": [{"text": "a", "attributes": attributes}]});
        let row = |more: Value| {
            let mut row = json!({"prompt": "p", "answer": "a", "rank": 1});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            row
        };
        let cases = [
            (group(json!({"b": 2, "a": 1.5, "c": null, "d": ""})), Ok("{\"a\": 1.5, \"b\": 2.0}")),
            (group(json!(null)), Ok("{}")),
            (group(json!({"a": "4"})), Ok("{\"a\": 4.0}")),
            (group(json!({"a": "good"})), Err("column `responses[1].attributes.a`: expected a number, found \"good\"")),
            (group(json!({"a": "inf"})), Err("column `responses[1].attributes.a`: expected a finite number")),
            (group(json!([1])), Err("column `responses[1].attributes`: expected an object of numbers by name")),
            (row(json!({"attribute:a": 3, "attribute:b": null})), Ok("{\"a\": 3.0}")),
            (row(json!({"attributes": {"b": 1}, "attribute:a": "2"})), Ok("{\"a\": 2.0, \"b\": 1.0}")),
            (row(json!({"attributes": "red, large"})), Ok("{}")),
            (row(json!({"attribute:a": "high"})), Err("column `attribute:a`: expected a number, found \"high\"")),
            (row(json!({"attributes": {"a": false}})), Err("column `attributes.a`: expected a number")),
            (row(json!({"attributes": {"a": 1}, "attribute:a": 2})), Err("the rating that `attributes` has too")),
        ];
        for (row, expected) in cases {
            let found = read(row.clone()).map(|record| match record {
                Record::Group { responses, .. } => format!("{:?}", responses[0].attributes),
                Record::Ranked { attributes, .. } => format!("{attributes:?}"),
                other => panic!("{other:?}"),
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{row}"),
                (Err(problem), Err(expected)) => assert!(problem.to_string().contains(expected), "{row}: {problem}"),
                (found, _) => panic!("{row}: {found:?}"),
            }
        }
    }

    #[test]
    fn prompts_that_are_there_and_not() {
        let cases = [
            (json!({"prompt": "", "chosen": "a", "rejected": "b"}), Ok(true)),
            (json!({"prompt": [], "chosen": "a", "rejected": "b"}), Ok(false)),
            (json!({"prompt": null, "chosen": "a", "rejected": "b"}), Ok(false)),
            (json!({"prompt": "p", "chosen": "a", "rejected": "b"}), Ok(true)),
            (json!({"prompt": " ", "answer": "a", "rank": 1}), Ok(true)),
            (json!({"prompt": null, "answer": "a", "rank": 1}), Err("empty")),
            (json!({"prompt": null, "responses": ["a"]}), Err("empty")),
            (json!({"prompt": "p", "responses": []}), Err("too_few_responses")),
            (json!({"prompt": "p", "responses": "a"}), Err("wrong_type")),
            (json!({"chosen": "a", "rejected": "b", "weight": -1}), Err("out_of_range")),
            (json!({"chosen": "a", "rejected": "b", "margin": 1e300}), Err("out_of_range")),
        ];
        for (row, expected) in cases {
            let prompted = |record| match record {
                Record::Pair { prompt, .. } => prompt.is_some(),
                _ => true,
            };
            assert_eq!(read(row.clone()).map(prompted).map_err(|p| p.name()), expected, "{row}");
        }
    }

    #[test]
    fn long_values_are_shortened() {
        let long = "x".repeat(500);
        assert!(describe(&json!(long)).len() < 60);
        let names: Vec<&str> = vec![&long; 30];
        let Unrecognised { found, .. } = Shape::recognise(&names).unwrap_err();
        assert!(found.len() < 700 && found.ends_with("and 18 more"), "{found}");
    }
}
