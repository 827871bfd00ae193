//! An OpenAI-compatible server on loopback that answers as the test says, and misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::loopback::{Listener, read_head};

/// A request, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    pub at: Instant,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body of which only the first half is sent, its length told beforehand or not.
    Half(Vec<u8>, bool),
    /// Nothing, with the connection open.
    Hang,
    /// A body of which a byte is sent every 50 ms.
    Drip(Vec<u8>),
    /// The connection is closed without a word.
    Close,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self::Answer(status, Vec::new(), body.to_string().into_bytes())
    }

    pub fn with(self, name: &'static str, value: impl ToString) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push((name, value.to_string()));
                Self::Answer(status, headers, body)
            }
            other => other,
        }
    }

    /// A response that says what it was asked, so that each is another.
    pub fn echo(request: &Request) -> Self {
        Self::json(200, completion(request))
    }
}

pub fn completion(request: &Request) -> Value {
    let asked = match request.body.get("messages") {
        Some(messages) => messages[0]["content"].as_str().unwrap(),
        None => request.body["prompt"].as_str().unwrap(),
    };
    let text = format!("{asked} {}", request.body["seed"]);
    let choice = match request.path.ends_with("chat/completions") {
        true => json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}),
        false => json!({"text": text, "finish_reason": "length"}),
    };
    json!({"choices": [choice], "usage": {"completion_tokens": 7}})
}

/// A listener that answers and remembers what it was asked.
pub struct Server {
    listener: Listener,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers request number `n` (from 0) by `answer(n, request)`.
    pub fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, count) = (log.clone(), AtomicUsize::new(0));
        let listener = Listener::start(move |stream, stopped| {
            let Some(request) = read_request(&stream) else { return };
            seen.lock().unwrap().push(request.clone());
            let reply = answer(count.fetch_add(1, Ordering::SeqCst), &request);
            let _ = write_reply(stream, reply, stopped);
        });
        Self { listener, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.listener.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn write_reply(mut stream: TcpStream, reply: Reply, stopped: &AtomicBool) -> std::io::Result<()> {
    let moment = Duration::from_millis(50);
    let start = "HTTP/1.1 200 X\r\nConnection: close\r\n";
    match reply {
        Reply::Answer(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            stream.write_all(format!("{head}\r\n").as_bytes())?;
            stream.write_all(&body)
        }
        Reply::Half(body, has_length) => {
            let length = if has_length { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
            stream.write_all(format!("{start}{length}\r\n").as_bytes())?;
            stream.write_all(&body[..body.len() / 2])
        }
        Reply::Hang => {
            while !stopped.load(Ordering::SeqCst) {
                thread::sleep(moment);
            }
            Ok(())
        }
        Reply::Drip(body) => {
            stream.write_all(format!("{start}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
            for byte in body {
                stream.write_all(&[byte])?;
                stream.flush()?;
                thread::sleep(moment);
            }
            Ok(())
        }
        Reply::Close => Ok(()),
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let (_, path, headers) = read_head(&mut reader)?;
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { path, headers, body, at: Instant::now() })
}
