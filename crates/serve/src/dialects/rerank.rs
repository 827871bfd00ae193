//! `/rerank` with `documents`, as vLLM, Jina, Cohere and infinity have it: one form serves all of their clients.
//!
//! Relevance scores are sigmoids, as there; `use_activation: false` (vLLM) or `raw_scores: true` (infinity) gives raw
//! ones. A request with `raw_scores` is infinity's, where a document is a plain text and comes only when asked for.
//! SGLang's bare list is not spoken: its request cannot be told from these.

use super::form::*;
use super::json::Fields;
use super::vllm;
use crate::ask::{Answer, Ask, Cut, ItemScore, Refusal};
use serde_json::{Map, Value, json};

/// What decides the form of an answer.
struct Form {
    id: String,
    created: u64,
    version: &'static str,
    activation: Activation,
    /// The documents, if they are returned.
    documents: Option<Vec<Value>>,
    is_infinity: bool,
    top: usize,
}

/// `POST /rerank`, `/v1/rerank`, `/v2/rerank` with `documents`; `version` is what Cohere's answer calls itself.
pub fn read(incoming: &Incoming, body: &Map<String, Value>, version: &'static str) -> Result<Asked, Refusal> {
    let form = form(incoming, body, version)?;
    let query = text(body.needed("query", "a text")?, || "query".into())?;
    let given = body.needed("documents", "a list of texts")?;
    let list = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
    if list.is_empty() {
        return Err(Refusal::malformed("`documents` is empty"));
    }
    let document = |(at, one): (usize, &Value)| vllm::document(one, || format!("documents[{at}]"));
    let documents = list.iter().enumerate().map(document).collect::<Result<_, _>>()?;
    let judge = incoming.judge(body.text("model")?);
    let ask = Ask { judge, items: to_one(query, documents, Cut::AsTrained) };
    Ok(Asked { ask, answer: Box::new(move |answer| Ok(Reply::ok(form.body(answer)?))), fault })
}

fn form(incoming: &Incoming, body: &Map<String, Value>, version: &'static str) -> Result<Form, Refusal> {
    vllm::options(incoming, body)?;
    body.without("instruct", "a judge has no instruction")?;
    body.without("rank_fields", "give each document one text")?;
    if body.whole("max_chunks_per_doc")?.is_some_and(|chunks| chunks != 1) {
        return Err(Refusal::unsupported(
            "`max_chunks_per_doc`: a judge reads each document once; leave the field out",
        ));
    }
    let raw = body.flag("raw_scores")?;
    let activation = match raw {
        None => vllm::activation(body, Activation::Sigmoid)?,
        Some(raw) => Activation::raw_if(raw),
    };
    let top = match body.whole("top_n")?.unwrap_or(0) {
        0 => usize::MAX,
        top => usize::try_from(top).map_err(|_| Refusal::malformed("`top_n`: expected 1 or more"))?,
    };
    let is_returned = body.flag("return_documents")?.unwrap_or(raw.is_none());
    let list =
        || body.field("documents").map_or(Vec::new(), |one| one.as_array().cloned().unwrap_or(vec![one.clone()]));
    let documents = is_returned.then(list);
    let (id, created, is_infinity) = (incoming.id.to_owned(), incoming.created, raw.is_some());
    Ok(Form { id, created, version, activation, documents, is_infinity, top })
}

impl Form {
    fn body(&self, answer: &Answer) -> Result<Value, Fault> {
        let scores = scores(answer)?;
        let best = best_first(&scores).into_iter().take(self.top);
        let results: Vec<Value> = best.map(|place| self.result(place, scores[place])).collect();
        let name = &answer.judge.name;
        let (id, usage, created) = (&self.id, vllm::usage(answer), self.created);
        if self.is_infinity {
            let id = format!("infinity-{id}");
            return Ok(json!({
                "object": "rerank", "results": results, "model": name, "usage": usage, "id": id, "created": created,
            }));
        }
        let meta = json!({ "api_version": { "version": self.version }, "billed_units": { "search_units": 1 } });
        let id = format!("rerank-{id}");
        Ok(json!({ "id": id, "object": "rerank", "model": name, "usage": usage, "results": results, "meta": meta }))
    }

    fn result(&self, index: usize, item: &ItemScore) -> Value {
        let mut result = json!({ "index": index, "relevance_score": number(self.activation.of(item)) });
        if let Some(document) = self.documents.as_ref().and_then(|documents| documents.get(index)) {
            let text = document.get("text").unwrap_or(document);
            result["document"] = if self.is_infinity { text.clone() } else { json!({ "text": text }) };
        }
        result
    }
}

/// The error of this dialect: each of its clients finds its own field (`error` vLLM and infinity, `message` Cohere,
/// `detail` Jina).
pub fn fault(fault: &Fault) -> Reply {
    let mut body = vllm::error(fault.status, fault);
    body["message"] = json!(fault.message);
    body["detail"] = json!(fault.message);
    Reply::error(fault.status, body, fault)
}
