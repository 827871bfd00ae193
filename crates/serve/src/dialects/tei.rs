//! Hugging Face text-embeddings-inference: `/predict`, `/rerank` with `texts`, `/info`.
//!
//! As there, scores are sigmoids unless `raw_scores` is true, and a list of two texts is a pair. Otherwise than
//! there: an empty text is scored, ties keep the order of the request, `x-compute-type` is the truth, and a body that
//! is no JSON is answered in the same form as every other error.

use super::form::*;
use super::json::{self, Fields};
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, JudgeFacts, Refusal};
use crate::settings::Settings;
use kudos::data::Content;
use serde_json::{Map, Value, json};

/// `POST /predict`
pub fn predict(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| predict_fields(incoming, &body)), fault)
}

/// `POST /predict`, of a body that was read.
pub fn predict_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let (cut, activation) = options(body)?;
    let (items, is_batch) = inputs(body.needed("inputs", INPUTS)?, cut)?;
    let judge = incoming.judge(None);
    let answer = move |answer: &Answer| {
        if is_batch && answer.items.is_empty() {
            return Err(Fault::empty("`inputs` is empty"));
        }
        let label = label(&answer.judge);
        let one = |score: f32| json!([{ "score": number(score), "label": label }]);
        let mut lists = scores(answer)?.into_iter().map(|item| one(activation.of(item)));
        let body = if is_batch { lists.collect() } else { lists.next().unwrap_or(Value::Null) };
        Ok(with_times(body, answer))
    };
    Ok(Asked { ask: Ask { judge, items }, answer: Box::new(answer), fault })
}

const INPUTS: &str = "a text, a pair [prompt, response], or a list of them [[text], [prompt, response], …]";

/// What is to be scored, and whether it is a batch.
fn inputs(inputs: &Value, cut: Cut) -> Result<(Vec<Result<Item, ItemFault>>, bool), Refusal> {
    match inputs {
        Value::String(_) => Ok((vec![item(None, text(inputs, || "inputs".into())?, cut)], false)),
        Value::Array(list) if list.first().is_none_or(Value::is_array) => {
            let read = |(at, one): (usize, &Value)| sequence(one, || format!("inputs[{at}]"), cut);
            Ok((list.iter().enumerate().map(read).collect::<Result<_, _>>()?, true))
        }
        Value::Array(_) => Ok((vec![sequence(inputs, || "inputs".into(), cut)?], false)),
        other => Err(json::wrong("inputs", INPUTS, other)),
    }
}

/// `[text]` or `[prompt, response]`.
fn sequence(value: &Value, name: impl Fn() -> String, cut: Cut) -> Result<Result<Item, ItemFault>, Refusal> {
    let at = |place: usize, value: &Value| text(value, || format!("{}[{place}]", name()));
    match value.as_array().map(Vec::as_slice) {
        Some([one]) => Ok(item(None, at(0, one)?, cut)),
        Some([prompt, response]) => Ok(item(Some(at(0, prompt)?), at(1, response)?, cut)),
        Some(many) => Err(Refusal::malformed(format!("`{}`: expected one or two texts, found {}", name(), many.len()))),
        None => Err(json::wrong(&name(), "[text] or [prompt, response]", value)),
    }
}

/// `truncate`, `truncation_direction` and `raw_scores`.
fn options(body: &Map<String, Value>) -> Result<(Cut, Activation), Refusal> {
    right_side("truncation_direction", body.text("truncation_direction")?)?;
    let cut = if body.flag("truncate")?.unwrap_or(true) { Cut::AsTrained } else { Cut::Refuse };
    Ok((cut, Activation::raw_if(body.flag("raw_scores")?.unwrap_or(false))))
}

/// `POST /rerank` with `texts`.
pub fn rerank(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let (cut, activation) = options(body)?;
    let query = text(body.needed("query", "a text")?, || "query".into())?;
    let candidates = body.list("texts", "a list of texts")?;
    let read = |(at, one): (usize, &Value)| text(one, || format!("texts[{at}]"));
    let texts: Vec<Content> = candidates.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let given = body.flag("return_text")?.unwrap_or(false).then(|| candidates.clone());
    let ask = Ask { judge: incoming.judge(None), items: to_one(query, texts, cut) };
    let answer = move |answer: &Answer| {
        if answer.items.is_empty() {
            return Err(Fault::empty("`texts` is empty"));
        }
        Ok(with_times(ranks(answer, activation, given.as_deref())?, answer))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault })
}

/// The texts, the best first.
fn ranks(answer: &Answer, activation: Activation, texts: Option<&[Value]>) -> Result<Value, Fault> {
    let scores = scores(answer)?;
    let rank = |place: usize| {
        let mut rank = Map::from_iter([("index".to_owned(), json!(place))]);
        if let Some(text) = texts.and_then(|texts| texts.get(place)) {
            rank.insert("text".into(), text.clone());
        }
        rank.insert("score".into(), number(activation.of(scores[place])));
        Value::Object(rank)
    };
    Ok(best_first(&scores).into_iter().map(rank).collect())
}

fn with_times(body: Value, answer: &Answer) -> Reply {
    let times = &answer.times;
    let milliseconds = |time: std::time::Duration| time.as_millis().to_string();
    let mut reply = Reply::ok(body);
    reply.headers = vec![
        ("x-compute-type", "cpu".to_owned()),
        ("x-compute-time", milliseconds(times.total)),
        ("x-compute-characters", answer.characters().to_string()),
        ("x-compute-tokens", answer.tokens().to_string()),
        ("x-total-time", milliseconds(times.total)),
        ("x-tokenization-time", milliseconds(times.tokenise)),
        ("x-queue-time", milliseconds(times.queue)),
        ("x-inference-time", milliseconds(times.inference)),
    ];
    reply
}

/// The error of this dialect.
pub fn fault(fault: &Fault) -> Reply {
    let (status, kind) = match fault.class {
        Class::Empty => (400, "Empty"),
        Class::Request => (422, "Validation"),
        Class::Judge => (404, "Validation"),
        Class::Tokenizer => (422, "Tokenizer"),
        Class::Overloaded => (429, "Overloaded"),
        Class::Unready => (503, "Unhealthy"),
        Class::Scoring => (424, "Backend"),
        Class::Server => (500, "Backend"),
        Class::Http => (fault.status, "Validation"),
    };
    Reply::error(status, json!({ "error": fault.message, "error_type": kind }), fault)
}

/// `GET /info`
pub fn info(judge: &JudgeFacts, settings: &Settings) -> Reply {
    let labels: Map<_, _> = judge.labels.iter().enumerate().map(|(at, name)| (at.to_string(), json!(name))).collect();
    let ids: Map<_, _> = judge.labels.iter().enumerate().map(|(at, name)| (name.clone(), json!(at))).collect();
    Reply::ok(json!({
        "model_id": judge.name,
        "model_sha": judge.sha256,
        "model_dtype": judge.precision.to_string(),
        "served_model_name": judge.name,
        "model_type": { "reranker": { "id2label": labels, "label2id": ids } },
        "max_concurrent_requests": settings.queue_items,
        "max_input_length": judge.max_length,
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": settings.max_items,
        "auto_truncate": true,
        "tokenization_workers": settings.tokenisers,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
}
