//! Exports of annotation tools: Label Studio, Argilla, Prodigy, doccano.

use super::preferences::compared;
use super::{Layout, Outcome, PLAIN, Part, Read};
use crate::data::cells::{self, Cells};
use crate::data::content::{describe, wrong_type};
use crate::data::error::ProblemKind;
use crate::data::group::Attributes;
use crate::data::literal;
use crate::data::record::{Candidate, Content, RankOrRating, Record};
use crate::data::verdict;
use serde_json::{Map, Value};

pub(super) static TABLE: [Layout; 11] = [
    Layout {
        name: "Label Studio",
        columns: &["data", "annotations"],
        said: "each annotation is one person's; cancelled ones are left out",
        read: Read::Published(label_studio),
        ..PLAIN
    },
    Layout {
        name: "Label Studio pairs",
        columns: &["prompt", "answer1", "answer2", "comparison"],
        also: &["annotator", "annotation_id"],
        said: "comparison, left = answer1",
        read: Read::Published(label_studio_pair),
        ..PLAIN
    },
    Layout {
        name: "Label Studio ranker",
        columns: &["prompt", "items", "annotation_id"],
        also: &["annotator", "rank", "ranker", "ranking"],
        said: "the order of the items, best first",
        read: Read::Published(label_studio_ranker),
        ..PLAIN
    },
    Layout {
        name: "Argilla",
        columns: &["*.responses", "*.responses.users"],
        said: "each user's submitted answer is one person's",
        read: Read::Published(argilla_2),
        ..PLAIN
    },
    Layout {
        name: "Argilla",
        columns: &["fields", "responses", "suggestions"],
        said: "each user's answer is one person's",
        read: Read::Published(argilla_nested),
        ..PLAIN
    },
    Layout {
        name: "Argilla 1",
        columns: &["external_id", "metadata"],
        unless: &["label", "rank", "rating", "rejected", "annotations"],
        said: "each user's submitted answer is one person's",
        read: Read::Published(argilla_1),
        ..PLAIN
    },
    Layout {
        name: "Prodigy choices",
        columns: &["text", "options", "accept", "answer"],
        said: "the accepted options over the others",
        read: Read::Published(|cells| prodigy(cells, "text")),
        ..PLAIN
    },
    Layout {
        name: "Prodigy choices",
        columns: &["prompt", "options", "accept", "answer"],
        unless: &["text"],
        said: "the accepted options over the others",
        read: Read::Published(|cells| prodigy(cells, "prompt")),
        ..PLAIN
    },
    Layout {
        name: "doccano",
        columns: &["text", "response_a", "response_b", "label"],
        unless: &["prompt"],
        said: "the label, A = response_a",
        read: Read::Published(doccano),
        ..PLAIN
    },
    Layout {
        name: "doccano",
        columns: &["data", "response_a", "response_b", "label"],
        unless: &["prompt", "annotations"],
        said: "the label, A = response_a",
        read: Read::Published(doccano),
        ..PLAIN
    },
    Layout {
        name: "doccano",
        columns: &["text", "response_a", "response_b", "labels"],
        unless: &["prompt"],
        said: "the label, A = response_a",
        read: Read::Published(doccano),
        ..PLAIN
    },
];

/// Responses by the ids that an order names them by.
struct Ballot {
    prompt: Content,
    responses: Vec<(String, Content)>,
}

impl Ballot {
    fn place(&self, id: &str) -> Option<usize> {
        self.responses.iter().position(|(known, _)| known == id)
    }

    /// One person's order: the ids of each place, best first. What is not named has no place.
    fn part(&self, order: &[Vec<String>], ranker: Option<String>) -> Result<Part, ProblemKind> {
        let mut ranks = vec![None; self.responses.len()];
        for (place, ids) in order.iter().enumerate() {
            for id in ids {
                let response = self.place(id).ok_or_else(|| {
                    wrong_type("ranking".to_owned(), "the id of a response", &Value::from(id.as_str()))
                })?;
                if ranks[response].replace(place as f64 + 1.0).is_some() {
                    return Err(wrong_type("ranking".to_owned(), "each response once", &Value::from(id.as_str())));
                }
            }
        }
        let candidate = |((_, content), rank): (&(String, Content), Option<f64>)| Candidate {
            rank,
            ..Candidate::of(content.clone())
        };
        let responses = self.responses.iter().zip(ranks).map(candidate).collect();
        let record = Record::Group { prompt: self.prompt.clone(), responses, comparisons: Vec::new() };
        Ok(Part { record, ranker })
    }

    /// One person's choice between the first two.
    fn choice(&self, target: f32, ranker: Option<String>) -> Result<Part, ProblemKind> {
        let [(_, a), (_, b)] = &self.responses[..] else {
            return Err(ProblemKind::TooFew { found: self.responses.len() });
        };
        let (prompt, a, b) = (Some(self.prompt.clone()), a.clone(), b.clone());
        Ok(Part { record: Record::Comparison { prompt, a, b, target, margin: 0.0, weight: 1.0 }, ranker })
    }
}

fn parts(parts: Vec<Part>) -> Outcome {
    if parts.is_empty() { Outcome::Nothing("no judgement of anybody") } else { Outcome::Parts(parts) }
}

/// A value as the id that tools write it by.
fn id_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The text of the first key that is there.
fn text_of<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| value.get(key)?.as_str())
}

/// The only element of a list of one, or the value itself.
fn only(value: Value) -> Value {
    match value {
        Value::Array(mut list) if list.len() == 1 && list[0].is_object() => list.remove(0),
        other => other,
    }
}

/// A list also as text.
fn parsed(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => literal::parse(text),
        other => Some(other.clone()),
    }
}

// Label Studio

fn label_studio(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let data = cells.value("data");
    let Value::Object(data) = &*data else {
        return Err(wrong_type("data".to_owned(), "the fields of a task", &data));
    };
    let mut found = Vec::new();
    for annotation in cells.list("annotations")? {
        let is = |key: &str| annotation.get(key).and_then(Value::as_bool) == Some(true);
        if is("was_cancelled") {
            continue;
        }
        let person =
            annotation.get("completed_by").map(|by| id_of(by.get("email").or_else(|| by.get("id")).unwrap_or(by)));
        let none = Vec::new();
        let results = annotation.get("result").and_then(Value::as_array).unwrap_or(&none);
        for result in results {
            found.extend(label_studio_result(cells, data, result, person.clone())?);
        }
    }
    Ok(parts(found))
}

/// What one result says; other kinds of result (a comment, a flag) say nothing of an order.
fn label_studio_result(
    cells: &Cells,
    data: &Map<String, Value>,
    result: &Value,
    person: Option<String>,
) -> Result<Option<Part>, ProblemKind> {
    let kind = result.get("type").and_then(Value::as_str).unwrap_or_default();
    let value = result.get("value").unwrap_or(&Value::Null);
    match kind {
        "pairwise" => {
            let named: Vec<&str> =
                result.get("to_name").and_then(Value::as_str).unwrap_or_default().split(',').collect();
            let sides = match named[..] {
                [a, b] if data.contains_key(a.trim()) && data.contains_key(b.trim()) => [a.trim(), b.trim()],
                _ => ["answer1", "answer2"],
            };
            let selected = value.get("selected").unwrap_or(&Value::Null);
            Ok(Some(ballot(cells, data, &sides)?.choice(verdict::words(selected)?, person)?))
        }
        "ranker" => {
            let order = value.get("ranker").unwrap_or(value);
            Ok(Some(ballot_of_items(cells, data)?.part(&order_of(order)?, person)?))
        }
        _ => Ok(None),
    }
}

/// What a task asks.
fn asked_in(cells: &Cells, data: &Map<String, Value>) -> Result<Content, ProblemKind> {
    let named = ["prompt", "question", "instruction", "text"].into_iter().find(|name| data.contains_key(*name));
    let name = named.ok_or_else(|| ProblemKind::EmptyText { column: "data.prompt".to_owned() })?;
    cells.content_of(&data[name], || format!("data.{name}"))
}

fn ballot(cells: &Cells, data: &Map<String, Value>, columns: &[&str]) -> Result<Ballot, ProblemKind> {
    let response = |column: &&str| {
        let value = data.get(*column).unwrap_or(&Value::Null);
        cells.content_of(value, || format!("data.{column}")).map(|content| ((*column).to_owned(), content))
    };
    Ok(Ballot { prompt: asked_in(cells, data)?, responses: columns.iter().map(response).collect::<Result<_, _>>()? })
}

/// The list of `{id, body}` among the fields.
fn ballot_of_items(cells: &Cells, data: &Map<String, Value>) -> Result<Ballot, ProblemKind> {
    let is_items =
        |value: &Value| value.as_array().is_some_and(|list| list.iter().all(|item| item.get("id").is_some()));
    let items = data.values().filter_map(parsed).find(|value| is_items(value));
    let Some(Value::Array(items)) = items else {
        return Err(ProblemKind::EmptyText { column: "data.items".to_owned() });
    };
    let response = |item: &Value| {
        let text = text_of(item, &["body", "html", "text", "title"]);
        let text = text.ok_or_else(|| wrong_type("items".to_owned(), "an object with `id` and `body`", item));
        text.map(|text| (id_of(&item["id"]), Content::Text(text.to_owned())))
    };
    Ok(Ballot { prompt: asked_in(cells, data)?, responses: items.iter().map(response).collect::<Result<_, _>>()? })
}

/// An order of ids: a list, `{rank: [ids]}`, or a drawer of unplaced ones (`_`) beside one of placed ones.
fn order_of(value: &Value) -> Result<Vec<Vec<String>>, ProblemKind> {
    let unclear = || wrong_type("ranker".to_owned(), "one list of ids, best first", value);
    match value {
        Value::Array(ids) => Ok(ids.iter().map(|id| vec![id_of(id)]).collect()),
        Value::Object(drawers) => {
            let mut placed =
                drawers.iter().filter(|(name, ids)| *name != "_" && ids.as_array().is_some_and(|ids| !ids.is_empty()));
            match (placed.next(), placed.next()) {
                (Some((_, ids)), None) => order_of(ids),
                (None, None) => Ok(Vec::new()),
                _ => Err(unclear()),
            }
        }
        _ => Err(unclear()),
    }
}

fn person(cells: &Cells) -> Option<String> {
    cells.get("annotator").map(|value| id_of(&value))
}

fn label_studio_pair(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let value = only(parsed(&cells.value("comparison")).unwrap_or_else(|| cells.value("comparison").into_owned()));
    let selected = value.get("selected").unwrap_or(&value);
    if selected.as_str().is_none_or(|text| text.trim().is_empty()) {
        return Ok(Outcome::Nothing("no judgement of anybody"));
    }
    let target = verdict::words(selected)?;
    super::preferences::with_ranker(
        compared(cells, cells.asked("prompt")?, ["answer1", "answer2"], target)?,
        person(cells),
    )
}

fn label_studio_ranker(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let ballot = ballot_of_items(cells, cells.fields)?;
    let order =
        ["ranker", "rank", "ranking"].iter().find_map(|column| cells.get(column)).and_then(|value| parsed(&value));
    let order = only(order.ok_or_else(|| ProblemKind::EmptyText { column: "ranker".to_owned() })?);
    let order = order.get("ranker").unwrap_or(&order);
    Ok(parts(vec![ballot.part(&order_of(order)?, person(cells))?]))
}

// Argilla

/// The fields of a record that are its texts.
fn argilla_ballot(cells: &Cells, is_field: impl Fn(&str) -> bool) -> Result<Ballot, ProblemKind> {
    let prompt = ["prompt", "instruction", "input", "question"].into_iter().find(|name| cells.get(name).is_some());
    let prompt = prompt.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    let mut responses = Vec::new();
    for (name, value) in cells.fields {
        let stem = ["response", "generation", "completion", "answer", "output", "chat_a", "chat_b"];
        let lower = name.to_lowercase();
        if is_field(name) && name != prompt && stem.iter().any(|stem| lower.starts_with(stem)) && !value.is_null() {
            responses.push((name.clone(), cells.content_of(value, || name.clone())?));
        }
    }
    let prompt = cells.asked(prompt)?.ok_or_else(|| ProblemKind::EmptyText { column: "prompt".to_owned() })?;
    Ok(Ballot { prompt, responses })
}

/// What one user answered to a question about the responses.
fn argilla_answer(ballot: &Ballot, answer: &Value, question: &str, user: Option<String>) -> Result<Part, ProblemKind> {
    let unclear = || {
        let expected = "a ranking of the responses, a rating of one, or which of two is better";
        ProblemKind::WrongType { column: question.to_owned(), expected, found: describe(answer) }
    };
    match answer {
        Value::Array(ids) if ids.iter().all(|id| id.as_str().is_some_and(|id| ballot.place(id).is_some())) => {
            let order: Vec<Vec<String>> = ids.iter().map(|id| vec![id_of(id)]).collect();
            ballot.part(&order, user)
        }
        // A ranking question: `{rank, value}`, lists or a list of such objects.
        Value::Array(items) if items.iter().all(|item| item.get("rank").is_some()) => {
            let pairs =
                items.iter().map(|item| (item["rank"].clone(), item.get("value").cloned().unwrap_or(Value::Null)));
            ballot.part(&places(pairs, question)?, user)
        }
        Value::Object(lists) => match (lists.get("rank"), lists.get("value")) {
            (Some(Value::Array(ranks)), Some(Value::Array(ids))) if ranks.len() == ids.len() => {
                ballot.part(&places(ranks.iter().cloned().zip(ids.iter().cloned()), question)?, user)
            }
            _ => Err(unclear()),
        },
        _ if ballot.responses.len() == 1 => {
            let rating = cells::number(Some(answer), || question.to_owned())?.ok_or_else(unclear)?;
            let (prompt, response) = (ballot.prompt.clone(), ballot.responses[0].1.clone());
            Ok(Part {
                record: Record::Ranked {
                    prompt,
                    response,
                    place: RankOrRating::Rating(Some(rating)),
                    attributes: Attributes::new(),
                },
                ranker: user,
            })
        }
        Value::String(text) if ballot.responses.len() == 2 => {
            let named = ballot.place(text).map(|place| if place == 0 { 1.0 } else { 0.0 });
            ballot.choice(named.or_else(|| verdict::word(text)).ok_or_else(unclear)?, user)
        }
        _ => Err(unclear()),
    }
}

/// Ids by their ranks, the smallest first.
fn places(pairs: impl Iterator<Item = (Value, Value)>, question: &str) -> Result<Vec<Vec<String>>, ProblemKind> {
    let mut ranked: Vec<(f64, String)> = Vec::new();
    for (rank, id) in pairs {
        if let Some(rank) = cells::number(Some(&rank), || question.to_owned())? {
            ranked.push((rank, id_of(&id)));
        }
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let same = ranked.chunk_by(|a, b| a.0 == b.0);
    Ok(same.map(|chunk| chunk.iter().map(|(_, id)| id.clone()).collect()).collect())
}

fn argilla_2(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let is_field = |name: &str| !name.contains(".responses") && !name.contains(".suggestion");
    let ballot = argilla_ballot(cells, is_field)?;
    let questions: Vec<&str> = cells.fields.keys().filter_map(|name| name.strip_suffix(".responses.users")).collect();
    let question = questions.iter().copied().find(|name| is_about(name));
    let Some(question) = question.or_else(|| questions.first().copied()) else {
        return Ok(Outcome::Nothing("no judgement of anybody"));
    };
    let column = format!("{question}.responses");
    let list = |name: &str| if cells.get(name).is_some() { cells.list(name) } else { Ok(Vec::new()) };
    let (answers, users, statuses) =
        (list(&column)?, list(&format!("{column}.users"))?, list(&format!("{column}.status"))?);
    let mut found = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        let submitted = statuses.get(at).is_none_or(|status| status.as_str() == Some("submitted"));
        if submitted && !answer.is_null() {
            found.push(argilla_answer(&ballot, answer, &column, users.get(at).map(id_of))?);
        }
    }
    Ok(parts(found))
}

/// Which of the questions is about the responses.
const QUESTIONS: [&str; 6] = ["ranking", "preference", "rating", "label", "quality", "score"];

fn is_about(name: &str) -> bool {
    QUESTIONS.iter().any(|question| name.to_lowercase().contains(question))
}

/// Records whose fields and answers are objects of their own.
fn argilla_nested(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let (fields, answers) = (cells.value("fields"), cells.value("responses"));
    let (Value::Object(fields), Value::Object(answers)) = (&*fields, &*answers) else {
        return Err(wrong_type("responses".to_owned(), "the answers by question", &answers));
    };
    let ballot = argilla_ballot(&Cells { fields, ..*cells }, |_| true)?;
    let question = answers.keys().find(|name| is_about(name)).or_else(|| answers.keys().next());
    let Some(question) = question else { return Ok(Outcome::Nothing("no judgement of anybody")) };
    let mut found = Vec::new();
    for answer in answers[question].as_array().into_iter().flatten() {
        let submitted = answer.get("status").is_none_or(|status| status.as_str() == Some("submitted"));
        if let Some(value) = answer.get("value").filter(|value| submitted && !value.is_null()) {
            found.push(argilla_answer(&ballot, value, question, answer.get("user_id").map(id_of))?);
        }
    }
    Ok(parts(found))
}

fn argilla_1(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let is_answers = |value: &Value| {
        let answer = |item: &Value| item.get("value").is_some() && item.get("status").is_some();
        parsed(value).and_then(|value| Some(value.as_array()?.iter().all(answer) && !value.as_array()?.is_empty()))
    };
    let questions = || cells.fields.iter().filter(|(_, value)| is_answers(value) == Some(true));
    let Some((question, answers)) = questions().find(|(name, _)| is_about(name)).or_else(|| questions().next()) else {
        return Ok(Outcome::Nothing("no judgement of anybody"));
    };
    let ballot = argilla_ballot(cells, |name| {
        name != question && !name.ends_with("-suggestion") && !name.contains("-suggestion-")
    })?;
    let answers = parsed(answers).unwrap_or_default();
    let mut found = Vec::new();
    for answer in answers.as_array().into_iter().flatten() {
        if answer["status"].as_str() == Some("submitted") && !answer["value"].is_null() {
            let user = answer.get("user_id").filter(|user| !user.is_null()).map(id_of);
            found.push(argilla_answer(&ballot, &answer["value"], question, user)?);
        }
    }
    Ok(parts(found))
}

// Prodigy and doccano

fn prodigy(cells: &Cells, asked: &str) -> Result<Outcome, ProblemKind> {
    if cells.some_text("answer")?.as_deref() != Some("accept") {
        return Ok(Outcome::Nothing("a task that was rejected or ignored"));
    }
    let prompt = cells.content(asked)?;
    let accepted: Vec<String> = cells.list("accept")?.iter().map(id_of).collect();
    let (mut better, mut worse) = (Vec::new(), Vec::new());
    for (at, option) in cells.list("options")?.iter().enumerate() {
        let text = text_of(option, &["text", "html"]);
        let text =
            text.ok_or_else(|| wrong_type(format!("options[{}]", at + 1), "an object with `id` and `text`", option))?;
        let id = option.get("id").map(id_of).unwrap_or_default();
        if accepted.contains(&id) { better.push(text.into()) } else { worse.push(Value::from(text)) }
    }
    if better.is_empty() || worse.is_empty() {
        return Ok(Outcome::Nothing("all options accepted, or none"));
    }
    if better.len() != accepted.len() {
        return Err(wrong_type("accept".to_owned(), "ids of options", &cells.value("accept")));
    }
    let record = super::own::every_over_every(cells, prompt, [better, worse], ["options", "options"])?;
    let session = ["_annotator_id", "_session_id"].iter().find_map(|column| cells.some_text(column).transpose());
    Ok(Outcome::Parts(vec![Part { record, ranker: session.transpose()? }]))
}

fn doccano(cells: &Cells) -> Result<Outcome, ProblemKind> {
    let column = if cells.get("label").is_some() { "label" } else { "labels" };
    let labels = match cells.value(column).into_owned() {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        single => vec![single],
    };
    let asked = if cells.get("text").is_some() { "text" } else { "data" };
    match &labels[..] {
        [] => Ok(Outcome::Nothing("no label")),
        [label] => compared(cells, cells.asked(asked)?, ["response_a", "response_b"], verdict::words(label)?),
        _ => Err(wrong_type(column.to_owned(), "one label", &Value::Array(labels.clone()))),
    }
}
