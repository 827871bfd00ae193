//! Ballots: checked, stored once, and withdrawn by a new row.
//!
//! A ballot carries an id that the client made. Sending it again, after an answer was lost, stores nothing new and gets the
//! same receipt. Nothing that was stored is changed or deleted: a withdrawal is a row of its own, and so is the vote after it.
//!
//! A rank of `None` says that the person did not place the response. Those that were placed count as better than those that
//! were not; of two that were not placed, nothing is known.

use crate::queue::{QueueSettings, Task, parsed};
use crate::store::Fault;
use crate::{AnnotatorId, BallotError, ItemId, Store, StoreError, TaskId};
use rusqlite::{Connection, OptionalExtension, Transaction};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Characters of a comment, at most.
const LONGEST_COMMENT: usize = 20_000;
/// Characters of a reason, a flag or the name of an attribute, at most.
const LONGEST_WORD: usize = 500;

/// A person's answer to a task. Lists are parallel to the responses in the order they were shown.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ballot {
    /// A UUID that the client made: the same when the same ballot is sent again.
    pub vote: String,
    /// The task.
    pub task: TaskId,
    /// Who answers.
    pub annotator: AnnotatorId,
    /// 1 is best, equal ranks are a tie, `None` was not placed. Empty or all `None` for an item that is skipped.
    pub ranks: Vec<Option<u32>>,
    /// Ratings from 1 to 5, by attribute.
    #[serde(default)]
    pub ratings: BTreeMap<String, Vec<Option<f64>>>,
    /// Words such as `unsafe`, for each response; an empty list for none at all.
    #[serde(default)]
    pub flags: Vec<Vec<String>>,
    /// What the person wrote.
    #[serde(default)]
    pub comment: Option<String>,
    /// Why the item was skipped; `None` if it was not.
    #[serde(default)]
    pub skipped: Option<String>,
    /// Time from the showing to the answer. What cannot be one, as when a clock was set, is stored as unknown.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// The vote is on the disk.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Receipt {
    /// Its id.
    pub vote: String,
    /// When it was stored (UTC), by the clock of this machine.
    pub stored_at: String,
    /// True if it was stored before.
    pub already: bool,
    /// True if it was withdrawn since.
    pub withdrawn: bool,
}

/// A vote as it was stored, with ranks, ratings and flags in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Grows from vote to vote.
    pub number: i64,
    /// The client's id.
    pub vote: String,
    /// The task it answers.
    pub task: TaskId,
    /// The item.
    pub item: ItemId,
    /// Who voted.
    pub annotator: AnnotatorId,
    /// True for a planned repeat.
    pub repeat: bool,
    /// By place in the file: 1 is best.
    pub ranks: Vec<Option<u32>>,
    /// By attribute, by place.
    pub ratings: BTreeMap<String, Vec<Option<f64>>>,
    /// By place; empty for none at all.
    pub flags: Vec<Vec<String>>,
    /// Places in the order in which they were shown.
    pub shown: Vec<usize>,
    /// What the person wrote.
    pub comment: Option<String>,
    /// Why it was skipped.
    pub skipped: Option<String>,
    /// Time it took.
    pub seconds: Option<f64>,
    /// When it was stored.
    pub stored_at: String,
    /// When it was withdrawn; `None` while it stands.
    pub withdrawn_at: Option<String>,
}

/// What the file had said of an item, told after the vote. Lists are in the order shown.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Revealed {
    /// Ranks that the file gave.
    pub ranks: Vec<Option<f64>>,
    /// Comparisons that the file gave: places in the order shown, and the share for the first.
    pub judgements: Vec<(usize, usize, f64)>,
    /// Share of the file's preferences that the vote agrees with; `None` if they have none in common.
    pub agrees: Option<f64>,
    /// What the row says of its label: `probability` and the like. Who wrote a response is not among it.
    pub figures: Map<String, Value>,
}

impl Ballot {
    fn check(&self, shown: usize) -> Result<(), BallotError> {
        let length = |list, found| match found == shown {
            true => Ok(()),
            false => Err(BallotError::Length { list, expected: shown, found }),
        };
        let placed = self.ranks.iter().flatten().count();
        match (&self.skipped, placed) {
            (Some(_), 1..) => return Err(BallotError::RanksOfSkipped),
            (None, 0) if self.ranks.len() == shown => return Err(BallotError::Empty),
            (Some(_), 0) if self.ranks.is_empty() => {}
            _ => length("ranks", self.ranks.len())?,
        }
        if let Some(found) = self.ranks.iter().flatten().copied().find(|rank| !(1..=shown as u32).contains(rank)) {
            return Err(BallotError::Rank { expected: shown, found });
        }
        for ratings in self.ratings.values() {
            length("ratings", ratings.len())?;
            if let Some(found) = ratings.iter().flatten().copied().find(|rating| !(1.0..=5.0).contains(rating)) {
                return Err(BallotError::Rating(found));
            }
        }
        if !self.flags.is_empty() {
            length("flags", self.flags.len())?;
        }
        self.check_texts()
    }

    fn check_texts(&self) -> Result<(), BallotError> {
        let words = self.flags.iter().flatten().map(|flag| ("flags", flag));
        let words = words.chain(self.ratings.keys().map(|name| ("ratings", name)));
        let words = words.chain(self.skipped.iter().map(|reason| ("skipped", reason)));
        let words = words.map(|(field, text)| (field, text, LONGEST_WORD));
        let comment = self.comment.iter().map(|text| ("comment", text, LONGEST_COMMENT));
        for (field, text, limit) in words.chain(comment) {
            let found = text.chars().count();
            if found > limit {
                return Err(BallotError::TooLong { field, limit, found });
            }
        }
        Ok(())
    }

    /// The columns of the row that this ballot makes.
    fn columns(&self) -> Columns {
        let ratings = (!self.ratings.is_empty()).then(|| serde_json::json!(self.ratings).to_string());
        let flags = self.flags.iter().any(|flags| !flags.is_empty());
        let dense = dense(&self.ranks);
        Columns {
            task: self.task.0,
            ranks: serde_json::json!(if self.skipped.is_some() { Vec::new() } else { dense }).to_string(),
            ratings,
            flags: flags.then(|| serde_json::json!(self.flags).to_string()),
            comment: self.comment.clone().filter(|text| !text.trim().is_empty()),
            skipped: self.skipped.clone(),
            seconds: self.seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
        }
    }
}

/// A row of the table `vote` without its id and time.
#[derive(Debug, PartialEq)]
struct Columns {
    task: i64,
    ranks: String,
    ratings: Option<String>,
    flags: Option<String>,
    comment: Option<String>,
    skipped: Option<String>,
    seconds: Option<f64>,
}

/// Ranks without gaps: `1, 3, 3` becomes `1, 2, 2`.
pub(crate) fn dense(ranks: &[Option<u32>]) -> Vec<Option<u32>> {
    let mut used: Vec<u32> = ranks.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let place = |rank: u32| 1 + used.partition_point(|other| *other < rank) as u32;
    ranks.iter().map(|rank| rank.map(place)).collect()
}

fn is_uuid(id: &str) -> bool {
    let is_right = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    id.len() == 36 && id.bytes().enumerate().all(is_right)
}

impl Store {
    /// Stores a ballot. It is on the disk when this returns. A ballot that was stored before is not stored again.
    ///
    /// # Errors
    /// If the ballot cannot be counted ([`StoreError::Ballot`]), or the database cannot be written; nothing is stored then.
    pub fn submit(&self, ballot: &Ballot) -> Result<Receipt, StoreError> {
        let vote = ballot.vote.to_ascii_lowercase();
        if !is_uuid(&vote) {
            return Err(BallotError::Id(ballot.vote.chars().take(40).collect()).into());
        }
        let (receipt, item) = self.write(|change, queue, _| {
            let (item, shown) = task_of(change, ballot)?;
            let columns = ballot.columns();
            if let Some(receipt) = known(change, &vote, &columns)? {
                return Ok((receipt, item));
            }
            ballot.check(shown.len())?;
            if let Some(standing) = standing_of(change, ballot.task)? {
                return Err(BallotError::AlreadyVoted { task: ballot.task.0, vote: standing }.into());
            }
            let stored_at = insert(change, &vote, &columns)?;
            let ranks = ballot.skipped.is_none().then(|| by_place(&dense(&ballot.ranks), &shown));
            queue.voted(ballot.task.0, ranks);
            Ok((Receipt { vote: vote.clone(), stored_at, already: false, withdrawn: false }, item))
        })?;
        if !receipt.already && ballot.skipped.is_none() {
            // The vote is stored: what the order learns from it can wait for the next start.
            let _ = self.learn(item, ballot.task);
        }
        Ok(receipt)
    }

    /// Withdraws a vote of this person; its task is then the next to be shown to them. Again is the same as once.
    ///
    /// # Errors
    /// If there is no such vote of this person, or the database cannot be written.
    pub fn withdraw(&self, vote: &str, annotator: AnnotatorId) -> Result<Receipt, StoreError> {
        let vote = vote.to_ascii_lowercase();
        let until = self.now() + QueueSettings::default().lease;
        let (receipt, task) = self.write(|change, queue, _| {
            let (number, task, was_skip) = own_vote(change, &vote, annotator)?;
            let new = "INSERT INTO withdrawal (vote, stored_at) VALUES (?1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
                ON CONFLICT (vote) DO NOTHING";
            let is_new = change.prepare_cached(new)?.execute([number])? == 1;
            let when = "SELECT stored_at FROM withdrawal WHERE vote = ?1";
            let stored_at = change.prepare_cached(when)?.query_row([number], |row| row.get(0))?;
            if is_new {
                queue.withdrawn(task, was_skip, until);
            }
            Ok((Receipt { vote: vote.clone(), stored_at, already: !is_new, withdrawn: true }, TaskId(task)))
        })?;
        if let (false, Some(head)) = (receipt.already, &mut self.state().head) {
            head.unlearn(task);
        }
        Ok(receipt)
    }

    /// The task that a vote answered, as it was shown, and the ballot: to show it again.
    ///
    /// # Errors
    /// If there is no such vote, or the database cannot be read.
    pub fn task_of(&self, vote: &str, settings: &QueueSettings) -> Result<(Task, Ballot), StoreError> {
        let vote = vote.to_ascii_lowercase();
        let found = self.query(|connection| {
            let sql = "SELECT vote.task, task.annotator, ranks, ratings, flags, comment, skipped, seconds
                FROM vote JOIN task USING (task) WHERE vote = ?1";
            connection.prepare_cached(sql)?.query_row([&vote], |row| ballot_of(&vote, row)).optional()
        })?;
        let ballot = found.ok_or(BallotError::UnknownVote(vote))?;
        Ok((self.show(ballot.task, settings)?, ballot))
    }

    /// What the file had said of the item that a person has voted on; `None` if it said nothing.
    ///
    /// # Errors
    /// If there is no such vote of this person, or the database cannot be read.
    pub fn reveal(&self, vote: &str, annotator: AnnotatorId) -> Result<Option<Revealed>, StoreError> {
        let vote = vote.to_ascii_lowercase();
        let found = self.query(|connection| Ok(own_vote(connection, &vote, annotator).map(|(number, _, _)| number)))?;
        let number = match found {
            Ok(number) => number,
            Err(Fault::Ballot(reason)) => return Err(reason.into()),
            Err(Fault::Sqlite(reason)) => return Err(self.failure(reason)),
        };
        self.query(|connection| revealed(connection, number))
    }

    /// Every vote in the order in which it was stored, those that were withdrawn among them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn votes(&self) -> Result<Vec<Vote>, StoreError> {
        self.query(|connection| select(connection, ""))
    }

    /// The votes that stand, in the order in which they were stored.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn standing(&self) -> Result<Vec<Vote>, StoreError> {
        self.query(standing)
    }
}

/// The item of a ballot's task, and the places in the order shown.
fn task_of(change: &Transaction, ballot: &Ballot) -> Result<(ItemId, Vec<usize>), Fault> {
    let mut find = change.prepare_cached("SELECT item, annotator, shown FROM task WHERE task = ?1")?;
    let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(i64, i64, String)> = find.query_row([ballot.task.0], row).optional()?;
    match found {
        None => Err(BallotError::UnknownTask(ballot.task.0).into()),
        Some((_, owner, _)) if owner != ballot.annotator.0 => Err(BallotError::ForeignTask(ballot.task.0).into()),
        Some((item, _, shown)) => Ok((ItemId(item), parsed(2, &shown)?)),
    }
}

/// The receipt of a vote that was stored before.
fn known(change: &Transaction, vote: &str, columns: &Columns) -> Result<Option<Receipt>, Fault> {
    let sql = "SELECT task, ranks, ratings, flags, comment, skipped, seconds, stored_at,
            EXISTS (SELECT 1 FROM withdrawal WHERE withdrawal.vote = vote.number)
        FROM vote WHERE vote = ?1";
    let row = |row: &rusqlite::Row| {
        let stored = Columns {
            task: row.get(0)?,
            ranks: row.get(1)?,
            ratings: row.get(2)?,
            flags: row.get(3)?,
            comment: row.get(4)?,
            skipped: row.get(5)?,
            seconds: row.get(6)?,
        };
        Ok((stored, row.get(7)?, row.get(8)?))
    };
    match change.prepare_cached(sql)?.query_row([vote], row).optional()? {
        None => Ok(None),
        Some((stored, ..)) if stored != *columns => Err(BallotError::Reused(vote.to_owned()).into()),
        Some((_, stored_at, withdrawn)) => {
            Ok(Some(Receipt { vote: vote.to_owned(), stored_at, already: true, withdrawn }))
        }
    }
}

fn standing_of(change: &Transaction, task: TaskId) -> rusqlite::Result<Option<String>> {
    let mut find = change.prepare_cached("SELECT vote FROM standing WHERE task = ?1")?;
    find.query_row([task.0], |row| row.get(0)).optional()
}

fn insert(change: &Transaction, vote: &str, columns: &Columns) -> rusqlite::Result<String> {
    let sql = "INSERT INTO vote (vote, task, ranks, ratings, flags, comment, skipped, seconds, stored_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) RETURNING stored_at";
    let Columns { task, ranks, ratings, flags, comment, skipped, seconds } = columns;
    let values = (vote, task, ranks, ratings, flags, comment, skipped, seconds);
    change.prepare_cached(sql)?.query_row(values, |row| row.get(0))
}

/// Number, task, and whether it was a skip.
fn own_vote(connection: &Connection, vote: &str, annotator: AnnotatorId) -> Result<(i64, i64, bool), Fault> {
    let sql = "SELECT number, task, skipped IS NOT NULL, annotator FROM vote JOIN task USING (task) WHERE vote = ?1";
    let row = |row: &rusqlite::Row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get::<_, i64>(3)?));
    match connection.prepare_cached(sql)?.query_row([vote], row).optional()? {
        None => Err(BallotError::UnknownVote(vote.to_owned()).into()),
        Some((_, owner)) if owner != annotator.0 => Err(BallotError::ForeignVote(vote.to_owned()).into()),
        Some((found, _)) => Ok(found),
    }
}

/// A list in the order shown, by place.
pub(crate) fn by_place<T: Clone + Default>(shown_values: &[T], shown: &[usize]) -> Vec<T> {
    let mut values = vec![T::default(); shown.len()];
    shown.iter().zip(shown_values).for_each(|(place, value)| values[*place] = value.clone());
    values
}

fn ballot_of(vote: &str, row: &rusqlite::Row) -> rusqlite::Result<Ballot> {
    let text = |column: usize| row.get::<_, Option<String>>(column);
    Ok(Ballot {
        vote: vote.to_owned(),
        task: TaskId(row.get(0)?),
        annotator: AnnotatorId(row.get(1)?),
        ranks: parsed(2, &row.get::<_, String>(2)?)?,
        ratings: text(3)?.map(|text| parsed(3, &text)).transpose()?.unwrap_or_default(),
        flags: text(4)?.map(|text| parsed(4, &text)).transpose()?.unwrap_or_default(),
        comment: row.get(5)?,
        skipped: row.get(6)?,
        seconds: row.get(7)?,
    })
}

/// The votes that stand, in the order in which they were stored.
pub(crate) fn standing(connection: &Connection) -> rusqlite::Result<Vec<Vote>> {
    select(connection, "WHERE withdrawal.vote IS NULL")
}

/// Votes by a condition on `vote`, `task` and `withdrawal`.
pub(crate) fn select(connection: &Connection, condition: &str) -> rusqlite::Result<Vec<Vote>> {
    let sql = format!(
        "SELECT vote.number, vote.vote, vote.task, item, annotator, repeat, ranks, ratings, flags, shown, comment, skipped,
            seconds, vote.stored_at, withdrawal.stored_at
        FROM vote JOIN task USING (task) LEFT JOIN withdrawal ON withdrawal.vote = vote.number {condition}
        ORDER BY vote.number"
    );
    let mut rows = connection.prepare(&sql)?;
    rows.query_map([], vote_of)?.collect()
}

fn vote_of(row: &rusqlite::Row) -> rusqlite::Result<Vote> {
    let text = |column: usize| row.get::<_, Option<String>>(column);
    let shown: Vec<usize> = parsed(9, &row.get::<_, String>(9)?)?;
    let ranks: Vec<Option<u32>> = parsed(6, &row.get::<_, String>(6)?)?;
    let ratings: BTreeMap<String, Vec<Option<f64>>> =
        text(7)?.map(|text| parsed(7, &text)).transpose()?.unwrap_or_default();
    let flags: Vec<Vec<String>> = text(8)?.map(|text| parsed(8, &text)).transpose()?.unwrap_or_default();
    Ok(Vote {
        number: row.get(0)?,
        vote: row.get(1)?,
        task: TaskId(row.get(2)?),
        item: ItemId(row.get(3)?),
        annotator: AnnotatorId(row.get(4)?),
        repeat: row.get::<_, i64>(5)? > 0,
        ranks: by_place(&ranks, &shown),
        ratings: ratings.into_iter().map(|(name, values)| (name, by_place(&values, &shown))).collect(),
        flags: if flags.is_empty() { flags } else { by_place(&flags, &shown) },
        shown,
        comment: row.get(10)?,
        skipped: row.get(11)?,
        seconds: row.get(12)?,
        stored_at: row.get(13)?,
        withdrawn_at: row.get(14)?,
    })
}

fn revealed(connection: &Connection, number: i64) -> rusqlite::Result<Option<Revealed>> {
    let vote = select(connection, &format!("WHERE vote.number = {number}"))?.remove(0);
    let mut rows = connection.prepare_cached("SELECT rank, extra FROM response WHERE item = ?1 ORDER BY place")?;
    let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?));
    let responses: Vec<(Option<f64>, Option<String>)> =
        rows.query_map([vote.item.0], row)?.collect::<Result<_, _>>()?;
    let sql = "SELECT first, second, target, extra FROM given WHERE item = ?1 ORDER BY given";
    let mut rows = connection.prepare_cached(sql)?;
    let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let given: Vec<(usize, usize, f64, Option<String>)> = rows
        .query_map([vote.item.0], row)?
        .map(|row| row.map(|(a, b, target, extra): (i64, i64, f64, _)| (a as usize, b as usize, target, extra)))
        .collect::<Result<_, _>>()?;
    if given.is_empty() && responses.iter().all(|(rank, _)| rank.is_none()) {
        return Ok(None);
    }
    let at = |place: usize| vote.shown.iter().position(|shown| *shown == place).unwrap_or_default();
    let extra = given.first().and_then(|row| row.3.as_ref()).or(responses[0].1.as_ref());
    let orders = crate::export::orders_of_item(connection, vote.item.0)?;
    Ok(Some(Revealed {
        ranks: vote.shown.iter().map(|place| responses[*place].0).collect(),
        judgements: given.iter().map(|(a, b, target, _)| (at(*a), at(*b), *target)).collect(),
        agrees: crate::merge::share_agreed(&vote.ranks, &orders),
        figures: extra.map(|text| parsed(3, text)).transpose()?.map(figures).unwrap_or_default(),
    }))
}

/// The columns of `suspects.jsonl` that speak of the label.
fn figures(mut row: Map<String, Value>) -> Map<String, Value> {
    const TOLD: [&str; 5] = ["file", "line", "probability", "score_chosen", "score_rejected"];
    row.retain(|name, _| TOLD.contains(&name.as_str()));
    row
}
