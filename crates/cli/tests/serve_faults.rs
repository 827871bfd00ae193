//! `kudos serve` under clients that break off, lie, stall and send noise: it answers rightly before, during and after.

mod faults;

use assert_cmd::cargo::cargo_bin;
use faults::{PATIENCE, Server, free_port, read, send};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Every path that takes a body, with its parameters filled in.
fn post_paths(server: &Server) -> Vec<String> {
    let api = server.get("/openapi.json").expect("an answer").json();
    let paths = api["paths"].as_object().expect("paths");
    let posts = paths.iter().filter(|(_, methods)| methods.get("post").is_some());
    let filled = posts.map(|(path, _)| {
        path.split('{').enumerate().fold(String::new(), |all, (at, part)| match at {
            0 => part.to_owned(),
            _ => format!("{all}kudos-judge{}", part.split_once('}').map_or("", |(_, rest)| rest)),
        })
    });
    let filled: BTreeSet<_> = filled.collect();
    assert!(filled.len() >= 18, "only {filled:?}");
    filled.into_iter().collect()
}

/// Bytes that look random and are the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % 200;
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A body that begins well: a valid one with a few bytes replaced, cut off or doubled.
    fn spoilt(&mut self, good: &str) -> Vec<u8> {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..1 + self.next() % 4 {
            let at = (self.next() % bytes.len() as u64) as usize;
            match self.next() % 4 {
                0 => bytes[at] = self.next() as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"\"{}[],:0e\\"[(self.next() % 10) as usize]),
                _ => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }
}

/// Bodies that a route of some dialect understands.
const GOOD: [&str; 8] = [
    r#"{"pairs":[{"prompt":"p","response":"r"}]}"#,
    r#"{"inputs":[["p","r"]],"raw_scores":true,"truncate":true}"#,
    r#"{"query":"p","texts":["a","b"],"documents":["a","b"],"top_n":1}"#,
    r#"{"model":"kudos-judge","input":["a","b"],"text":["a"]}"#,
    r#"{"query":["p r"],"prompts":["p"],"labels":[""]}"#,
    r#"{"text_1":"p","text_2":["a","b"]}"#,
    r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["a"]}]}"#,
    r#"{"prompt":"p","response":"a","responses":["a","b"],"messages":["a"],"instances":["a"],"a":"x","b":"y"}"#,
];

#[test]
fn a_thousand_noisy_bodies_on_each_route() {
    let mut server = Server::start(&["--log", "off"]);
    let paths = post_paths(&server);
    std::thread::scope(|threads| {
        for part in paths.chunks(paths.len().div_ceil(8)) {
            let server = &server;
            threads.spawn(move || part.iter().for_each(|path| noise(server, path)));
        }
    });
    server.check("noise on each route");
}

fn noise(server: &Server, path: &str) {
    let mut stream = server.connect();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..1000 {
        let body = if round % 2 == 0 { noise.bytes() } else { noise.spoilt(GOOD[round / 2 % GOOD.len()]) };
        let answer = send(&mut stream, path, &body).unwrap_or_else(|| {
            stream = server.connect();
            send(&mut stream, path, &body).expect("an answer on a new connection")
        });
        let text = String::from_utf8_lossy(&body);
        assert!(answer.status < 500, "{path}: {} for {text}", answer.status);
        assert!(answer.status == 200 || !answer.body.is_empty(), "{path}: an error without words for {text}");
    }
}

/// JSON that is wrong in each way that parsers differ in.
fn odd_json() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-0",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "[[]]",
        "{\"\":{}}",
        "\u{feff}{}",
        "{\"inputs\":}",
        "NaN",
        "{\"inputs\":NaN}",
        "{\"inputs\":[1e400]}",
        "{\"inputs\":\"\\ud800\"}",
        "{\"inputs\":[\"\\udfff\",\"a\"]}",
        "{\"inputs\":\"a\",\"inputs\":\"b\"}",
        "{\"inputs\":\"a\"}}",
        "{\"inputs\":\"a\"} x",
        "{'inputs':'a'}",
        "{\"inputs\":\"a\",}",
        "{\"inputs\":\"\\u0000\"}",
        "{\"inputs\":\"[SEP][CLS]</s>\"}",
        "{\"inputs\":[[[[\"a\"]]]]}",
        "{\"inputs\":{\"a\":1}}",
        "{\"model\":{},\"input\":null}",
        "{\"top_n\":-1,\"query\":\"a\",\"documents\":[\"b\"]}",
        "{\"top_n\":18446744073709551616,\"query\":\"a\",\"documents\":[\"b\"]}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    bodies.push(deep("[", "]", 100_000).into_bytes());
    bodies.push(deep("{\"inputs\":", "}", 100_000).into_bytes());
    bodies.push(b"{\"inputs\":\"\xff\xfe\"}".to_vec());
    bodies.push(format!("{{\"inputs\":{}}}", "9".repeat(100_000)).into_bytes());
    bodies
}

#[test]
fn odd_json_on_each_route() {
    let mut server = Server::start(&[]);
    for path in post_paths(&server) {
        for body in odd_json() {
            let answer = server.post(&path, &body).expect("an answer");
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            assert!(answer.status < 500, "{path}: {} for {shown}", answer.status);
        }
        server.check(&path);
    }
}

fn shown(body: &str) -> &str {
    &body[..body.char_indices().nth(38).map_or(body.len(), |(at, _)| at)]
}

#[test]
fn sizes_at_their_limits_and_beyond() {
    let mut server = Server::start(&[]);
    let pairs = |n: usize| json!({"inputs": vec![["p", "r"]; n], "raw_scores": true}).to_string();
    for (body, expected) in [
        (json!({"query": "p", "texts": []}).to_string(), vec![400, 422]),
        (pairs(100_000), vec![400, 413, 422]),
        (json!({"inputs": ["p", "a".repeat(10 << 20)]}).to_string(), vec![200, 413, 422]),
        (json!({"inputs": ["p", "a ".repeat(100_000)], "raw_scores": true}).to_string(), vec![200]),
        (json!({"inputs": ["", ""], "raw_scores": true}).to_string(), vec![200]),
        (json!({"inputs": ["p", "\u{1f469}\u{200d}\u{1f467}".repeat(20_000)]}).to_string(), vec![200]),
        (json!({"inputs": ["p", "a".repeat(200_000)]}).to_string(), vec![200]),
    ] {
        let path = if body.contains("texts") { "/rerank" } else { "/predict" };
        let answer = server.post(path, body.as_bytes()).expect("an answer");
        assert!(expected.contains(&answer.status), "{}: {:?}", shown(&body), answer);
        server.check(shown(&body));
    }
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let mut server = Server::start(&[]);
    for length in ["17000000000", "18446744073709551615", "99999999999999999999999", "-1", "1, 2", "x"] {
        let mut stream = server.connect();
        let head = format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let status = read(&mut stream).map(|answer| answer.status);
        assert!(matches!(status, None | Some(400 | 413 | 431)), "{length}: {status:?}");
        server.check(length);
    }
}

#[test]
fn clients_that_break_off_free_what_they_held() {
    let mut server = Server::start(&[]);
    let (files, _) = server.holds();
    let body = json!({"inputs": ["p", "a ".repeat(2000)]}).to_string();
    let whole = format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for round in 0..300 {
        let mut stream = server.connect();
        // In the head, in the body, and after the last byte: then its place in the queue is free again.
        stream.write_all(&whole.as_bytes()[..whole.len() * (round % 3 + 1) / 3]).unwrap();
        if round % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    server.check("300 clients that broke off");
    let end = Instant::now() + PATIENCE;
    while server.holds().0 > files + 3 {
        assert!(Instant::now() < end, "{} files are open, {files} at first", server.holds().0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn slow_clients_hinder_nobody_and_are_ended() {
    let mut server = Server::start(&[]);
    let mut slow: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let end = Instant::now() + PATIENCE;
    let mut sent = 0;
    while Instant::now() < end && !slow.is_empty() {
        slow.retain_mut(|stream| stream.write_all(&b"POST /predict HTTP/1.1\r\nx-slow: "[sent..=sent]).is_ok());
        sent = (sent + 1).min(30);
        server.check("a slow byte");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(slow.is_empty(), "{} slow clients are still connected", slow.len());
}

#[test]
fn http_at_its_edges() {
    let mut server = Server::start(&[]);
    let body = r#"{"inputs":["Why is the sky blue?","It scatters."],"raw_scores":true}"#;
    let request = format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());

    // Three requests in one packet.
    let mut stream = server.connect();
    stream.write_all(request.repeat(3).as_bytes()).unwrap();
    let scores: Vec<_> = (0..3).map(|_| read(&mut stream).expect("an answer").json()[0]["score"].clone()).collect();
    assert!(scores[0].is_number() && scores.iter().all(|score| *score == scores[0]), "{scores:?}");

    // A client that waits to be asked for the body.
    let mut stream = server.connect();
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    stream.write_all(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(read(&mut stream).map(|answer| answer.status), Some(100));
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(read(&mut stream).expect("an answer").json()[0]["score"], scores[0]);

    // Chunks; and chunks that are none.
    let chunked = "POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = server.connect();
    stream.write_all(format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).unwrap();
    assert_eq!(read(&mut stream).expect("an answer").json()[0]["score"], scores[0]);
    for chunk in ["zz\r\n", "ffffffffffffffffffff\r\n", "-1\r\n", "5\r\nabcdefgh\r\n"] {
        let mut stream = server.connect();
        stream.write_all(format!("{chunked}{chunk}").as_bytes()).unwrap();
        let status = read(&mut stream).map(|answer| answer.status);
        assert!(matches!(status, None | Some(400 | 422)), "{chunk:?}: {status:?}");
    }

    // Too many headers, too long ones, another protocol, none at all.
    let many = format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let long = format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let second = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned();
    for text in
        [many, long, second, "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(), "GET / FTP/9\r\n\r\n".to_owned()]
    {
        let mut stream = server.connect();
        let _ = stream.write_all(text.as_bytes());
        let status = read(&mut stream).map(|answer| answer.status);
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{:?}: {status:?}", &text[..12]);
        server.check(&text[..12]);
    }
}

#[test]
fn chunks_without_an_end_are_cut_off() {
    let mut server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65536));
    let sent = (0..2000).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 2000, "the server takes 128 MB of chunks");
    let (_, kib) = server.holds();
    assert!(kib < 600_000, "{kib} KiB after {sent} chunks");
    server.check("endless chunks");
}

#[test]
fn compressed_bodies_are_refused() {
    let mut server = Server::start(&[]);
    for coding in ["gzip", "deflate", "br", "zstd", "identity, gzip"] {
        let mut stream = server.connect();
        let head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ncontent-encoding:";
        stream.write_all(format!("{head} {coding}\r\n\r\nabcd").as_bytes()).unwrap();
        assert_eq!(read(&mut stream).map(|answer| answer.status), Some(415), "{coding}");
    }
    server.check("compressed bodies");
}

#[test]
fn killed_and_started_again_at_the_same_port() {
    let port = free_port();
    let mut scores = BTreeSet::new();
    for _ in 0..3 {
        let mut server = Server::start_at(port, &[], Stdio::null());
        let mut held = server.connect();
        held.write_all(b"POST /predict HTTP/1.1\r\nhost: localhost\r\n").unwrap();
        scores.insert(server.post("/predict", br#"{"inputs":["a","b"],"raw_scores":true}"#).unwrap().body);
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let mut rest = Vec::new();
        let _ = held.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    assert_eq!(scores.len(), 1, "the score changed from start to start");
}

#[test]
fn a_full_disk_for_logs_stops_nothing() {
    for log in ["text", "json"] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut server = Server::start_at(free_port(), &["--log", log], full.into());
        for _ in 0..50 {
            server.check("a log line that could not be written");
        }
    }
}

#[test]
fn a_closed_log_stops_nothing() {
    let mut server = Server::start_at(free_port(), &["--log", "json"], Stdio::piped());
    drop(server.child.stderr.take());
    for _ in 0..50 {
        server.check("a log line to nobody");
    }
}

/// While the judge's directory is replaced, broken or gone, the judge that was loaded goes on.
#[test]
fn a_judge_that_is_broken_at_reload_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let judge = dir.path().join("judge");
    let source = unpacked(dir.path());
    copy(&source, &judge);
    let mut server = Server::start(&["--judge", judge.to_str().unwrap()]);
    let weights = std::fs::read(judge.join("model.int8.safetensors")).unwrap();
    let reload = |server: &Server, expected: &str| {
        let count = |name: &str| {
            let metrics = String::from_utf8(server.get("/metrics").expect("metrics").body).unwrap();
            let lines = metrics.lines().filter(|line| line.starts_with("kudos_reloads") && line.contains(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let before = count(expected);
        server.signal("HUP");
        let end = Instant::now() + PATIENCE;
        while count(expected) <= before {
            assert!(Instant::now() < end, "no reload counted as {expected}: {:?}", server.get("/metrics"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    reload(&server, "loaded");
    server.check("a reload of the same");
    std::fs::write(judge.join("model.int8.safetensors"), &weights[..weights.len() / 2]).unwrap();
    reload(&server, "failed");
    server.check("half-written weights");
    std::fs::write(judge.join("config.json"), "{").unwrap();
    reload(&server, "failed");
    server.check("a broken configuration");
    std::fs::remove_dir_all(&judge).unwrap();
    reload(&server, "failed");
    server.check("a judge that is gone");
    copy(&source, &judge);
    reload(&server, "loaded");
    server.check("a judge that came back");
}

/// The built-in judge, unpacked into a directory of the test's own.
fn unpacked(dir: &Path) -> PathBuf {
    let mut command = Command::new(cargo_bin("kudos"));
    let run = command.env("KUDOS_HOME", dir).args(["score", "--response", "a"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut found = std::fs::read_dir(dir.join("models")).unwrap();
    found.next().unwrap().unwrap().path()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
