//! The database: who may write, what is durable, and who ranks.
//!
//! One process writes. It holds a lock on `DATABASE-lock`, which the system frees when the process ends, however it ends.
//! Any number of processes read. What a method has returned is on the disk: SQLite keeps a write-ahead log and waits for the
//! disk at each commit (`synchronous=FULL`).

use crate::informative::Head;
use crate::queue::Queue;
use crate::{APPLICATION_ID, AnnotatorId, BallotError, StoreError, schema};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time to wait for another process that is in the middle of a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// A ranking database. Methods take `&self` and may be called from any thread.
pub struct Store {
    path: PathBuf,
    state: Mutex<State>,
    started: Instant,
    /// Held while the store is open for writing.
    _lock: Option<File>,
}

/// What the lock of the store protects.
pub(crate) struct State {
    pub connection: Connection,
    /// What the queue needs to know of items, tasks and votes; as the database has it.
    pub queue: Queue,
    /// The head whose doubts order the queue, where features were given.
    pub head: Option<Head>,
}

/// True if the file begins as a ranking database of Kudos does. Not to be asked by a process that has the database open:
/// closing a file frees all locks that the process has on it.
///
/// # Errors
/// If the file cannot be read.
pub fn is_ranking_database(path: &Path) -> std::io::Result<bool> {
    const ID_AT: usize = 68; // https://www.sqlite.org/fileformat.html
    if !path.is_file() {
        return Ok(false);
    }
    let mut header = Vec::with_capacity(100);
    File::open(path)?.take(100).read_to_end(&mut header)?;
    let id = header
        .get(ID_AT..ID_AT + 4)
        .map(|bytes| i64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
    Ok(header.starts_with(b"SQLite format 3\0") && id == Some(APPLICATION_ID))
}

impl Store {
    /// Makes a new database.
    ///
    /// # Errors
    /// If there is such a file, or none can be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        let path = path.as_ref();
        let lock = lock(path)?;
        // This handle is closed before SQLite opens the file: closing one frees all locks that this process has on the file,
        // and another program that reads it would then take itself for the last, and delete the log.
        let made = OpenOptions::new().write(true).create_new(true).open(path).map(drop);
        match made {
            Err(reason) if reason.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(StoreError::Exists(path.to_owned()))
            }
            Err(reason) => Err(io(path, reason)),
            Ok(()) => Self::opened(path, lock),
        }
    }

    /// Opens a database to rank; one of an older version is brought to today's.
    ///
    /// # Errors
    /// If there is none, it is another program's or a newer Kudos', another process writes to it, or it may not be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        let path = path.as_ref();
        if !path.is_file() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        schema::check(&reading(path)?, path)?;
        let lock = lock(path)?;
        Self::opened(path, lock)
    }

    /// Opens a database, or makes it where there is none.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::create`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        if path.as_ref().exists() { Self::open(path) } else { Self::create(path) }
    }

    /// Opens a database to read it, also while another process, or this one, writes to it.
    ///
    /// # Errors
    /// If there is none, or it is another program's, or of another version.
    pub fn read(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        let path = path.as_ref();
        if !path.is_file() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let connection = reading(path)?;
        match schema::check(&connection, path)? {
            0 => return Err(StoreError::NotADatabase(path.to_owned())),
            version if version < schema::VERSION => {
                // Only a writer may change the tables.
                drop(connection);
                drop(Self::open(path)?);
                return Self::read(path);
            }
            _ => {}
        }
        Self::with(path, connection, None)
    }

    fn opened(path: &Path, lock: File) -> Result<Store, StoreError> {
        let fail = |reason| StoreError::of(path, reason);
        let mut connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(PATIENCE).map_err(fail)?;
        schema::check(&connection, path)?;
        // SQLite opens what it may not write, and says so at the first vote only.
        if connection.is_readonly(rusqlite::MAIN_DB).map_err(fail)? {
            return Err(StoreError::ReadOnly(path.to_owned()));
        }
        prepare(&connection).map_err(fail)?;
        schema::migrate(&mut connection, path)?;
        // The file itself, and not only its log, then says what it is: others recognise it by its header.
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(fail)?;
        Self::with(path, connection, Some(lock))
    }

    fn with(path: &Path, connection: Connection, lock: Option<File>) -> Result<Store, StoreError> {
        let queue = Queue::load(&connection).map_err(|reason| StoreError::of(path, reason))?;
        let state = Mutex::new(State { connection, queue, head: None });
        Ok(Store { path: path.to_owned(), state, started: Instant::now(), _lock: lock })
    }

    /// The file of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The person of this name, who is new if there is none. White space around the name does not count.
    ///
    /// # Errors
    /// If the name is empty, longer than 100 characters, or holds control characters.
    pub fn annotator(&self, name: &str) -> Result<AnnotatorId, StoreError> {
        let name = checked_name(name)?;
        self.write(|change, _, _| {
            const NEW: &str = "INSERT INTO annotator (name, made_at) VALUES (?1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
                ON CONFLICT (name) DO NOTHING";
            change.prepare_cached(NEW)?.execute([name])?;
            Ok(change.query_row("SELECT annotator FROM annotator WHERE name = ?1", [name], |row| row.get(0))?)
        })
        .map(AnnotatorId)
    }

    /// Gives a person the token of a link; `None` takes it away. A token belongs to one person.
    ///
    /// # Errors
    /// If the database cannot be written, or another person has the token.
    pub fn set_token(&self, annotator: AnnotatorId, token: Option<&str>) -> Result<(), StoreError> {
        self.write(|change, _, _| {
            change.execute("UPDATE annotator SET token = ?2 WHERE annotator = ?1", (annotator.0, token))?;
            Ok(())
        })
    }

    /// The person whose link has this token.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn by_token(&self, token: &str) -> Result<Option<AnnotatorId>, StoreError> {
        let state = self.state();
        let found =
            state.connection.query_row("SELECT annotator FROM annotator WHERE token = ?1", [token], |r| r.get(0));
        found.optional().map(|id| id.map(AnnotatorId)).map_err(|reason| self.failure(reason))
    }

    /// Sets the seed of all orders by chance. Tasks that were given out keep theirs.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_seed(&self, seed: u64) -> Result<(), StoreError> {
        self.write(|change, queue, _| {
            let set = "INSERT INTO fact (name, value) VALUES ('seed', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";
            change.execute(set, [seed as i64])?;
            queue.seed = seed;
            Ok(())
        })
    }

    /// Everybody, with their names.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn annotators(&self) -> Result<Vec<(AnnotatorId, String)>, StoreError> {
        self.query(|connection| {
            let mut names = connection.prepare_cached("SELECT annotator, name FROM annotator ORDER BY annotator")?;
            let rows = names.query_map([], |row| Ok((AnnotatorId(row.get(0)?), row.get(1)?)))?;
            rows.collect()
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the store was opened: leases are measured by it, so that no clock that is set can end or prolong one.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn failure(&self, reason: rusqlite::Error) -> StoreError {
        StoreError::of(&self.path, reason)
    }

    pub(crate) fn query<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.state().connection).map_err(|reason| self.failure(reason))
    }

    /// Runs one change: all of it is on the disk afterwards, or nothing of it is anywhere.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&Transaction, &mut Queue, Option<&Head>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        let State { connection, queue, head } = &mut *state;
        let run = |connection: &mut Connection, queue: &mut Queue| {
            let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
            let done = change(&transaction, queue, head.as_ref())?;
            transaction.commit()?;
            Ok(done)
        };
        match run(connection, queue) {
            Ok(done) => Ok(done),
            Err(Fault::Ballot(reason)) => Err(reason.into()),
            Err(Fault::Sqlite(reason)) => {
                // What the queue was told may not have come to the disk.
                if let Ok(stored) = Queue::load(connection) {
                    *queue = stored;
                }
                Err(self.failure(reason))
            }
        }
    }
}

/// Why a change was given up.
pub(crate) enum Fault {
    Sqlite(rusqlite::Error),
    Ballot(BallotError),
}

impl From<rusqlite::Error> for Fault {
    fn from(reason: rusqlite::Error) -> Self {
        Fault::Sqlite(reason)
    }
}

impl From<BallotError> for Fault {
    fn from(reason: BallotError) -> Self {
        Fault::Ballot(reason)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The log is then part of the database file, which can be copied on its own.
        if self._lock.is_some() {
            let _ = self.state().connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "cache_size", -65_536) // KiB
}

/// A connection to read by, from SQLite alone: a handle of our own, when it is closed, would free all locks that this process
/// has on the file. Where the log or its index cannot be made, as in a directory that is read-only, the file alone is read.
fn reading(path: &Path) -> Result<Connection, StoreError> {
    let fail = |reason| StoreError::of(path, reason);
    let open = |name: &Path, flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let log = suffixed(path, "-wal");
    let is_empty = std::fs::metadata(log).map_or(true, |found| found.len() == 0);
    let cannot_be_made = |reason: &rusqlite::Error| {
        use rusqlite::ErrorCode as Code;
        matches!(reason.sqlite_error_code(), Some(Code::CannotOpen | Code::ReadOnly | Code::PermissionDenied))
    };
    match open(path, flags) {
        Err(reason) if is_empty && cannot_be_made(&reason) => {
            let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let name = format!("file:{name}?immutable=1");
            open(Path::new(&name), flags | OpenFlags::SQLITE_OPEN_URI).map_err(fail)
        }
        opened => opened.map_err(fail),
    }
}

/// The lock of the only writer, in which it leaves its number for others to read.
fn lock(path: &Path) -> Result<File, StoreError> {
    let name = suffixed(path, "-lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = open.map_err(|reason| match reason.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly(path.to_owned())
        }
        _ => io(&name, reason),
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::InUse { path: path.to_owned(), process: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(reason)) => return Err(io(&name, reason)),
    }
    // The number is for messages alone: a disk that is full must not stop the reading of votes.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(path: &Path, reason: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), reason }
}

fn checked_name(name: &str) -> Result<&str, StoreError> {
    const LONGEST: usize = 100;
    let name = name.trim();
    let length = name.chars().count();
    match () {
        () if name.is_empty() => Err(StoreError::Name("none".into())),
        () if length > LONGEST => Err(StoreError::Name(format!("{length} characters"))),
        () if name.chars().any(char::is_control) => Err(StoreError::Name("control characters".into())),
        () => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ballot, Import, ImportSource, QueueSettings};
    use kudos::data::{Loaded, Options, Reader};

    fn filled(path: &Path, prompts: usize) -> Store {
        let rows: String = (0..prompts).map(|p| format!("p{p},a\np{p},b\n")).collect();
        let options = Options { labelled: false, ..Options::default() };
        let mut loaded = Loaded::default();
        let text = format!("prompt,answer\n{rows}");
        loaded.read(Reader::from_bytes("a", text.into_bytes(), &options).unwrap(), &options).unwrap();
        let store = Store::create(path).unwrap();
        store.import(&loaded, &ImportSource { file: "a".into(), sha256: "1".into() }, Import::New).unwrap();
        store
    }

    fn ballot(n: usize, task: &crate::Task, annotator: AnnotatorId) -> Ballot {
        Ballot {
            vote: format!("00000000-0000-4000-8000-{n:012x}"),
            task: task.task,
            annotator,
            ranks: vec![Some(1), Some(2)],
            ratings: Default::default(),
            flags: Vec::new(),
            comment: Some("x".repeat(4000)),
            skipped: None,
            seconds: None,
        }
    }

    /// Votes until the store refuses.
    fn until_refused(store: &Store) -> (usize, StoreError) {
        let me = store.annotator("me").unwrap();
        let mut stored = 0;
        loop {
            let vote = store.next(me, &QueueSettings::default()).and_then(|task| {
                let task = task.expect("there are enough items");
                store.submit(&ballot(stored, &task, me))
            });
            match vote {
                Ok(_) => stored += 1,
                Err(error) => return (stored, error),
            }
        }
    }

    #[test]
    fn a_full_disk_loses_nothing_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = filled(&path, 200);
        let limit = |pages: &str| {
            let pages = format!("PRAGMA max_page_count = {pages}");
            store.state().connection.query_row(&pages, [], |_| Ok(())).unwrap();
        };
        let pages: i64 = store.query(|c| c.query_row("PRAGMA page_count", [], |row| row.get(0))).unwrap();
        limit(&(pages + 20).to_string());
        let (stored, error) = until_refused(&store);
        assert!(
            stored > 5 && matches!(error, StoreError::Full(_)) && error.to_string().contains("free some space"),
            "{error}"
        );
        assert_eq!(store.votes().unwrap().len(), stored);
        limit("1000000");
        let me = store.annotator("me").unwrap();
        let task = store.next(me, &QueueSettings::default()).unwrap().unwrap();
        store.submit(&ballot(stored, &task, me)).expect("with room again, the same ballot is stored");
        assert_eq!(store.progress(me, &QueueSettings::default()).mine, stored + 1);
    }

    #[test]
    fn a_database_that_may_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = filled(&path, 2);
        store.state().connection.pragma_update(None, "query_only", true).unwrap();
        let error = store.annotator("me").unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly(_)) && error.to_string().contains("permissions"), "{error}");
        drop(store);
        let error = Store::read(&path).unwrap().annotator("me").unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly(_)), "{error}");
    }

    #[test]
    fn every_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(&dir.path().join("db"), 1);
        let says = |pragma: &str| -> String {
            let sql = format!("SELECT CAST(({pragma}) AS TEXT) FROM pragma_{pragma}");
            store.query(|c| c.query_row(&sql, [], |row| row.get(0))).unwrap()
        };
        assert_eq!(["journal_mode", "synchronous", "foreign_keys"].map(says), ["wal", "2", "1"]);
    }

    #[test]
    fn a_database_of_today_is_opened_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(filled(&path, 3));
        let version = |store: &Store| -> i64 {
            store.query(|c| c.query_row("PRAGMA schema_version", [], |row| row.get(0))).unwrap()
        };
        let before = version(&Store::read(&path).unwrap());
        assert_eq!(before, version(&Store::open(&path).unwrap()));
    }

    #[test]
    fn names_of_databases_may_hold_anything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a?b#c%20d.db");
        drop(filled(&path, 1));
        assert!(is_ranking_database(&path).unwrap() && Store::read(&path).is_ok());
        std::fs::write(dir.path().join("text"), "x").unwrap();
        assert!(!is_ranking_database(&dir.path().join("text")).unwrap());
        assert!(!is_ranking_database(dir.path()).unwrap());
    }
}
