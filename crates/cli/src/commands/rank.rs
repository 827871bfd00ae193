//! `kudos rank`: people's rankings, in the browser or in the terminal, kept in one database.
//!
//! Here stand the arguments and the start of the server; `rank/` has what is done before, and the other ways to use the
//! database.

mod database;
mod export;
mod judged;
mod results;
mod terminal;

use super::data::DataArgs;
use super::{Global, Usage, choice, wrong_usage};
use crate::interrupt;
use anyhow::Context;
use clap::Subcommand;
use rank::app::{self, Settings};
use rank::{Order, QueueSettings, Store};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Collect people's rankings of responses, in the browser or in the terminal.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  kudos rank answers.csv                    opens the page; Ctrl-C ends
  kudos rank answers.csv --terminal         the same in the terminal
  kudos rank answers.csv --overlap 2 --attributes helpfulness,correctness
  kudos rank answers.csv --host 0.0.0.0 --people anna,ben
  kudos rank run/suspects.jsonl             are these labels right?
  kudos rank results answers.rankings.db    agreement, bias, disputed prompts
  kudos rank export answers.rankings.db -o ranked.csv
  kudos train answers.rankings.db -o judge

DATA has prompts with 2 to 16 responses, in any layout that Kudos reads, or is a
database of an earlier start. It is never changed: rankings go to the database,
and each is on the disk before the page says so."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Part>,
    /// Prompts with responses, or the database of an earlier start
    #[arg(value_name = "DATA")]
    data: Vec<PathBuf>,
    /// The database [default: beside the first file of DATA, as NAME.rankings.db]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Take what is new in DATA into a database that was made from other data
    #[arg(long)]
    add: bool,
    /// Rankings that each prompt should have, of as many people
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    overlap: u16,
    /// Percent of a person's prompts that come a second time, to measure how steady they are
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=50))]
    repeats: u8,
    /// Also ask for ratings from 1 to 5 in these
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    attributes: Vec<String>,
    /// What a response may be flagged as
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "unsafe,off-topic")]
    flags: Vec<String>,
    /// What comes first: in-order, random, informative, disputed, judge or review [default: in-order; judge with --judge;
    /// review for pairs and comparisons]
    #[arg(long, value_name = "ORDER", value_parser = choice::<Order>)]
    next: Option<Order>,
    /// Begin with prompts on which this judge and people disagree; with --next informative, the judge that learns
    #[arg(long, value_name = "JUDGE")]
    judge: Option<String>,
    /// Rank in the terminal
    #[arg(long)]
    terminal: bool,
    /// Your name, for --terminal [default: the name of your account]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address to listen at; any but this machine's own needs a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at [default: 7265, or the next that is free; 0: any]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Let in who has this token [default for other addresses: one is made and kept in the database]
    #[arg(long, value_name = "TEXT", value_parser = token)]
    token: Option<String>,
    /// Print a link for each of these people, which is theirs alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    people: Vec<String>,
    /// Do not open the browser
    #[arg(long)]
    no_open: bool,
    #[command(flatten)]
    input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    Export(export::Args),
    Results(results::Args),
}

/// The first port that is tried: RANK on the keys of a telephone.
const PORT: u16 = 7265;
/// Ports that are tried after it, for other databases at the same time.
const FURTHER_PORTS: u16 = 20;

fn token(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    match text.len() >= 12 && is_plain {
        true => Ok(text.to_owned()),
        false => Err("expected at least 12 letters, digits, - or _".into()),
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    match &args.command {
        Some(Part::Export(args)) => return export::run(args, global),
        Some(Part::Results(args)) => return results::run(args, global),
        None => {}
    }
    let (attributes, flags) = (named(&args.attributes, "attributes")?, named(&args.flags, "flags")?);
    if args.next == Some(Order::Judge) && args.judge.is_none() {
        wrong_usage!("--next judge: expected a judge to compare with, found none; give --judge");
    }
    let opened = database::open(args, global)?;
    let queue = queue(args, opened.is_judged);
    let (store, more) = (opened.store, opened.more);
    judged::prepare(&store, queue.order, args.judge.as_deref(), global)?;
    if args.terminal {
        return terminal::run(&store, &person(args), &queue, global);
    }
    serve(args, store, Asked { queue, attributes, flags, more }, global)
}

/// What is asked of the people.
struct Asked {
    queue: QueueSettings,
    attributes: Vec<String>,
    flags: Vec<String>,
    /// True while further prompts come in on standard input.
    more: Arc<AtomicBool>,
}

fn queue(args: &Args, is_judged: bool) -> QueueSettings {
    let order = match (args.next, &args.judge) {
        (Some(order), _) => order,
        (None, Some(_)) => Order::Judge,
        (None, None) if is_judged => Order::Review,
        (None, None) => Order::InOrder,
    };
    let (overlap, repeats) = (args.overlap.into(), f64::from(args.repeats) / 100.0);
    QueueSettings { overlap, repeats, order, ..QueueSettings::default() }
}

fn person(args: &Args) -> String {
    args.name.clone().or_else(account).unwrap_or_else(|| "me".into())
}

/// The name of the account, unless it is the system's own.
fn account() -> Option<String> {
    let name = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).ok()?;
    (!name.trim().is_empty() && name != "root").then_some(name)
}

fn serve(args: &Args, store: Arc<Store>, asked: Asked, global: &Global) -> anyhow::Result<()> {
    let listener = listen(&args.host, args.port)?;
    let address = listener.local_addr()?;
    let is_open = !address.ip().is_loopback() || !args.people.is_empty();
    let token = match &args.token {
        None if is_open => Some(app::token_for(&store, None)?),
        given => given.clone(),
    };
    let settings = Settings {
        address,
        token,
        queue: asked.queue,
        attributes: asked.attributes,
        flags: asked.flags,
        suggested_name: account().filter(|_| address.ip().is_loopback()),
        program: crate::program::words()?,
    };
    let links = links(&store, &settings, &args.people)?;
    announce(&store, &links, global);
    if !args.no_open && std::io::stdout().is_terminal() {
        open_browser(&links[0].1);
    }
    app::run(store, settings, listener, move || asked.more.load(Ordering::Acquire), interrupted())?;
    if !global.quiet {
        say!("ended; every ranking that was acknowledged is stored");
    }
    Ok(())
}

/// Names without white space around them, each once.
fn named(names: &[String], flag: &str) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    match names.iter().enumerate().find(|(place, name)| names[..*place].contains(name) || name.chars().count() > 60) {
        Some((_, name)) => wrong_usage!("--{flag}: expected each name once, of at most 60 characters, found {name}"),
        None => Ok(names),
    }
}

/// A listener at the port that was asked for, or else at the first that is free.
fn listen(host: &str, port: Option<u16>) -> anyhow::Result<TcpListener> {
    let name = host.trim_matches(['[', ']']);
    let at = |port: u16| -> std::io::Result<TcpListener> {
        let addresses: Vec<SocketAddr> = match name.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => (name, port).to_socket_addrs()?.collect(),
        };
        TcpListener::bind(&addresses[..])
    };
    let first = at(port.unwrap_or(PORT));
    let is_taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    match (first, port) {
        (Err(error), None) if is_taken(&error) => {
            let further = (PORT + 1..=PORT + FURTHER_PORTS).find_map(|port| at(port).ok());
            further.ok_or_else(|| {
                Usage(format!("the ports {PORT} to {} are taken; give --port", PORT + FURTHER_PORTS)).into()
            })
        }
        (listener, port) => {
            let port = port.unwrap_or(PORT);
            listener.with_context(|| format!("cannot listen at {host}, port {port}; give another --host or --port"))
        }
    }
}

/// The addresses to open, each with whose it is.
fn links(store: &Store, settings: &Settings, people: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let address = settings.address;
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let page = format!("http://{host}:{}/", address.port());
    let link = |token: &Option<String>| token.as_ref().map_or(page.clone(), |token| format!("{page}#token={token}"));
    let mut links = vec![(String::new(), link(&settings.token))];
    for name in named(people, "people")? {
        let token = app::token_for(store, Some(&name))?;
        links.push((name, link(&Some(token))));
    }
    Ok(links)
}

/// Says where to rank. The addresses are results: they are printed even with --quiet.
fn announce(store: &Store, links: &[(String, String)], global: &Global) {
    outln!("{}", links[0].1);
    for (name, link) in &links[1..] {
        outln!("{name}: {link}");
    }
    if !global.quiet {
        if links[0].1.contains("localhost:") {
            say!("people on other machines put this machine's name in the place of localhost");
        }
        say!("rankings go to {}; open the address above, and end with Ctrl-C", store.path().display());
    }
}

/// Opens the address in the person's browser; where there is none, the address was printed.
fn open_browser(link: &str) {
    let (program, words): (&str, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("cmd", &["/C", "start", ""]),
        _ if std::env::var_os("DISPLAY").is_none() && std::env::var_os("WAYLAND_DISPLAY").is_none() => return,
        _ => ("xdg-open", &[]),
    };
    let quiet = std::process::Stdio::null;
    let opened = std::process::Command::new(program).args(words).arg(link).stdout(quiet()).stderr(quiet()).spawn();
    if let Ok(mut child) = opened {
        std::thread::spawn(move || child.wait());
    }
}

/// Ends when Ctrl-C was pressed, or the program was asked to end.
async fn interrupted() {
    while interrupt::flow().is_continue() {
        app::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_plain() {
        assert!(token("0123456789ab").is_ok());
        for wrong in ["", "short", "0123456789a ", "0123456789a#"] {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_taken_port_is_passed_over_only_where_none_was_asked_for() {
        let first = listen("127.0.0.1", Some(0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen("127.0.0.1", Some(port)).unwrap_err();
        assert!(error.to_string().contains(&format!("port {port}")), "{error}");
        assert!(listen("[::1]", Some(0)).is_ok() || listen("127.0.0.1", None).is_ok());
    }

    #[test]
    fn names() {
        let names = |names: &[&str]| named(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>(), "flags");
        assert_eq!(names(&[" a", "b ", ""]).unwrap(), ["a", "b"]);
        assert!(names(&["a", "a"]).is_err() && names(&["x".repeat(61).as_str()]).is_err());
    }
}
