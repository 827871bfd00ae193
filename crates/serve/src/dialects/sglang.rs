//! SGLang: `/classify` with `text`, and `/v1/embeddings` as trainers and OpenAI's client call it. Scores are raw.

use super::form::*;
use super::json::{self, Fields};
use super::vllm;
use crate::ask::{Answer, Ask, Cut, Item, ItemFault, Refusal};
use serde_json::{Map, Value, json};

/// `POST /classify` with `text`: a text, a list of texts, or a list of pairs.
pub fn classify(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    body.without("input_ids", "send the text")?;
    let given = body.needed("text", "a text or a list of texts")?;
    let items = match given {
        Value::Array(list) if list.first().is_some_and(Value::is_array) => pairs(list)?,
        given => texts(given, "text")?.into_iter().map(|text| item(None, text, Cut::AsTrained)).collect(),
    };
    let is_list = given.is_array();
    let ask = Ask { judge: incoming.judge(body.text("model")?), items };
    let id = incoming.id.to_owned();
    let answer = move |answer: &Answer| {
        let mut results = scores(answer)?.into_iter().map(|item| {
            let scored = &item.rated.scored;
            json!({
                "embedding": [number(scored.score)],
                "meta_info": { "id": id, "prompt_tokens": scored.tokens, "truncated": scored.truncated },
            })
        });
        Ok(Reply::ok(if is_list { results.collect() } else { results.next().unwrap_or(Value::Null) }))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault })
}

fn pairs(list: &[Value]) -> Result<Vec<Result<Item, ItemFault>>, Refusal> {
    let pair = |(at, one): (usize, &Value)| match one.as_array().map(Vec::as_slice) {
        Some([prompt, response]) => {
            let side = |place: usize, value: &Value| text(value, || format!("text[{at}][{place}]"));
            Ok(item(Some(side(0, prompt)?), side(1, response)?, Cut::AsTrained))
        }
        _ => Err(Refusal::malformed(format!("`text[{at}]`: expected [prompt, response]"))),
    };
    list.iter().enumerate().map(pair).collect()
}

/// The error of `/classify`.
pub fn fault(fault: &Fault) -> Reply {
    let status = if fault.class == Class::Overloaded { 503 } else { fault.status };
    Reply::error(status, json!({ "error": { "message": fault.message } }), fault)
}

/// `POST /v1/embeddings`: one number a text, the raw score. Each `input` is a whole transcript.
pub fn embeddings(incoming: &Incoming) -> Result<Asked, Reply> {
    worded(json::object(incoming.body).and_then(|body| embeddings_fields(incoming, &body)), vllm::fault)
}

fn embeddings_fields(incoming: &Incoming, body: &Map<String, Value>) -> Result<Asked, Refusal> {
    vllm::options(incoming, body)?;
    let items = vllm::transcripts(body.needed("input", "a text or a list of texts")?)?;
    let is_base64 = match body.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Refusal::malformed("`encoding_format`: expected float or base64")),
    };
    let ask = Ask { judge: incoming.judge(body.text("model")?), items };
    let answer = move |answer: &Answer| {
        let one = |(index, score): (usize, f32)| {
            let embedding = if is_base64 { json!(base64(score)) } else { json!([number(score)]) };
            json!({ "object": "embedding", "embedding": embedding, "index": index })
        };
        let scores = scores(answer)?.into_iter().map(|item| item.rated.scored.score);
        let data: Vec<Value> = scores.enumerate().map(one).collect();
        let name = &answer.judge.name;
        Ok(Reply::ok(json!({ "object": "list", "data": data, "model": name, "usage": vllm::usage(answer) })))
    };
    Ok(Asked { ask, answer: Box::new(answer), fault: vllm::fault })
}

/// The four bytes of an `f32`, the lowest first, in base64.
fn base64(value: f32) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::from(value.to_bits().swap_bytes()) << 16; // 4 bytes and 2 of padding: 8 digits of 6 bits
    let digit = |place: u32| char::from(DIGITS[(bits >> (42 - 6 * place)) as usize & 63]);
    (0..6).map(digit).chain("==".chars()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_numbers() {
        // base64.b64encode(struct.pack("<f", x))
        for (value, expected) in [(0.0, "AAAAAA=="), (1.0, "AACAPw=="), (-2.5, "AAAgwA=="), (0.1, "zczMPQ==")] {
            assert_eq!(super::base64(value), expected);
        }
    }
}
