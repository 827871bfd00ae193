//! OpenAssistant's conversations: trees of messages, whose replies to one message are ranked.

use super::{Layout, Outcome, PLAIN, Part, Read};
use crate::data::cells::{self, Cells};
use crate::data::content::{role, wrong_type};
use crate::data::error::ProblemKind;
use crate::data::record::{ASSISTANT, Candidate, Content, Message, RankOrRating, Record};
use serde_json::{Map, Value};

pub(super) static TABLE: [Layout; 2] = [
    Layout {
        name: "OpenAssistant trees",
        columns: &["message_tree_id", "prompt"],
        unless: &["chosen", "response", "responses", "answer"],
        said: "the rank of each reply to a message, 0 = best",
        read: Read::Published(tree),
        ..PLAIN
    },
    Layout {
        name: "OpenAssistant messages",
        columns: &["message_id", "parent_id", "text", "role", "rank"],
        said: "the rank of each reply to a message, 0 = best",
        read: Read::Published(message),
        ..PLAIN
    },
];

/// Deeper trees than this are damaged, or mean harm.
const DEEPEST: usize = 200;

fn tree(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let value = cells.value("prompt");
    let mut parts = Vec::new();
    replies(&value, &mut Vec::new(), &mut parts)?;
    Ok(if parts.is_empty() { Outcome::Nothing("no message with two ranked replies") } else { Outcome::Parts(parts) })
}

/// The ranked replies to a node, and to all below it; `thread` is what stands above it.
fn replies(node: &Value, thread: &mut Vec<Message>, parts: &mut Vec<Part>) -> Result<(), ProblemKind> {
    if thread.len() > DEEPEST {
        return Err(wrong_type("replies".to_owned(), "at most 200 turns", &Value::from("more")));
    }
    thread.push(turn(node)?);
    let none = Vec::new();
    let replies_of = match node.get("replies") {
        None | Some(Value::Null) => &none,
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong_type("replies".to_owned(), "a list", other)),
    };
    let is_answer = |reply: &&Value| reply.get("role").and_then(Value::as_str).map(role).as_deref() == Some(ASSISTANT);
    let mut responses = Vec::new();
    for reply in replies_of.iter().filter(is_answer).filter(|reply| !is_deleted(reply)) {
        let rank = cells::number(reply.get("rank"), || "replies.rank".to_owned())?;
        responses.push(Candidate { rank, ..Candidate::of(Content::Messages(vec![turn(reply)?])) });
    }
    if responses.iter().filter(|response| response.rank.is_some()).count() >= 2 {
        let record = Record::Group { prompt: Content::Messages(thread.clone()), responses, comparisons: Vec::new() };
        parts.push(Part { record, ranker: None });
    }
    for reply in replies_of.iter().filter(|reply| !is_deleted(reply)) {
        replies(reply, thread, parts)?;
    }
    thread.pop();
    Ok(())
}

fn is_deleted(node: &Value) -> bool {
    node.get("deleted").and_then(Value::as_bool) == Some(true)
}

fn turn(node: &Value) -> Result<Message, ProblemKind> {
    let text = |key: &str| {
        let value = node.get(key).unwrap_or(&Value::Null);
        value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(format!("prompt.{key}"), "a text", value))
    };
    Ok(Message { role: role(&text("role")?), content: text("text")? })
}

/// A message of a flat file, which stands after its parent.
fn message(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let id = |column: &str| cells.some_text(column);
    let own = id("message_id")?.ok_or_else(|| ProblemKind::EmptyText { column: "message_id".to_owned() })?;
    let Content::Text(text) = cells.content("text")? else {
        return Err(wrong_type("text".to_owned(), "a text", &cells.value("text")));
    };
    let speaker = role(&cells.some_text("role")?.unwrap_or_default());
    let parent = id("parent_id")?;
    let rank = cells.number("rank")?;
    let turn = Message { role: speaker.clone(), content: text };
    let asked = parent.as_ref().map(|parent| thread(cells, parent)).transpose();
    cells.memory.messages.borrow_mut().insert(own, (parent.clone(), turn.clone()));
    let deleted = cells.get("deleted").is_some_and(|value| cells::truth(&value) == Some(true));
    match (asked?, rank) {
        (Some(asked), Some(_)) if speaker == ASSISTANT && !deleted => {
            let (prompt, response) = (Content::Messages(asked), Content::Messages(vec![turn]));
            let record =
                Record::Ranked { prompt, response, place: RankOrRating::Rank(rank), attributes: Default::default() };
            Ok(Outcome::Parts(vec![Part { record, ranker: parent }]))
        }
        _ => Ok(Outcome::Nothing("a message that is no ranked reply")),
    }
}

/// The turns down to a message.
fn thread(cells: &Cells, message: &str) -> Result<Vec<Message>, ProblemKind> {
    let known = cells.memory.messages.borrow();
    let mut turns = Vec::new();
    let mut next = Some(message);
    while let Some(id) = next {
        let Some((parent, turn)) = known.get(id).filter(|_| turns.len() <= DEEPEST) else {
            let found = Value::from(format!("the id {id}"));
            return Err(wrong_type("parent_id".to_owned(), "a message that stands above", &found));
        };
        turns.push(turn.clone());
        next = parent.as_deref();
    }
    turns.reverse();
    Ok(turns)
}

/// A record as a row of our own kinds: what a row with several records is written as.
pub(in crate::data) fn own_row(record: &Record) -> Map<String, Value> {
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    match record {
        Record::Group { prompt, responses, comparisons } => {
            put("prompt", prompt.to_value());
            put("responses", responses.iter().map(Candidate::to_value).collect());
            if !comparisons.is_empty() {
                put("comparisons", comparisons.iter().map(|comparison| comparison.to_value()).collect());
            }
        }
        Record::Ranked { prompt, response, place, .. } => {
            put("prompt", prompt.to_value());
            put("response", response.to_value());
            match place {
                RankOrRating::Rank(rank) => put("rank", (*rank).into()),
                RankOrRating::Rating(rating) => put("rating", (*rating).into()),
            };
        }
        Record::Unlabelled { prompt, response, .. } => {
            put("prompt", prompt.to_value());
            put("response", response.to_value());
        }
        Record::Pair { prompt, chosen, rejected, .. } => {
            if let Some(prompt) = prompt {
                put("prompt", prompt.to_value());
            }
            put("chosen", chosen.to_value());
            put("rejected", rejected.to_value());
        }
        Record::Comparison { prompt, a, b, target, .. } => {
            if let Some(prompt) = prompt {
                put("prompt", prompt.to_value());
            }
            put("response_a", a.to_value());
            put("response_b", b.to_value());
            put("label", (*target).into());
        }
    }
    row
}
