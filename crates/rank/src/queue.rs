//! Which item a person gets next.
//!
//! An item wants votes of as many people as the overlap says. What is out with somebody counts as a vote for the time of a
//! lease; a vote that comes later still counts. A person gets an item once, and again only as a planned repeat. The order of
//! the responses is shuffled for each person and item from the seed of the database, and stored with the task.

use crate::store::Fault;
use crate::{AnnotatorId, ItemId, ResponseId, Store, StoreError, TaskId, merge, votes};
use kudos::data::Content;
use kudos::random::Stream;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What the next item is chosen by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As in the file.
    #[default]
    InOrder,
    /// By chance, the same for everybody.
    Random,
    /// The item first whose vote would tell most: see [`Store::set_features`]. By chance where there are no features.
    Informative,
    /// Items on which people disagree, beyond the overlap too, the most disputed first.
    Disputed,
    /// Items on which a judge and people disagree, the most first: see [`Store::set_judge_scores`].
    Judge,
    /// Items that the file has judged already, in the order of the file.
    Review,
}

/// How the queue works.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// Votes that each item should have, of as many people.
    pub overlap: usize,
    /// Share of a person's tasks that are items they have ranked before, from 0 to 0.5.
    pub repeats: f64,
    /// What comes first.
    pub order: Order,
    /// How long a task counts as a vote while its person is silent.
    pub lease: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        QueueSettings { overlap: 1, repeats: 0.0, order: Order::InOrder, lease: Duration::from_secs(30 * 60) }
    }
}

/// An item as it is shown to one person.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Task {
    /// Stays the same however often it is asked for, until there is a vote.
    pub task: TaskId,
    /// The item.
    pub item: ItemId,
    /// What was asked; `None` if the responses are whole transcripts.
    pub prompt: Option<Content>,
    /// The responses in the order of this person.
    pub responses: Vec<Shown>,
    /// True if the person has ranked the item before.
    pub repeat: bool,
    /// How far the work is.
    pub progress: Progress,
}

/// A response on the page. Who wrote it is not told.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Shown {
    /// The response.
    pub response: ResponseId,
    /// Its text or messages.
    pub content: Content,
}

/// An item with its prompt and its responses, in the order of the file.
pub type Contents = (ItemId, Option<Content>, Vec<Shown>);

/// How far the work is, for one person and for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Rankings of this person that stand, repeats among them.
    pub mine: usize,
    /// Items that this person skipped.
    pub skipped: usize,
    /// Items that this person may still get.
    pub left: usize,
    /// Items with as many rankings as the overlap says.
    pub complete: usize,
    /// All items.
    pub items: usize,
    /// Rankings of everybody that stand, repeats left out.
    pub rankings: usize,
}

/// First showings before a repeat, and between an item and its repeat.
const BEFORE_REPEAT: usize = 5;

/// What is known of items, people and tasks, in memory.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub seed: u64,
    items: Vec<ItemState>,
    at: HashMap<i64, usize>,
    people: HashMap<i64, Person>,
    tasks: HashMap<i64, TaskState>,
}

#[derive(Debug)]
struct ItemState {
    item: i64,
    /// True if the file said something of the order.
    is_judged: bool,
    /// Tasks of first showings.
    tasks: Vec<i64>,
    /// Rankings that stand, of first showings, by place.
    votes: Vec<(i64, Vec<Option<u32>>)>,
    /// 0 where all agree, 1 where all are opposed.
    disagreement: f64,
    /// The same between people and the judge.
    against_judge: Option<f64>,
    judge: Vec<f64>,
}

#[derive(Debug, Default)]
struct Person {
    /// Tasks without a vote, the latest last.
    open: Vec<i64>,
    /// Items of first showings that were ranked, in that order.
    ranked: Vec<usize>,
    /// Items of all first showings.
    seen: HashSet<usize>,
    repeated: HashSet<usize>,
    skipped: usize,
}

#[derive(Debug)]
struct TaskState {
    item: usize,
    annotator: i64,
    is_repeat: bool,
    /// When its lease ends, in the time of the store.
    until: Duration,
    /// True while a vote stands.
    is_done: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
enum Pick {
    /// A task that was given out before.
    Open(i64),
    /// An item, by its place in the queue.
    New { at: usize, is_repeat: bool },
}

impl Queue {
    /// As the database has it. Tasks without a vote are leased for a first while, as if just given out.
    pub fn load(connection: &Connection) -> rusqlite::Result<Queue> {
        let seed = connection.query_row("SELECT value FROM fact WHERE name = 'seed'", [], |row| row.get::<_, i64>(0));
        let mut queue = Queue { seed: seed.optional()?.unwrap_or(42) as u64, ..Queue::default() };
        queue.add_items(connection, 0)?;
        let mut tasks = connection.prepare("SELECT task, item, annotator, repeat FROM task ORDER BY task")?;
        let lease = QueueSettings::default().lease;
        for row in tasks.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)? > 0)))? {
            let (task, item, annotator, is_repeat): (i64, i64, i64, bool) = row?;
            queue.opened(task, queue.at[&item], annotator, is_repeat, lease);
        }
        for vote in votes::standing(connection)? {
            queue.voted(vote.task.0, vote.skipped.is_none().then_some(vote.ranks));
        }
        Ok(queue)
    }

    /// Takes up the items that were stored after number `after`.
    pub fn add_items(&mut self, connection: &Connection, after: i64) -> rusqlite::Result<()> {
        let sql = "SELECT item, EXISTS (SELECT 1 FROM given WHERE given.item = item.item)
                OR EXISTS (SELECT 1 FROM response WHERE response.item = item.item AND rank IS NOT NULL)
            FROM item WHERE item > ?1 ORDER BY item";
        let mut items = connection.prepare(sql)?;
        for row in items.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (item, is_judged) = row?;
            self.at.insert(item, self.items.len());
            let (tasks, votes, judge) = (Vec::new(), Vec::new(), Vec::new());
            self.items.push(ItemState { item, is_judged, tasks, votes, disagreement: 0.0, against_judge: None, judge });
        }
        Ok(())
    }

    fn opened(&mut self, task: i64, item: usize, annotator: i64, is_repeat: bool, until: Duration) {
        self.tasks.insert(task, TaskState { item, annotator, is_repeat, until, is_done: false });
        let person = self.people.entry(annotator).or_default();
        person.open.push(task);
        if is_repeat {
            person.repeated.insert(item);
        } else {
            person.seen.insert(item);
            self.items[item].tasks.push(task);
        }
    }

    /// A vote stands: ranks by place, or `None` for a skip.
    pub fn voted(&mut self, task: i64, ranks: Option<Vec<Option<u32>>>) {
        let Some(state) = self.tasks.get_mut(&task) else { return };
        state.is_done = true;
        let (item, annotator, is_repeat) = (state.item, state.annotator, state.is_repeat);
        let person = self.people.entry(annotator).or_default();
        person.open.retain(|open| *open != task);
        let Some(ranks) = ranks else {
            person.skipped += 1;
            return;
        };
        if !is_repeat {
            person.ranked.push(item);
            self.items[item].votes.push((annotator, ranks));
            self.items[item].measure();
        }
    }

    /// A vote no longer stands: its task is open again, and the next to be shown.
    pub fn withdrawn(&mut self, task: i64, was_skip: bool, until: Duration) {
        let Some(state) = self.tasks.get_mut(&task) else { return };
        (state.is_done, state.until) = (false, until);
        let (item, annotator, is_repeat) = (state.item, state.annotator, state.is_repeat);
        let person = self.people.entry(annotator).or_default();
        person.open.push(task);
        if was_skip {
            person.skipped -= 1;
        } else if !is_repeat {
            person.ranked.retain(|known| *known != item);
            self.items[item].votes.retain(|(voter, _)| *voter != annotator);
            self.items[item].measure();
        }
    }

    /// Votes that an item has or may expect, without those of `me`.
    fn expected(&self, item: &ItemState, me: i64, now: Duration) -> usize {
        let out = |task: &&i64| {
            let state = &self.tasks[*task];
            !state.is_done && state.annotator != me && state.until > now
        };
        item.votes.len() + item.tasks.iter().filter(out).count()
    }

    fn pick(
        &self,
        me: i64,
        settings: &QueueSettings,
        now: Duration,
        value: impl Fn(i64) -> Option<f64>,
    ) -> Option<Pick> {
        let nobody = Person::default();
        let person = self.people.get(&me).unwrap_or(&nobody);
        let is_wanted = |task: &i64| {
            let state = &self.tasks[task];
            state.is_repeat || state.until > now || self.expected(&self.items[state.item], me, now) < settings.overlap
        };
        if let Some(task) = person.open.iter().rev().copied().find(is_wanted) {
            return Some(Pick::Open(task));
        }
        if let Some(at) = self.due_repeat(person, settings.repeats) {
            return Some(Pick::New { at, is_repeat: true });
        }
        self.best(person, me, settings, now, value).map(|at| Pick::New { at, is_repeat: false })
    }

    /// The item ranked longest ago that was not repeated, if repeats are behind their share.
    fn due_repeat(&self, person: &Person, share: f64) -> Option<usize> {
        let first = person.ranked.len();
        let due = (first as f64 * share.clamp(0.0, 0.5) / (1.0 - share.clamp(0.0, 0.5))) as usize;
        if first < BEFORE_REPEAT || person.repeated.len() >= due {
            return None;
        }
        let old = &person.ranked[..first - BEFORE_REPEAT.min(first - 1)];
        old.iter().copied().find(|item| !person.repeated.contains(item))
    }

    fn best(
        &self,
        person: &Person,
        me: i64,
        settings: &QueueSettings,
        now: Duration,
        value: impl Fn(i64) -> Option<f64>,
    ) -> Option<usize> {
        let is_free = |at: &usize| !person.seen.contains(at) && self.is_wanted(*at, me, settings, now);
        let mut free = (0..self.items.len()).filter(is_free);
        let chance = |at: usize| Stream::new(self.seed, self.items[at].item as u64).uniform();
        let worth = |at: usize| match settings.order {
            Order::Disputed => self.items[at].disagreement,
            Order::Judge => self.items[at].against_judge.unwrap_or(0.0),
            Order::Informative => value(self.items[at].item).unwrap_or(0.0),
            Order::InOrder | Order::Random | Order::Review => 0.0,
        };
        if matches!(settings.order, Order::InOrder | Order::Review) {
            return free.next();
        }
        free.map(|at| (worth(at), chance(at), at))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
            .map(|x| x.2)
    }

    fn is_wanted(&self, at: usize, me: i64, settings: &QueueSettings, now: Duration) -> bool {
        let item = &self.items[at];
        let needs = || self.expected(item, me, now) < settings.overlap;
        match settings.order {
            Order::InOrder | Order::Random | Order::Informative => needs(),
            Order::Review => item.is_judged && needs(),
            Order::Disputed => item.disagreement > 0.0,
            Order::Judge => item.against_judge.is_some_and(|share| share > 0.5),
        }
    }

    fn progress(&self, me: AnnotatorId, settings: &QueueSettings, now: Duration) -> Progress {
        let nobody = Person::default();
        let person = self.people.get(&me.0).unwrap_or(&nobody);
        let repeats = person.repeated.len() - person.open.iter().filter(|t| self.tasks[t].is_repeat).count();
        let left = |at: &usize| !person.seen.contains(at) && self.is_wanted(*at, me.0, settings, now);
        Progress {
            mine: person.ranked.len() + repeats,
            skipped: person.skipped,
            left: person.open.len() + (0..self.items.len()).filter(left).count(),
            complete: self.items.iter().filter(|item| item.votes.len() >= settings.overlap).count(),
            items: self.items.len(),
            rankings: self.items.iter().map(|item| item.votes.len()).sum(),
        }
    }

    /// The order of the responses for this person: chance, from the seed.
    fn shuffled(&self, item: i64, annotator: i64, repeat: i64, responses: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..responses).collect();
        Stream::named(self.seed, "shown")
            .fork(item as u64)
            .fork(annotator as u64)
            .fork(repeat as u64)
            .shuffle(&mut places);
        places
    }
}

impl ItemState {
    fn measure(&mut self) {
        let ranks: Vec<&[Option<u32>]> = self.votes.iter().map(|(_, ranks)| ranks.as_slice()).collect();
        self.disagreement = 1.0 - merge::agreement_of(&ranks).unwrap_or(1.0);
        if !self.judge.is_empty() {
            self.against_judge = merge::against(&ranks, &self.judge);
        }
    }
}

impl Store {
    /// The next task of a person, or `None` when nothing waits for them. A task that was given out and has no vote comes
    /// again, so that a reload or a second tab shows the same.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn next(&self, annotator: AnnotatorId, settings: &QueueSettings) -> Result<Option<Task>, StoreError> {
        let now = self.now();
        let task = self.write(|change, queue, head| {
            let value = |item| head.and_then(|head| head.value(ItemId(item)));
            let task = match queue.pick(annotator.0, settings, now, value) {
                None => return Ok(None),
                Some(Pick::Open(task)) => task,
                Some(Pick::New { at, is_repeat }) => open_task(change, queue, at, annotator, is_repeat)?,
            };
            if let Some(open) = queue.tasks.get_mut(&task) {
                open.until = now + settings.lease;
            }
            Ok(Some(task))
        })?;
        task.map(|task| self.show(TaskId(task), settings)).transpose()
    }

    /// A task as it was shown, whether or not it has a vote.
    ///
    /// # Errors
    /// If there is none of this number, or the database cannot be read.
    pub fn show(&self, task: TaskId, settings: &QueueSettings) -> Result<Task, StoreError> {
        let now = self.now();
        let state = self.state();
        let Some(known) = state.queue.tasks.get(&task.0) else {
            return Err(crate::BallotError::UnknownTask(task.0).into());
        };
        let progress = state.queue.progress(AnnotatorId(known.annotator), settings, now);
        let repeat = known.is_repeat;
        let (item, prompt, responses) =
            shown(&state.connection, task).map_err(|reason| StoreError::of(self.path(), reason))?;
        Ok(Task { task, item, prompt, responses, repeat, progress })
    }

    /// How far the work is.
    pub fn progress(&self, annotator: AnnotatorId, settings: &QueueSettings) -> Progress {
        let now = self.now();
        self.state().queue.progress(annotator, settings, now)
    }

    /// Scores of a judge, for [`Order::Judge`]. They never leave the store.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn set_judge_scores(&self, scores: &HashMap<ResponseId, f64>) -> Result<(), StoreError> {
        let sql = "SELECT item, response FROM response ORDER BY item, place";
        let mut of_item: HashMap<i64, Vec<f64>> = HashMap::new();
        self.query(|connection| {
            let mut rows = connection.prepare(sql)?;
            for row in rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
                let (item, response) = row?;
                of_item.entry(item).or_default().push(scores.get(&ResponseId(response)).copied().unwrap_or(f64::NAN));
            }
            Ok(())
        })?;
        let given = self.query(crate::export::given_orders)?;
        let mut state = self.state();
        for item in &mut state.queue.items {
            item.judge =
                of_item.remove(&item.item).filter(|scores| scores.iter().all(|s| s.is_finite())).unwrap_or_default();
            item.measure();
            if item.votes.is_empty() && !item.judge.is_empty() {
                item.against_judge = given.get(&item.item).and_then(|pairs| merge::contradiction(pairs, &item.judge));
            }
        }
        Ok(())
    }

    /// All items and their responses, in order: what a judge would score, or a model read.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn contents(&self) -> Result<Vec<Contents>, StoreError> {
        self.query(|connection| {
            let mut ids = connection.prepare("SELECT item FROM item ORDER BY item")?;
            let ids: Vec<i64> = ids.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            ids.into_iter().map(|item| contents(connection, item).map(|(p, r)| (ItemId(item), p, r))).collect()
        })
    }
}

fn open_task(
    change: &Transaction,
    queue: &mut Queue,
    at: usize,
    annotator: AnnotatorId,
    is_repeat: bool,
) -> Result<i64, Fault> {
    let known = "SELECT count(*) FROM annotator WHERE annotator = ?1";
    if change.prepare_cached(known)?.query_row([annotator.0], |row| row.get::<_, i64>(0))? == 0 {
        return Err(crate::BallotError::UnknownAnnotator(annotator.0).into());
    }
    let item = queue.items[at].item;
    let count = "SELECT count(*) FROM response WHERE item = ?1";
    let responses: i64 = change.prepare_cached(count)?.query_row([item], |row| row.get(0))?;
    let repeat = i64::from(is_repeat);
    let shown = serde_json::json!(queue.shuffled(item, annotator.0, repeat, responses as usize)).to_string();
    let new = "INSERT INTO task (item, annotator, repeat, shown, made_at)
        VALUES (?1, ?2, ?3, ?4, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))";
    change.prepare_cached(new)?.execute((item, annotator.0, repeat, shown))?;
    let task = change.last_insert_rowid();
    queue.opened(task, at, annotator.0, is_repeat, Duration::ZERO);
    Ok(task)
}

/// JSON that the store wrote itself.
pub(crate) fn parsed<T: serde::de::DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(text).map_err(wrong)
}

fn contents(connection: &Connection, item: i64) -> rusqlite::Result<(Option<Content>, Vec<Shown>)> {
    let mut prompt = connection.prepare_cached("SELECT prompt FROM item WHERE item = ?1")?;
    let prompt: Option<String> = prompt.query_row([item], |row| row.get(0))?;
    let prompt = prompt.map(|text| parsed(0, &text)).transpose()?;
    let mut rows =
        connection.prepare_cached("SELECT response, content FROM response WHERE item = ?1 ORDER BY place")?;
    let response = |row: &rusqlite::Row| {
        Ok(Shown { response: ResponseId(row.get(0)?), content: parsed(1, row.get_ref(1)?.as_str()?)? })
    };
    let responses = rows.query_map([item], response)?.collect::<rusqlite::Result<_>>()?;
    Ok((prompt, responses))
}

fn shown(connection: &Connection, task: TaskId) -> rusqlite::Result<(ItemId, Option<Content>, Vec<Shown>)> {
    let mut found = connection.prepare_cached("SELECT item, shown FROM task WHERE task = ?1")?;
    let (item, order): (i64, String) = found.query_row([task.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let order: Vec<usize> = parsed(1, &order)?;
    let (prompt, responses) = contents(connection, item)?;
    Ok((ItemId(item), prompt, order.iter().map(|place| responses[*place].clone()).collect()))
}
