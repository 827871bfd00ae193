//! What can go wrong with a store or a ballot: each message says where, what was expected, what was found, what to do.

use std::path::{Path, PathBuf};

/// What a store cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such file.
    #[error("{}: expected a ranking database, found no file; `kudos rank DATA` makes one", .0.display())]
    Missing(PathBuf),
    /// A file is there already.
    #[error("{}: expected a new name, found a file; open it, or name another", .0.display())]
    Exists(PathBuf),
    /// The file is no SQLite database.
    #[error("{}: expected a ranking database, found another kind of file; name another file", .0.display())]
    NotADatabase(PathBuf),
    /// A database that another program made.
    #[error(
        "{}: expected a ranking database, found a database of another program; name another file", .0.display()
    )]
    Foreign(PathBuf),
    /// A later Kudos made it.
    #[error("{}: expected version {known} of the database or older, found version {found}; update Kudos", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// Another process writes to it.
    #[error("{}: expected to be the only one who writes, found {}; stop that one first", path.display(), named(*process))]
    InUse {
        /// The database.
        path: PathBuf,
        /// The process, where it could be read.
        process: Option<u32>,
    },
    /// It may not be written.
    #[error("{}: expected a file that may be written, found it read-only; change its permissions or copy it", .0.display())]
    ReadOnly(PathBuf),
    /// The disk is full.
    #[error("{}: expected room on the disk, found none; nothing was stored: free some space and try again", .0.display())]
    Full(PathBuf),
    /// Its pages do not make sense.
    #[error("{}: expected an intact database, found a damaged one ({reason}); restore a copy", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// The system refused.
    #[error("{}: expected to read and write, found {reason}; check the directory and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Anything else that SQLite says.
    #[error("{}: the database says: {reason}; if it goes on, restart the program", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        reason: rusqlite::Error,
    },
    /// The data are another file than those that were imported.
    #[error(
        "{}: expected the data that were imported, found that {file} {change}; --add takes what is new in it, or name \
         another database", path.display()
    )]
    Changed {
        /// The database.
        path: PathBuf,
        /// The file of data.
        file: String,
        /// `has changed since`, or `was never imported`.
        change: &'static str,
    },
    /// No item could be taken from the data.
    #[error("{file}: expected a prompt with 2 to 16 different responses, found none ({why})")]
    NothingToRank {
        /// The file of data.
        file: String,
        /// What was left out, counted.
        why: String,
    },
    /// A name of a person that cannot be one.
    #[error("expected a name of 1 to 100 characters, found {0}")]
    Name(String),
    /// A ballot that cannot be counted.
    #[error(transparent)]
    Ballot(#[from] BallotError),
}

/// Why a ballot, or its withdrawal, was not accepted. Nothing was stored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BallotError {
    /// The id is no UUID.
    #[error("vote: expected a UUID of 36 characters, found {0:?}")]
    Id(String),
    /// There is no such task.
    #[error("task {0}: expected a task that was given out, found none of this number")]
    UnknownTask(i64),
    /// The task is another person's.
    #[error("task {0}: expected a task of this person, found another person's")]
    ForeignTask(i64),
    /// There is no such person.
    #[error("annotator {0}: expected a person who has signed in, found none of this number")]
    UnknownAnnotator(i64),
    /// A list has another length than the responses shown.
    #[error("{list}: expected {expected} entries, one a response, found {found}")]
    Length {
        /// `ranks`, `ratings` or `flags`.
        list: &'static str,
        /// Responses shown.
        expected: usize,
        /// Entries.
        found: usize,
    },
    /// A rank outside of 1 to the number of responses.
    #[error("ranks: expected numbers from 1 to {expected}, found {found}")]
    Rank {
        /// Responses shown.
        expected: usize,
        /// The rank.
        found: u32,
    },
    /// No response was placed, and nothing was skipped.
    #[error("ranks: expected at least one response with a rank, found none; skip the item with a reason instead")]
    Empty,
    /// Ranks together with a skip.
    #[error("ranks: expected none on an item that is skipped, found some")]
    RanksOfSkipped,
    /// A rating that is no number from 1 to 5.
    #[error("ratings: expected numbers from 1 to 5, found {0}")]
    Rating(f64),
    /// A text that is too long.
    #[error("{field}: expected at most {limit} characters, found {found}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The limit.
        limit: usize,
        /// Characters.
        found: usize,
    },
    /// The id belongs to a vote of other content.
    #[error("vote {0}: expected a new id or the same ballot again, found another ballot under this id")]
    Reused(String),
    /// The task has a vote that stands.
    #[error("task {task}: expected a task without a vote, found vote {vote}; withdraw that one first")]
    AlreadyVoted {
        /// The task.
        task: i64,
        /// The vote that stands.
        vote: String,
    },
    /// There is no such vote.
    #[error("vote {0}: expected a vote that was stored, found none of this id")]
    UnknownVote(String),
    /// The vote is another person's.
    #[error("vote {0}: expected a vote of this person, found another person's")]
    ForeignVote(String),
}

fn named(process: Option<u32>) -> String {
    process.map_or("another process at work".to_owned(), |id| format!("process {id} at work"))
}

impl StoreError {
    /// What an error of SQLite means for the database at `path`.
    pub(crate) fn of(path: &Path, reason: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match reason.sqlite_error_code() {
            Some(Code::NotADatabase) => StoreError::NotADatabase(path),
            Some(Code::ReadOnly | Code::PermissionDenied) => StoreError::ReadOnly(path),
            Some(Code::DiskFull) => StoreError::Full(path),
            Some(Code::DatabaseCorrupt) => StoreError::Damaged { path, reason: reason.to_string() },
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => StoreError::InUse { path, process: None },
            _ => StoreError::Sqlite { path, reason },
        }
    }
}
