//! Our own API: `/v1/score` (in the table of the dialects, since vLLM has a `/v1/score` too), `/v1/best`,
//! `/v1/compare`.
//!
//! It differs from the dialects in what it says. Each item has its own score or its own error. Each result says how
//! many tokens were read and whether the text was cut. Scores are raw, and where the judge has a calibration, a
//! probability stands beside them. A field that is not known is refused: a misspelt option would otherwise be one
//! that is ignored.

mod best;
mod pages;

use crate::ask::{Answer, Cut, FaultKind, Item, ItemFault, ItemScore, JudgeFacts, Refusal};
use crate::dialects::form::{AnswerForm, Asked, Fault, Incoming, Reply, content, number};
use crate::dialects::json::{self, Fields};
use crate::dialects::scored;
use crate::route::Route;
use axum::http::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The routes that are ours alone.
pub fn routes() -> Vec<Route> {
    let refuse = |refusal: &Refusal| fault(&Fault::from(refusal)).into_response();
    let post = |path, handler| Route { method: Method::POST, path, needs_key: true, handler, refuse };
    let mut routes = vec![
        post("/v1/best", |call| Box::pin(scored(call, best::best))),
        post("/v1/compare", |call| Box::pin(scored(call, best::compare))),
    ];
    routes.extend(pages::routes());
    routes
}

/// Our error.
pub fn fault(fault: &Fault) -> Reply {
    Reply::error(fault.status, json!({ "error": fault.message, "error_type": fault.name }), fault)
}

const TEXT: &str = "a text or a list of {role, content} messages";

/// `POST /v1/score`: pairs, or one prompt with several responses.
pub(crate) fn score(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    known(body, &["judge", "pairs", "prompt", "responses", "truncate"])?;
    let cut = cut(body)?;
    let items = match (body.field("pairs"), body.field("responses")) {
        (Some(_), None) if body.field("prompt").is_some() => {
            return Err(Refusal::malformed("`prompt` goes with `responses`; each of `pairs` has its own"));
        }
        (Some(_), None) => pairs(body.list("pairs", PAIRS)?, cut),
        (None, Some(_)) => responses(body, cut)?,
        (Some(_), Some(_)) => return Err(Refusal::malformed("expected `pairs` or `responses`, found both")),
        (None, None) => return Err(Refusal::malformed("expected `pairs`, or `prompt` and `responses`; found neither")),
    };
    asked(incoming, body, items, Box::new(|answer| Ok(Reply::ok(framed(answer, Map::new())))))
}

const PAIRS: &str = "a list of {prompt, response}";

/// The frame that all three share: the judge first, then what is special, then the results.
fn framed(answer: &Answer, special: Map<String, Value>) -> Value {
    let judge = &answer.judge;
    let mut body = Map::from_iter([("judge".to_owned(), json!({ "name": judge.name, "sha256": judge.sha256 }))]);
    body.extend(special);
    body.insert("results".into(), answer.items.iter().map(|item| result(judge, item)).collect());
    let failed = answer.items.iter().filter(|item| item.is_err()).count();
    body.insert("failed".into(), json!(failed));
    Value::Object(body)
}

/// One result: a score, or an error.
fn result(judge: &JudgeFacts, item: &Result<ItemScore, ItemFault>) -> Value {
    match item {
        Err(fault) => json!({ "error": fault.message, "error_type": fault.kind.name() }),
        Ok(item) => {
            let scored = &item.rated.scored;
            let probability = judge.calibration.map(|calibration| calibration.beats_typical(scored.score));
            let mut result = json!({
                "score": number(scored.score),
                "tokens": scored.tokens,
                "truncated": scored.truncated,
                "probability": probability.map(rounded),
            });
            if !judge.attributes.is_empty() {
                let values = item.rated.attributes.iter().map(|value| number(*value));
                let named: Map<_, _> = judge.attributes.iter().cloned().zip(values).collect();
                result["attributes"] = Value::Object(named);
            }
            result
        }
    }
}

/// A probability, to six digits: more would be those of a computation, not of a judge.
fn rounded(probability: f64) -> f64 {
    (probability * 1e6).round() / 1e6
}

/// Puts a request together.
fn asked(
    incoming: &Incoming,
    body: &Map<String, Value>,
    items: Vec<Result<Item, ItemFault>>,
    answer: AnswerForm,
) -> Result<Asked, Refusal> {
    let judge = body.text("judge")?.map(str::to_owned).or_else(|| incoming.parameter("judge"));
    incoming.facts(judge.as_deref())?;
    Ok(Asked { ask: crate::ask::Ask { judge, items }, answer, fault })
}

/// Refuses fields of other names.
fn known(body: &Map<String, Value>, names: &[&str]) -> Result<(), Refusal> {
    match body.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(40).collect();
            Err(Refusal::malformed(format!("`{key}` is not a field of this request; expected {}", names.join(", "))))
        }
    }
}

fn cut(body: &Map<String, Value>) -> Result<Cut, Refusal> {
    Ok(if body.flag("truncate")?.unwrap_or(true) { Cut::AsTrained } else { Cut::Refuse })
}

/// Items of `pairs`. What is wrong with one is that item's error.
fn pairs(pairs: &[Value], cut: Cut) -> Vec<Result<Item, ItemFault>> {
    pairs.iter().enumerate().map(|(at, pair)| of_item(read_pair(at, pair, cut))).collect()
}

fn read_pair(at: usize, pair: &Value, cut: Cut) -> Result<Item, Refusal> {
    let name = |part: &str| format!("pairs[{at}].{part}");
    let Some(fields) = pair.as_object() else {
        return Err(json::wrong(&format!("pairs[{at}]"), "{prompt, response}", pair));
    };
    known(fields, &["prompt", "response"])?;
    let prompt = fields.field("prompt").map(|prompt| content(prompt, || name("prompt"))).transpose()?;
    let response = content(fields.needed("response", TEXT)?, || name("response"))?;
    Ok(Item { prompt: prompt.map(Arc::new), response, cut })
}

/// Items of `prompt` and `responses`. A prompt that cannot be read fails the request, a response only itself.
fn responses(body: &Map<String, Value>, cut: Cut) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let prompt = body.field("prompt").map(|prompt| content(prompt, || "prompt".into())).transpose()?.map(Arc::new);
    let list = body.list("responses", "a list of responses")?;
    let one = |(at, response): (usize, &Value)| {
        let response = content(response, || format!("responses[{at}]"));
        of_item(response.map(|response| Item { prompt: prompt.clone(), response, cut }))
    };
    Ok(list.iter().enumerate().map(one).collect())
}

/// The fault of one item instead of a refusal of all.
fn of_item(read: Result<Item, Refusal>) -> Result<Item, ItemFault> {
    read.map_err(|refusal| ItemFault::new(FaultKind::Invalid, refusal.to_string()))
}
