//! A hundred thousand responses: they come in within a few times what SQLite itself needs for them, and each action takes
//! less than 50 ms.

use kudos::data::{Loaded, Options, Reader};
use rank::informative::Features;
use rank::{Ballot, Import, ImportSource, Order, QueueSettings, Store};
use std::fmt::Write;
use std::time::{Duration, Instant};

const PROMPTS: usize = 25_000;
const RESPONSES: usize = 4;
const ACTION: Duration = Duration::from_millis(50);

fn answers() -> String {
    let mut text = "prompt,answer,model\n".to_owned();
    for p in 0..PROMPTS {
        for r in 0..RESPONSES {
            let words = "words of an answer that goes on for a line or two ".repeat(2);
            writeln!(text, "what is asked in prompt number {p}?,answer {r} to {p}: {words},model-{r}").unwrap();
        }
    }
    text
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// What this thread has computed so far: the clock of the wall would measure what else the machine does. Where the system does
/// not tell, it is the clock of the wall.
fn spent(began: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split_whitespace().next().and_then(|field| field.parse().ok());
    nanoseconds.map_or_else(|| began.elapsed(), Duration::from_nanos)
}

/// What this processor computes for the least that any store of those responses does: the hash of each text, and its row
/// in a plain indexed table. Bounds are counted in it, so that they mean the same on a fast and on a slow machine.
fn yardstick() -> Duration {
    use sha2::{Digest, Sha256};
    let dir = tempfile::tempdir().unwrap();
    let text = answers();
    let began = Instant::now();
    let before = spent(began);
    let mut plain = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    plain
        .execute_batch("CREATE TABLE response (text TEXT, hash BLOB); CREATE INDEX by_hash ON response (hash)")
        .unwrap();
    let all = plain.transaction().unwrap();
    let mut insert = all.prepare("INSERT INTO response VALUES (?1, ?2)").unwrap();
    for line in text.lines().skip(1) {
        insert.execute((line, Sha256::digest(line).as_slice())).unwrap();
    }
    drop(insert);
    all.commit().unwrap();
    spent(began) - before
}

/// The time as a multiple of the yardstick's, which is measured after it.
#[track_caller]
fn at_most(times: f64, computed: Duration) {
    let yardstick = yardstick();
    let ratio = computed.as_secs_f64() / yardstick.as_secs_f64();
    println!("{computed:?} of computing is {ratio:.1} times SQLite's own {yardstick:?}");
    assert!(ratio < times, "{ratio:.1} times, at most {times}");
}

#[test]
fn a_hundred_thousand_responses() {
    let dir = tempfile::tempdir().unwrap();
    let text = answers();
    let began = Instant::now();
    let before = spent(began);
    let options = Options { labelled: false, ..Options::default() };
    let mut loaded = Loaded::default();
    loaded.read(Reader::from_bytes("a.csv", text.into_bytes(), &options).unwrap(), &options).unwrap();
    let read = began.elapsed();
    let path = dir.path().join("db");
    let store = Store::create(&path).unwrap();
    let source = ImportSource { file: "a.csv".into(), sha256: loaded.files[0].sha256.clone() };
    let report = store.import(&loaded, &source, Import::New).unwrap();
    let (imported, computed) = (began.elapsed(), spent(began) - before);
    assert_eq!((report.items, report.responses), (PROMPTS, PROMPTS * RESPONSES));
    for order in [Order::InOrder, Order::Random, Order::Review, Order::Disputed] {
        println!("{order:?}: {:?}", actions(&store, order, 40));
    }
    drop(store);
    let began = Instant::now();
    let store = Store::open(&path).unwrap();
    println!(
        "read {read:?}, imported {imported:?}, of which computing {computed:?}; opened again {:?}",
        began.elapsed()
    );
    drop(store);
    at_most(8.0, computed);
}

/// Next, submit, withdraw, submit again, progress: the median time of each.
fn actions(store: &Store, order: Order, rounds: usize) -> [Duration; 4] {
    let settings = QueueSettings { overlap: 2, order, ..QueueSettings::default() };
    let me = store.annotator(&format!("{order:?}")).unwrap();
    let mut times: [Vec<Duration>; 4] = Default::default();
    for n in 0..rounds {
        let mut timed = |action: usize, run: &mut dyn FnMut()| {
            let began = Instant::now();
            run();
            times[action].push(began.elapsed());
        };
        let mut task = None;
        timed(0, &mut || task = store.next(me, &settings).unwrap());
        let Some(task) = task else { break };
        let ranks = (1..=task.responses.len() as u32).map(Some).collect();
        let id = |again: usize| format!("00000000-0000-4000-{:04x}-{:012x}", 0x8000 + 2 * n + again, me.0);
        let mut ballot = Ballot {
            vote: id(0),
            task: task.task,
            annotator: me,
            ranks,
            ratings: Default::default(),
            flags: Vec::new(),
            comment: None,
            skipped: None,
            seconds: Some(1.0),
        };
        timed(1, &mut || drop(store.submit(&ballot).unwrap()));
        timed(2, &mut || drop(store.withdraw(&ballot.vote, me).unwrap()));
        ballot.vote = id(1);
        store.submit(&ballot).unwrap();
        timed(3, &mut || assert!(store.progress(me, &settings).items > 0));
    }
    let times = times.map(|times| if times.is_empty() { Duration::ZERO } else { median(times) });
    assert!(times.iter().all(|time| *time < ACTION), "{order:?}: next, submit, withdraw, progress: {times:?}");
    times
}

#[test]
fn the_informative_order_learns_in_milliseconds() {
    const ITEMS: usize = 10_000;
    const WIDTH: usize = 384;
    let text = "prompt,answer\n".to_owned() + &(0..2 * ITEMS).map(|n| format!("p{},a{n}\n", n / 2)).collect::<String>();
    let options = Options { labelled: false, ..Options::default() };
    let mut loaded = Loaded::default();
    loaded.read(Reader::from_bytes("a.csv", text.into_bytes(), &options).unwrap(), &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("db")).unwrap();
    let source = ImportSource { file: "a.csv".into(), sha256: loaded.files[0].sha256.clone() };
    store.import(&loaded, &source, Import::New).unwrap();
    let mut stream = kudos::random::Stream::new(1, 1);
    let rows: Vec<f32> = (0..2 * ITEMS * WIDTH).map(|_| stream.uniform() as f32 - 0.5).collect();
    let responses = store.contents().unwrap().into_iter().flat_map(|(_, _, shown)| shown).map(|r| r.response).collect();
    store.set_features(&Features { width: WIDTH, responses, rows }).unwrap();
    println!("informative: {:?}", actions(&store, Order::Informative, 40));
}

/// Twenty thousand rankings by two people, put into the tables at once.
#[test]
fn figures_of_many_rankings_come_within_seconds() {
    const ITEMS: usize = 10_000;
    let rows: String = (0..3 * ITEMS).map(|n| format!("p{},a{n}\n", n / 3)).collect();
    let options = Options { labelled: false, ..Options::default() };
    let mut loaded = Loaded::default();
    let text = format!("prompt,answer\n{rows}");
    loaded.read(Reader::from_bytes("a.csv", text.into_bytes(), &options).unwrap(), &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = Store::create(&path).unwrap();
    let source = ImportSource { file: "a.csv".into(), sha256: loaded.files[0].sha256.clone() };
    store.import(&loaded, &source, Import::New).unwrap();
    let people = ["a", "b"].map(|name| store.annotator(name).unwrap().0);
    drop(store);
    let filled = rusqlite::Connection::open(&path).unwrap();
    let tasks =
        "INSERT INTO task (item, annotator, repeat, shown, made_at) SELECT item, ?1, 0, '[2,0,1]', '' FROM item";
    people.iter().for_each(|person| assert_eq!(filled.execute(tasks, [person]), Ok(ITEMS)));
    let votes = "INSERT INTO vote (vote, task, ranks, seconds, stored_at)
        SELECT 'v' || task, task, CASE (task * 7919) % 5 WHEN 0 THEN '[2,1,3]' WHEN 1 THEN '[1,1,2]' ELSE '[1,2,3]' END, 3.0, ''
        FROM task";
    filled.execute(votes, []).unwrap();
    drop(filled);
    let began = Instant::now();
    let store = Store::open(&path).unwrap();
    let opened = began.elapsed();
    let before = spent(began);
    let results = store.results(&Default::default()).unwrap();
    let computed = spent(began) - before;
    println!("opened {opened:?}, all figures of {} rankings computed in {computed:?}", results.rankings);
    assert_eq!((results.rankings, results.overlapping), (2 * ITEMS, ITEMS));
    assert!(results.agreement.alpha.unwrap().ci95.is_some());
    at_most(5.0, computed);
    let began = Instant::now();
    let rows = store.export(rank::export::Format::Groups, &Default::default(), false).unwrap().rows;
    println!("{} groups exported in {:?}", rows.len(), began.elapsed());
}
