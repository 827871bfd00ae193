//! An OpenAI-compatible server on loopback that answers as the test says, and misbehaves on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

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

/// A listener with a thread per connection, which stops when dropped.
pub struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers request number `n` (from 0) by `answer(n, request)`.
    pub fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (stopped, count): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (answer, seen, stop) = (Arc::new(answer), log.clone(), stopped.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, seen, stop, count) = (answer.clone(), seen.clone(), stop.clone(), count.clone());
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    seen.lock().unwrap().push(request.clone());
                    let reply = answer(count.fetch_add(1, Ordering::SeqCst), &request);
                    let _ = write_reply(stream, reply, &stop);
                });
            }
        });
        Self { address, log, stopped, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_string();
    let fields = lines.take_while(|line| !line.is_empty());
    let pairs = fields.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_string()))
    });
    let headers: BTreeMap<_, _> = pairs.collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { path, headers, body, at: Instant::now() })
}
