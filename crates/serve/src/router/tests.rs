//! The router without sockets: what is the same for all routes.

use super::*;
use crate::guard::Key;
use crate::logs::LogForm;
use crate::settings::Settings;
use crate::testing::{Bytes, Sums, facts};
use axum::http::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;
use tower::ServiceExt;

const KEY: &str = "0123456789abcdef";

/// What was logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Fixture {
    app: Arc<App>,
    log: Kept,
}

fn fixture(change: impl FnOnce(&mut Settings, &mut Guard)) -> Fixture {
    let (mut settings, mut guard) = (Settings::default(), Guard { key: None, is_local: true });
    change(&mut settings, &mut guard);
    let service = Service::new(settings);
    service.install(facts("a"), Arc::new(Bytes::default()), Box::new(Sums::default()));
    let log = Kept::default();
    let logs = Arc::new(Logs::start(LogForm::Json, service.metrics().clone(), log.clone()));
    Fixture { app: App::new(service, guard, logs, None), log }
}

fn plain() -> Fixture {
    fixture(|_, _| {})
}

fn keyed() -> Fixture {
    fixture(|_, guard| *guard = Guard { key: Some(Key::new(KEY)), is_local: false })
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(body.into()).unwrap()
}

/// Status, headers and body of an answer.
async fn send(router: Router, request: Request) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

impl Fixture {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, HeaderMap, String) {
        let request = request(method, path, headers, body.to_owned());
        let (status, headers, body) = send(router(&self.app, routes()), request).await;
        (status.as_u16(), headers, body)
    }

    async fn status(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        self.ask(method, path, headers, body).await.0
    }
}

/// A path of the table with its parameters filled in.
fn example(route: &Route) -> String {
    let name = if route.path == "/v1/models/{name}" && route.method == Method::POST { "a:predict" } else { "a" };
    let name = if route.path.starts_with("/assets") { "serve.css" } else { name };
    route.path.replace("{name}", name).replace("{version}", "1")
}

const SCORE: &str = r#"{"prompt": "p", "responses": ["one", "two"]}"#;

#[tokio::test]
async fn without_the_key_nothing_is_told_but_that_the_server_lives() {
    let fixture = keyed();
    let health: BTreeSet<&str> =
        ["/health/live", "/health/ready", "/health", "/ping", "/v2/health/live", "/v2/health/ready"].into();
    // Files of the program: a browser opens them before it can be told a key.
    let is_page = |path: &str| path.starts_with("/assets/") || ["/", "/docs", "/openapi.json"].contains(&path);
    let is_open =
        |method: &str, path: &str| ["GET", "HEAD"].contains(&method) && (health.contains(path) || is_page(path));
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];
    let mut walked = BTreeSet::new();
    for route in routes() {
        let path = example(&route);
        assert!(!path.contains('{'), "give {path} an example");
        assert_eq!(is_open(route.method.as_str(), route.path), !route.needs_key, "{} {path}", route.method);
        for method in methods.iter().filter(|method| !is_open(method, route.path)) {
            for headers in [&[][..], &[("authorization", "Bearer wrong-wrong-wrong")], &[("x-api-key", "")]] {
                let (status, _, body) = fixture.ask(method, &path, headers, SCORE).await;
                assert_eq!(status, 401, "{method} {path}: {body}");
                assert!(!body.contains("\"one\"") && !body.contains(KEY), "{method} {path}: {body}");
            }
        }
        if !route.needs_key {
            let (status, _, body) = fixture.ask(route.method.as_str(), &path, &[], "").await;
            let is_file = is_page(&path) && !body.contains(&"00".repeat(32));
            assert!(status == 200 && body.len() < 64 || is_file, "{path}: {body}");
        }
        walked.insert((route.method.to_string(), route.path));
    }
    assert_eq!(walked.len(), routes().len(), "no route is registered twice");
    for path in ["/nothing", "/v1", "/assets", "/../etc/passwd", "/health/live/x"] {
        assert_eq!(fixture.status("GET", path, &[], "").await, 401, "{path}");
    }
    let key = [("authorization", "Bearer 0123456789abcdef")];
    for route in routes() {
        let status = fixture.status(route.method.as_str(), &example(&route), &key, "{}").await;
        assert!(status != 401, "{}: {status}", route.path);
    }
    let refused = fixture.ask("GET", "/metrics", &[], "").await;
    assert_eq!(refused.1["www-authenticate"], "Bearer");
    fixture.app.logs.flush(Duration::from_secs(10));
    let log = String::from_utf8(fixture.log.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains(KEY) && !log.contains("wrong-wrong") && !log.contains("two"), "{log}");
}

#[tokio::test]
async fn a_request_is_scored_counted_and_logged() {
    let fixture = plain();
    let (status, headers, body) = fixture.ask("POST", "/v1/score", &[("x-request-id", "my-id.1")], SCORE).await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["results"].as_array().map(Vec::len), Some(2), "{body}");
    assert_eq!(headers["x-request-id"], "my-id.1");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    fixture.app.logs.flush(Duration::from_secs(10));
    let log = fixture.log.0.lock().unwrap().clone();
    let line: Value = serde_json::from_slice(&log).unwrap();
    let told = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    assert_eq!([told("id"), told("method"), told("route")], ["my-id.1", "POST", "/v1/score"]);
    assert!(line["status"] == 200 && line["bytes_in"] == SCORE.len(), "{line}");
    let metrics = fixture.ask("GET", "/metrics", &[], "").await.2;
    for line in [
        "kudos_items_total{judge=\"a\"} 2",
        "te_request_success{method=\"batch\"} 1",
        "kudos_responses_total{route=\"/v1/score\",status=\"200\"} 1",
        "kudos_score_window{judge=\"a\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn ids_that_clients_give_are_kept_if_they_are_plain() {
    let fixture = plain();
    let long = "x".repeat(129);
    for odd in ["", "a b", "a\"b", "é", &long, "a;b"] {
        let request = request("GET", "/health/live", &[], "");
        let mut request = request;
        request.headers_mut().insert("x-request-id", HeaderValue::from_bytes(odd.as_bytes()).unwrap());
        let headers = send(router(&fixture.app, routes()), request).await.1;
        let id = headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id != odd && id.len() < 40 && id.contains('-'), "{odd:?}: {id}");
    }
    let ids = [(); 2].map(|()| fixture.app.ids.of(&HeaderMap::new()));
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not() {
    let fixture = plain();
    let (status, _, body) = fixture.ask("GET", "/nothing", &[], "").await;
    assert_eq!((status, body.contains("/nothing")), (404, true), "{body}");
    let (status, headers, body) = fixture.ask("DELETE", "/v1/score", &[], "").await;
    assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "POST"), "{body}");
    assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
    assert_eq!(fixture.status("HEAD", "/health/live", &[], "").await, 200);
}

#[tokio::test]
async fn bodies_at_their_limit_and_beyond_it() {
    let fixture = fixture(|settings, _| settings.max_body = 1000);
    let of_length = |length: usize| {
        let filling = length - SCORE.len();
        format!("{}{}", SCORE, " ".repeat(filling))
    };
    assert_eq!(fixture.status("POST", "/v1/score", &[], &of_length(1000)).await, 200);
    // Whether or not the length is said, and in each dialect's own form.
    for route in routes().iter().filter(|route| route.method == Method::POST) {
        for said in [&[("content-length", "1001")][..], &[]] {
            let (status, headers, body) = fixture.ask("POST", &example(route), said, &of_length(1001)).await;
            assert_eq!(status, 413, "{}: {body}", route.path);
            assert!(headers["content-type"].to_str().unwrap().starts_with("application/json"), "{}", route.path);
            assert!(body.contains("1000"), "{}: {body}", route.path);
        }
    }
    let huge = [("content-length", "99999999999999999999999999")];
    assert!([200, 400].contains(&fixture.status("POST", "/v1/score", &huge, SCORE).await));
}

#[tokio::test]
async fn all_bodies_together_have_a_limit() {
    let fixture = fixture(|settings, _| (settings.max_body, settings.max_bodies) = (4096, 4096));
    let (sender, body) = slow_body();
    let waiting = tokio::spawn({
        let app = fixture.app.clone();
        async move { send(router(&app, routes()), request("POST", "/v1/score", &[("content-length", "4096")], body)).await }
    });
    sender.send(SCORE.into()).await.unwrap();
    while fixture.app.bodies.are_free(fixture.app.service.settings()) {
        tokio::task::yield_now().await;
    }
    let (status, headers, _) = fixture.ask("POST", "/v1/score", &[("content-length", "2000")], SCORE).await;
    assert_eq!((status, headers.contains_key("retry-after")), (429, true));
    drop(sender);
    assert_eq!(waiting.await.unwrap().0, 200);
    assert_eq!(fixture.status("POST", "/v1/score", &[], SCORE).await, 200);
}

/// A body that arrives as it is sent.
fn slow_body() -> (tokio::sync::mpsc::Sender<String>, Body) {
    struct Slow(tokio::sync::mpsc::Receiver<String>);
    impl axum::body::HttpBody for Slow {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            self.0.poll_recv(context).map(|text| text.map(|text| Ok(http_body::Frame::data(text.into()))))
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Body::new(Slow(receiver)))
}

#[tokio::test]
async fn a_body_without_an_end_is_given_up() {
    let fixture = fixture(|settings, _| settings.body_time = Duration::from_millis(50));
    let (_sender, body) = slow_body();
    let (status, _, body) = send(router(&fixture.app, routes()), request("POST", "/v1/score", &[], body)).await;
    assert_eq!(status, 408, "{body}");
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let fixture = plain();
    for coding in ["gzip", "br", "zstd", "deflate", "gzip, identity", "x"] {
        let (status, _, body) = fixture.ask("POST", "/v1/score", &[("content-encoding", coding)], SCORE).await;
        assert_eq!(status, 415, "{coding}: {body}");
    }
    assert_eq!(fixture.status("POST", "/v1/score", &[("content-encoding", "Identity")], SCORE).await, 200);
}

#[tokio::test]
async fn json_that_is_deep_or_has_impossible_numbers_is_refused_by_every_route() {
    let fixture = plain();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_inside = format!(r#"{{"prompt": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for body in [&deep, &deep_inside, r#"{"prompt": 1e999}"#, "{", "", "null", "[1", "\u{1}", r#"{"prompt": "\ud800"}"#]
    {
        for route in routes().iter().filter(|route| route.method == Method::POST) {
            let (status, _, answer) = fixture.ask("POST", &example(route), &[], body).await;
            assert!([400, 422].contains(&status), "{}: {status} {answer}", route.path);
        }
    }
}

#[tokio::test]
async fn pages_elsewhere_are_refused() {
    let fixture = plain();
    assert_eq!(fixture.status("POST", "/v1/score", &[("host", "evil.example")], SCORE).await, 403);
    assert_eq!(fixture.status("POST", "/v1/score", &[("origin", "http://evil.example")], SCORE).await, 403);
    assert_eq!(fixture.status("POST", "/v1/score", &[("sec-fetch-site", "cross-site")], SCORE).await, 403);
    assert_eq!(fixture.status("POST", "/v1/score", &[("origin", "http://localhost:8080")], SCORE).await, 200);
}

#[tokio::test]
async fn a_server_that_is_about_to_end_says_so_and_lets_its_clients_go() {
    let fixture = plain();
    assert_eq!(fixture.status("GET", "/health/ready", &[], "").await, 200);
    fixture.app.service.drain();
    let (status, headers, _) = fixture.ask("GET", "/health/ready", &[], "").await;
    assert_eq!((status, headers["connection"].to_str().unwrap()), (503, "close"));
    assert_eq!(fixture.status("GET", "/health/live", &[], "").await, 200);
    assert_eq!(fixture.status("POST", "/v1/score", &[], SCORE).await, 503);
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_request_alone() {
    let fixture = plain();
    let early: Handler = |_| panic!("before");
    let late: Handler = |_| Box::pin(async { panic!("after") });
    let route = |path, handler| Route { method: Method::GET, path, needs_key: true, handler, refuse };
    let table = || vec![route("/early", early), route("/late", late), route("/live", live)];
    for (path, expected) in [("/early", 500), ("/late", 500), ("/live", 200)] {
        let (status, _, body) = send(router(&fixture.app, table()), request("GET", path, &[], "")).await;
        assert_eq!(status.as_u16(), expected, "{path}: {body}");
    }
}

#[test]
fn large_requests_are_read_and_answered_where_nobody_else_waits() {
    let heavy = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("json").build().unwrap();
    let Fixture { app, .. } = plain();
    let app = App::new(app.service.clone(), Guard::default(), app.logs.clone(), Some(heavy.handle().clone()));
    let name: Handler =
        |_| Box::pin(async { std::thread::current().name().unwrap_or_default().to_owned().into_response() });
    let table = || vec![Route { method: Method::POST, path: "/name", needs_key: true, handler: name, refuse }];
    let io = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let on = |length: usize| {
        let request = request("POST", "/name", &[], "x".repeat(length));
        io.block_on(send(router(&app, table()), request)).2
    };
    assert_ne!(on(HEAVY), "json");
    assert_eq!(on(HEAVY + 1), "json");
}

#[tokio::test]
async fn a_full_queue_is_told_before_the_body_is_read_and_says_when_to_come_back() {
    let fixture = fixture(|settings, _| (settings.queue_tokens, settings.queue_items) = (4, 4));
    let slow = Sums { time: Duration::from_millis(400), ..Sums::default() };
    fixture.app.service.install(facts("a"), Arc::new(Bytes::default()), Box::new(slow));
    let ask = || {
        let service = fixture.app.service.clone();
        tokio::spawn(async move { service.score(crate::testing::ask(&["x"])).await })
    };
    // One is computed, four wait, and there is no room for more.
    let mut held = vec![ask()];
    tokio::time::sleep(Duration::from_millis(100)).await;
    held.extend((0..8).map(|_| ask()));
    // What no dialect can read is refused for the queue, so nobody has tried.
    let mut refused = 0;
    while held.iter().any(|task| !task.is_finished()) {
        let (status, headers, _) = fixture.ask("POST", "/v1/score", &[], "no JSON").await;
        refused += usize::from(status == 429 && headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused > 0);
    assert_eq!(fixture.status("POST", "/v1/score", &[], "no JSON").await, 400);
}

#[tokio::test]
async fn what_prometheus_reads_is_well_formed() {
    let fixture = plain();
    for (path, body) in [("/v1/score", SCORE), ("/v1/score", "{"), ("/nothing", ""), ("/predict", "[")] {
        fixture.ask("POST", path, &[], body).await;
    }
    fixture.app.service.metrics().judge("a").reloaded(false);
    fixture.app.service.metrics().refused("too_slow");
    let page = fixture.ask("GET", "/metrics", &[], "").await.2;
    let (mut kinds, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} twice");
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_histogram = family.is_some_and(|family| kinds.get(family).is_some_and(|kind| kind == "histogram"));
        assert!(is_histogram || kinds.contains_key(name), "{line} without a TYPE");
    }
    for name in ["kudos_stage_seconds", "kudos_score", "te_batch_next_tokens", "te_request_queue_duration"] {
        let buckets: Vec<u64> = page
            .lines()
            .filter(|line| {
                line.starts_with(&format!("{name}_bucket"))
                    && !line.contains("queue\"")
                    && !line.contains("inference")
                    && !line.contains("total\"")
            })
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.windows(2).all(|pair| pair[0] <= pair[1]) && buckets.last() > Some(&0), "{name}: {buckets:?}");
    }
    assert!(page.contains("kudos_reloads_total{judge=\"a\",result=\"failed\"} 1"));
}
