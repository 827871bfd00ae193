//! A running `kudos serve`, and clients that do what no library would: half requests, lies, and bytes that are none.

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for anything that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the built-in judge, stopped when it goes out of scope.
pub struct Server {
    pub child: Child,
    pub port: u16,
    score: f64,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

impl Server {
    /// Starts one and waits until it is ready.
    pub fn start(more: &[&str]) -> Server {
        Server::start_at(free_port(), more, Stdio::null())
    }

    pub fn start_at(port: u16, more: &[&str], errors: Stdio) -> Server {
        let mut command = Command::new(cargo_bin("kudos"));
        command.args(["serve", "--port", &port.to_string()]).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().expect("kudos serve");
        let mut server = Server { child, port, score: f64::NAN };
        let end = Instant::now() + PATIENCE;
        while server.get("/health/ready").is_none_or(|answer| answer.status != 200) {
            assert!(server.child.try_wait().expect("a child").is_none() && Instant::now() < end, "it did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.score = server.known().expect("a score");
        server
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        // Head and body are two writes: the second would wait 40 ms for the first to be acknowledged.
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    pub fn get(&self, path: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
            .ok()?;
        read(&mut stream)
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Option<Answer> {
        send(&mut self.connect(), path, body)
    }

    /// The score of one known pair; `None` if anything is wrong with the answer.
    fn known(&self) -> Option<f64> {
        let body = json!({"inputs": ["Why is the sky blue?", "It scatters."], "raw_scores": true}).to_string();
        self.post("/predict", body.as_bytes())?.json()[0]["score"].as_f64()
    }

    /// Whether it still answers, and with the number of the beginning.
    pub fn check(&mut self, after: &str) {
        assert!(self.child.try_wait().expect("a child").is_none(), "the server ended after {after}");
        assert_eq!(self.known(), Some(self.score), "after {after}");
        assert_eq!(self.get("/health/live").map(|answer| answer.status), Some(200), "after {after}");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Open files and resident KiB of the server.
    pub fn holds(&self) -> (usize, usize) {
        let id = self.child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = memory.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
        (std::fs::read_dir(format!("/proc/{id}/fd")).expect("a process").count(), kib.expect("its memory"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole request on an open connection, and its answer; `None` if the server closed without one.
pub fn send(stream: &mut TcpStream, path: &str, body: &[u8]) -> Option<Answer> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses a body early may close before all of it is sent; what it said can still be read.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    read(stream)
}

/// An answer; `None` at the end of the connection. A server that hangs fails the test.
pub fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut one = [0; 1];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut one) {
            Ok(1) => bytes.push(one[0]),
            Ok(_) => return None,
            Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server hangs; so far it said {:?}", String::from_utf8_lossy(&bytes))
            }
            Err(_) => return None,
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Answer { status, body })
}
