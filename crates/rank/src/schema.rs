//! The tables, and how an older database becomes one of today.
//!
//! Votes, tasks and withdrawals are only ever added: triggers refuse to change or delete them. Order is told by row numbers,
//! which grow, and never by a clock; times are there to be read by people.

use crate::StoreError;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;

/// `KUDR`: says in the file's header whose database it is.
pub const APPLICATION_ID: i64 = 0x4b55_4452;

/// Each step makes the next version of the database; version 0 is an empty file.
const STEPS: [&str; 1] = [VERSION_1];

/// The version that this program writes.
pub const VERSION: i64 = STEPS.len() as i64;

const VERSION_1: &str = "
CREATE TABLE fact (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

-- A file that was imported.
CREATE TABLE source (
    source INTEGER PRIMARY KEY,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    imported_at TEXT NOT NULL
) STRICT;

-- A prompt whose responses are ranked. `prompt` is JSON: a text, or messages; NULL for whole transcripts.
CREATE TABLE item (
    item INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES source,
    line INTEGER NOT NULL,
    key BLOB NOT NULL UNIQUE,
    prompt TEXT,
    kind TEXT NOT NULL
) STRICT;

-- `place` counts from 0 in the order of the file. `rank`, `score` and `attributes` are what the file said.
CREATE TABLE response (
    response INTEGER PRIMARY KEY,
    item INTEGER NOT NULL REFERENCES item,
    place INTEGER NOT NULL,
    content TEXT NOT NULL,
    chars INTEGER NOT NULL,
    rank REAL,
    score REAL,
    attributes TEXT,
    extra TEXT,
    UNIQUE (item, place)
) STRICT;

-- A judgement that the file held: kept for review, never a vote. `first` and `second` are places.
CREATE TABLE given (
    given INTEGER PRIMARY KEY,
    item INTEGER NOT NULL REFERENCES item,
    first INTEGER NOT NULL,
    second INTEGER NOT NULL,
    target REAL NOT NULL,
    margin REAL NOT NULL,
    weight REAL NOT NULL,
    line INTEGER NOT NULL,
    voter TEXT,
    extra TEXT
) STRICT;
CREATE INDEX given_of_item ON given (item);

CREATE TABLE annotator (
    annotator INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    token TEXT UNIQUE,
    made_at TEXT NOT NULL
) STRICT;

-- One showing of an item to a person. `shown` is the JSON list of places in the order shown.
CREATE TABLE task (
    task INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL REFERENCES item,
    annotator INTEGER NOT NULL REFERENCES annotator,
    repeat INTEGER NOT NULL,
    shown TEXT NOT NULL,
    made_at TEXT NOT NULL,
    UNIQUE (item, annotator, repeat)
) STRICT;

-- `vote` is the id that the client made. `ranks`, `ratings` and `flags` are parallel to the task's `shown`.
CREATE TABLE vote (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    vote TEXT NOT NULL UNIQUE,
    task INTEGER NOT NULL REFERENCES task,
    ranks TEXT NOT NULL,
    ratings TEXT,
    flags TEXT,
    comment TEXT,
    skipped TEXT,
    seconds REAL,
    stored_at TEXT NOT NULL
) STRICT;
CREATE INDEX vote_of_task ON vote (task);

CREATE TABLE withdrawal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    vote INTEGER NOT NULL UNIQUE REFERENCES vote (number),
    stored_at TEXT NOT NULL
) STRICT;

-- Votes that stand.
CREATE VIEW standing AS
    SELECT vote.*, task.item, task.annotator, task.repeat, task.shown FROM vote JOIN task USING (task)
    WHERE NOT EXISTS (SELECT 1 FROM withdrawal WHERE withdrawal.vote = vote.number);

CREATE TRIGGER one_vote_a_task BEFORE INSERT ON vote
    WHEN EXISTS (SELECT 1 FROM standing WHERE task = NEW.task)
    BEGIN SELECT RAISE(ABORT, 'the task has a vote that stands'); END;
CREATE TRIGGER vote_is_kept BEFORE DELETE ON vote BEGIN SELECT RAISE(ABORT, 'votes are never deleted'); END;
CREATE TRIGGER vote_is_as_it_was BEFORE UPDATE ON vote BEGIN SELECT RAISE(ABORT, 'votes are never changed'); END;
CREATE TRIGGER task_is_kept BEFORE DELETE ON task BEGIN SELECT RAISE(ABORT, 'tasks are never deleted'); END;
CREATE TRIGGER task_is_as_it_was BEFORE UPDATE ON task BEGIN SELECT RAISE(ABORT, 'tasks are never changed'); END;
CREATE TRIGGER withdrawal_is_kept BEFORE DELETE ON withdrawal
    BEGIN SELECT RAISE(ABORT, 'withdrawals are never deleted'); END;
";

/// Sees to it that the database is ours and of today's version; an empty one is filled.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let fail = |reason| StoreError::of(path, reason);
    if check(connection, path)? == VERSION {
        return Ok(());
    }
    let change = Transaction::new(connection, TransactionBehavior::Immediate).map_err(fail)?;
    let version = check(&change, path)?;
    for step in &STEPS[version as usize..] {
        change.execute_batch(step).map_err(fail)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    change.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    change.commit().map_err(fail)
}

/// The version of a database that is ours; 0 if it is empty.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let fail = |reason| StoreError::of(path, reason);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(fail);
    let (id, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (id, version) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION_ID, version) if version > VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found: version, known: VERSION })
        }
        (APPLICATION_ID, version) if version > 0 => Ok(version),
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}
