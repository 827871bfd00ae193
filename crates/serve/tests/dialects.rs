//! Every dialect against the files of `golden/`, and against bad input, with a rule in the place of a model.
//!
//! `golden/NAME.json` holds requests and the responses that are expected: status, headers, body. `KUDOS_GOLDEN=write`
//! writes what the dialects answer now, to be read and committed.

mod rule;

use rule::{Asking, Server, exchange};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Headers whose values depend on the clock.
const TIMES: [&str; 5] = ["x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"];

/// What is pinned of a response.
fn pinned(asking: &Asking, servers: &[Server]) -> Value {
    let server = servers.iter().find(|server| server.name == asking.server).expect("a server of that name");
    let (status, headers, body) = exchange(server, asking);
    let is_pinned = |name: &str| name.starts_with("x-") || name == "retry-after";
    let value = |(name, value): &(String, String)| {
        let is_time = TIMES.contains(&name.as_str()) && value.bytes().all(|b| b.is_ascii_digit());
        (name.clone(), json!(if is_time { "<ms>" } else { value }))
    };
    let headers: Map<_, _> = headers.iter().filter(|(name, _)| is_pinned(name)).map(value).collect();
    json!({ "status": status, "headers": headers, "body": without_clock(body) })
}

/// The body, with its times taken out.
fn without_clock(mut body: Value) -> Value {
    if let Some(created) = body.get_mut("created").filter(|created| created.as_u64().is_some_and(|t| t > 1_700_000_000))
    {
        *created = json!("<now>");
    }
    body
}

#[test]
fn every_dialect_answers_as_its_golden_file_says() {
    let servers = rule::servers();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "only {} golden files", files.len());
    for file in files {
        let mut cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for case in &mut cases {
            let found = pinned(&Asking::of(case), &servers);
            if std::env::var_os("KUDOS_GOLDEN").is_some() {
                case["expect"] = found;
            } else {
                let title = format!("{}: {}", file.display(), case["case"]);
                assert_eq!(found, case["expect"], "{title}\nfound {found:#}");
            }
        }
        if std::env::var_os("KUDOS_GOLDEN").is_some() {
            std::fs::write(&file, written(&cases)).unwrap();
        }
    }
}

/// Cases with one line for each of their parts.
fn written(cases: &[Value]) -> String {
    let case = |case: &Value| {
        let lines: Vec<String> =
            case.as_object().unwrap().iter().map(|(key, value)| format!("  {}: {value}", json!(key))).collect();
        format!(" {{\n{}\n }}", lines.join(",\n"))
    };
    format!("[\n{}\n]\n", cases.iter().map(case).collect::<Vec<_>>().join(",\n"))
}

/// A body that each scoring route answers with 200, and the list in it that may be long.
fn valid() -> Vec<(&'static str, Value, Option<&'static str>)> {
    vec![
        ("/predict", json!({"inputs": [["a", "bc"]]}), Some("inputs")),
        ("/rerank", json!({"query": "a", "texts": ["bc"]}), Some("texts")),
        ("/rerank", json!({"query": "a", "documents": ["bc"]}), Some("documents")),
        ("/v1/rerank", json!({"query": "a", "documents": ["bc"], "model": "m"}), Some("documents")),
        ("/v2/rerank", json!({"query": "a", "documents": ["bc"], "model": "m"}), Some("documents")),
        ("/", json!({"inputs": "abc", "parameters": {}}), None),
        ("/invocations", json!({"query": "a", "texts": ["bc"]}), Some("texts")),
        ("/classify", json!({"model": "m", "input": ["abc"]}), Some("input")),
        ("/classify", json!({"model": "m", "text": ["abc"]}), Some("text")),
        ("/classify", json!({"model": "m", "input": ["abc"], "raw_scores": true}), Some("input")),
        ("/v1/classify", json!({"model": "m", "input": ["abc"]}), Some("input")),
        ("/score", json!({"model": "m", "text_1": "a", "text_2": ["bc"]}), Some("text_2")),
        ("/v1/score", json!({"model": "m", "queries": "a", "documents": ["bc"]}), Some("documents")),
        ("/v1/score", json!({"pairs": [{"prompt": "a", "response": "bc"}]}), Some("pairs")),
        ("/v1/score", json!({"prompt": "a", "responses": ["bc"]}), Some("responses")),
        ("/v1/best", json!({"prompt": "a", "responses": ["bc"]}), Some("responses")),
        ("/v1/compare", json!({"prompt": "a", "response_a": "bc", "response_b": "b"}), None),
        ("/pooling", json!({"model": "m", "input": ["abc"]}), Some("input")),
        ("/v1/embeddings", json!({"model": "m", "input": ["abc"]}), Some("input")),
        ("/v1/models/rule:predict", json!({"instances": ["abc"]}), Some("instances")),
        (
            "/v2/models/rule/infer",
            json!({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["abc"]}]}),
            None,
        ),
        ("/get_reward", json!({"query": ["abc"]}), Some("query")),
        ("/reward", json!({"prompt": "a", "response": "bc", "label": null}), None),
        ("/v1/score/evaluation", json!({"model": "m", "messages": ["abc"]}), Some("messages")),
    ]
}

fn is_ours(path: &str, body: &Value) -> bool {
    path.starts_with("/v1/best")
        || path.starts_with("/v1/compare")
        || path == "/v1/score" && body.get("queries").is_none()
}

fn post(server: &Server, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let asking = Asking { path: path.into(), body: body.into(), ..Asking::default() };
    let (status, _, body) = exchange(server, &asking);
    (status, body)
}

/// Refused as the client's fault, with a sentence in the form of the dialect.
fn is_refused(path: &str, (status, body): &(u16, Value), case: &str) {
    assert!((400..500).contains(status), "{path}, {case}: {status} {body}");
    let message = [&body["error"], &body["error"]["message"], &body["detail"]];
    assert!(message.iter().any(|text| text.as_str().is_some_and(|text| text.len() > 10)), "{path}, {case}: {body}");
}

#[test]
fn each_route_that_scores_is_tried() {
    let tried: Vec<String> = valid()
        .into_iter()
        .map(|(path, ..)| path.replace("rule", "{name}").replace("{name}:predict", "{name}"))
        .collect();
    for route in serve::dialects::routes().into_iter().chain(serve::api::routes()) {
        assert!(route.method != "POST" || tried.iter().any(|path| path == route.path), "{} is not tried", route.path);
    }
}

#[test]
fn valid_requests_are_answered_and_say_which_judge_scored() {
    let server = rule::server();
    for (path, body, _) in valid() {
        let asking = Asking { path: path.into(), body: body.to_string().into(), ..Asking::default() };
        let (status, headers, answer) = exchange(&server, &asking);
        assert_eq!(status, 200, "{path}: {answer}");
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!((header("x-kudos-judge"), header("x-kudos-truncated")), (Some("rule"), Some("0")), "{path}");
        assert_eq!(header("x-kudos-weights"), Some(rule::SHA256), "{path}");
    }
}

#[test]
fn fields_missing_doubled_mistyped_and_unknown() {
    let server = rule::server();
    for (path, body, _) in valid() {
        let fields = body.as_object().unwrap();
        for key in fields
            .keys()
            .filter(|key| !["model", "parameters", "label", "raw_scores", "prompt"].contains(&key.as_str()))
        {
            let mut less = fields.clone();
            less.remove(key);
            is_refused(path, &post(&server, path, Value::Object(less).to_string()), &format!("without {key}"));
            for other in [json!(7), json!(true), json!([[[7]]])] {
                let mut changed = body.clone();
                changed[key] = other;
                let answer = post(&server, path, changed.to_string());
                // In our own API, an item of another type is that item's error.
                let is_item = answer.0 == 200 && answer.1["failed"].as_u64() > Some(0) && is_ours(path, &body);
                assert!(is_item || (400..500).contains(&answer.0), "{path}, {changed}: {answer:?}");
            }
            let text = body.to_string();
            let doubled = format!("{{{}:{},{}", json!(key), fields[key], &text[1..]);
            is_refused(path, &post(&server, path, doubled), &format!("{key} twice"));
        }
        let mut more = body.clone();
        more["zzz"] = json!({"a": [1]});
        let (status, answer) = post(&server, path, more.to_string());
        assert_eq!(status, if is_ours(path, &body) { 400 } else { 200 }, "{path}: {answer}");
    }
}

#[test]
fn bodies_that_are_no_request() {
    let server = rule::server();
    let deep = format!("{{\"inputs\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = "{\"a\":".repeat(100_000);
    let bodies: [&[u8]; 16] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"7",
        b"\"text\"",
        b"{",
        b"{}x",
        b"{\"inputs\": NaN}",
        b"{\"query\": -Infinity}",
        b"{\"inputs\": \"\\ud800\"}",
        b"{\"inputs\": \"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{\"a\": 1e999}",
        deep.as_bytes(),
        deep_object.as_bytes(),
    ];
    for (path, ..) in valid() {
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            is_refused(path, &post(&server, path, body), &shown);
        }
    }
}

#[test]
fn no_item_and_very_many() {
    let servers = rule::servers();
    let [small, large] = ["one", "large"].map(|name| servers.iter().find(|server| server.name == name).unwrap());
    for (path, body, list) in valid() {
        let Some(list) = list else { continue };
        let mut none = body.clone();
        none[list] = json!([]);
        let (status, answer) = post(small, path, none.to_string());
        assert!(matches!(status, 200 | 400), "{path}: {status} {answer}");
        let one = body[list][0].clone();
        let mut many = body.clone();
        many[list] = vec![one; 100_000].into();
        is_refused(path, &post(small, path, many.to_string()), "100,000 items");
        if !["/predict", "/get_reward", "/v1/best"].contains(&path) {
            continue; // One of each kind of form; all go the same way.
        }
        let (status, answer) = post(large, path, many.to_string());
        assert_eq!(status, 200, "{path}: {}", answer.to_string().chars().take(200).collect::<String>());
        let lists = [
            &answer,
            &answer["results"],
            &answer["data"],
            &answer["rewards"],
            &answer["predictions"],
            &answer["scores"],
        ];
        assert!(lists.iter().any(|list| list.as_array().is_some_and(|list| list.len() == 100_000)), "{path}");
    }
}

#[test]
fn an_item_that_fails_is_an_error_and_never_a_number() {
    let server = rule::server();
    for (path, body, list) in valid() {
        for (word, client) in [("TOKENISE", true), ("NAN", false), ("PANIC", false)] {
            let text = body.to_string().replace("bc", word).replace("abc", word).replace(&format!("a{word}"), word);
            let (status, answer) = post(&server, path, text);
            if is_ours(path, &body) {
                assert_eq!((status, &answer["failed"]), (200, &json!(1)), "{path}: {answer}");
                assert!(answer["results"][0]["error_type"].is_string() && answer["results"][0]["score"].is_null());
            } else {
                assert!(
                    if client { (400..500).contains(&status) } else { matches!(status, 424 | 500) },
                    "{path}: {status}"
                );
            }
        }
        assert_eq!(post(&server, path, body.to_string()).0, 200, "{path} after failures, {list:?}");
    }
}

#[test]
fn texts_of_control_tokens_and_odd_characters_are_scored() {
    let server = rule::server();
    for text in ["", "[CLS] [SEP] [MASK]", "<|im_start|>", "\u{0}\u{1}", "\u{202e}\u{feff}", "👩‍👩‍👧‍👦", "\r\n\t"]
    {
        for (path, body, _) in valid() {
            let written = json!(text).to_string();
            let body = body.to_string().replace("\"bc\"", &written).replace("\"abc\"", &written);
            let (status, answer) = post(&server, path, body);
            assert_eq!(status, 200, "{path}, {text:?}: {answer}");
        }
    }
}

#[test]
fn what_the_router_refuses_is_worded_by_the_dialect() {
    use serve::ask::Refusal;
    let overloaded = Refusal::Overloaded { retry_after: std::time::Duration::from_millis(2300) };
    let large = Refusal::TooLarge { unit: "bytes", found: 9, limit: 8 };
    let cases = [
        (overloaded, 429),
        (large, 413),
        (Refusal::Unauthorised, 401),
        (Refusal::Draining, 503),
        (Refusal::Failed, 500),
    ];
    // Trainers give up on a 4xx, so these dialects say 503.
    let trainers =
        ["/classify", "/v1/classify", "/score", "/pooling", "/v1/embeddings", "/v1/models", "/v1/models/{name}"];
    for route in serve::dialects::routes().into_iter().chain(serve::api::routes()) {
        for (refusal, status) in &cases {
            let (found, headers, body) = rule::worded((route.refuse)(refusal));
            let is_kserve = route.path == "/v1/models/{name}" && route.method == "POST";
            let is_503 = *status == 429 && trainers.contains(&route.path) && !is_kserve;
            assert_eq!(found, if is_503 { 503 } else { *status }, "{} {}", route.method, route.path);
            let after = headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value.as_str());
            assert_eq!(after, if *status == 429 { Some("3") } else { None }, "{}", route.path);
            let sentence = [&body["error"], &body["error"]["message"], &body["detail"]];
            assert!(sentence.iter().any(|text| **text == json!(refusal.to_string())), "{}: {body}", route.path);
        }
    }
}

/// As the fuzz target `requests`, with bytes that are the same in each run.
#[test]
fn bytes_that_are_no_request() {
    let server = rule::server();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    let good: Vec<String> = valid().into_iter().map(|(_, body, _)| body.to_string()).collect();
    for round in 0..30_000 {
        let mut data = good[random(good.len())].clone().into_bytes();
        for _ in 0..random(4) {
            let at = random(data.len());
            match round % 3 {
                0 => data[at] = random(256) as u8,
                1 => data.insert(at, b"\"{}[],:0-e\\u"[random(12)]),
                _ => data.truncate(at + 1),
            }
        }
        data.insert(0, random(256) as u8);
        rule::any_bytes(&server, &data);
    }
}
