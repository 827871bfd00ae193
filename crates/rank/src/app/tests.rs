//! The server over real connections, and what it must refuse.

use super::{App, Settings, router};
use crate::{Import, ImportSource, Order, QueueSettings, Store};
use kudos::data::{Loaded, Options, Reader};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

const UUID: &str = "00000000-0000-4000-8000-000000000001";

/// A server on a port of its own, which ends with the test.
struct Running {
    address: SocketAddr,
    store: Arc<Store>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(data: &str, change: impl FnOnce(&mut Settings)) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(folder.path().join("a.rankings.db")).unwrap());
        let options = Options { labelled: false, ..Options::default() };
        let mut loaded = Loaded::default();
        loaded.read(Reader::from_bytes("a.jsonl", data.as_bytes().to_vec(), &options).unwrap(), &options).unwrap();
        let source = ImportSource { file: "a.jsonl".into(), sha256: loaded.files[0].sha256.clone() };
        store.import(&loaded, &source, Import::New).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = settings(address);
        change(&mut settings);
        let app = Arc::new(App::new(store.clone(), settings, Box::new(|| false)).unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stop = async { stopped.await.unwrap_or(()) };
                web::serve(listener, router(app), web::Limits::default(), stop).await;
            });
        });
        Running { address, store, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    /// The status and the body of an answer; `head` has further header lines.
    fn ask(&self, method: &str, path: &str, head: &str, body: &str) -> (u16, String) {
        let host = if head.contains("host:") { String::new() } else { format!("host: {}\r\n", self.address) };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(self.address).unwrap();
        // The server may answer and close before it has read all of a request that it refuses.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    fn post(&self, path: &str, session: &str, body: &Value) -> (u16, Value) {
        let head = format!("content-type: application/json\r\nx-kudos-session: {session}\r\n");
        let (status, body) = self.ask("POST", path, &head, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn session(&self, who: Value) -> String {
        self.post("/api/session", "", &who).1["session"].as_str().unwrap_or_default().to_owned()
    }

    fn get(&self, path: &str, session: &str) -> (u16, Value) {
        let (status, body) = self.ask("GET", path, &format!("x-kudos-session: {session}\r\n"), "");
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        address,
        token: None,
        queue: QueueSettings::default(),
        attributes: vec!["helpfulness".into()],
        flags: vec!["unsafe".into()],
        suggested_name: None,
        program: vec!["/nonexistent".into()],
    }
}

const TWO: &str = r#"{"prompt": "p", "responses": [{"text": "a", "model": "secret-model"}, {"text": "b", "model": "other-model"}]}
{"prompt": "q", "responses": [{"text": "c"}, {"text": "d"}]}
"#;

fn ballot(task: &Value) -> Value {
    json!({"vote": UUID, "task": task, "ranks": [2, 1], "ratings": [{"helpfulness": 4}, {}], "flags": [[], ["unsafe"]],
        "comment": " ", "skipped": null, "seconds": 1.5})
}

#[test]
fn a_vote_is_stored_once_withdrawn_and_given_back() {
    let server = Running::start(TWO, |_| {});
    let session = server.session(json!({"name": "Anna"}));
    let (_, first) = server.get("/api/task", &session);
    assert_eq!(first, server.get("/api/task", &session).1, "a reload shows the same");
    let ballot = ballot(&first["task"]["task"]);
    let (status, receipt) = server.post("/api/votes", &session, &ballot);
    assert_eq!((status, &receipt["already"], &receipt["reveal"]), (200, &json!(false), &Value::Null), "{receipt}");
    assert_eq!(server.post("/api/votes", &session, &ballot).1["already"], json!(true));
    assert_eq!(server.store.votes().unwrap().len(), 1);
    let (status, body) =
        server.ask("DELETE", &format!("/api/votes/{UUID}"), &format!("x-kudos-session: {session}\r\n"), "");
    let back: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &back["task"]), (200, &first["task"]), "{body}");
    let expected = json!({"ranks": [2, 1], "ratings": [{"helpfulness": 4.0}, {}], "flags": [[], ["unsafe"]],
        "comment": "", "rest": false, "seconds": 1.5});
    assert_eq!(back["ballot"], expected);
    assert!(server.store.standing().unwrap().is_empty());
}

#[test]
fn nobody_learns_who_wrote_a_response() {
    let server = Running::start(TWO, |_| {});
    let session = server.session(json!({"name": "Anna"}));
    let (_, task) = server.get("/api/task", &session);
    assert!(!task.to_string().contains("model"), "{task}");
    let keys: Vec<&String> = task["task"].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn a_label_is_told_after_the_vote_and_only_in_review() {
    let pairs = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    for (order, is_told) in [(Order::Review, true), (Order::InOrder, false)] {
        let server = Running::start(pairs, |settings| settings.queue.order = order);
        let session = server.session(json!({"name": "Anna"}));
        let (_, task) = server.get("/api/task", &session);
        let texts = &task["task"]["responses"];
        assert!(!task.to_string().contains("chosen"), "{task}");
        let ranks = if texts[0] == "a" { [1, 2] } else { [2, 1] };
        let ballot = json!({"vote": UUID, "task": task["task"]["task"], "ranks": ranks});
        let reveal = server.post("/api/votes", &session, &ballot).1["reveal"].clone();
        let expected = json!({"best": [if texts[0] == "a" { 0 } else { 1 }], "agrees": 1.0});
        assert_eq!(reveal, if is_told { expected } else { Value::Null });
    }
}

#[test]
fn requests_of_others_are_refused() {
    let server = Running::start(TWO, |_| {});
    let anna = server.session(json!({"name": "Anna"}));
    let ben = server.session(json!({"name": "Ben"}));
    let json_head = "content-type: application/json\r\n";
    let name = r#"{"name": "x"}"#;
    let status = |method: &str, path: &str, head: &str, body: &str| server.ask(method, path, head, body).0;
    assert_eq!(status("GET", "/api/task", "", ""), 401);
    assert_eq!(status("GET", "/", "host: evil.example\r\n", ""), 403, "another name for this machine");
    assert_eq!(status("POST", "/api/session", &format!("{json_head}origin: http://evil.example\r\n"), name), 403);
    assert_eq!(status("POST", "/api/session", &format!("{json_head}sec-fetch-site: cross-site\r\n"), name), 403);
    assert_eq!(status("POST", "/api/session", "content-type: text/plain\r\n", name), 415);
    assert_eq!(status("POST", "/api/session", json_head, &" ".repeat(super::BODY + 1)), 413);
    assert_eq!(status("POST", "/api/session", json_head, "{"), 400);
    assert_eq!(
        status("POST", "/api/session", json_head, r#"{"name": "a\u0000b"}"#),
        400,
        "a name of control characters"
    );
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    assert_eq!(status("GET", "/", &many, ""), 431);
    let task = server.get("/api/task", &anna).1["task"]["task"].clone();
    assert_eq!(server.post("/api/votes", &ben, &ballot(&task)).0, 409, "another person's task");
    let mut unknown = ballot(&task);
    unknown["surprise"] = json!(1);
    assert_eq!(server.post("/api/votes", &anna, &unknown).0, 422);
    let mut changed = ballot(&task);
    assert_eq!(server.post("/api/votes", &anna, &changed).0, 200);
    changed["ranks"] = json!([1, 2]);
    assert_eq!(server.post("/api/votes", &anna, &changed).0, 409, "another ballot under the same id");
    let viewer = server.session(json!({}));
    assert_eq!((server.get("/api/task", &viewer).0, server.get("/api/progress", &viewer).0), (403, 200));
    assert_eq!(server.store.votes().unwrap().len(), 1);
}

#[test]
fn tokens_let_in_and_links_say_who_comes() {
    let server = Running::start(TWO, |settings| settings.token = Some("the-servers-token".into()));
    let link = super::token_for(&server.store, Some("Zoë")).unwrap();
    assert_eq!(link, super::token_for(&server.store, Some("Zoë")).unwrap(), "links stay the same");
    let post = |who: Value| server.post("/api/session", "", &who);
    assert_eq!(post(json!({"name": "Anna"})).0, 401);
    assert_eq!(post(json!({"name": "Anna", "token": "the-servers-tokeN"})).0, 401);
    assert_eq!(post(json!({"name": " Anna ", "token": "the-servers-token"})).1["annotator"], json!("Anna"));
    assert_eq!(post(json!({"token": link})).1["annotator"], json!("Zoë"));
    assert_eq!(post(json!({"token": link, "name": "Anna"})).1["annotator"], json!("Zoë"), "a link is one person's");
    assert_eq!(post(json!({"token": "the-servers-token"})).1["annotator"], Value::Null);
}

#[test]
fn training_is_started_on_this_machine_alone() {
    let server = Running::start(TWO, |settings| settings.address = "192.0.2.1:80".parse().unwrap());
    let session = server.session(json!({}));
    assert_eq!(server.post("/api/train", &session, &json!({})).0, 403);
    assert!(server.get("/api/train", &session).1["command"].as_str().unwrap().starts_with("kudos train "));
    let server = Running::start(TWO, |_| {});
    assert_eq!(server.post("/api/train", "", &json!({})).0, 401, "without a session");
}

#[test]
fn the_end_waits_for_requests_and_closes_idle_connections() {
    let mut server = Running::start(TWO, |_| {});
    let mut idle = TcpStream::connect(server.address).unwrap();
    idle.write_all(b"GET /api/about HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let started = std::time::Instant::now();
    server.stop.take().unwrap().send(()).unwrap();
    server.thread.take().unwrap().join().unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(TcpStream::connect(server.address).is_err());
}
