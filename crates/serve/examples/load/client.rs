//! One connection, one request at a time.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for an answer; one that takes longer counts as broken.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of an answer; more is a fault.
const MOST: usize = 1 << 20;

/// Where to ask.
pub struct Target {
    address: String,
    head: String,
}

impl Target {
    /// From `http://HOST:PORT/PATH`.
    pub fn new(url: &str, key: Option<&str>) -> Result<Target, String> {
        let rest = url.strip_prefix("http://").ok_or(format!("{url}: expected http://HOST:PORT/PATH"))?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!("POST /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{key}");
        Ok(Target { address: address.to_owned(), head })
    }
}

/// A pair to ask for.
pub struct Request {
    body: String,
    expected: Option<f32>,
}

/// The pairs of a file.
pub fn requests(path: &str, check: bool) -> Result<Vec<Request>, String> {
    let text = std::fs::read_to_string(path).map_err(|fault| format!("{path}: {fault}"))?;
    let request = |(at, line): (usize, &str)| {
        let row: Value = serde_json::from_str(line).map_err(|fault| format!("{path}:{}: {fault}", at + 1))?;
        let expected = row["score"].as_f64().map(|score| score as f32);
        if check && expected.is_none() {
            return Err(format!("{path}:{}: --check needs a `score`", at + 1));
        }
        let body = json!({"inputs": [row["prompt"], row["response"]], "raw_scores": true}).to_string();
        Ok(Request { body, expected: expected.filter(|_| check) })
    };
    let requests: Result<Vec<_>, _> = text.lines().enumerate().map(request).collect();
    requests.and_then(|all| if all.is_empty() { Err(format!("{path}: no texts")) } else { Ok(all) })
}

/// What came of a request.
pub struct Answer {
    /// 0 for none.
    pub status: u16,
    pub took: Duration,
    /// Whether the score is not the expected one, to the bit.
    pub differs: bool,
    pub retry_after: bool,
}

/// A connection that is kept for the next request.
#[derive(Default)]
pub struct Client {
    stream: Option<TcpStream>,
}

impl Client {
    /// Asks, and reads the answer whole. Whatever breaks closes the connection and counts as status 0.
    pub async fn ask(&mut self, target: &Target, request: &Request) -> Answer {
        let began = Instant::now();
        let was_open = self.stream.is_some();
        let mut found = timeout(PATIENCE, self.exchange(target, request)).await.ok().flatten();
        if found.is_none() && was_open {
            // The server may have closed an idle connection: a fresh one decides.
            self.stream = None;
            found = timeout(PATIENCE, self.exchange(target, request)).await.ok().flatten();
        }
        let Some((status, retry_after, body)) = found else {
            self.stream = None;
            return Answer { status: 0, took: began.elapsed(), differs: false, retry_after: false };
        };
        let took = began.elapsed();
        let score = || serde_json::from_slice::<Value>(&body).ok()?[0]["score"].as_f64().map(|score| score as f32);
        let differs = status == 200
            && request
                .expected
                .is_some_and(|expected| score().is_none_or(|score| score.to_bits() != expected.to_bits()));
        Answer { status, took, differs, retry_after }
    }

    async fn exchange(&mut self, target: &Target, request: &Request) -> Option<(u16, bool, Vec<u8>)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&target.address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut()?;
        let text = format!("{}content-length: {}\r\n\r\n{}", target.head, request.body.len(), request.body);
        stream.write_all(text.as_bytes()).await.ok()?;
        let (status, head, body) = read(stream).await?;
        if head.contains("connection: close") {
            self.stream = None;
        }
        Some((status, head.contains("\r\nretry-after:"), body))
    }
}

/// Status, head in lower case, and body.
async fn read(stream: &mut TcpStream) -> Option<(u16, String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    let head_end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes.len() > MOST {
            return None;
        }
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
    while bytes.len() < head_end + length.min(MOST) {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some((status, head, bytes.split_off(head_end)))
}
