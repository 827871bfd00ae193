//! A process that votes is killed at random moments: no acknowledged vote is lost, and none is there twice.

use kudos::data::{Loaded, Options, Reader};
use kudos::random::Stream;
use rank::{Ballot, Import, ImportSource, QueueSettings, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: u64 = 50;
/// Tells the child its database and the first of its ids.
const DATABASE: &str = "KUDOS_TEST_VOTE_IN";
const FIRST_ID: &str = "KUDOS_TEST_FIRST_ID";

fn settings() -> QueueSettings {
    QueueSettings { overlap: 2, ..QueueSettings::default() }
}

/// What the child does: votes, and now and then takes a vote back, saying each thing before and after.
#[test]
fn child_that_votes() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let first: u64 = std::env::var(FIRST_ID).unwrap().parse().unwrap();
    let store = Store::open(&path).unwrap();
    let people = ["a", "b"].map(|name| store.annotator(name).unwrap());
    let mut chance = Stream::new(first, 0);
    let say = |text: String| {
        let mut out = std::io::stdout().lock();
        out.write_all((text + "\n").as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    say("ready".into());
    for n in first.. {
        let annotator = people[chance.below(2)];
        let Some(task) = store.next(annotator, &settings()).unwrap() else { return };
        let ranks = task.responses.iter().map(|_| Some(1 + chance.below(3) as u32)).collect();
        let ballot = Ballot {
            vote: format!("00000000-0000-4000-8000-{n:012x}"),
            task: task.task,
            annotator,
            ranks,
            ratings: Default::default(),
            flags: Vec::new(),
            comment: None,
            skipped: None,
            seconds: None,
        };
        say(format!("send {}", serde_json::to_string(&ballot).unwrap()));
        store.submit(&ballot).unwrap();
        say(format!("stored {}", ballot.vote));
        if chance.below(4) == 0 {
            store.withdraw(&ballot.vote, annotator).unwrap();
            say(format!("withdrawn {}", ballot.vote));
        }
    }
}

fn database(path: &Path) {
    let rows = (0..4000).flat_map(|p| (0..3).map(move |r| format!("prompt {p},answer {r}\n")));
    let text = "prompt,answer\n".to_owned() + &rows.collect::<String>();
    let mut loaded = Loaded::default();
    let options = Options { labelled: false, ..Options::default() };
    loaded.read(Reader::from_bytes("a.csv", text.into_bytes(), &options).unwrap(), &options).unwrap();
    let source = ImportSource { file: "a.csv".into(), sha256: loaded.files[0].sha256.clone() };
    Store::create(path).unwrap().import(&loaded, &source, Import::New).unwrap();
}

/// All that a child said before it was killed after `life`; a last line that was cut off counts as not said.
fn said_until_killed(path: &Path, first: u64, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_votes", "--nocapture"])
        .env(DATABASE, path)
        .env(FIRST_ID, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended before it was ready");
    }
    let killer = std::thread::spawn(move || {
        let began = Instant::now();
        std::thread::sleep(life.saturating_sub(began.elapsed()));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    });
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    killer.join().unwrap();
    let whole = &rest[..rest.rfind('\n').map_or(0, |end| end + 1)];
    lines.extend(whole.lines().map(str::to_owned));
    lines
}

#[test]
fn no_acknowledged_vote_is_lost_or_doubled_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    database(&path);
    let mut chance = Stream::new(19, 0);
    let (mut stored, mut withdrawn) = (HashSet::new(), HashSet::new());
    let mut unsure = 0;
    for kill in 0..KILLS {
        let life = Duration::from_micros(500 + chance.below(60_000) as u64);
        let said = said_until_killed(&path, kill * 1_000_000, life);
        let after = |word: &str| -> Vec<String> {
            said.iter().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
        };
        stored.extend(after("stored "));
        withdrawn.extend(after("withdrawn "));
        let read = Store::read(&path).expect("a reader finds what was acknowledged, before any writer comes");
        check(&read, &stored, &withdrawn);
        drop(read);
        // The client sends again what was not acknowledged.
        let store = Store::open(&path).expect("the lock of a killed process is free");
        let last: Option<Ballot> = after("send ").last().map(|text| serde_json::from_str(text).unwrap());
        if let Some(ballot) = last.filter(|ballot| !stored.contains(&ballot.vote)) {
            unsure += 1;
            store.submit(&ballot).unwrap();
            assert!(store.submit(&ballot).unwrap().already);
            stored.insert(ballot.vote);
        }
        check(&store, &stored, &withdrawn);
    }
    assert!(
        stored.len() as u64 > KILLS && unsure > 0,
        "{} stored, {unsure} unsure: the kills test nothing",
        stored.len()
    );
    println!("{} votes stored, {} withdrawn, {unsure} sent again after a kill", stored.len(), withdrawn.len());
}

fn check(store: &Store, stored: &HashSet<String>, withdrawn: &HashSet<String>) {
    let votes = store.votes().unwrap();
    let mut times: HashMap<&str, usize> = HashMap::new();
    votes.iter().for_each(|vote| *times.entry(&vote.vote).or_default() += 1);
    assert!(times.values().all(|times| *times == 1));
    let lost: Vec<_> = stored.iter().filter(|vote| !times.contains_key(vote.as_str())).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let is_gone = |vote: &rank::Vote| vote.withdrawn_at.is_some();
    let back: Vec<_> = votes.iter().filter(|vote| withdrawn.contains(&vote.vote) && !is_gone(vote)).collect();
    assert!(back.is_empty(), "came back: {back:?}");
    let mut tasks = HashSet::new();
    assert!(votes.iter().filter(|vote| !is_gone(vote)).all(|vote| tasks.insert(vote.task)), "two votes on a task");
    let mut items = HashSet::new();
    assert!(votes.iter().filter(|vote| !is_gone(vote)).all(|vote| items.insert((vote.item, vote.annotator))));
}

#[test]
fn a_database_that_is_in_use_is_refused_and_free_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    database(&path);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_votes", "--nocapture"])
        .envs([(DATABASE, path.as_os_str()), (FIRST_ID, "0".as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let error = Store::open(&path).err().expect("another process writes");
    assert!(matches!(error, StoreError::InUse { process: Some(id), .. } if id == child.id()), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    Store::open(&path).unwrap();
}
