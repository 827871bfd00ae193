//! The request forms of other servers, on the same port as our own API.
//!
//! Each is a pair of pure functions: bytes → what is asked, and scores → the reply. The table of `routes` says which
//! path speaks what. Where two forms share a path, a field of the request tells them apart:
//!
//! | path | field | form |
//! |---|---|---|
//! | `/rerank` | `texts` | text-embeddings-inference, else vLLM, Jina, Cohere, infinity |
//! | `/classify` | `text` | SGLang |
//! | `/classify` | `raw_scores` | infinity, else vLLM |
//! | `/v1/score` | `text_1`, `queries` or `data_1` | vLLM, else our own |
//! | `/`, `/invocations` | `query`, `parameters` | rerank, Hugging Face's client, else predict |
//!
//! | file | what it speaks |
//! |---|---|
//! | `form`, `json` | what all of them share |
//! | `tei` | text-embeddings-inference |
//! | `vllm` | vLLM, also OpenAI's list of models |
//! | `rerank` | vLLM, Jina, Cohere and infinity: `/rerank` |
//! | `sglang` | SGLang, and embeddings as OpenAI's client asks for them |
//! | `infinity` | infinity: `/classify` |
//! | `trainers` | OpenRLHF, slime, LLaMA-Factory |
//! | `hugging_face` | Hugging Face's client, SageMaker |
//! | `kserve` | KServe V1 and the Open Inference Protocol V2 |

pub mod form;
mod hugging_face;
mod infinity;
pub mod json;
mod kserve;
mod rerank;
mod sglang;
mod tei;
mod trainers;
mod vllm;

use crate::api;
use crate::ask::{JudgeFacts, Refusal};
use crate::route::{Call, Route};
use axum::http::Method;
use axum::response::Response;
use form::{Asked, Fault, FaultForm, Incoming, Read, Reply, finish, worded};
use serde_json::json;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A route whose requests are scored: path, reader, and how it refuses.
macro_rules! scoring {
    ($path:literal, $read:path, $fault:path) => {
        Route {
            method: Method::POST,
            path: $path,
            needs_key: true,
            handler: |call| Box::pin(scored(call, $read)),
            refuse: |refusal| $fault(&Fault::from(refusal)).into_response(),
        }
    };
}

/// A route that says something of the server.
macro_rules! telling {
    ($path:literal, $needs_key:literal, $tell:expr, $fault:path) => {
        Route {
            method: Method::GET,
            path: $path,
            needs_key: $needs_key,
            handler: |call| Box::pin(async move { told(&call, $tell, $fault) }),
            refuse: |refusal| $fault(&Fault::from(refusal)).into_response(),
        }
    };
}

/// The routes of all dialects.
pub fn routes() -> Vec<Route> {
    vec![
        scoring!("/predict", tei::predict, tei::fault),
        scoring!("/rerank", any_rerank, rerank::fault),
        telling!("/info", true, |call| Ok(tei::info(judge(call)?.as_ref(), call.service.settings())), tei::fault),
        telling!("/health", false, health, tei::fault),
        telling!("/ping", false, health, tei::fault),
        scoring!("/", hugging_face::root, tei::fault),
        scoring!("/invocations", hugging_face::root, tei::fault),
        scoring!("/classify", any_classify, vllm::fault),
        scoring!("/v1/classify", any_classify, vllm::fault),
        scoring!("/score", vllm_score, vllm::fault),
        scoring!("/v1/score", any_score, api::fault),
        scoring!("/pooling", vllm::pooling, vllm::fault),
        scoring!("/v1/rerank", rerank_1, rerank::fault),
        scoring!("/v2/rerank", rerank_2, rerank::fault),
        scoring!("/v1/embeddings", sglang::embeddings, vllm::fault),
        telling!("/v1/models", true, |call| Ok(vllm::models(&call.service.judges())), vllm::fault),
        telling!("/v1/models/{name}", true, model_1, vllm::fault),
        scoring!("/v1/models/{name}", kserve::predict, kserve::fault),
        telling!("/v2", true, |_| Ok(kserve::server()), kserve::fault),
        telling!("/v2/health/live", false, |_| Ok(Reply::ok(json!({ "live": true }))), kserve::fault),
        telling!("/v2/health/ready", false, ready_2, kserve::fault),
        telling!("/v2/models/{name}", true, |call| Ok(kserve::model(judge(call)?.as_ref())), kserve::fault),
        telling!("/v2/models/{name}/ready", true, model_ready_2, kserve::fault),
        scoring!("/v2/models/{name}/infer", kserve::infer, kserve::fault),
        scoring!("/get_reward", trainers::get_reward, trainers::plain),
        scoring!("/reward", trainers::reward, trainers::plain),
        scoring!("/v1/score/evaluation", trainers::evaluation, trainers::detailed),
    ]
}

/// Reads a request, has it scored, and words the answer.
pub async fn scored(call: Call, read: Read) -> Response {
    let service = call.service.clone();
    let asked = read_call(&call, &service.judges(), read);
    drop(call); // The body is not held while the request waits.
    match asked {
        Err(reply) => reply.into_response(),
        Ok(Asked { ask, answer, fault }) => finish((answer, fault), service.score(ask).await).into_response(),
    }
}

fn read_call(call: &Call, judges: &[Arc<JudgeFacts>], read: Read) -> Result<Asked, Reply> {
    let Call { parameters, query, headers, body, id, .. } = call;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    read(&Incoming { body, query, parameters, headers, judges, id, created })
}

fn told(call: &Call, tell: fn(&Call) -> Result<Reply, Refusal>, fault: FaultForm) -> Response {
    worded(tell(call), fault).unwrap_or_else(|reply| reply).into_response()
}

/// The judge that a path or a query names; without a name, the first.
fn judge(call: &Call) -> Result<Arc<JudgeFacts>, Refusal> {
    let asked = call.parameters.get("name").cloned().or_else(|| form::parameter(&call.query, "judge"));
    call.service.judge(asked.as_deref())
}

fn health(call: &Call) -> Result<Reply, Refusal> {
    match call.service.is_ready() {
        true => Ok(Reply { status: 200, headers: Vec::new(), body: None }),
        false => Err(Refusal::NotReady),
    }
}

fn ready_2(call: &Call) -> Result<Reply, Refusal> {
    let is_ready = call.service.is_ready();
    let body = Some(json!({ "live": true, "ready": is_ready }));
    Ok(Reply { status: if is_ready { 200 } else { 503 }, headers: Vec::new(), body })
}

fn model_ready_2(call: &Call) -> Result<Reply, Refusal> {
    Ok(kserve::model_ready(judge(call)?.as_ref(), call.service.is_ready()))
}

/// `GET /v1/models/NAME`: OpenAI's card and KServe's readiness at once.
fn model_1(call: &Call) -> Result<Reply, Refusal> {
    let judge = judge(call)?;
    let mut card = vllm::card(&judge);
    card["name"] = json!(judge.name);
    card["ready"] = json!(call.service.is_ready());
    Ok(Reply::ok(card))
}

/// `/rerank`: `texts` is text-embeddings-inference.
fn any_rerank(incoming: &Incoming) -> Result<Asked, Reply> {
    let body = worded(json::object(incoming.body), rerank::fault)?;
    match body.contains_key("texts") {
        true => worded(tei::rerank(incoming, &body), tei::fault),
        false => worded(rerank::read(incoming, &body, "1"), rerank::fault),
    }
}

fn rerank_1(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| rerank::read(incoming, &body, "1")), rerank::fault)
}

fn rerank_2(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| rerank::read(incoming, &body, "2")), rerank::fault)
}

/// `/classify`: `text` is SGLang, `raw_scores` infinity.
fn any_classify(incoming: &Incoming) -> Result<Asked, Reply> {
    let body = worded(json::object(incoming.body), vllm::fault)?;
    if body.contains_key("text") {
        return worded(sglang::classify(incoming, &body), sglang::fault);
    }
    match body.contains_key("raw_scores") {
        true => worded(infinity::classify(incoming, &body), vllm::fault),
        false => worded(vllm::classify(incoming, &body), vllm::fault),
    }
}

fn vllm_score(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| vllm::score(incoming, &body)), vllm::fault)
}

/// `/v1/score`: vLLM's names of its two sides, else our own.
fn any_score(incoming: &Incoming) -> Result<Asked, Reply> {
    let body = worded(json::object(incoming.body), api::fault)?;
    let is_vllm = vllm::SIDES.iter().flatten().any(|side| body.contains_key(*side));
    match is_vllm {
        true => worded(vllm::score(incoming, &body), vllm::fault),
        false => worded(api::score(incoming, &body), api::fault),
    }
}
