//! infinity: `/classify` with `raw_scores`. Without that field, a request is vLLM's. Its `/rerank` is in `rerank`.

use super::form::*;
use super::json::Fields;
use super::vllm;
use crate::ask::{Answer, Ask, Refusal};
use serde_json::{Map, Value, json};

/// `POST /classify` with `input` and `raw_scores`.
pub fn classify(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    vllm::options(incoming, body)?;
    let activation = Activation::raw_if(body.flag("raw_scores")?.unwrap_or(false));
    let items = vllm::transcripts(body.needed("input", "a list of texts")?)?;
    let ask = Ask { judge: incoming.judge(body.text("model")?), items };
    let (id, created) = (format!("infinity-{}", incoming.id), incoming.created);
    let answer = move |answer: &Answer| {
        let (label, name) = (label(&answer.judge), &answer.judge.name);
        let one = |score: f32| json!([{ "score": number(score), "label": label }]);
        let data: Vec<Value> = scores(answer)?.into_iter().map(|item| one(activation.of(item))).collect();
        let usage = json!({ "prompt_tokens": answer.tokens(), "total_tokens": answer.tokens() });
        Ok(Reply::ok(json!({
            "object": "classify", "data": data, "model": name, "usage": usage, "id": id, "created": created,
        })))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault: vllm::fault })
}
