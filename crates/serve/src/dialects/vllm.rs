//! vLLM: `/classify`, `/score`, `/pooling`, `/v1/models`. Its `/rerank` is in `rerank`.
//!
//! As there, `/classify` and `/score` answer sigmoids unless `use_activation` is false (`activation` and `softmax`
//! are its older names). `/pooling` answers the raw score unless `use_activation` is true. A softmax over one output
//! would be 1 for every text, so none is ever applied.
//!
//! An overloaded server answers 503 here, with `Retry-After`: the trainers that speak this dialect give up on any 4xx
//! and try again on 5xx.

use super::form::*;
use super::json::{self, Fields};
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, JudgeFacts, Refusal};
use kudos::data::Content;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// `POST /classify` with `input` or `messages`.
pub fn classify(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let activation = activation(body, Activation::Sigmoid)?;
    let ask = ask(incoming, body)?;
    let (id, created) = (format!("classify-{}", incoming.id), incoming.created);
    let answer = move |answer: &Answer| {
        let label = label(&answer.judge);
        let one = |(index, score): (usize, f32)| {
            let probs = [number(score)];
            json!({ "index": index, "label": label, "probs": probs, "num_classes": 1 })
        };
        let data = scores(answer)?.into_iter().map(|item| activation.of(item)).enumerate().map(one).collect();
        Ok(Reply::ok(listed(id, created, data, answer)))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault })
}

/// `POST /pooling`
pub fn pooling(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| pooling_fields(incoming, &body)), fault)
}

fn pooling_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let activation = activation(body, Activation::None)?;
    let ask = ask(incoming, body)?;
    only_float(body)?;
    if let Some(task) = body.text("task")?.filter(|task| !matches!(*task, "classify" | "reward" | "score")) {
        let _ = task;
        return Err(Refusal::unsupported("`task`: expected classify, reward or score: a judge has one number a text"));
    }
    let (id, created) = (format!("pooling-{}", incoming.id), incoming.created);
    let answer = move |answer: &Answer| {
        let one =
            |(index, score): (usize, f32)| json!({ "index": index, "object": "pooling", "data": [number(score)] });
        let data = scores(answer)?.into_iter().map(|item| activation.of(item)).enumerate().map(one).collect();
        Ok(Reply::ok(listed(id, created, data, answer)))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault })
}

fn only_float(body: &Map<String, Value>) -> Result<(), Refusal> {
    match body.text("encoding_format")? {
        None | Some("float") => Ok(()),
        Some(_) => Err(Refusal::unsupported("`encoding_format`: expected float")),
    }
}

/// `POST /score`, `POST /v1/score` in vLLM's fields.
pub fn score(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let activation = activation(body, Activation::Sigmoid)?;
    options(incoming, body)?;
    let judge = incoming.judge(body.text("model")?);
    let ask = Ask { judge, items: pairs(body)? };
    let (id, created) = (format!("score-{}", incoming.id), incoming.created);
    let answer = move |answer: &Answer| {
        let one = |(index, score): (usize, f32)| json!({ "index": index, "object": "score", "score": number(score) });
        let data = scores(answer)?.into_iter().map(|item| activation.of(item)).enumerate().map(one).collect();
        Ok(Reply::ok(listed(id, created, data, answer)))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault })
}

/// The names of the two sides that vLLM has had.
pub const SIDES: [[&str; 2]; 4] =
    [["text_1", "text_2"], ["queries", "documents"], ["queries", "items"], ["data_1", "data_2"]];

/// One to one, one to many, or each to its own.
fn pairs(body: &Map<String, Value>) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let sides = SIDES.iter().find(|sides| sides.iter().all(|name| body.field(name).is_some()));
    let Some([first, second]) = sides else {
        return Err(Refusal::malformed("expected `text_1` and `text_2`, or `queries` and `documents`"));
    };
    let one_or_many = "a text or a list of texts";
    let mut prompts = texts(body.needed(first, one_or_many)?, first)?;
    let responses = texts(body.needed(second, one_or_many)?, second)?;
    match (prompts.len(), responses.len()) {
        (0, _) => Err(Refusal::malformed(format!("`{first}` is empty"))),
        (_, 0) => Err(Refusal::malformed(format!("`{second}` is empty"))),
        (1, _) => Ok(to_one(prompts.remove(0), responses, Cut::AsTrained)),
        (one, other) if one == other => {
            let pair = |(prompt, response)| item(Some(prompt), response, Cut::AsTrained);
            Ok(prompts.into_iter().zip(responses).map(pair).collect())
        }
        (one, other) => Err(Refusal::malformed(format!(
            "`{first}` has {one} texts and `{second}` {other}; expected one and many, or as many of both"
        ))),
    }
}

/// `input` or `messages`, with the options that both have.
fn ask(incoming: &Incoming, body: &Map<String, Value>) -> Result<Ask, Refusal> {
    options(incoming, body)?;
    let judge = incoming.judge(body.text("model")?);
    let items = match body.field("messages") {
        None => transcripts(body.needed("input", "a text or a list of texts")?)?,
        Some(messages) => {
            body.without("chat_template", "a judge has its own")?;
            body.without("chat_template_kwargs", "a judge has its own template")?;
            let (prompt, response) = conversation(content(messages, || "messages".into())?);
            vec![item(prompt, response, Cut::AsTrained)]
        }
    };
    Ok(Ask { judge, items })
}

/// Whole transcripts; at least one.
pub fn transcripts(input: &Value) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let texts = texts(input, "input")?;
    match texts.is_empty() {
        true => Err(Refusal::malformed("`input` is empty")),
        false => Ok(texts.into_iter().map(|text| item(None, text, Cut::AsTrained)).collect()),
    }
}

/// Refuses what would change the scores.
pub fn options(incoming: &Incoming, body: &Map<String, Value>) -> Result<(), Refusal> {
    right_side("truncation_side", body.text("truncation_side")?)?;
    let judge = incoming.judge(body.text("model")?);
    for name in ["truncate_prompt_tokens", "max_tokens_per_query", "max_tokens_per_doc"] {
        if let Some(limit) = body.whole(name)?.filter(|limit| !matches!(limit, -1 | 0)) {
            limit_of(name, Some(limit), incoming.facts(judge.as_deref())?)?;
        }
    }
    if body.whole("dimensions")?.is_some_and(|dimensions| dimensions != 1) {
        return Err(Refusal::unsupported("`dimensions`: a judge has one number a text"));
    }
    match body.flag("add_special_tokens")? {
        Some(false) => Err(Refusal::unsupported(
            "`add_special_tokens`: false cannot be had here: a judge reads the tokens of its training; leave the field out",
        )),
        _ => Ok(()),
    }
}

/// What is made of the raw score, under any of the names that this option has had.
pub fn activation(body: &Map<String, Value>, default: Activation) -> Result<Activation, Refusal> {
    let mut found = None;
    for name in ["use_activation", "activation", "softmax"] {
        let Some(flag) = body.flag(name)? else { continue };
        if found.is_some_and(|other| other != flag) {
            return Err(Refusal::malformed("`use_activation`, `activation` and `softmax` contradict each other"));
        }
        found = Some(flag);
    }
    Ok(found.map_or(default, |wanted| Activation::raw_if(!wanted)))
}

/// The frame around a list of results.
fn listed(id: String, created: u64, data: Value, answer: &Answer) -> Value {
    let name = &answer.judge.name;
    json!({ "id": id, "object": "list", "created": created, "model": name, "data": data, "usage": usage(answer) })
}

/// Tokens, as OpenAI counts them.
pub fn usage(answer: &Answer) -> Value {
    let tokens = answer.tokens();
    json!({ "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": null })
}

/// `GET /v1/models`: as OpenAI, vLLM and LLaMA-Factory have it, and KServe's V1 too.
pub fn models(judges: &[Arc<JudgeFacts>]) -> Reply {
    let names: Vec<_> = judges.iter().map(|judge| &judge.name).collect();
    let cards: Vec<_> = judges.iter().map(|judge| card(judge)).collect();
    Reply::ok(json!({ "object": "list", "data": cards, "models": names }))
}

/// One judge in that list.
pub fn card(judge: &JudgeFacts) -> Value {
    let loaded = judge.loaded_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let base = (!judge.base.is_empty()).then_some(&judge.base);
    json!({
        "id": judge.name, "object": "model", "created": loaded, "owned_by": "kudos", "root": judge.name, "parent": base,
        "max_model_len": judge.max_length, "permission": [], "sha256": judge.sha256,
    })
}

/// The error of this dialect.
pub fn fault(fault: &Fault) -> Reply {
    let status = if fault.class == Class::Overloaded { 503 } else { fault.status };
    Reply::error(status, error(status, fault), fault)
}

/// The body of that error: OpenAI's.
pub fn error(status: u16, fault: &Fault) -> Value {
    let kind = match (fault.class, status) {
        (Class::Judge, _) | (_, 404) => "NotFoundError",
        (_, 401) => "AuthenticationError",
        (Class::Overloaded, 429) => "RateLimitError",
        (Class::Overloaded | Class::Unready, _) => "ServiceUnavailableError",
        (_, 500..) => "InternalServerError",
        _ => "BadRequestError",
    };
    json!({ "error": { "message": fault.message, "type": kind, "param": null, "code": status } })
}

/// A text of a document, which may be an object with `text`.
pub fn document(value: &Value, name: impl Fn() -> String) -> Result<Content, Refusal> {
    match value {
        Value::Object(fields) => match fields.field("text") {
            Some(found) => text(found, || format!("{}.text", name())),
            None => Err(json::wrong(&name(), "a text, or an object with `text`", value)),
        },
        other => text(other, name),
    }
}
