//! A rule in the place of a judge, and requests without sockets.
//!
//! The score is a difference of lengths: characters of the response that were read, minus those of the prompt,
//! divided by 8. A text has as many tokens as characters, and at most 40.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::Response;
use kudos::data::{ASSISTANT, USER};
use kudos::models::{Calibration, Rated, Scored};
use kudos::text::Encoded;
use serde_json::Value;
use serve::ask::{Cut, FaultKind, Item, ItemFault, JudgeFacts, Scorer, Tokeniser};
use serve::route::{Call, Route};
use serve::service::Service;
use serve::settings::Settings;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// What the rule says of its weights.
pub const SHA256: &str = "0011223344556677889900112233445566778899001122334455667788990011";
const MAX_LENGTH: usize = 40;

struct Characters;

impl Tokeniser for Characters {
    fn encode(&self, item: &Item) -> Result<Encoded, ItemFault> {
        let prompt = item.prompt.as_ref().map_or(String::new(), |prompt| prompt.as_text(USER).into_owned());
        let response = item.response.as_text(ASSISTANT).into_owned();
        if response.contains("TOKENISE") {
            return Err(ItemFault::new(FaultKind::Tokenise, "the tokenizer refuses the text"));
        }
        let sides = prompt.chars().map(|c| (c as u32, 0)).chain(response.chars().map(|c| (c as u32, 1)));
        let all: Vec<(u32, u32)> = sides.collect();
        let tokens = all.len();
        if tokens > MAX_LENGTH && item.cut == Cut::Refuse {
            let message = format!("the text has {tokens} tokens, the judge reads {MAX_LENGTH}");
            return Err(ItemFault::new(FaultKind::TooLong, message));
        }
        let (ids, type_ids): (Vec<u32>, Vec<u32>) = all.into_iter().take(MAX_LENGTH).unzip();
        // A model reads at least one token.
        let (ids, type_ids) = if ids.is_empty() { (vec![0], vec![2]) } else { (ids, type_ids) };
        Ok(Encoded { ids, type_ids, truncated: tokens > MAX_LENGTH, tokens_before_truncation: tokens.max(1) })
    }
}

struct Lengths {
    has_attributes: bool,
}

impl Scorer for Lengths {
    fn run(&mut self, texts: &[&Encoded]) -> Vec<Result<Rated, ItemFault>> {
        texts.iter().map(|text| self.rate(text)).collect()
    }
}

impl Lengths {
    fn rate(&self, text: &Encoded) -> Result<Rated, ItemFault> {
        let word: String = text.ids.iter().filter_map(|id| char::from_u32(*id)).collect();
        assert!(!word.contains("PANIC"), "the rule panics, as asked");
        if word.contains("NAN") {
            return Err(ItemFault::new(FaultKind::NotFinite, "the score is not a number"));
        }
        let side = |kind: u32| text.type_ids.iter().filter(|of| **of == kind).count() as f32;
        let score = (side(1) - side(0)) / 8.0;
        let attributes = if self.has_attributes { vec![side(1), side(0)] } else { Vec::new() };
        Ok(Rated { scored: Scored::new(score, text), attributes })
    }
}

/// A server with its name in the golden files.
pub struct Server {
    /// `one`, `many` or `large`.
    pub name: &'static str,
    service: Arc<Service>,
    routes: Vec<Route>,
    runtime: tokio::runtime::Runtime,
}

fn facts(name: &str, has_calibration: bool, attributes: &[&str]) -> JudgeFacts {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    JudgeFacts {
        name: name.into(),
        sha256: SHA256.into(),
        base: "distilbert".into(),
        max_length: MAX_LENGTH,
        labels: if attributes.is_empty() { owned(&["LABEL_0"]) } else { owned(attributes) },
        precision: kudos::nn::Precision::F32,
        calibration: has_calibration.then_some(Calibration { temperature: 0.5, mean: 0.0, std: 1.0 }),
        attributes: owned(attributes),
        loaded_at: UNIX_EPOCH + Duration::from_secs(1_600_000_000),
    }
}

fn build(name: &'static str, settings: Settings, judges: Vec<JudgeFacts>) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let service = Service::new(settings);
    for facts in judges {
        let scorer = Box::new(Lengths { has_attributes: !facts.attributes.is_empty() });
        service.install(facts, Arc::new(Characters), scorer);
    }
    let routes = serve::dialects::routes().into_iter().chain(serve::api::routes()).collect();
    Server { name, service, routes, runtime }
}

/// The server with one judge, `rule`, which has a calibration.
pub fn server() -> Server {
    build("one", Settings::default(), vec![facts("rule", true, &[])])
}

/// That one; one with several judges; and one that takes very many items.
pub fn servers() -> Vec<Server> {
    let many = vec![facts("rule", true, &[]), facts("plain", false, &[]), facts("rated", true, &["help", "harm"])];
    let large = Settings { max_items: 200_000, ..Settings::default() };
    vec![
        server(),
        build("many", Settings::default(), many),
        build("large", large, vec![facts("rule", true, &[])]),
        build("empty", Settings::default(), vec![]),
    ]
}

/// A request.
pub struct Asking {
    /// Which server.
    pub server: String,
    /// GET or POST.
    pub method: Method,
    /// With its query.
    pub path: String,
    /// Besides those of every request.
    pub headers: HeaderMap,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Default for Asking {
    fn default() -> Self {
        let (server, path) = ("one".to_owned(), String::new());
        Asking { server, method: Method::POST, path, headers: HeaderMap::new(), body: Vec::new() }
    }
}

impl Asking {
    /// That of a golden case: `body` is JSON, `text` is the body as it is.
    pub fn of(case: &Value) -> Asking {
        let text = |name: &str| case.get(name).and_then(Value::as_str);
        let body =
            text("text").map(str::to_owned).or_else(|| case.get("body").map(Value::to_string)).unwrap_or_default();
        let none = serde_json::Map::new();
        let headers = case.get("headers").and_then(Value::as_object).unwrap_or(&none).iter();
        let header = |(name, value): (&String, &Value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.as_str().unwrap()).unwrap())
        };
        Asking {
            server: text("server").unwrap_or("one").to_owned(),
            method: text("method").unwrap_or("POST").parse().unwrap(),
            path: text("path").unwrap().to_owned(),
            headers: headers.map(header).collect(),
            body: body.into_bytes(),
        }
    }
}

/// Sends a request to its route, as the router would: the status, the headers and the body.
pub fn exchange(server: &Server, asking: &Asking) -> (u16, Vec<(String, String)>, Value) {
    let (path, query) = asking.path.split_once('?').unwrap_or((&asking.path, ""));
    let matching = server.routes.iter().filter(|route| route.method == asking.method);
    let (route, parameters) = matching
        .filter_map(|route| Some((route, parameters(route.path, path)?)))
        .min_by_key(|(_, parameters)| parameters.len())
        .unwrap_or_else(|| panic!("no route for {} {path}", asking.method));
    let call = Call {
        service: server.service.clone(),
        path: path.into(),
        parameters,
        query: query.to_owned(),
        headers: asking.headers.clone(),
        body: Bytes::from(asking.body.clone()),
        id: "id-1".into(),
    };
    let response = server.runtime.block_on((route.handler)(call));
    server.runtime.block_on(parts(response))
}

/// The status, the headers and the body of a response that needs no server.
pub fn worded(response: Response) -> (u16, Vec<(String, String)>, Value) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(parts(response))
}

async fn parts(response: Response) -> (u16, Vec<(String, String)>, Value) {
    let (head, body) = response.into_parts();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) };
    (head.status.as_u16(), headers.collect(), body)
}

fn parameters(pattern: &str, path: &str) -> Option<HashMap<String, String>> {
    let (known, given): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    if known.len() != given.len() {
        return None;
    }
    let mut found = HashMap::new();
    for (known, given) in known.into_iter().zip(given) {
        match known.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => drop(found.insert(name.to_owned(), given.to_owned())),
            None if known == given => {}
            None => return None,
        }
    }
    Some(found)
}

/// Sends the bytes to the route that the first of them chooses. Whatever they are, the answer is one of success or of the
/// client's fault, and its body is JSON or text without NaN.
pub fn any_bytes(server: &Server, data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let scoring: Vec<&Route> = server.routes.iter().filter(|route| route.method == Method::POST).collect();
    let route = scoring[usize::from(*first) % scoring.len()];
    let path = route.path.replace("{name}", "rule:predict");
    let asking = Asking { path: path.clone(), body: body.to_vec(), ..Asking::default() };
    let (status, _, answer) = exchange(server, &asking);
    assert!((200..500).contains(&status), "{path} answered {status}: {answer}");
    assert!(!answer.is_null(), "{path} answered {status} without words");
}
