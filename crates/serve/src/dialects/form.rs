//! What all dialects share: a request that was read, a reply, and a fault that each dialect words in its own way.
//!
//! A dialect is two pure functions: bytes → [`Asked`], and [`Answer`] → [`Reply`]. Neither knows a socket or a model.
//!
//! In a dialect, an item without a score fails the request: none of the forms spoken here has a place for the error of
//! one item, and a client that reads a list of numbers must not find a hole, or a zero, in it. Our own API is the one
//! where each item has its own error.

use super::json;
use crate::ask::{Answer, Ask, Cut, FaultKind, Item, ItemFault, ItemScore, JudgeFacts, Refusal};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use kudos::data::{Content, ProblemKind};
use serde_json::{Number, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// A request as a dialect reads it.
pub struct Incoming<'a> {
    /// The whole body.
    pub body: &'a [u8],
    /// What stands behind the `?`.
    pub query: &'a str,
    /// The parameters of the path.
    pub parameters: &'a HashMap<String, String>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The judges, the one that is asked without a name first.
    pub judges: &'a [Arc<JudgeFacts>],
    /// The request's id.
    pub id: &'a str,
    /// When it came, in seconds since 1970.
    pub created: u64,
}

impl Incoming<'_> {
    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(self.query, name)
    }

    /// The judge that is meant: that of `?judge=NAME`, else that of the dialect's own field. A server with one judge
    /// takes any name in that field, since clients put there the name that a model has elsewhere.
    pub fn judge(&self, model: Option<&str>) -> Option<String> {
        let named = model.filter(|name| self.judges.len() > 1 && !name.is_empty());
        self.parameter("judge").or_else(|| named.map(str::to_owned))
    }

    /// What is known of that judge.
    ///
    /// # Errors
    /// [`Refusal::NoSuchJudge`], and [`Refusal::NotReady`] where there is none yet.
    pub fn facts(&self, judge: Option<&str>) -> Result<&JudgeFacts, Refusal> {
        let first = self.judges.first().ok_or(Refusal::NotReady)?;
        let Some(name) = judge else { return Ok(first) };
        let known = || self.judges.iter().map(|judge| judge.name.clone()).collect();
        let found = self.judges.iter().find(|judge| judge.name == name);
        found
            .map(|judge| &**judge)
            .ok_or_else(|| Refusal::NoSuchJudge { asked: name.chars().take(100).collect(), known: known() })
    }
}

/// A parameter of a query, with `%` and `+` undone; the first of several.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| undo_percent(value))
}

fn undo_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let hex = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = hex.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if code.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a dialect words a fault.
pub type FaultForm = fn(&Fault) -> Reply;

/// How a dialect words an answer.
pub type AnswerForm = Box<dyn FnOnce(&Answer) -> Result<Reply, Fault> + Send>;

/// A request that was read.
pub struct Asked {
    /// What is to be scored.
    pub ask: Ask,
    /// Its answer.
    pub answer: AnswerForm,
    /// Its error, if there is no answer.
    pub fault: FaultForm,
}

/// Reads a request; an error is worded already.
pub type Read = fn(&Incoming) -> Result<Asked, Reply>;

/// Words what a reader found wrong.
pub fn worded<T>(result: Result<T, Refusal>, form: FaultForm) -> Result<T, Reply> {
    result.map_err(|refusal| form(&Fault::from(&refusal)))
}

/// The reply to a request, once its scores are there or were refused.
pub fn finish(asked: (AnswerForm, FaultForm), answer: Result<Answer, Refusal>) -> Reply {
    let (tell, form) = asked;
    match answer {
        Err(refusal) => form(&Fault::from(&refusal)),
        Ok(answer) => match tell(&answer) {
            Ok(reply) => reply.with_judge(&answer),
            Err(fault) => form(&fault).with_judge(&answer),
        },
    }
}

/// Which kind of error a fault is, for the dialects' names of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request must be changed.
    Request,
    /// The request has nothing to score.
    Empty,
    /// A text that the tokenizer refuses.
    Tokenizer,
    /// No judge of that name.
    Judge,
    /// Try again later.
    Overloaded,
    /// The server is starting or ending.
    Unready,
    /// The judge could not score.
    Scoring,
    /// HTTP says it: the key, the path, the method, the size or the kind of the body.
    Http,
    /// The server failed.
    Server,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its kind.
    pub class: Class,
    /// The status, where the dialect has no other.
    pub status: u16,
    /// Its name in our own API.
    pub name: &'static str,
    /// One sentence.
    pub message: String,
    /// After how many seconds to try again.
    pub retry_after: Option<u64>,
}

impl Fault {
    /// A request that asks for nothing.
    pub fn empty(message: impl Into<String>) -> Fault {
        Fault { class: Class::Empty, status: 400, name: "empty", message: message.into(), retry_after: None }
    }

    /// The fault of the first item that failed.
    pub fn of_item(place: usize, count: usize, failed: usize, fault: &ItemFault) -> Fault {
        let class = match fault.kind {
            FaultKind::Tokenise => Class::Tokenizer,
            kind if kind.is_of_the_text() => Class::Request,
            _ => Class::Scoring,
        };
        let status = if fault.kind.is_of_the_text() { 400 } else { 500 };
        let message = match (count, failed) {
            (1, _) => fault.message.clone(),
            (_, 1) => format!("item {place}: {}", fault.message),
            _ => format!("item {place}: {} ({failed} of {count} items failed)", fault.message),
        };
        Fault { class, status, name: fault.kind.name(), message, retry_after: None }
    }
}

impl From<&Refusal> for Fault {
    fn from(refusal: &Refusal) -> Fault {
        let class = match refusal {
            Refusal::Malformed { .. } | Refusal::Unsupported { .. } | Refusal::TooManyItems { .. } => Class::Request,
            Refusal::NoSuchJudge { .. } => Class::Judge,
            Refusal::Overloaded { .. } => Class::Overloaded,
            Refusal::NotReady | Refusal::Draining => Class::Unready,
            Refusal::Failed => Class::Server,
            _ => Class::Http,
        };
        let (status, name) = (refusal.status(), refusal.name());
        Fault { class, status, name, message: refusal.to_string(), retry_after: refusal.retry_after() }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers besides those of every answer.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as JSON; without one, it is empty.
    pub body: Option<Value>,
}

impl Reply {
    /// An answer.
    pub fn ok(body: Value) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: Some(body) }
    }

    /// An error, with `Retry-After` where it may help.
    pub fn error(status: u16, body: Value, fault: &Fault) -> Reply {
        let headers = fault.retry_after.map(|after| (RETRY, after.to_string())).into_iter().collect();
        Reply { status, headers, body: Some(body) }
    }

    /// Says which judge scored, how many texts were cut, and how many have no score.
    fn with_judge(mut self, answer: &Answer) -> Reply {
        let cut = answer.items.iter().flatten().filter(|item| item.rated.scored.truncated).count();
        let failed = answer.items.iter().filter(|item| item.is_err()).count();
        self.headers.push((JUDGE, answer.judge.name.clone()));
        self.headers.push((WEIGHTS, answer.judge.sha256.clone()));
        self.headers.push((TRUNCATED, cut.to_string()));
        self.headers.extend((failed > 0).then(|| (FAILED, failed.to_string())));
        self
    }

    /// The reply over HTTP.
    pub fn into_response(self) -> Response {
        let body = self.body.map(|body| body.to_string());
        let mut response = Response::new(Body::from(body.clone().unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

const RETRY: &str = "retry-after";
/// The judge's name.
pub const JUDGE: &str = "x-kudos-judge";
/// The SHA-256 of its weights.
pub const WEIGHTS: &str = "x-kudos-weights";
/// Texts of the request that were cut.
pub const TRUNCATED: &str = "x-kudos-truncated";
/// Items of the request that have no score.
pub const FAILED: &str = "x-kudos-failed";

/// The scores of all items.
///
/// # Errors
/// The fault of the first item that has none.
pub fn scores(answer: &Answer) -> Result<Vec<&ItemScore>, Fault> {
    let failed = answer.items.iter().filter(|item| item.is_err()).count();
    let count = answer.items.len();
    let of_item = |(place, item): (usize, &'_ Result<ItemScore, ItemFault>)| match item {
        Ok(_) => None,
        Err(fault) => Some(Fault::of_item(place, count, failed, fault)),
    };
    match answer.items.iter().enumerate().find_map(of_item) {
        Some(fault) => Err(fault),
        None => Ok(answer.items.iter().flatten().collect()),
    }
}

/// The places of the items, the best first; equal scores keep their order.
pub fn best_first(scores: &[&ItemScore]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| {
        let [a, b] = [a, b].map(|place| scores[*place].rated.scored.score);
        b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
    });
    order
}

/// A number as `kudos score` writes it to a file: the very value of the `f32`, which is read back as itself.
pub fn number(value: f32) -> Value {
    Number::from_f64(f64::from(value)).map_or(Value::Null, Value::Number)
}

/// What a dialect makes of a raw score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The raw score.
    None,
    /// The logistic function.
    Sigmoid,
}

impl Activation {
    /// The score of an item.
    pub fn of(self, item: &ItemScore) -> f32 {
        let score = item.rated.scored.score;
        match self {
            Activation::None => score,
            Activation::Sigmoid => (1.0 / (1.0 + (-f64::from(score)).exp())) as f32,
        }
    }

    /// The raw score, if it is asked for.
    pub fn raw_if(raw: bool) -> Self {
        if raw { Activation::None } else { Activation::Sigmoid }
    }
}

/// The label of the score: that of the model's one output, or `score` for a judge of several attributes.
pub fn label(judge: &JudgeFacts) -> &str {
    match judge.labels.as_slice() {
        [only] => only,
        _ => "score",
    }
}

/// A text, or messages, as the data files have them.
///
/// # Errors
/// [`Refusal::Malformed`]; `name` names the field.
pub fn content(value: &Value, name: impl Fn() -> String) -> Result<Content, Refusal> {
    Content::from_json(value, "").map_err(|problem| match problem {
        ProblemKind::Message { number, .. } => {
            Refusal::malformed(format!("`{}`: message {number} has no role or no text", name()))
        }
        _ => json::wrong(&name(), "a text or a list of {role, content} messages", value),
    })
}

/// A text.
///
/// # Errors
/// As [`content`].
pub fn text(value: &Value, name: impl Fn() -> String) -> Result<Content, Refusal> {
    match value {
        Value::String(_) => content(value, name),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            Err(Refusal::unsupported(format!("`{}`: token ids are not taken; send the text", name())))
        }
        _ => Err(json::wrong(&name(), "a text", value)),
    }
}

/// A list of texts, or one.
///
/// # Errors
/// As [`content`].
pub fn texts(value: &Value, name: &str) -> Result<Vec<Content>, Refusal> {
    match value {
        Value::Array(items) if !items.first().is_some_and(Value::is_number) => {
            items.iter().enumerate().map(|(at, item)| text(item, || format!("{name}[{at}]"))).collect()
        }
        one => Ok(vec![text(one, || name.to_owned())?]),
    }
}

/// Responses to one prompt.
pub fn to_one(prompt: Content, responses: Vec<Content>, cut: Cut) -> Vec<Result<Item, ItemFault>> {
    let prompt = Arc::new(prompt);
    responses.into_iter().map(|response| Ok(Item { prompt: Some(prompt.clone()), response, cut })).collect()
}

/// A whole transcript, or a prompt and a response.
pub fn item(prompt: Option<Content>, response: Content, cut: Cut) -> Result<Item, ItemFault> {
    Ok(Item { prompt: prompt.map(Arc::new), response, cut })
}

/// A conversation: what its last turn answers, and that turn. One without an answer of the assistant is a transcript.
pub fn conversation(turns: Content) -> (Option<Content>, Content) {
    match turns {
        Content::Messages(mut turns)
            if turns.len() > 1 && turns.last().is_some_and(|t| t.role == kudos::data::ASSISTANT) =>
        {
            let last = turns.split_off(turns.len() - 1);
            (Some(Content::Messages(turns)), Content::Messages(last))
        }
        other => (None, other),
    }
}

/// Refuses another side of truncation than the one that the peers name by default.
///
/// # Errors
/// [`Refusal::Unsupported`] for `left`.
pub fn right_side(name: &str, side: Option<&str>) -> Result<(), Refusal> {
    match side.map(str::to_ascii_lowercase).as_deref() {
        None | Some("right") => Ok(()),
        Some("left") => Err(Refusal::unsupported(format!(
            "`{name}`: left cannot be had here: a judge cuts texts as it was trained; leave the field out"
        ))),
        Some(_) => Err(Refusal::malformed(format!("`{name}`: expected right, found another text"))),
    }
}

/// Refuses a token limit below the judge's own, which would change the scores.
///
/// # Errors
/// [`Refusal::Unsupported`].
pub fn limit_of(name: &str, limit: Option<i64>, judge: &JudgeFacts) -> Result<(), Refusal> {
    match limit {
        Some(limit) if limit < judge.max_length as i64 => Err(Refusal::unsupported(format!(
            "`{name}`: {limit} cannot be had here: the judge reads {} tokens, as in training; leave the field out",
            judge.max_length
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_kudos_score() {
        for value in [0.3f32, -1.25, 1e-8, 123_456.79, f32::MIN_POSITIVE, 0.0] {
            assert_eq!(number(value), serde_json::json!(value));
            assert_eq!(number(value).to_string().parse::<f64>(), Ok(f64::from(value)));
        }
        assert_eq!(number(f32::NAN), Value::Null);
    }

    #[test]
    fn queries_are_decoded() {
        for (text, expected) in
            [("a%20b+c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%c3%a9", "é"), ("%+1", "% 1")]
        {
            assert_eq!(undo_percent(text), expected);
        }
    }
}
