//! Hugging Face's `InferenceClient.text_classification`, and SageMaker's `/invocations`: `POST` to the root.
//!
//! The client asks for the first list of the answer, and names the function to apply: `sigmoid` unless it says `none`.

use super::form::*;
use super::json::{self, Fields};
use super::tei;
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, Refusal};
use serde_json::{Map, Value, json};

/// `POST /`, `POST /invocations`: with `query` it is a rerank, with `parameters` this client, else a predict of
/// text-embeddings-inference.
pub fn root(incoming: &Incoming) -> Result<Asked, Reply> {
    let read = |body: Map<String, Value>| match &body {
        body if body.contains_key("query") => tei::rerank(incoming, body),
        body if body.contains_key("parameters") => classification(incoming, body),
        body => tei::predict_fields(incoming, body),
    };
    worded(json::object(incoming.body).and_then(read), tei::fault)
}

fn classification(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    let none = Map::new();
    let parameters = match body.field("parameters") {
        None => &none,
        Some(Value::Object(parameters)) => parameters,
        Some(other) => return Err(json::wrong("parameters", "an object", other)),
    };
    let activation = match parameters.text("function_to_apply")? {
        None | Some("sigmoid") => Activation::Sigmoid,
        Some("none") => Activation::None,
        Some("softmax") => {
            return Err(Refusal::unsupported(
                "`function_to_apply`: softmax of one output is 1 for every text; expected none or sigmoid",
            ));
        }
        Some(_) => return Err(Refusal::malformed("`function_to_apply`: expected none or sigmoid, found another text")),
    };
    if parameters.whole("top_k")?.is_some_and(|top| top < 1) {
        return Err(Refusal::malformed("`top_k`: expected 1 or more"));
    }
    let items = inputs(body.needed("inputs", "a text, or an object with `text` and `text_pair`")?)?;
    let answer = move |answer: &Answer| {
        let label = label(&answer.judge);
        let one = |score: f32| json!([{ "label": label, "score": number(score) }]);
        Ok(Reply::ok(scores(answer)?.into_iter().map(|item| one(activation.of(item))).collect()))
    };
    Ok(Asked { ask: Ask { judge: incoming.judge(None), items }, answer: Box::new(answer), fault: tei::fault })
}

/// A text, a pair as the pipelines of transformers have it, or a list of either.
fn inputs(value: &Value) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let one = |value: &Value, name: &dyn Fn() -> String| match value {
        Value::Object(pair) => {
            let first = text(pair.needed("text", "a text")?, || format!("{}.text", name()))?;
            match pair.field("text_pair") {
                None => Ok(item(None, first, Cut::AsTrained)),
                Some(second) => {
                    let second = text(second, || format!("{}.text_pair", name()))?;
                    Ok(item(Some(first), second, Cut::AsTrained))
                }
            }
        }
        other => Ok(item(None, text(other, name)?, Cut::AsTrained)),
    };
    match value {
        Value::Array(list) => {
            list.iter().enumerate().map(|(at, value)| one(value, &|| format!("inputs[{at}]"))).collect()
        }
        value => Ok(vec![one(value, &|| "inputs".to_owned())?]),
    }
}
