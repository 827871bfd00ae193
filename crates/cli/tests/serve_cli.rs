//! `kudos serve` by the real binary: what it answers, how it starts, reloads and ends, and what it refuses to do.

#![cfg(all(unix, feature = "boxed-judge"))]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Time after which something that should happen has not.
const LONG: Duration = Duration::from_secs(300);

/// The judge in the box, unpacked once for all tests of this file.
fn judge() -> &'static Path {
    static JUDGE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    JUDGE.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve_cli_home");
        let output = command(&home).args(["score", "--response", "x", "--quiet"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folders = fs::read_dir(home.join("models")).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|folder| folder.join("config.json").is_file()).max().unwrap()
    })
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("kudos"));
    command.env("KUDOS_HOME", home).env("HF_HUB_OFFLINE", "1").current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

fn kudos(args: &[&str]) -> Output {
    command(Path::new(env!("CARGO_TARGET_TMPDIR"))).args(args).output().unwrap()
}

/// A server on a port of its own, which ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    /// The line that it printed at its start.
    line: String,
    log: Option<std::process::ChildStderr>,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut command = command(Path::new(env!("CARGO_TARGET_TMPDIR")));
        command.args(["serve", "--port", "0"]).args(args);
        Server::spawn(command.stderr(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(": ").next()?.parse().ok());
        let log = child.stderr.take();
        match address {
            Some(address) => Server { child, address, line, log },
            None => {
                let mut said = String::new();
                log.map(|mut log| log.read_to_string(&mut said));
                panic!("{line:?}, {said}");
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect();
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}");
        let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
        answer(&mut stream)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "", "")
    }

    fn score(&self, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", "/v1/score", "content-type: application/json\r\n", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id();
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
    }

    fn metric(&self, line: &str) -> bool {
        self.get("/metrics").1.lines().any(|other| other == line)
    }

    /// The status with which it ended, and what it logged.
    fn end(&mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LONG, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut log = String::new();
        self.log.take().map(|mut stderr| stderr.read_to_string(&mut log));
        (status.code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn copy_judge(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(judge()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Texts of many lengths, some beyond the token limit.
fn texts() -> Vec<String> {
    let words = ["basil", "window", "Ünïcode", "42", "sun light", "…", "water it"];
    (0..40).map(|i| (0..i * i % 700).map(|j| words[(i + j) % words.len()]).collect::<Vec<_>>().join(" ")).collect()
}

fn scores(answer: &Value) -> Vec<f64> {
    answer["results"].as_array().unwrap().iter().map(|one| one["score"].as_f64().unwrap()).collect()
}

#[test]
fn a_score_is_that_of_the_command_bit_for_bit_whatever_else_is_scored() {
    let texts = texts();
    let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
    let rows = texts.iter().map(|text| json!({"prompt": "Why?", "response": text}).to_string() + "\n");
    fs::write(file.path(), rows.collect::<String>()).unwrap();
    let output = kudos(&["score", file.path().to_str().unwrap(), "--judge", judge().to_str().unwrap(), "--quiet"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<f64> = rows.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert_eq!(expected.len(), texts.len());
    let server = Server::start(&["--judge", judge().to_str().unwrap(), "--log", "off"]);
    let all = server.score(&json!({"prompt": "Why?", "responses": texts}));
    assert_eq!(scores(&all), expected);
    let told = |key: &str| all["results"].as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("truncated"), rows.iter().map(|row| row["truncated"].clone()).collect::<Vec<_>>());
    assert_eq!(told("tokens"), rows.iter().map(|row| row["tokens"].clone()).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (server, texts, expected) = (&server, &texts, &expected);
            scope.spawn(move || {
                for place in (client..texts.len()).step_by(8) {
                    let alone = server.score(&json!({"prompt": "Why?", "responses": [texts[place]]}));
                    assert_eq!(scores(&alone), [expected[place]], "text {place}");
                }
            });
        }
    });
}

#[test]
fn it_says_where_it_listens_and_answers_until_it_is_asked_to_end() {
    let mut server = Server::start(&["--log", "json", "--drain", "600"]);
    assert!(server.line.starts_with("listening at http://127.0.0.1:"), "{}", server.line);
    assert!(server.line.ends_with(": kudos-judge (int8), without a key\n"), "{}", server.line);
    assert_eq!(server.get("/health/live"), (200, "live\n".into()));
    assert_eq!(server.get("/health/ready"), (200, "ready\n".into()));
    let texts: Vec<String> = (0..1000).map(|i| format!("response {i} {}", "word ".repeat(i % 90))).collect();
    let body = json!({"prompt": "p", "responses": texts});
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.score(&body));
        eventually("the request is in the queue", || !server.metric("kudos_queue_items{judge=\"kudos-judge\"} 0"));
        // A connection that is open and idle does not keep it from ending.
        let _idle = server.connect();
        server.signal("TERM");
        eventually("not ready", || server.get("/health/ready").0 == 503);
        assert_eq!(server.get("/health/live").0, 200);
        let (status, answer) = server.ask("POST", "/v1/score", "", r#"{"prompt": "p", "responses": ["x"]}"#);
        assert_eq!(status, 503, "{answer}");
        assert_eq!(scores(&asked.join().unwrap()).len(), 1000, "what was asked before is answered");
    });
    let (status, log) = server.end();
    assert_eq!(status, Some(0), "{log}");
    let lines: Vec<Value> =
        log.lines().filter(|line| line.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert!(events.contains(&"request") && events.contains(&"drain") && events.last() == Some(&"end"), "{log}");
    assert!(!log.contains("response 1"), "no texts in the log");
}

#[test]
fn the_time_to_end_is_bounded_and_a_second_signal_ends_at_once() {
    let texts = vec!["word ".repeat(400); 4000];
    let body = json!({"prompt": "p", "responses": texts}).to_string();
    for (signals, expected) in [(1, "time to end was over"), (2, "ended at once")] {
        let mut server = Server::start(&["--drain", if signals == 1 { "1" } else { "60" }]);
        let mut stream = server.connect();
        let head = format!("POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        eventually("the request is in the queue", || !server.metric("kudos_queue_items{judge=\"kudos-judge\"} 0"));
        for number in 0..signals {
            server.signal(if number == 0 { "TERM" } else { "INT" });
            eventually("it is about to end", || {
                TcpStream::connect(server.address).is_err() || server.get("/health/ready").0 != 200
            });
        }
        let (status, log) = server.end();
        assert!(
            status == Some(1) && log.contains(expected) && log.contains("1 request was not answered"),
            "{status:?} {log}"
        );
    }
}

#[test]
fn judges_are_loaded_anew_on_sighup_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("mine");
    copy_judge(&dir);
    let mut server = Server::start(&["--judge", dir.to_str().unwrap()]);
    let body = json!({"prompt": "p", "responses": ["one", "two"]});
    let first = server.score(&body);
    assert_eq!(first["judge"]["name"], "mine");
    let weights = dir.join("model.int8.safetensors");
    let whole = fs::read(&weights).unwrap();
    let reloads = |server: &Server, result: &str, times: u32| {
        let line = format!("kudos_reloads_total{{judge=\"mine\",result=\"{result}\"}} {times}");
        eventually(&line, || server.metric(&line));
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (server, done, first) = (&server, &done, &first);
        let client = scope.spawn(move || {
            let mut asked = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                assert_eq!(scores(&server.score(&json!({"prompt": "p", "responses": ["one", "two"]}))), scores(first));
                asked += 1;
            }
            asked
        });
        server.signal("HUP");
        reloads(server, "loaded", 1);
        fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
        server.signal("HUP");
        reloads(server, "failed", 1);
        fs::remove_dir_all(&dir).unwrap();
        server.signal("HUP");
        reloads(server, "failed", 2);
        copy_judge(&dir);
        server.signal("HUP");
        reloads(server, "loaded", 2);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(client.join().unwrap() > 0);
    });
    assert_eq!(server.score(&body), first);
    server.signal("TERM");
    let (status, log) = server.end();
    assert_eq!(status, Some(0));
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("judge mine: ")).collect();
    assert_eq!(lines.len(), 4, "{log}");
    assert!(lines[1].contains("the old one stays") && lines[1].contains("safetensors"), "{}", lines[1]);
}

#[test]
fn two_judges_and_a_key_from_a_settings_file() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    copy_judge(&other);
    let key = folder.path().join("key.txt");
    fs::write(&key, "correct-horse-battery\n").unwrap();
    let config = folder.path().join("serve.toml");
    let settings = format!(
        "host = '0.0.0.0'\nport = 1\njudge = ['kudos-judge', 'second={}']\napi-key-file = '{}'\nmax-items = 2\nlog = 'off'\n",
        other.display(),
        key.display()
    );
    fs::write(&config, settings).unwrap();
    let mut server = Server::start(&["--config", config.to_str().unwrap()]);
    server.address.set_ip([127, 0, 0, 1].into());
    assert!(server.line.contains("kudos-judge (int8), second (int8), with a key"), "{}", server.line);
    let ask = |headers: &str, body: &str| server.ask("POST", "/v1/score", headers, body);
    let body = r#"{"prompt": "p", "responses": ["x"]}"#;
    assert_eq!(ask("", body).0, 401);
    assert_eq!(ask("authorization: Bearer correct-horse-batterz\r\n", body).0, 401);
    let header = "authorization: Bearer correct-horse-battery\r\n";
    assert_eq!(ask(header, body).0, 200);
    assert_eq!(ask("x-api-key: correct-horse-battery\r\n", body).0, 200);
    let named = |judge: &str| ask(header, &json!({"judge": judge, "prompt": "p", "responses": ["x"]}).to_string());
    let name = |answer: String| serde_json::from_str::<Value>(&answer).unwrap()["judge"]["name"].clone();
    assert_eq!([name(named("second").1), name(named("kudos-judge").1)], ["second", "kudos-judge"]);
    let (status, answer) = named("third");
    assert!(status == 404 && answer.contains("second"), "{answer}");
    assert_eq!(ask(header, r#"{"prompt": "p", "responses": ["x", "y", "z"]}"#).0, 400);
    assert_eq!((server.get("/health/ready").0, server.get("/metrics").0, server.get("/info").0), (200, 401, 401));
}

#[test]
fn what_cannot_be_served_is_said_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, text) in [("empty", ""), ("short", "short\n"), ("two", "0123456789abcdef\n0123456789abcdef\n")] {
        fs::write(path(name), text).unwrap();
    }
    fs::create_dir(path("nothing")).unwrap();
    copy_judge(Path::new(&path("half")));
    fs::write(Path::new(&path("half")).join("model.int8.safetensors"), "half").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (in_use, twice) = (format!("port {port} at 127.0.0.1 is in use"), format!("x={}", path("half")));
    let (empty, short, two, missing) = (path("empty"), path("short"), path("two"), path("missing"));
    let (nothing, half) = (path("nothing"), path("half"));
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["--port", &port], 1, &in_use),
        (vec!["--api-key-file", &empty], 1, "is empty"),
        (vec!["--api-key-file", &short], 1, "at least 16"),
        (vec!["--api-key-file", &two], 1, "white space"),
        (vec!["--api-key-file", &missing], 1, "cannot read the key"),
        (vec!["--host", "0.0.0.0"], 2, "--api-key-file, or --insecure"),
        (vec!["--judge", &nothing], 1, "config.json"),
        (vec!["--judge", &half], 1, "model.int8.safetensors"),
        (vec!["--judge", &twice, "--judge", &twice], 2, "two judges have the name x"),
        (vec!["--judge", "a b=x"], 2, "expected a name"),
        (vec!["--judge", "no-such-judge"], 1, "no-such-judge"),
        (vec!["--max-batch-tokens", "0"], 2, "expected at least 1"),
        (vec!["--log", "xml"], 2, "`json`"),
        (vec!["--config", &missing], 1, "missing"),
        (vec!["--config", &short], 1, "short"),
    ];
    for (words, status, expected) in cases {
        let port: &[&str] = if words[0] == "--port" { &[] } else { &["--port", "0"] };
        let output = kudos(&[&["serve"][..], port, &words].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(status) && said.contains(expected),
            "{words:?}: {:?} {said}",
            output.status
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn odd_ways_to_speak_http() {
    let server = Server::start(&["--log", "off"]);
    let body = r#"{"prompt": "p", "responses": ["x"]}"#;
    let head = |more: &str| format!("POST /v1/score HTTP/1.1\r\nhost: {}\r\n{more}", server.address);
    // The body is sent when the server says so.
    let mut stream = server.connect();
    stream
        .write_all(
            head(&format!("expect: 100-continue\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len()))
                .as_bytes(),
        )
        .unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    // One that is too long is refused without being sent.
    let mut stream = server.connect();
    stream
        .write_all(head("expect: 100-continue\r\ncontent-length: 999999999\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(answer(&mut stream).0, 413);
    // HTTP/2 without an upgrade: the connection ends.
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let start = Instant::now();
    let _ = answer(&mut stream);
    assert!(start.elapsed() < Duration::from_secs(10), "it hung");
    // Several requests at once on one connection.
    let mut stream = server.connect();
    let one = head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let last = head(&format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()));
    stream.write_all([one.as_str(), &one, &last].concat().as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 3, "{all}");
    // A body in pieces.
    let mut stream = server.connect();
    let chunks: String = body
        .as_bytes()
        .chunks(7)
        .map(|c| format!("{:x}\r\n{}\r\n", c.len(), std::str::from_utf8(c).unwrap()))
        .collect();
    stream
        .write_all(
            head(&format!("transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunks}0\r\n\r\n")).as_bytes(),
        )
        .unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    // Headers beyond every limit.
    let mut stream = server.connect();
    let _ = stream.write_all(head(&format!("x: {}\r\n\r\n", "y".repeat(1 << 20))).as_bytes());
    assert!([431, 400, 0].contains(&answer(&mut stream).0));
    assert_eq!(server.get("/health/live").0, 200);
}

#[test]
fn a_log_that_nobody_reads_or_that_is_closed_stops_nothing() {
    let ask = |server: &Server| {
        for _ in 0..3000 {
            assert_eq!(server.get("/health/live").0, 200);
        }
        assert_eq!(server.ask("POST", "/v1/score", "", r#"{"prompt": "p", "responses": ["x"]}"#).0, 200);
    };
    // The pipe fills up, and is not read.
    let mut stuck = Server::start(&["--log", "json"]);
    ask(&stuck);
    // The pipe is closed.
    drop(stuck.log.take());
    ask(&stuck);
    eventually("the lines are counted", || !stuck.metric("kudos_lost_log_lines_total 0"));
    stuck.signal("TERM");
    assert_eq!(stuck.end().0, Some(0));
    // The disk is full.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = command(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let full = Server::spawn(command.args(["serve", "--port", "0"]).stderr(Stdio::from(full)));
    assert_eq!(full.ask("POST", "/v1/score", "", r#"{"prompt": "p", "responses": ["x"]}"#).0, 200);
    eventually("the lines are counted", || !full.metric("kudos_lost_log_lines_total 0"));
}
