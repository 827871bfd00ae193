//! KServe: V1 (`/v1/models/NAME:predict`) and the Open Inference Protocol V2 (`/v2/…`). Scores are raw.
//!
//! V2 has three ways to say what to score. One `BYTES` tensor of the shape `[n]` holds whole transcripts. One of the
//! shape `[n, 2]` holds pairs, each a prompt and a response. Two of the shape `[n]` with the names `prompt` and
//! `response` hold pairs too. Tensors of a request are JSON, or binary as Triton's client sends them; those of an
//! answer are JSON.

use super::form::*;
use super::json::{self, Fields};
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, JudgeFacts, Refusal};
use kudos::data::Content;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// `POST /v1/models/NAME:predict`
pub fn predict(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(predict_fields(incoming), fault)
}

fn predict_fields(incoming: &Incoming) -> Result<Asked, Refusal> {
    let path = incoming.parameters.get("name").map(String::as_str).unwrap_or_default();
    let missing = || Refusal::NoSuchPath(format!("POST /v1/models/{path}"));
    let judge = path.strip_suffix(":predict").ok_or_else(missing)?;
    incoming.facts(Some(judge))?;
    let body = json::object(incoming.body)?;
    let instances = body.list("instances", "a list")?;
    let items = instances.iter().enumerate().map(|(at, one)| instance(at, one)).collect::<Result<_, _>>()?;
    let answer = |answer: &Answer| {
        let predictions: Vec<Value> = scores(answer)?.iter().map(|item| number(item.rated.scored.score)).collect();
        Ok(Reply::ok(json!({ "predictions": predictions })))
    };
    Ok(Asked { ask: Ask { judge: Some(judge.to_owned()), items }, answer: Box::new(answer), fault })
}

/// A transcript, `[prompt, response]`, or an object of both.
fn instance(at: usize, value: &Value) -> Result<Result<Item, ItemFault>, Refusal> {
    let name = |part: &str| format!("instances[{at}]{part}");
    match value {
        Value::Object(fields) => {
            let expected = "a text or messages";
            let prompt = fields.field("prompt").map(|prompt| content(prompt, || name(".prompt"))).transpose()?;
            let response = content(fields.needed("response", expected)?, || name(".response"))?;
            Ok(item(prompt, response, Cut::AsTrained))
        }
        Value::Array(pair) if pair.len() == 2 => {
            let [prompt, response] = [&pair[0], &pair[1]];
            Ok(item(Some(text(prompt, || name("[0]"))?), text(response, || name("[1]"))?, Cut::AsTrained))
        }
        Value::String(_) => Ok(item(None, text(value, || name(""))?, Cut::AsTrained)),
        other => Err(json::wrong(&name(""), "a text, [prompt, response] or {prompt, response}", other)),
    }
}

/// `POST /v2/models/NAME/infer`
pub fn infer(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(infer_fields(incoming), fault)
}

/// The tensors of an answer: name and type.
const OUTPUTS: [(&str, &str); 3] = [("score", "FP32"), ("tokens", "INT32"), ("truncated", "BOOL")];

fn infer_fields(incoming: &Incoming) -> Result<Asked, Refusal> {
    let judge = incoming.parameters.get("name").cloned().unwrap_or_default();
    incoming.facts(Some(&judge))?;
    let (head, mut binary) = parts(incoming)?;
    let body = json::object(head)?;
    let id = body.text("id")?.unwrap_or(incoming.id).to_owned();
    let inputs = body.list("inputs", "a list of tensors")?;
    let outputs = wanted(&body)?;
    let items = tensors(inputs, &mut binary)?;
    if !binary.is_empty() {
        return Err(Refusal::malformed(format!("the body has {} bytes behind its last tensor", binary.len())));
    }
    let answer = move |answer: &Answer| {
        let scored = scores(answer)?;
        let tensor = |(name, kind): &(&str, &str)| {
            let value = |item: &&crate::ask::ItemScore| match *name {
                "score" => number(item.rated.scored.score),
                "tokens" => json!(item.rated.scored.tokens),
                _ => json!(item.rated.scored.truncated),
            };
            let data: Vec<Value> = scored.iter().map(value).collect();
            json!({ "name": name, "datatype": kind, "shape": [data.len()], "data": data })
        };
        let outputs: Vec<Value> = outputs.iter().map(tensor).collect();
        let parameters = json!({ "weights_sha256": answer.judge.sha256 });
        let name = &answer.judge.name;
        Ok(Reply::ok(json!({ "model_name": name, "id": id, "parameters": parameters, "outputs": outputs })))
    };
    Ok(Asked { ask: Ask { judge: Some(judge), items }, answer: Box::new(answer), fault })
}

/// The JSON of a body, and the binary tensors behind it, whose header says where they begin.
fn parts<'a>(incoming: &Incoming<'a>) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let Some(length) = incoming.headers.get(JSON_LENGTH) else { return Ok((incoming.body, &[])) };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    let parts = length.and_then(|length| incoming.body.split_at_checked(length));
    parts.ok_or_else(|| Refusal::malformed(format!("the header `{JSON_LENGTH}`: expected a length within the body")))
}

const JSON_LENGTH: &str = "inference-header-content-length";

/// The outputs that are asked for; all of them, unless some are named.
fn wanted(body: &Map<String, Value>) -> Result<Vec<(&'static str, &'static str)>, Refusal> {
    let Some(named) = body.field("outputs") else { return Ok(OUTPUTS.to_vec()) };
    let Some(named) = named.as_array() else { return Err(json::wrong("outputs", "a list", named)) };
    let find = |(at, output): (usize, &Value)| {
        let Some(fields) = output.as_object() else {
            return Err(json::wrong(&format!("outputs[{at}]"), "an object", output));
        };
        if let Some(Value::Object(parameters)) = fields.field("parameters") {
            parameters.without("classification", "the output is one number, not classes")?;
        }
        let name = fields.text("name")?.unwrap_or_default();
        let found = OUTPUTS.iter().find(|(known, _)| *known == name).copied();
        found.ok_or_else(|| Refusal::malformed(format!("`outputs[{at}]`: expected score, tokens or truncated")))
    };
    named.iter().enumerate().map(find).collect()
}

/// What the tensors of a request say.
fn tensors(inputs: &[Value], binary: &mut &[u8]) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let mut tensors = Vec::new();
    for (at, one) in inputs.iter().take(3).enumerate() {
        tensors.push(Tensor::read(at, one, binary)?);
    }
    match tensors.as_slice() {
        [only] => only.items(),
        [first, second] => {
            let (prompts, responses) = match (first.name, second.name) {
                ("prompt", "response") => (first, second),
                ("response", "prompt") => (second, first),
                _ => return Err(Refusal::malformed("`inputs`: expected two tensors `prompt` and `response`")),
            };
            let (prompts, responses) = (prompts.column()?, responses.column()?);
            if prompts.len() != responses.len() {
                return Err(Refusal::malformed("`inputs`: `prompt` and `response` are of different shapes"));
            }
            let pair = |(prompt, response)| item(Some(prompt), response, Cut::AsTrained);
            Ok(prompts.into_iter().zip(responses).map(pair).collect())
        }
        _ => Err(Refusal::malformed(format!("`inputs`: expected one or two tensors, found {}", inputs.len()))),
    }
}

/// A tensor of texts.
struct Tensor<'a> {
    at: usize,
    name: &'a str,
    shape: Vec<usize>,
    data: Vec<Cow<'a, Value>>,
}

impl<'a> Tensor<'a> {
    fn read(at: usize, value: &'a Value, binary: &mut &[u8]) -> Result<Self, Refusal> {
        let place = format!("inputs[{at}]");
        let Some(fields) = value.as_object() else { return Err(json::wrong(&place, "an object", value)) };
        if fields.text("datatype")? != Some("BYTES") {
            return Err(Refusal::malformed(format!("`{place}.datatype`: expected BYTES")));
        }
        let dimension = |one: &Value| one.as_u64().and_then(|size| usize::try_from(size).ok());
        let shape: Option<Vec<usize>> = fields.list("shape", "a list of sizes")?.iter().map(dimension).collect();
        let shape = shape.filter(|shape| matches!(shape.as_slice(), [_] | [_, 1 | 2]));
        let shape =
            shape.ok_or_else(|| Refusal::malformed(format!("`{place}.shape`: expected [n], [n, 1] or [n, 2]")))?;
        let size = fields.field("parameters").and_then(|parameters| parameters.get("binary_data_size"));
        let data = match size {
            None => flat(fields.list("data", "a list of texts")?),
            Some(size) => unpacked(&place, size, binary)?,
        };
        if shape.iter().try_fold(1usize, |size, part| size.checked_mul(*part)) != Some(data.len()) {
            return Err(Refusal::malformed(format!("`{place}`: its shape does not fit its {} texts", data.len())));
        }
        Ok(Tensor { at, name: fields.text("name")?.unwrap_or_default(), shape, data })
    }

    fn text(&self, place: usize) -> Result<Content, Refusal> {
        text(&self.data[place], || format!("inputs[{}].data[{place}]", self.at))
    }

    /// Its texts, of a tensor with one to a row.
    fn column(&self) -> Result<Vec<Content>, Refusal> {
        match self.shape.as_slice() {
            [_] | [_, 1] => (0..self.data.len()).map(|place| self.text(place)).collect(),
            _ => Err(Refusal::malformed(format!("`inputs[{}].shape`: expected [n]", self.at))),
        }
    }

    fn items(&self) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
        if let [rows, 2] = self.shape.as_slice() {
            let pair = |row: usize| Ok(item(Some(self.text(2 * row)?), self.text(2 * row + 1)?, Cut::AsTrained));
            return (0..*rows).map(pair).collect();
        }
        Ok(self.column()?.into_iter().map(|text| item(None, text, Cut::AsTrained)).collect())
    }
}

/// The elements of a tensor that is given in rows or flat.
fn flat(data: &[Value]) -> Vec<Cow<'_, Value>> {
    data.iter().flat_map(row).map(Cow::Borrowed).collect()
}

/// The elements of one row; of one element, that one.
fn row(one: &Value) -> &[Value] {
    one.as_array().map_or(std::slice::from_ref(one), Vec::as_slice)
}

/// The elements of a binary tensor, which is taken off the binary part: each is its length in four bytes, the lowest
/// first, and its text in UTF-8.
fn unpacked(place: &str, size: &Value, binary: &mut &[u8]) -> Result<Vec<Cow<'static, Value>>, Refusal> {
    let wrong = |found: &str| Refusal::malformed(format!("`{place}`: its binary data {found}"));
    let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
    let parts = size.and_then(|size| binary.split_at_checked(size));
    let (mut rest, behind) = parts.ok_or_else(|| wrong("has another size than the body"))?;
    *binary = behind;
    let mut elements = Vec::new();
    while let Some((length, others)) = rest.split_first_chunk::<4>() {
        let text = others.split_at_checked(u32::from_le_bytes(*length) as usize);
        let (text, others) = text.ok_or_else(|| wrong("ends within a text"))?;
        let text = std::str::from_utf8(text).map_err(|_| wrong("has a text that is no UTF-8"))?;
        elements.push(Cow::Owned(text.into()));
        rest = others;
    }
    if rest.is_empty() { Ok(elements) } else { Err(wrong("ends within a length")) }
}

/// `GET /v2`
pub fn server() -> Reply {
    Reply::ok(json!({ "name": "kudos", "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
}

/// `GET /v2/models/NAME`
pub fn model(judge: &JudgeFacts) -> Reply {
    let output = |(name, kind): &(&str, &str)| json!({ "name": name, "datatype": kind, "shape": [-1] });
    let outputs: Vec<Value> = OUTPUTS.iter().map(output).collect();
    let input = |name: &str| json!({ "name": name, "datatype": "BYTES", "shape": [-1] });
    Reply::ok(json!({
        "name": judge.name, "platform": "kudos_safetensors", "inputs": [input("prompt"), input("response")],
        "outputs": outputs, "parameters": { "weights_sha256": judge.sha256, "max_length": judge.max_length },
    }))
}

/// `GET /v2/models/NAME/ready`
pub fn model_ready(judge: &JudgeFacts, is_ready: bool) -> Reply {
    let status = if is_ready { 200 } else { 503 };
    Reply { status, headers: Vec::new(), body: Some(json!({ "name": judge.name, "ready": is_ready })) }
}

/// The error of both.
pub fn fault(fault: &Fault) -> Reply {
    Reply::error(fault.status, json!({ "error": fault.message }), fault)
}
