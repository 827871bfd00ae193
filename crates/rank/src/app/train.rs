//! "Train now": the one command that the page may start, its output, and its end.
//!
//! The page sends no word of the command: the program that serves is started again, with arguments of its own making.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of output that are kept; of a longer one, its end.
const KEPT: usize = 256 * 1024;

/// The training that is running, or ran last.
pub struct Training {
    program: Vec<OsString>,
    database: PathBuf,
    job: Mutex<Job>,
}

#[derive(Default)]
struct Job {
    child: Option<Child>,
    /// The command that was started.
    command: Option<String>,
    output: Arc<Mutex<Output>>,
    /// Whether it ended well; `None` while it runs, or if none was started.
    succeeded: Option<bool>,
}

#[derive(Default)]
struct Output {
    text: Vec<u8>,
    dropped: usize,
}

/// How a training stands.
#[derive(Debug, serde::Serialize)]
pub struct Standing {
    /// The command, as it is typed.
    pub command: String,
    /// `idle`, `running`, `done` or `failed`.
    pub state: &'static str,
    /// What it printed from the asked byte on.
    pub output: String,
    /// The byte to ask for next.
    pub next: usize,
}

impl Training {
    /// The training of judges from a database, which are written beside it. `program` is what starts Kudos: a file, and the
    /// arguments that come first.
    pub fn of(program: Vec<OsString>, database: &Path) -> Self {
        Training { program, database: database.to_owned(), job: Mutex::default() }
    }

    /// What the program is given. A judge that is there already stays: the next has a number.
    fn arguments(&self) -> Vec<String> {
        let name = self.database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or("rankings");
        let numbered = (2..).map(|number| format!("{stem}-judge-{number}"));
        let names = std::iter::once(format!("{stem}-judge")).chain(numbered);
        let judge = names.map(|name| self.database.with_file_name(name)).find(|path| !path.exists());
        let judge = judge.expect("numbers do not end").display().to_string();
        vec!["train".to_owned(), self.database.display().to_string(), "-o".into(), judge]
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self) -> std::io::Result<()> {
        self.run(&self.arguments())
    }

    fn run(&self, arguments: &[String]) -> std::io::Result<()> {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        job.look();
        if job.child.is_some() {
            return Ok(());
        }
        let (reader, writer) = std::io::pipe()?;
        let (program, own) = self.program.split_first().ok_or(std::io::ErrorKind::NotFound)?;
        let command = &mut Command::new(program);
        let child = command
            .args(own)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let output = Arc::<Mutex<Output>>::default();
        *job = Job { child: Some(child), command: Some(typed(arguments)), output: output.clone(), succeeded: None };
        std::thread::spawn(move || collect(reader, &output));
        Ok(())
    }

    /// How it stands, with its output from a byte on.
    pub fn standing(&self, from: usize) -> Standing {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        job.look();
        let state = match (&job.child, job.succeeded) {
            (Some(_), _) => "running",
            (None, None) => "idle",
            (None, Some(true)) => "done",
            (None, Some(false)) => "failed",
        };
        let (output, next) = job.output.lock().unwrap_or_else(PoisonError::into_inner).since(from);
        let running = job.command.clone().filter(|_| state == "running");
        Standing { command: running.unwrap_or_else(|| typed(&self.arguments())), state, output, next }
    }

    /// Ends it. A training that is killed can be resumed.
    pub fn stop(&self) {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = &mut job.child {
            let _ = child.kill();
            let _ = child.wait();
            (job.child, job.succeeded) = (None, Some(false));
        }
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Job {
    /// Takes note of an end.
    fn look(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap_or(None));
        if let Some(status) = ended {
            (self.child, self.succeeded) = (None, Some(status.success()));
        }
    }
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        let excess = self.text.len().saturating_sub(KEPT);
        self.text.drain(..excess);
        self.dropped += excess;
    }

    /// The text from a byte of the whole output on, and the byte behind it.
    fn since(&self, from: usize) -> (String, usize) {
        let start = from.saturating_sub(self.dropped).min(self.text.len());
        (String::from_utf8_lossy(&self.text[start..]).into_owned(), self.dropped + self.text.len())
    }
}

fn collect(mut reader: impl Read, output: &Mutex<Output>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        output.lock().unwrap_or_else(PoisonError::into_inner).add(&buffer[..count]);
    }
}

/// The command as one would type it.
fn typed(arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    format!("kudos {}", words.join(" "))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=,:@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn shell(words: &str) -> Vec<String> {
        vec!["-c".into(), words.into()]
    }

    #[test]
    fn a_command_runs_once_and_its_output_is_read_on() {
        let training = Training::of(vec!["/bin/sh".into()], Path::new("d.rankings.db"));
        assert_eq!(training.standing(0).state, "idle");
        training.run(&shell("echo one; echo two >&2; sleep 0.1; exit 3")).unwrap();
        training.run(&shell("echo never")).unwrap();
        let started = Instant::now();
        while training.standing(0).state == "running" || training.standing(0).output.len() < 8 {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", training.standing(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        let standing = training.standing(4);
        assert_eq!((standing.state, standing.output.as_str(), standing.next), ("failed", "two\n", 8));
    }

    #[test]
    fn a_training_ends_with_the_server() {
        let training = Training::of(vec!["/bin/sh".into()], Path::new("d"));
        training.run(&shell("sleep 600")).unwrap();
        assert_eq!(training.standing(0).state, "running");
        training.stop();
        assert_eq!(training.standing(0).state, "failed");
    }

    #[test]
    fn a_judge_that_is_there_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let training = Training::of(vec!["/bin/sh".into()], &folder.path().join("my data.rankings.db"));
        let command = || training.standing(0).command.replace(&folder.path().display().to_string(), "");
        assert_eq!(command(), "kudos train '/my data.rankings.db' -o '/my data-judge'");
        std::fs::create_dir(folder.path().join("my data-judge")).unwrap();
        assert_eq!(command(), "kudos train '/my data.rankings.db' -o '/my data-judge-2'");
    }

    #[test]
    fn output_is_bounded() {
        let mut output = Output::default();
        (0..3).for_each(|_| output.add(&[b'x'; KEPT]));
        assert_eq!(output.since(0).0.len(), KEPT);
        assert_eq!(output.since(3 * KEPT - 2), ("xx".to_owned(), 3 * KEPT));
    }
}
