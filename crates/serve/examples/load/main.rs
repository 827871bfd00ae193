//! Asks a scoring server as many clients would, and checks each score.
//!
//! ```text
//! cargo run --release -p serve --example load -- --url http://127.0.0.1:8080/predict --texts scored.jsonl \
//!     [--clients 64 | --rate 600] [--seconds 30] [--pid PID] [--check] [--key KEY]
//! ```
//!
//! `--texts` is JSONL of `prompt`, `response` and, for `--check`, `score`: what `kudos score` writes. A request is one pair
//! in the form of text-embeddings-inference, raw. With `--clients`, so many ask again as soon as they are answered, over
//! connections that stay open; with `--rate`, so many requests begin a second whatever the server does. The last line is
//! JSON: counts by status, milliseconds by quantile, scores that differ from the file's by a single bit, and of `--pid`
//! the memory and the open files at the beginning, the middle and the end.

mod client;
mod process;
mod report;

use client::{Answer, Client, Target};
use process::Watch;
use report::Report;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// What was asked for.
struct Settings {
    url: String,
    texts: String,
    clients: usize,
    rate: Option<f64>,
    time: Duration,
    /// Requests after which the run ends, if before the time.
    requests: usize,
    pid: Option<u32>,
    check: bool,
    key: Option<String>,
}

impl Settings {
    fn read() -> Settings {
        let mut settings = Settings {
            url: String::new(),
            texts: String::new(),
            clients: 64,
            rate: None,
            time: Duration::from_secs(30),
            requests: usize::MAX,
            pid: None,
            check: false,
            key: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            if name == "--check" {
                settings.check = true;
                continue;
            }
            let value = arguments.next().unwrap_or_else(|| usage(&format!("{name} needs a value")));
            settings.set(&name, value);
        }
        if settings.url.is_empty() || settings.texts.is_empty() {
            usage("--url and --texts are needed");
        }
        settings
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "--url" => self.url = value,
            "--texts" => self.texts = value,
            "--clients" => self.clients = number(name, &value),
            "--rate" => self.rate = Some(number(name, &value)),
            "--seconds" => self.time = Duration::from_secs_f64(number(name, &value)),
            "--requests" => self.requests = number(name, &value),
            "--pid" => self.pid = Some(number(name, &value)),
            "--key" => self.key = Some(value),
            _ => usage(&format!("unknown argument {name}")),
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> T {
    value.parse().unwrap_or_else(|_| usage(&format!("{name}: `{value}` is not a number")))
}

fn usage(fault: &str) -> ! {
    eprintln!("{fault}; see the head of the file for how it is called");
    exit(2)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let settings = Settings::read();
    let target = Target::new(&settings.url, settings.key.as_deref()).unwrap_or_else(|fault| usage(&fault));
    let requests = client::requests(&settings.texts, settings.check).unwrap_or_else(|fault| usage(&fault));
    let watch = settings.pid.map(|pid| Watch::start(pid, settings.time));
    let run = Arc::new(Run { target, requests, next: AtomicUsize::new(0), limit: settings.requests });
    let began = Instant::now();
    let answers = match settings.rate {
        None => closed(run, settings.clients, began + settings.time).await,
        Some(rate) => open(run, rate, began + settings.time).await,
    };
    let report = Report::new(&answers, began.elapsed(), watch.map(Watch::stop));
    println!("{}", report.json());
    exit(i32::from(report.differing > 0 || report.broken > 0));
}

/// What all clients share.
struct Run {
    target: Target,
    requests: Vec<client::Request>,
    next: AtomicUsize,
    limit: usize,
}

impl Run {
    /// The next request, all in turn, until there were enough.
    fn next(&self) -> Option<&client::Request> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        (at < self.limit).then(|| &self.requests[at % self.requests.len()])
    }
}

/// So many clients, each of which asks again once it is answered.
async fn closed(run: Arc<Run>, clients: usize, end: Instant) -> Vec<Answer> {
    let (found, mut answers) = mpsc::unbounded_channel();
    for _ in 0..clients {
        let (run, found) = (run.clone(), found.clone());
        tokio::spawn(async move {
            let mut client = Client::default();
            while Instant::now() < end
                && let Some(request) = run.next()
            {
                let _ = found.send(client.ask(&run.target, request).await);
            }
        });
    }
    drop(found);
    collect(&mut answers).await
}

/// So many requests a second, whether the earlier ones are answered or not.
async fn open(run: Arc<Run>, rate: f64, end: Instant) -> Vec<Answer> {
    let (found, mut answers) = mpsc::unbounded_channel();
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    while Instant::now() < end {
        ticks.tick().await;
        let (run, found, idle) = (run.clone(), found.clone(), idle.clone());
        tokio::spawn(async move {
            let Some(request) = run.next() else { return };
            let mut client = idle.lock().await.pop().unwrap_or_default();
            let _ = found.send(client.ask(&run.target, request).await);
            idle.lock().await.push(client);
        });
    }
    drop(found);
    collect(&mut answers).await
}

async fn collect(answers: &mut mpsc::UnboundedReceiver<Answer>) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some(answer) = answers.recv().await {
        all.push(answer);
    }
    all
}
