//! `kudos serve`: judges behind one address.

use super::{Global, choice, resolve, wrong_usage};
use anyhow::Context;
use kudos::nn::Precision;
use serve::ask::JudgeFacts;
use serve::guard::Key;
use serve::settings::Settings;
use serve::{JudgeSource, LogForm, Server};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Serve judges over HTTP, in the forms of other servers too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos serve --judge judge
  kudos serve --judge judge --port 9000 --log json
  kudos serve --judge helpful=judges/h --judge safe=judges/s
  kudos serve --judge judge --host 0.0.0.0 --api-key-file key.txt
  curl localhost:8080/v1/score -d '{\"prompt\": \"Hi\", \"responses\": [\"Yo\"]}'

GET / is a page to try a judge on, /openapi.json describes every route.
The forms of text-embeddings-inference, vLLM, SGLang, Jina, Cohere, OpenRLHF,
KServe and others are spoken at the same port.
SIGHUP loads every judge anew. SIGTERM or Ctrl-C answers what was asked, and
ends; a second one ends at once.")]
pub struct Args {
    /// A judge: a directory, or a name that `kudos pull` knows; once for each judge. Requests name it as NAME, else by
    /// the directory's name, and get the first if they name none
    #[arg(long, value_name = "[NAME=]JUDGE", default_value = crate::boxed::NAME)]
    judge: Vec<String>,
    /// Arithmetic: f32, bf16 or int8 [default: int8 if the judge is stored so, else the fastest here]
    #[arg(long, value_parser = choice::<Precision>, value_name = "NAME")]
    precision: Option<Precision>,
    /// Address to listen at; any but this machine's own needs --api-key-file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Let in who sends the key in this file: one line of at least 16 characters
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen at any address without a key
    #[arg(long, conflicts_with = "api_key_file")]
    insecure: bool,
    /// Settings as in the table [serve] of kudos.toml, over those there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Connections at once; further ones wait
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least::<1>)]
    connections: usize,
    /// Seconds for the requests in flight when the server is asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u16,
    /// Tokens of a batch; a longer text is a batch of its own
    #[arg(long, value_name = "N", default_value_t = Settings::default().max_batch_tokens, value_parser = at_least::<1>)]
    max_batch_tokens: usize,
    /// Tokens that may wait for a judge; beyond it, requests are answered 429
    #[arg(long, value_name = "TOKENS", default_value_t = Settings::default().queue_tokens, value_parser = at_least::<1>)]
    queue: usize,
    /// Texts of a request
    #[arg(long, value_name = "N", default_value_t = Settings::default().max_items, value_parser = at_least::<1>)]
    max_items: usize,
    /// Characters of a text with its prompt; a longer one is an error of that text
    #[arg(long, value_name = "N", default_value_t = Settings::default().max_item_characters, value_parser = at_least::<1>)]
    max_characters: usize,
    /// Bytes of a request's body; a longer one is answered 413
    #[arg(long, value_name = "BYTES", default_value_t = Settings::default().max_body, value_parser = at_least::<1>)]
    max_body: usize,
    /// Milliseconds for tokenising a text; a slower one is an error of that text
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    tokenise_limit: u32,
    /// Lines on standard error: text, json or off
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = choice::<LogForm>)]
    log: LogForm,
}

/// A number with a least value.
fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| format!("expected a whole number of at least {LEAST}"))?;
    if number >= LEAST { Ok(number) } else { Err(format!("expected at least {LEAST}")) }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let key = args.api_key_file.as_deref().map(Key::read).transpose()?;
    let judges = sources(args)?;
    let listener = listen(args, key.is_some())?;
    let address = listener.local_addr()?;
    let settings = settings(args);
    let (has_key, quiet) = (key.is_some(), global.quiet);
    let server = Server { settings, judges, key, log: if quiet { LogForm::Off } else { args.log } };
    let ready = |judges: &[Arc<JudgeFacts>]| announce(address, judges, has_key);
    Ok(serve::run(server, listener, ready)?)
}

fn settings(args: &Args) -> Settings {
    let default = Settings::default();
    Settings {
        max_batch_tokens: args.max_batch_tokens,
        queue_tokens: args.queue,
        max_items: args.max_items,
        max_item_characters: args.max_characters,
        max_body: args.max_body,
        max_bodies: default.max_bodies.max(args.max_body.saturating_mul(2)),
        connections: args.connections,
        tokenise_time: Duration::from_millis(args.tokenise_limit.into()),
        tokenisers: kernels::parallel::threads().min(4),
        drain: Duration::from_secs(args.drain.into()),
        ..default
    }
}

/// The judges, each with its name.
fn sources(args: &Args) -> anyhow::Result<Vec<JudgeSource>> {
    let mut sources: Vec<JudgeSource> = Vec::new();
    for said in &args.judge {
        let (name, judge) = named(said);
        let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            wrong_usage!(
                "--judge {said}: expected a name of letters, digits, `-`, `_` and `.`; give one as NAME=JUDGE"
            );
        }
        if sources.iter().any(|source| source.name == name) {
            wrong_usage!("--judge {said}: two judges have the name {name}; give one another as NAME=JUDGE");
        }
        let dir = resolve(judge).with_context(|| format!("cannot load the judge {judge}"))?;
        sources.push(JudgeSource { name, dir, precision: args.precision });
    }
    Ok(sources)
}

/// `NAME=JUDGE`, or a judge by the last part of its path. A directory may have `=` in its name.
fn named(said: &str) -> (String, &str) {
    match said.split_once('=') {
        Some((name, judge)) if !Path::new(said).is_dir() => (name.to_owned(), judge),
        _ => {
            let path = Path::new(said);
            // `.` and `..` have no name of their own.
            let whole = if path.file_name().is_some() { None } else { path.canonicalize().ok() };
            let last = whole.as_deref().unwrap_or(path).file_name().unwrap_or_default();
            (last.to_string_lossy().into_owned(), said)
        }
    }
}

/// A listener at the address that was asked for, if it may be open to others.
fn listen(args: &Args, has_key: bool) -> anyhow::Result<TcpListener> {
    let Args { host, port, .. } = args;
    let name = host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> = match name.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, *port)],
        Err(_) => (name, *port).to_socket_addrs().with_context(|| format!("--host {host}"))?.collect(),
    };
    let is_local = addresses.iter().all(|address| address.ip().is_loopback());
    if !is_local && !has_key && !args.insecure {
        wrong_usage!(
            "--host {host} lets in other machines: give --api-key-file, or --insecure to let in whoever can reach it"
        );
    }
    TcpListener::bind(&addresses[..]).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {port} at {host} is in use by another program: end that one, or give another --port \
             (0: any that is free)"
        ),
        _ => anyhow::Error::new(error)
            .context(format!("cannot listen at {host}, port {port}; give another --host or --port")),
    })
}

/// Says where to ask, and what. It is a result: it is printed even with --quiet.
fn announce(address: SocketAddr, judges: &[Arc<JudgeFacts>], has_key: bool) {
    let judges: Vec<String> = judges.iter().map(|judge| format!("{} ({})", judge.name, judge.precision)).collect();
    let key = if has_key { "with a key" } else { "without a key" };
    let line = format!("listening at http://{address}: {}, {key}\n", judges.join(", "));
    // A server serves, whether or not somebody reads this.
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_judges() {
        assert_eq!(named("a=judges/b"), ("a".into(), "judges/b"));
        assert_eq!(named("judges/b"), ("b".into(), "judges/b"));
        assert_eq!(named("judges/b/"), ("b".into(), "judges/b/"));
        assert_eq!(named("kudos-judge"), ("kudos-judge".into(), "kudos-judge"));
        assert_eq!(named("a=x=y"), ("a".into(), "x=y"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(named(".").0, here.file_name().unwrap().to_str().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("x=y");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(named(odd.to_str().unwrap()), ("x=y".into(), odd.to_str().unwrap()));
    }
}
