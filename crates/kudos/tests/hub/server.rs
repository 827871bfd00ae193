//! A hub on loopback: enough of HTTP and of the hub's protocol to be pulled from, and to misbehave.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::loopback::{Listener, read_head};

/// A request, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte asked for; 0 without a range.
    pub fn from(&self) -> usize {
        let range = self.headers.get("range").map_or("bytes=0-", String::as_str);
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    }
}

/// An answer; with `cut`, the connection closes after that many bytes of the body.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The rest of `bytes` from the byte asked for.
    pub fn part(request: &Request, bytes: &[u8]) -> Self {
        let from = request.from();
        let reply = match from {
            0 => Self::status(200),
            _ if from >= bytes.len() => return Self::status(416),
            _ => Self::status(206).with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        };
        Self { body: bytes[from..].to_vec(), ..reply }
    }
}

/// A listener that answers and remembers what it was asked.
pub struct Server {
    listener: Listener,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = log.clone();
        let listener = Listener::start(move |stream, _| serve(stream, &answer, &seen));
        Self { listener, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) {
    let Some((method, path, headers)) = read_head(&mut BufReader::new(&stream)) else {
        return;
    };
    let request = Request { method, path, headers };
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = reply.headers.iter().any(|(name, _)| *name == "Content-Length");
    if !has_length {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    let body = match request.method.as_str() {
        "HEAD" => &[],
        _ => &reply.body[..reply.cut.unwrap_or(reply.body.len())],
    };
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository `org/model`, whose large files are behind a redirect to another host.
#[derive(Debug, Clone)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Address of the host that has the large files.
    pub cdn: String,
}

impl Repository {
    /// A small model: weights of 300 kB, a config, a tokenizer, and weights nobody wants.
    pub fn small() -> Self {
        let weights: Vec<u8> = (0..300_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let files = [
            ("config.json", b"{\"model_type\": \"bert\"}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("1_Pooling/config.json", b"{\"pooling\": 1}".to_vec()),
            ("pytorch_model.bin", b"pickle".to_vec()),
            ("model.safetensors", weights),
        ];
        let files = files.map(|(name, bytes)| (name.to_string(), bytes));
        Self { files: files.into(), cdn: String::new() }
    }

    pub fn weights(&self) -> &[u8] {
        &self.files["model.safetensors"]
    }

    /// What the hub answers.
    pub fn answer(&self, request: &Request) -> Reply {
        if request.path.starts_with("/api/models/org/model/revision/") {
            return self.listing();
        }
        let prefix = format!("/org/model/resolve/{COMMIT}/");
        let Some((name, bytes)) = request.path.strip_prefix(&prefix).and_then(|name| self.files.get_key_value(name))
        else {
            return Reply::status(404).with("X-Error-Code", "EntryNotFound");
        };
        let is_large = [".safetensors", ".gguf", ".bin"].iter().any(|end| name.ends_with(end));
        if is_large {
            return Reply::status(302)
                .with("X-Repo-Commit", COMMIT)
                .with("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
                .with("X-Linked-Size", bytes.len())
                .with("Location", format!("{}/{name}?signature=1", self.cdn));
        }
        Reply::part(request, bytes).with("ETag", format!("\"{}\"", git_blob(bytes)))
    }

    /// What the other host answers.
    pub fn answer_cdn(&self, request: &Request) -> Reply {
        let name = request.path[1..].split('?').next().unwrap();
        Reply::part(request, &self.files[name])
    }

    fn listing(&self) -> Reply {
        let names = self.files.keys();
        let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
        let listing = serde_json::json!({"sha": COMMIT, "siblings": siblings, "private": false});
        Reply { body: listing.to_string().into_bytes(), ..Reply::status(200) }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn git_blob(bytes: &[u8]) -> String {
    let mut object = format!("blob {}\0", bytes.len()).into_bytes();
    object.extend_from_slice(bytes);
    hex(&Sha1::digest(object))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
