//! The store from outside: what comes in, who gets what, what is kept, and what is refused.

use kudos::data::{Loaded, Options, Reader};
use rank::export::Format;
use rank::merge::MergeSettings;
use rank::{
    AnnotatorId, Ballot, BallotError, Import, ImportReport, ImportSource, Order, QueueSettings, Store, StoreError,
    Task, TaskId,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn loaded(name: &str, text: &str) -> Loaded {
    let options = Options { labelled: false, ..Options::default() };
    let mut loaded = Loaded::default();
    loaded.read(Reader::from_bytes(name, text.into(), &options).unwrap(), &options).unwrap();
    loaded
}

fn import(store: &Store, name: &str, text: &str, mode: Import) -> Result<ImportReport, StoreError> {
    let loaded = loaded(name, text);
    let source = ImportSource { file: name.into(), sha256: loaded.files[0].sha256.clone() };
    store.import(&loaded, &source, mode)
}

/// `prompts` prompts with `k` responses each.
fn answers(prompts: usize, k: usize) -> String {
    let rows = (0..prompts).flat_map(|p| (0..k).map(move |r| format!("prompt {p},answer {p} {r}\n")));
    "prompt,answer\n".to_owned() + &rows.collect::<String>()
}

struct Bench {
    store: Store,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn bench(text: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rankings.db");
    let store = Store::create(&path).unwrap();
    import(&store, "a.csv", text, Import::New).unwrap();
    Bench { store, path, _dir: dir }
}

/// The n-th id.
fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn ballot(n: usize, task: &Task, annotator: AnnotatorId, ranks: &[u32]) -> Ballot {
    Ballot {
        vote: id(n),
        task: task.task,
        annotator,
        ranks: ranks.iter().map(|rank| (*rank > 0).then_some(*rank)).collect(),
        ratings: Default::default(),
        flags: Vec::new(),
        comment: None,
        skipped: None,
        seconds: Some(1.5),
    }
}

fn overlap(overlap: usize) -> QueueSettings {
    QueueSettings { overlap, ..QueueSettings::default() }
}

#[test]
fn what_cannot_be_ranked_is_counted() {
    let long: String = (0..17).map(|r| format!("many,answer {r}\n")).collect();
    let most: String = (0..16).map(|r| format!("most,answer {r}\n")).collect();
    let text = format!("prompt,answer\none,a\ntwins,a\ntwins,a\ngood,a\ngood,b\ngood,a\n{long}{most}");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("db")).unwrap();
    let report = import(&store, "a.csv", &text, Import::New).unwrap();
    let expected =
        ImportReport { items: 2, responses: 18, too_few: 2, too_many: 1, identical: 2, ..Default::default() };
    assert_eq!(report, expected);
    assert!(report.left_out().unwrap().contains("1 prompts with more than 16 responses"));
    let other = Store::create(dir.path().join("other")).unwrap();
    let error = import(&other, "b.csv", "prompt,answer\np,a\n", Import::New).unwrap_err();
    assert!(error.to_string().contains("1 prompts with fewer than 2"), "{error}");
    import(&other, "a.csv", &text, Import::New).expect("the file that held nothing left no trace");
}

#[test]
fn a_file_is_taken_in_once_and_a_changed_one_only_when_told() {
    let b = bench(&answers(3, 2));
    let again = import(&b.store, "a.csv", &answers(3, 2), Import::New).unwrap();
    assert_eq!((again.items, again.known), (0, 3));
    let more = answers(4, 2) + "prompt 0,another answer\n";
    let error = import(&b.store, "a.csv", &more, Import::New).unwrap_err();
    assert!(error.to_string().contains("a.csv has changed since") && error.to_string().contains("--add"), "{error}");
    let error = import(&b.store, "b.csv", &more, Import::New).unwrap_err();
    assert!(error.to_string().contains("b.csv was never imported"), "{error}");
    let added = import(&b.store, "a.csv", &more, Import::Add).unwrap();
    assert_eq!((added.items, added.known, added.other_responses), (2, 2, 1));
    assert_eq!(import(&b.store, "a.csv", &more, Import::New).unwrap().items, 0, "both versions are known now");
}

#[test]
fn the_order_of_the_file_is_kept_beside_and_is_no_vote() {
    let b = bench("prompt,answer,rank\np,a,2\np,b,1\np,c,\n");
    let me = b.store.annotator("me").unwrap();
    assert!(
        b.store.standing().unwrap().is_empty()
            && b.store.export(Format::Ranked, &MergeSettings::default(), false).unwrap().rows.is_empty()
    );
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    let ranks: Vec<u32> = task
        .responses
        .iter()
        .map(|r| if r.content == kudos::data::Content::Text("a".into()) { 1 } else { 2 })
        .collect();
    let receipt = b.store.submit(&ballot(1, &task, me, &ranks)).unwrap();
    let revealed = b.store.reveal(&receipt.vote, me).unwrap().unwrap();
    assert_eq!(revealed.agrees, Some(0.0), "the file had b before a");
    let shown: Vec<Option<f64>> = ranks
        .iter()
        .zip(&task.responses)
        .map(|(_, r)| match &r.content {
            kudos::data::Content::Text(text) => match text.as_str() {
                "a" => Some(2.0),
                "b" => Some(1.0),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(revealed.ranks, shown);
}

#[test]
fn suspects_are_reviewed_one_by_one_and_tell_their_label_afterwards() {
    let rows = r#"{"prompt":"p","chosen":"a","rejected":"b","probability":0.1,"model":"secret"}
{"prompt":"p","chosen":"c","rejected":"a","probability":0.2}
{"prompt":"q","chosen":"x","rejected":"z","probability":0.3}
"#;
    let b = bench(rows);
    let me = b.store.annotator("me").unwrap();
    let settings = QueueSettings { order: Order::Review, ..overlap(1) };
    let task = b.store.next(me, &settings).unwrap().unwrap();
    assert_eq!((task.responses.len(), task.progress.items), (2, 3), "two doubts on one prompt are two items");
    let shown = serde_json::to_string(&task).unwrap();
    assert!(!shown.contains("secret") && !shown.contains("probability") && !shown.contains("chosen"), "{shown}");
    let is_a = |at: usize| task.responses[at].content == kudos::data::Content::Text("a".into());
    let ranks = if is_a(0) { [1, 2] } else { [2, 1] };
    let receipt = b.store.submit(&ballot(1, &task, me, &ranks)).unwrap();
    let revealed = b.store.reveal(&receipt.vote, me).unwrap().unwrap();
    assert_eq!((revealed.agrees, revealed.figures["probability"].as_f64()), (Some(1.0), Some(0.1)));
    assert!(!revealed.figures.contains_key("model"));
    let task = b.store.next(me, &settings).unwrap().unwrap();
    let is_a = |at: usize| task.responses[at].content == kudos::data::Content::Text("a".into());
    b.store.submit(&ballot(2, &task, me, if is_a(0) { &[1, 2] } else { &[2, 1] })).unwrap();
    let results = b.store.results(&Default::default()).unwrap();
    let review = results.review.unwrap();
    assert_eq!((review.items, review.stand, review.turned), (2, 1, 1));
}

#[test]
fn each_item_goes_to_as_many_people_as_the_overlap_says() {
    let b = bench(&answers(20, 3));
    let people: Vec<AnnotatorId> = ["a", "b", "c"].iter().map(|name| b.store.annotator(name).unwrap()).collect();
    let mut votes = 0;
    let mut seen = std::collections::HashSet::new();
    let mut idle = 0;
    while idle < people.len() {
        idle = 0;
        for person in &people {
            let Some(task) = b.store.next(*person, &overlap(2)).unwrap() else {
                idle += 1;
                continue;
            };
            assert!(seen.insert((*person, task.item)), "a person gets an item once");
            votes += 1;
            b.store.submit(&ballot(votes, &task, *person, &[1, 2, 3])).unwrap();
        }
    }
    assert_eq!(votes, 40);
    let progress = b.store.progress(people[0], &overlap(2));
    assert_eq!((progress.complete, progress.rankings, progress.left), (20, 40, 0));
}

#[test]
fn an_open_task_stays_with_its_person_and_its_order_is_stored() {
    let b = bench(&answers(40, 5));
    let (me, you) = (b.store.annotator("me").unwrap(), b.store.annotator("you").unwrap());
    let first = b.store.next(me, &overlap(1)).unwrap().unwrap();
    assert_eq!(b.store.next(me, &overlap(1)).unwrap().unwrap(), first, "a reload, or a second tab");
    let other = b.store.next(you, &overlap(1)).unwrap().unwrap();
    assert_ne!(other.item, first.item, "what is out counts as a vote");
    let Bench { store, path, _dir } = b;
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.next(me, &overlap(1)).unwrap().unwrap().responses, first.responses, "after a restart too");
    assert_eq!(store.next(you, &overlap(1)).unwrap().unwrap().task, other.task);
    let mut orders = std::collections::HashSet::new();
    for n in 0..30 {
        let person = store.annotator(&format!("person {n}")).unwrap();
        let task = store.next(person, &overlap(100)).unwrap().unwrap();
        orders.insert(task.responses.iter().map(|r| r.response).collect::<Vec<_>>());
    }
    assert!(orders.len() > 15, "{} orders of 30", orders.len());
}

#[test]
fn a_lease_that_ended_frees_the_item_and_a_late_vote_counts() {
    let b = bench(&answers(1, 2));
    let (me, you) = (b.store.annotator("me").unwrap(), b.store.annotator("you").unwrap());
    let short = QueueSettings { lease: Duration::ZERO, ..overlap(1) };
    let mine = b.store.next(me, &short).unwrap().unwrap();
    let yours = b.store.next(you, &short).unwrap().expect("the lease of the other has ended");
    assert_eq!(mine.item, yours.item);
    b.store.submit(&ballot(1, &yours, you, &[1, 2])).unwrap();
    assert_eq!(b.store.next(me, &short).unwrap(), None, "the item is complete");
    let late = b.store.submit(&ballot(2, &mine, me, &[2, 1])).unwrap();
    assert!(!late.already);
    assert_eq!(b.store.progress(me, &short).rankings, 2);
}

#[test]
fn a_ballot_is_stored_once_and_undone_by_a_new_row() {
    let b = bench(&answers(2, 3));
    let me = b.store.annotator("me").unwrap();
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    let first = ballot(1, &task, me, &[1, 3, 3]);
    let receipt = b.store.submit(&first).unwrap();
    let again = b.store.submit(&first).unwrap();
    assert_eq!((again.already, &again.stored_at), (true, &receipt.stored_at));
    let other = Ballot { ranks: vec![Some(2), Some(1), None], ..first.clone() };
    let error = b.store.submit(&other).unwrap_err();
    assert!(matches!(error, StoreError::Ballot(BallotError::Reused(_))), "{error}");
    let second = ballot(2, &task, me, &[2, 1, 3]);
    let error = b.store.submit(&second).unwrap_err();
    assert!(matches!(error, StoreError::Ballot(BallotError::AlreadyVoted { .. })), "a second tab: {error}");
    let next = b.store.next(me, &overlap(1)).unwrap().unwrap();
    assert_ne!(next.task, task.task);
    assert!(!b.store.withdraw(&first.vote, me).unwrap().already);
    assert!(b.store.withdraw(&first.vote, me).unwrap().already);
    let (shown, old) = b.store.task_of(&first.vote, &overlap(1)).unwrap();
    assert_eq!((shown.responses, old.ranks), (task.responses.clone(), vec![Some(1), Some(2), Some(2)]));
    assert_eq!(b.store.next(me, &overlap(1)).unwrap().unwrap().task, task.task, "what was undone comes first");
    let replayed = b.store.submit(&first).unwrap();
    assert!(replayed.already && replayed.withdrawn, "a replay does not bring it back");
    b.store.submit(&second).unwrap();
    assert_eq!(b.store.next(me, &overlap(1)).unwrap().unwrap().task, next.task);
    let votes = b.store.votes().unwrap();
    assert_eq!(votes.iter().map(|vote| vote.withdrawn_at.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(b.store.standing().unwrap().len(), 1);
}

#[test]
fn ballots_that_cannot_be_counted_are_refused_and_nothing_is_stored() {
    let b = bench(&answers(2, 3));
    let (me, you) = (b.store.annotator("me").unwrap(), b.store.annotator("you").unwrap());
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    let good = ballot(1, &task, me, &[1, 2, 3]);
    let refused = |change: &dyn Fn(&mut Ballot)| {
        let mut ballot = good.clone();
        change(&mut ballot);
        match b.store.submit(&ballot) {
            Err(StoreError::Ballot(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    let length = |list, found| BallotError::Length { list, expected: 3, found };
    assert_eq!(refused(&|b| b.vote = "1".into()), BallotError::Id("1".into()));
    assert_eq!(refused(&|b| b.task = TaskId(99)), BallotError::UnknownTask(99));
    assert_eq!(refused(&|b| b.annotator = you), BallotError::ForeignTask(task.task.0));
    assert_eq!(refused(&|b| b.ranks = vec![Some(1); 40]), length("ranks", 40));
    assert_eq!(refused(&|b| b.ranks = vec![]), length("ranks", 0));
    assert_eq!(refused(&|b| b.ranks = vec![None; 3]), BallotError::Empty);
    assert_eq!(refused(&|b| b.ranks[0] = Some(4)), BallotError::Rank { expected: 3, found: 4 });
    assert_eq!(refused(&|b| b.ranks[0] = Some(0)), BallotError::Rank { expected: 3, found: 0 });
    assert_eq!(refused(&|b| b.ranks[0] = Some(u32::MAX)), BallotError::Rank { expected: 3, found: u32::MAX });
    assert_eq!(refused(&|b| b.skipped = Some("hard".into())), BallotError::RanksOfSkipped);
    assert_eq!(refused(&|b| drop(b.ratings.insert("x".into(), vec![Some(1.0)]))), length("ratings", 1));
    assert_eq!(refused(&|b| drop(b.ratings.insert("x".into(), vec![Some(6.0); 3]))), BallotError::Rating(6.0));
    assert!(matches!(
        refused(&|b| drop(b.ratings.insert("x".into(), vec![Some(f64::NAN); 3]))),
        BallotError::Rating(_)
    ));
    assert_eq!(refused(&|b| b.flags = vec![vec![]]), length("flags", 1));
    assert!(matches!(refused(&|b| b.comment = Some("x".repeat(20_001))), BallotError::TooLong { .. }));
    assert_eq!(b.store.votes().unwrap().len(), 0);
    assert_eq!(b.store.withdraw(&id(9), me).unwrap_err().to_string(), BallotError::UnknownVote(id(9)).to_string());
    b.store.submit(&Ballot { seconds: Some(f64::NEG_INFINITY), ..good.clone() }).unwrap();
    assert_eq!(b.store.votes().unwrap()[0].seconds, None, "a clock that jumped says nothing");
    let error = b.store.withdraw(&good.vote, you).unwrap_err();
    assert!(matches!(error, StoreError::Ballot(BallotError::ForeignVote(_))), "{error}");
    let ghost = b.store.next(AnnotatorId(99), &overlap(1)).unwrap_err();
    assert!(matches!(ghost, StoreError::Ballot(BallotError::UnknownAnnotator(99))), "{ghost}");
}

#[test]
fn skipped_items_are_left_to_others_and_do_not_come_again() {
    let b = bench(&answers(2, 2));
    let (me, you) = (b.store.annotator("me").unwrap(), b.store.annotator("you").unwrap());
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    let skip = Ballot { ranks: vec![], skipped: Some("cannot judge".into()), ..ballot(1, &task, me, &[]) };
    b.store.submit(&skip).unwrap();
    assert_ne!(b.store.next(me, &overlap(1)).unwrap().unwrap().item, task.item);
    assert_eq!(b.store.progress(me, &overlap(1)).skipped, 1);
    assert_eq!(b.store.next(you, &overlap(1)).unwrap().unwrap().item, task.item);
}

#[test]
fn repeats_come_at_their_share_and_measure_consistency() {
    let b = bench(&answers(100, 3));
    let me = b.store.annotator("me").unwrap();
    let settings = QueueSettings { repeats: 0.2, ..overlap(1) };
    let (mut repeats, mut tasks) = (Vec::new(), 0);
    while let Some(task) = b.store.next(me, &settings).unwrap() {
        tasks += 1;
        if task.repeat {
            repeats.push(task.item);
        }
        // By content, so that the person is consistent whatever the order shown.
        let ranks: Vec<u32> = {
            let mut ids: Vec<_> = task.responses.iter().map(|r| r.response).collect();
            let shown = ids.clone();
            ids.sort();
            shown.iter().map(|id| 1 + ids.iter().position(|other| other == id).unwrap() as u32).collect()
        };
        b.store.submit(&ballot(tasks, &task, me, &ranks)).unwrap();
    }
    assert!((20..=25).contains(&repeats.len()) && tasks == 100 + repeats.len(), "{} of {tasks}", repeats.len());
    let distinct: std::collections::HashSet<_> = repeats.iter().collect();
    assert_eq!(distinct.len(), repeats.len());
    let results = b.store.results(&Default::default()).unwrap();
    assert_eq!(results.people[0].consistency.unwrap().value, 1.0);
    assert_eq!((results.rankings, results.repeats), (100, repeats.len()));
}

#[test]
fn disputed_items_come_first_and_beyond_the_overlap() {
    let b = bench(&answers(3, 2));
    let people: Vec<AnnotatorId> = ["a", "b", "c"].iter().map(|name| b.store.annotator(name).unwrap()).collect();
    let mut n = 0;
    for person in &people[..2] {
        while let Some(task) = b.store.next(*person, &overlap(2)).unwrap() {
            n += 1;
            let by_id = task.responses[0].response < task.responses[1].response;
            let agrees = task.item.0 != 2 || *person == people[0];
            b.store.submit(&ballot(n, &task, *person, if by_id == agrees { &[1, 2] } else { &[2, 1] })).unwrap();
        }
    }
    assert_eq!(b.store.next(people[2], &overlap(2)).unwrap(), None);
    let disputed = QueueSettings { order: Order::Disputed, ..overlap(2) };
    let task = b.store.next(people[2], &disputed).unwrap().unwrap();
    assert_eq!((task.item.0, task.progress.left), (2, 1));
}

#[test]
fn items_on_which_a_judge_and_people_disagree_come_first() {
    let b = bench("prompt,answer,rank\np,a,1\np,b,2\nq,c,1\nq,d,2\nr,e,1\nr,f,2\n");
    let me = b.store.annotator("me").unwrap();
    // The judge agrees on p, doubts q a little, and is sure of the opposite on r.
    let scores = [3.0, 0.0, 0.0, 0.5, -2.0, 2.0];
    let ids = b.store.contents().unwrap().into_iter().flat_map(|(_, _, shown)| shown).map(|shown| shown.response);
    b.store.set_judge_scores(&ids.zip(scores).collect()).unwrap();
    let settings = QueueSettings { order: Order::Judge, ..overlap(1) };
    let mut order = Vec::new();
    while let Some(task) = b.store.next(me, &settings).unwrap() {
        order.push(task.item.0);
        b.store.submit(&ballot(order.len(), &task, me, &[1, 1])).unwrap();
    }
    assert_eq!(order, [3, 2], "p is in no doubt");
}

#[test]
fn many_at_once_get_no_item_twice() {
    let b = bench(&answers(60, 2));
    let people: Vec<AnnotatorId> = (0..6).map(|n| b.store.annotator(&format!("person {n}")).unwrap()).collect();
    let work = |person: &AnnotatorId| {
        let mut items = Vec::new();
        while let Some(task) = b.store.next(*person, &overlap(1)).unwrap() {
            b.store.submit(&ballot((person.0 * 1000) as usize + items.len(), &task, *person, &[1, 2])).unwrap();
            items.push(task.item);
        }
        items
    };
    let items: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = people.iter().map(|person| scope.spawn(|| work(person))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: std::collections::HashSet<_> = items.iter().collect();
    assert_eq!((items.len(), distinct.len()), (60, 60));
}

#[test]
fn two_servers_on_one_database() {
    let b = bench(&answers(1, 2));
    let error = Store::open(&b.path).err().unwrap();
    let message = error.to_string();
    assert!(
        matches!(error, StoreError::InUse { .. }) && message.contains(&std::process::id().to_string()),
        "{message}"
    );
    assert_eq!(Store::read(&b.path).unwrap().standing().unwrap().len(), 0, "readers may come at any time");
    drop(b.store);
    Store::open(&b.path).unwrap();
}

#[test]
fn what_is_no_database_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let both = |path: &Path| [Store::open(path).err().unwrap(), Store::read(path).err().unwrap()];
    assert!(both(&path("none")).iter().all(|e| matches!(e, StoreError::Missing(_))));
    std::fs::write(path("text"), "prompt,answer\n".repeat(100)).unwrap();
    assert!(both(&path("text")).iter().all(|e| matches!(e, StoreError::NotADatabase(_))));
    std::fs::write(path("header"), b"SQLite format 3\0".repeat(100)).unwrap();
    assert!(
        both(&path("header")).iter().all(|e| matches!(e, StoreError::NotADatabase(_))),
        "{:?}",
        both(&path("header"))
    );
    let other = rusqlite::Connection::open(path("other")).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    assert!(both(&path("other")).iter().all(|e| matches!(e, StoreError::Foreign(_))));
    drop(Store::create(path("newer")).unwrap());
    rusqlite::Connection::open(path("newer")).unwrap().pragma_update(None, "user_version", rank::VERSION + 1).unwrap();
    for error in both(&path("newer")) {
        assert!(matches!(error, StoreError::Newer { .. }) && error.to_string().contains("update Kudos"), "{error}");
    }
    assert!(matches!(Store::create(path("newer")).err().unwrap(), StoreError::Exists(_)));
    std::fs::write(path("empty"), "").unwrap();
    Store::open(path("empty")).expect("what a program that was killed at once left behind");
    let text = std::fs::read(path("text")).unwrap();
    assert_eq!(text.len(), 1400, "a refused file is as it was");
}

#[test]
fn a_damaged_database_is_an_error() {
    let b = bench(&answers(2000, 2));
    let Bench { store, path, _dir } = b;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8192..40960].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).err().map(|e| e.to_string());
    let error = error.or_else(|| Store::read(&path).unwrap().results(&Default::default()).err().map(|e| e.to_string()));
    assert!(error.is_some_and(|e| e.contains("damaged") || e.contains("database")));
}

#[test]
fn votes_cannot_be_changed_or_deleted_by_anybody() {
    let b = bench(&answers(1, 2));
    let me = b.store.annotator("me").unwrap();
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    b.store.submit(&ballot(1, &task, me, &[1, 2])).unwrap();
    drop(b.store);
    let connection = rusqlite::Connection::open(&b.path).unwrap();
    let changes =
        ["DELETE FROM vote", "UPDATE vote SET ranks = '[2,1]'", "DELETE FROM task", "UPDATE task SET item = 9"];
    for change in changes {
        let error = connection.execute(change, []).unwrap_err().to_string();
        assert!(error.contains("never"), "{change}: {error}");
    }
    let double = "INSERT INTO vote (vote, task, ranks, stored_at) SELECT 'x', task, ranks, stored_at FROM vote";
    assert!(connection.execute(double, []).is_err());
}

#[test]
fn exports_are_read_back_as_what_was_voted() {
    let b = bench("prompt,answer,model\np,a,m\np,\"b, \"\"x\"\"\nnew line\",n\np,[c],o\nq,d,m\nq,e,n\n");
    let (me, you) = (b.store.annotator("me").unwrap(), b.store.annotator("you").unwrap());
    let mut n = 0;
    let mut vote = |person, order: &[usize]| {
        let task = b.store.next(person, &overlap(2)).unwrap().unwrap();
        let first = task.responses.iter().map(|r| r.response.0).min().unwrap();
        let ranks: Vec<u32> = task.responses.iter().map(|r| order[(r.response.0 - first) as usize] as u32).collect();
        n += 1;
        b.store.submit(&ballot(n, &task, person, &ranks)).unwrap();
    };
    vote(me, &[1, 2, 2]);
    vote(me, &[2, 1]);
    vote(you, &[1, 2, 0]);
    let read = |format| {
        let rows = b.store.export(format, &MergeSettings::default(), false).unwrap().rows;
        let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        let mut loaded = Loaded::default();
        let reader = Reader::from_bytes("t", text.into_bytes(), &Options::default()).unwrap();
        loaded.read(reader, &Options::default()).unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        loaded
    };
    let said = |loaded: &Loaded| -> Vec<Vec<(usize, usize, f32)>> {
        loaded.groups.iter().map(|g| g.comparisons.iter().map(|c| (c.first, c.second, c.target)).collect()).collect()
    };
    let groups = read(Format::Groups);
    assert_eq!(said(&groups), [vec![(0, 1, 1.0), (0, 2, 1.0), (1, 2, 0.75)], vec![(0, 1, 0.0)]]);
    let texts = |loaded: &Loaded, g: usize| {
        loaded.groups[g].responses.iter().map(|r| r.content.as_text("assistant").into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&groups, 0), ["a", "b, \"x\"\nnew line", "[c]"]);
    let ranked = read(Format::Ranked);
    assert_eq!(said(&ranked), [vec![(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)], vec![(0, 1, 0.0)]]);
    assert_eq!(ranked.groups[0].responses[2].extra["model"], "o", "columns of the file come back");
    assert_eq!(read(Format::Pairs).pairs(), 4);
    let votes = b.store.export(Format::Votes, &MergeSettings::default(), false).unwrap().rows;
    assert_eq!(votes.len(), 3);
    assert_eq!(
        (&votes[2]["ranks"], &votes[2]["annotator"]),
        (&serde_json::json!([1, 2, null]), &serde_json::json!("you"))
    );
}

#[test]
fn whole_transcripts_are_exported_as_comparisons() {
    let b = bench("chosen,rejected\nx y a,x y b\nx y c,x y d\n");
    let me = b.store.annotator("me").unwrap();
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    assert_eq!(task.prompt, None);
    let first = task.responses[0].response < task.responses[1].response;
    b.store.submit(&ballot(1, &task, me, if first { &[2, 1] } else { &[1, 2] })).unwrap();
    let rows = b.store.export(Format::Groups, &MergeSettings::default(), false).unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["response_a"], rows[0]["label"].as_f64()), (&serde_json::json!("x y a"), Some(0.0)));
    let ranked = b.store.export(Format::Ranked, &MergeSettings::default(), false).unwrap();
    assert!(ranked.rows.is_empty() && ranked.notes.iter().any(|note| note.contains("without a prompt")));
}

#[test]
fn hostile_texts_come_through_unchanged() {
    let marks: String = std::iter::once('a').chain(std::iter::repeat_n('\u{301}', 10_000)).collect();
    let texts = [
        "<script>alert(1)</script>",
        "\u{1b}[31m\u{0}x",
        "\u{202e}abc",
        &marks,
        &"long ".repeat(200_000),
        "{{x}} ${y}",
    ];
    let row = |text: &str| serde_json::json!({"prompt": "p", "response": text}).to_string() + "\n";
    let b = bench(&texts.iter().map(|text| row(text)).collect::<String>());
    let me = b.store.annotator("me").unwrap();
    let task = b.store.next(me, &overlap(1)).unwrap().unwrap();
    let mut shown: Vec<_> =
        task.responses.iter().map(|r| (r.response, r.content.as_text("assistant").into_owned())).collect();
    shown.sort();
    assert!(shown.iter().map(|(_, text)| text.as_str()).eq(texts));
}

#[test]
fn people_have_names_and_tokens() {
    let b = bench(&answers(1, 2));
    let anna = b.store.annotator(" Anna ").unwrap();
    assert_eq!(b.store.annotator("Anna").unwrap(), anna);
    b.store.set_token(anna, Some("secret")).unwrap();
    assert_eq!((b.store.by_token("secret").unwrap(), b.store.by_token("").unwrap()), (Some(anna), None));
    for wrong in ["", "  ", "a\nb", &"x".repeat(101)] {
        assert!(matches!(b.store.annotator(wrong), Err(StoreError::Name(_))), "{wrong:?}");
    }
}
