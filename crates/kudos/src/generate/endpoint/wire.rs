//! JSON, out and in. What the protocol requires of an answer is required here; nothing is made up for what is missing.

use super::super::job::{FinishReason, Task, shortest};
use super::EndpointSettings;
use crate::data::Content;
use serde_json::{Map, Value, json};

/// Characters of a server's words that a message quotes.
const QUOTED: usize = 300;

/// What a server said to a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub text: String,
    pub finish_reason: FinishReason,
    pub tokens: usize,
}

/// Why a body is no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// It ends too early: the next one may be whole.
    Cut,
    /// It is whole, and something else; in words.
    Wrong(String),
}

/// The part of the address that depends on the kind of request.
pub(super) fn route(settings: &EndpointSettings) -> &'static str {
    if settings.chat { "chat/completions" } else { "completions" }
}

/// The body of a request. The error is in words.
pub(super) fn body(settings: &EndpointSettings, task: &Task) -> Result<String, String> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    set("model", settings.model_name.as_str().into());
    match (&task.prompt.content, settings.chat) {
        (content, true) => set("messages", messages(content, settings.system.as_deref())),
        (Content::Text(text), false) => set("prompt", text.as_str().into()),
        (Content::Messages(_), false) => {
            let place = &task.prompt.place;
            return Err(format!("{place}: expected a text to complete, found messages; ask for chat completions"));
        }
    }
    let sampling = &task.sampling;
    set("temperature", shortest(sampling.temperature));
    set("top_p", shortest(sampling.top_p));
    set("max_tokens", task.max_new_tokens.into());
    set("seed", task.seed.into());
    set("n", 1.into());
    if !task.stop.is_empty() {
        set("stop", task.stop.into());
    }
    // OpenAI itself refuses fields that it does not know, so these are sent only when they are asked for. Servers know
    // the last one by two names.
    if sampling.top_k != 0 {
        set("top_k", sampling.top_k.into());
    }
    if sampling.min_p != 0.0 {
        set("min_p", shortest(sampling.min_p));
    }
    if sampling.repetition_penalty != 1.0 {
        set("repetition_penalty", shortest(sampling.repetition_penalty));
        set("repeat_penalty", shortest(sampling.repetition_penalty));
    }
    Ok(Value::Object(body).to_string())
}

fn messages(content: &Content, system: Option<&str>) -> Value {
    let mut messages = match content {
        Content::Text(text) => vec![json!({"role": "user", "content": text})],
        Content::Messages(turns) => turns.iter().map(|turn| json!(turn)).collect(),
    };
    let has_system = messages.first().is_some_and(|first| first["role"] == "system");
    if let Some(system) = system.filter(|_| !has_system) {
        messages.insert(0, json!({"role": "system", "content": system}));
    }
    messages.into()
}

/// Reads an answer.
pub(super) fn answer(bytes: &[u8], chat: bool) -> Result<Answer, Fault> {
    let value = parse(bytes)?;
    let choice = &value["choices"][0];
    let (text, place) = match chat {
        true => (&choice["message"]["content"], "choices[0].message.content"),
        false => (&choice["text"], "choices[0].text"),
    };
    let reason = choice["finish_reason"].as_str();
    if let Some(reason @ ("content_filter" | "tool_calls" | "function_call")) = reason {
        return Err(Fault::Wrong(format!("expected a text, found finish_reason {reason:?}")));
    }
    let text = text.as_str().ok_or_else(|| missing(place, "text", bytes))?;
    let finish_reason = match reason {
        Some("stop" | "eos_token" | "stop_sequence") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        _ => return Err(missing("choices[0].finish_reason", "\"stop\" or \"length\"", bytes)),
    };
    let tokens = value["usage"]["completion_tokens"].as_u64();
    let tokens = tokens.ok_or_else(|| missing("usage.completion_tokens", "a number", bytes))?;
    Ok(Answer { text: text.to_owned(), finish_reason, tokens: tokens as usize })
}

/// Reads a list of models.
pub(super) fn models(bytes: &[u8]) -> Result<Vec<String>, Fault> {
    let value = parse(bytes)?;
    let list = value["data"].as_array().ok_or_else(|| missing("data", "a list of models", bytes))?;
    Ok(list.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
}

/// The JSON of an answer that is not the report of an error.
fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| match error.is_eof() {
        true => Fault::Cut,
        false => Fault::Wrong(format!("expected JSON, found {}", quote(bytes))),
    })?;
    match value.get("error").filter(|error| !error.is_null()) {
        Some(_) => Err(Fault::Wrong(format!("the server reports: {}", complaint(bytes)))),
        None => Ok(value),
    }
}

fn missing(place: &str, expected: &str, bytes: &[u8]) -> Fault {
    Fault::Wrong(format!("expected {expected} in `{place}`, found {}", quote(bytes)))
}

/// What a refusal says, in the places where servers put it, or its body as it is.
pub(super) fn complaint(bytes: &[u8]) -> String {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let places = [&value["error"]["message"], &value["message"], &value["detail"], &value["error"]];
    match places.into_iter().find_map(Value::as_str) {
        Some(words) => shorten(words),
        None => quote(bytes),
    }
}

fn quote(bytes: &[u8]) -> String {
    let text = shorten(&String::from_utf8_lossy(&bytes[..bytes.len().min(8 * QUOTED)]));
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// On one line, and not too long.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= QUOTED { line } else { line.chars().take(QUOTED).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::super::job::{Attempt, Prompt, Sampling};
    use super::*;

    fn sampling() -> Sampling {
        Sampling { repetition_penalty: 1.0, temperature: 0.7, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }

    fn request(content: Value, settings: &EndpointSettings, sampling: Sampling, stop: &[String]) -> Value {
        let prompt = Prompt { content: serde_json::from_value(content).unwrap(), place: "p.txt:3".into() };
        let attempt = Attempt { prompt: 0, index: 0, retry: 0 };
        let task = Task { attempt, prompt: &prompt, sampling, seed: 5, stop, max_new_tokens: 64 };
        serde_json::from_str(&body(settings, &task).unwrap()).unwrap()
    }

    #[test]
    fn a_request_says_what_is_asked_and_no_more() {
        let mut settings = EndpointSettings::new("http://h/v1", "m");
        let common = json!({"model": "m", "temperature": 0.7, "top_p": 1.0, "max_tokens": 64, "seed": 5, "n": 1});
        let with = |more: Value| {
            let mut all = common.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Value::Object(all)
        };
        let user = json!({"role": "user", "content": "p"});
        assert_eq!(request(json!("p"), &settings, sampling(), &[]), with(json!({"messages": [user]})));

        settings.system = Some("s".into());
        let (system, own) = (json!({"role": "system", "content": "s"}), json!({"role": "system", "content": "own"}));
        assert_eq!(request(json!([user]), &settings, sampling(), &[])["messages"], json!([system, user]));
        assert_eq!(request(json!([own, user]), &settings, sampling(), &[])["messages"], json!([own, user]));

        settings.chat = false;
        let more = Sampling { repetition_penalty: 1.1, top_k: 40, min_p: 0.05, ..sampling() };
        let expected = json!({"prompt": "p", "stop": ["\n"], "top_k": 40, "min_p": 0.05,
            "repetition_penalty": 1.1, "repeat_penalty": 1.1});
        assert_eq!(request(json!("p"), &settings, more, &["\n".into()]), with(expected));
    }

    #[test]
    fn messages_need_chat() {
        let settings = EndpointSettings { chat: false, ..EndpointSettings::new("http://h/v1", "m") };
        let prompt = Prompt { content: Content::Messages(Vec::new()), place: "p.jsonl:3".into() };
        let attempt = Attempt { prompt: 0, index: 0, retry: 0 };
        let task = Task { attempt, prompt: &prompt, sampling: sampling(), seed: 5, stop: &[], max_new_tokens: 64 };
        let error = body(&settings, &task).unwrap_err();
        assert!(error.starts_with("p.jsonl:3: expected a text to complete, found messages"), "{error}");
    }

    #[test]
    fn answers_of_both_kinds() {
        let chat = br#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"completion_tokens":3},"error":null}"#;
        let raw = br#"{"choices":[{"text":"","finish_reason":"length"}],"usage":{"completion_tokens":8}}"#;
        let expected = Answer { text: "hi".into(), finish_reason: FinishReason::Stop, tokens: 3 };
        assert_eq!(answer(chat, true), Ok(expected));
        let expected = Answer { text: String::new(), finish_reason: FinishReason::Length, tokens: 8 };
        assert_eq!(answer(raw, false), Ok(expected));
        assert_eq!(models(br#"{"data":[{"id":"a"},{"id":"b"}]}"#), Ok(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn what_is_no_answer() {
        let cases: [(&str, &str); 8] = [
            ("<html> no\n such  page</html>", "expected JSON, found <html> no such page</html>"),
            ("{}", "expected text in `choices[0].message.content`, found {}"),
            ("[]", "expected text in `choices[0].message.content`, found []"),
            (
                r#"{"choices":[{"message":{"content":null},"finish_reason":"tool_calls"}]}"#,
                r#"expected a text, found finish_reason "tool_calls""#,
            ),
            (
                r#"{"choices":[{"message":{"content":"a"},"finish_reason":null}]}"#,
                "expected \"stop\" or \"length\" in `choices[0].finish_reason`",
            ),
            (
                r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}"#,
                "expected a number in `usage.completion_tokens`",
            ),
            (r#"{"error":{"message":"out of\nmemory"}}"#, "the server reports: out of memory"),
            (r#"{"error":"busy"}"#, "the server reports: busy"),
        ];
        for (body, expected) in cases {
            let Err(Fault::Wrong(words)) = answer(body.as_bytes(), true) else { panic!("{body}") };
            assert!(words.contains(expected), "{words}\n{expected}");
        }
        for cut in ["", "{\"choices\":[{\"mess", "{\"choices\":[]"] {
            assert_eq!(answer(cut.as_bytes(), true), Err(Fault::Cut), "{cut}");
        }
    }

    #[test]
    fn complaints_are_found_and_bounded() {
        assert_eq!(complaint(br#"{"detail":"no such model"}"#), "no such model");
        assert_eq!(complaint(br#"{"detail":[1]}"#), r#"{"detail":[1]}"#);
        assert_eq!(complaint(b""), "nothing");
        assert_eq!(complaint("é".repeat(9999).as_bytes()).chars().count(), QUOTED + 1);
    }
}
