//! What is finished is on disk at once, and a run that was killed goes on from there.
//!
//! Beside the output `answers.csv` lies `answers.csv.progress.jsonl` while the run lasts. Its first line holds the
//! settings that decide the texts; each further line is one finished response, written in one piece as soon
//! as it is there. A process that is killed leaves at worst half a line at the end, which is cut off. The same command then
//! reads the file and draws only what is missing; a command with other settings is refused.
//!
//! Responses that failed are in the file for people to read, and are tried again.
//!
//! This module knows files. It must not know who draws the responses.

use super::job::{FinishReason, Generated, Prompt, shortest};
use crate::data::{DataError, OutputFormat, Writer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What the name of the progress file adds to that of the output.
const SUFFIX: &str = ".progress.jsonl";
/// How the first line begins, whatever the version.
const START: &str = "{\"kudos_generate\":";
/// Version of the format, and of the rules by which responses end. A run that was begun by other rules is not
/// continued: its output would mix both.
const VERSION: u32 = 2;
/// Differing settings that a message shows.
const DIFFERENCES_SHOWN: usize = 6;

/// Why progress cannot be kept or continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The system refused.
    #[error(
        "{path}: expected to {doing} the progress of this run, found {reason}; check the directory and the free space"
    )]
    Io {
        /// The progress file.
        path: PathBuf,
        /// `read`, `write`, …
        doing: &'static str,
        /// What the system said.
        reason: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{path}: expected no other run with this output, found one that is still going; wait for it, or give another -o"
    )]
    Busy {
        /// The progress file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error(
        "{path}: expected the progress of a `kudos generate` (format {VERSION}), found {found}; move it away, or give another -o"
    )]
    Foreign {
        /// The progress file.
        path: PathBuf,
        /// How the file begins.
        found: String,
    },
    /// The run was begun by another version of Kudos.
    #[error(
        "{path}: expected progress of format {VERSION}, found format {found}, in which responses end by other rules; --restart begins anew, or give another -o"
    )]
    Version {
        /// The progress file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The run was begun with other settings.
    #[error(
        "{path}: expected progress of the same settings, found others ({differences}); give the same again to continue, --restart to begin anew, or another -o"
    )]
    Settings {
        /// The progress file.
        path: PathBuf,
        /// Which differ, and how.
        differences: String,
    },
    /// A line in the middle that was not written by a run.
    #[error("{path}:{line}: expected a finished response, found {found}; --restart begins anew")]
    Damaged {
        /// The progress file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The parser's words.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    kudos_generate: u32,
    settings: Value,
}

/// The progress file of one run, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl Journal {
    /// The progress file that belongs to an output.
    pub fn path_of(output: &Path) -> PathBuf {
        let mut name = OsString::from(output);
        name.push(SUFFIX);
        PathBuf::from(name)
    }

    /// Begins, or continues what was begun with the same settings; returns what is finished, without what failed.
    /// `settings` should hold everything that decides the texts: model, prompts, sampling, seed, number.
    ///
    /// # Errors
    /// If the file cannot be had, belongs to other settings, to a run that is still going, or to something else.
    pub fn open(output: &Path, settings: &Value) -> Result<(Journal, Vec<Generated>), JournalError> {
        let path = Self::path_of(output);
        let mut file = open_locked(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error(&path, "read"))?;
        let mut journal = Journal { path, file, length: 0 };
        let whole = whole_lines(&bytes);
        if whole == 0 {
            journal.begin(&bytes, settings)?;
            return Ok((journal, Vec::new()));
        }
        let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n');
        let header = lines.next().unwrap_or_default();
        journal.compare(header, settings)?;
        journal.length = header.len() as u64;
        let finished = journal.read_responses(lines)?;
        journal.cut_to_length()?;
        Ok((journal, finished))
    }

    /// Forgets the progress towards an output, for `--restart`.
    ///
    /// # Errors
    /// If a run is still writing it, or the file cannot be removed.
    pub fn discard(output: &Path) -> Result<(), JournalError> {
        let path = Self::path_of(output);
        if !path.exists() {
            return Ok(());
        }
        let file = open_locked(&path)?;
        std::fs::remove_file(&path).map_err(io_error(&path, "remove"))?;
        drop(file);
        Ok(())
    }

    /// Keeps a finished response: when this returns, a killed process has not lost it.
    ///
    /// # Errors
    /// If it cannot be written; the file then stands as it was.
    pub fn append(&mut self, one: &Generated) -> Result<(), JournalError> {
        self.append_line(one)
    }

    /// Removes the file, once the output is in its place.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn finish(self) -> Result<(), JournalError> {
        std::fs::remove_file(&self.path).map_err(io_error(&self.path, "remove"))
    }

    /// Writes the header over a file that is empty, or holds half a header.
    fn begin(&mut self, torn: &[u8], settings: &Value) -> Result<(), JournalError> {
        let start = START.as_bytes();
        if !torn.starts_with(start) && !start.starts_with(torn) {
            return Err(self.foreign(torn));
        }
        self.cut_to_length()?;
        self.append_line(&Header { kudos_generate: VERSION, settings: settings.clone() })
    }

    fn append_line(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let text = serde_json::to_vec(line).map_err(|e| io_error(&self.path, "write")(e.into()))?;
        let line = [&text[..], b"\n"].concat();
        if let Err(reason) = self.file.write_all(&line).and_then(|()| self.file.flush()) {
            // Half a line must not stand before a whole one.
            let _ = self.file.set_len(self.length);
            return Err(io_error(&self.path, "write")(reason));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn compare(&self, line: &[u8], settings: &Value) -> Result<(), JournalError> {
        let header: Header = serde_json::from_slice(line).map_err(|_| self.foreign(line))?;
        if header.kudos_generate != VERSION {
            return Err(JournalError::Version { path: self.path.clone(), found: header.kudos_generate });
        }
        let mut differences = Vec::new();
        differ("", &header.settings, settings, &mut differences);
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(DIFFERENCES_SHOWN);
        differences.truncate(DIFFERENCES_SHOWN);
        if more > 0 {
            differences.push(format!("and {more} more"));
        }
        Err(JournalError::Settings { path: self.path.clone(), differences: differences.join("; ") })
    }

    /// Reads the lines below the header, and counts those that are whole. What failed, and what stands twice, is left out.
    fn read_responses<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Generated>, JournalError> {
        let mut finished: Vec<Generated> = Vec::new();
        let mut seen = HashSet::new();
        let mut lines = lines.enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            let one: Generated = match serde_json::from_slice(line) {
                Ok(one) => one,
                // Blocks that never reached the disk, after a power cut.
                Err(_) if lines.peek().is_none() => break,
                Err(e) => {
                    let (path, line, found) = (self.path.clone(), at + 2, e.to_string());
                    return Err(JournalError::Damaged { path, line, found });
                }
            };
            self.length += line.len() as u64;
            if one.finish_reason != FinishReason::Error && seen.insert(one.attempt) {
                finished.push(one);
            }
        }
        Ok(finished)
    }

    fn cut_to_length(&mut self) -> Result<(), JournalError> {
        self.file.set_len(self.length).map_err(io_error(&self.path, "write"))
    }

    fn foreign(&self, bytes: &[u8]) -> JournalError {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        JournalError::Foreign { path: self.path.clone(), found: format!("{:?}", text.trim_end()) }
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |reason| JournalError::Io { path, doing, reason }
}

/// The lock is the system's own: it goes with the process, however that ends.
fn open_locked(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.map_err(io_error(path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Busy { path: path.to_owned() }),
        // A file system without locks: then there is no guard, and no harm to a single run.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Bytes up to and with the last line end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// Notes every setting that is not the same, by its dotted name.
fn differ(name: &str, then: &Value, now: &Value, differences: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (then, now) else {
        if then != now {
            differences.push(format!("{name}: {} then, {} now", short(then), short(now)));
        }
        return;
    };
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        differ(&name, &of(old), &of(new), differences);
    }
}

fn short(value: &Value) -> String {
    let text = if value.is_null() { "nothing".to_owned() } else { value.to_string() };
    if text.chars().count() <= 40 { text } else { format!("{}…", text.chars().take(39).collect::<String>()) }
}

/// Writes the answers, ordered by (prompt, index), as `prompt, answer, rank, model, seed, temperature, tokens,
/// finish_reason, stopped_by`, and `error` if any failed; the format by the name. `rank` is empty: that is for people to fill. The file appears
/// whole; returns the number of rows.
///
/// # Errors
/// If the file cannot be written, or its format cannot hold the rows.
pub fn write_output(path: &Path, prompts: &[Prompt], answers: &[&Generated], model: &str) -> Result<u64, DataError> {
    let mut ordered: Vec<(&Generated, &Prompt)> =
        answers.iter().filter_map(|one| Some((*one, prompts.get(one.attempt.prompt)?))).collect();
    ordered.sort_by_key(|(one, _)| one.attempt);
    let any_failed = ordered.iter().any(|(one, _)| one.finish_reason == FinishReason::Error);
    let mut writer = Writer::create(path, OutputFormat::of_name(path))?;
    for (one, prompt) in ordered {
        let mut row = output_row(prompt, one, model);
        if any_failed {
            row.insert("error".to_owned(), one.error.clone().into());
        }
        writer.write(&row)?;
    }
    writer.finish()
}

fn output_row(prompt: &Prompt, one: &Generated, model: &str) -> Map<String, Value> {
    let finish_reason = serde_json::to_value(one.finish_reason).unwrap_or_default();
    let columns = [
        ("prompt", prompt.content.to_value()),
        ("answer", one.text.as_str().into()),
        ("rank", Value::Null),
        ("model", model.into()),
        ("seed", one.seed.into()),
        ("temperature", shortest(one.temperature)),
        ("tokens", one.tokens.into()),
        ("finish_reason", finish_reason),
        ("stopped_by", one.stopped_by.clone().into()),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::job::Attempt;
    use super::super::schedule::tests::generated;
    use super::*;
    use crate::data::{Content, Options, Reader};
    use serde_json::json;

    fn response(index: usize, text: &str) -> Generated {
        generated(Attempt { prompt: 0, index, retry: 0 }, text)
    }

    fn failed(index: usize) -> Generated {
        let error = Some("HTTP status 500".to_owned());
        Generated { finish_reason: FinishReason::Error, stopped_by: None, error, ..response(index, "") }
    }

    fn settings() -> Value {
        json!({"model": "m", "seed": 42, "sampling": {"temperature": 0.7_f32, "top_p": 1.0}})
    }

    /// A progress file with two responses, and its output's name.
    fn begun(directory: &Path) -> PathBuf {
        let output = directory.join("a.csv");
        let (mut journal, finished) = Journal::open(&output, &settings()).unwrap();
        assert!(finished.is_empty());
        journal.append(&response(1, "one\ntwo")).unwrap();
        journal.append(&response(0, "é")).unwrap();
        output
    }

    #[test]
    fn a_killed_run_goes_on_wherever_it_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let output = begun(directory.path());
        let path = Journal::path_of(&output);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, finished) = Journal::open(&output, &settings()).unwrap();
            let lines = ends.iter().filter(|end| **end < cut).count();
            assert_eq!(finished.len(), lines.saturating_sub(1), "cut at {cut}");
            for one in [response(1, "one\ntwo"), response(0, "é")].iter().skip(finished.len()) {
                journal.append(one).unwrap();
            }
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_failed_is_tried_again_and_what_came_later_counts() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.jsonl");
        let (mut journal, _) = Journal::open(&output, &settings()).unwrap();
        journal.append(&failed(0)).unwrap();
        drop(journal);
        let (mut journal, finished) = Journal::open(&output, &settings()).unwrap();
        assert!(finished.is_empty());
        journal.append(&response(0, "now")).unwrap();
        drop(journal);
        let (journal, finished) = Journal::open(&output, &settings()).unwrap();
        assert_eq!(finished, [response(0, "now")]);
        journal.finish().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_settings_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let output = begun(directory.path());
        let other = json!({"model": "m", "seed": 43, "sampling": {"temperature": 1.0}, "n": 4});
        let error = Journal::open(&output, &other).unwrap_err().to_string();
        let expected = "(seed: 42 then, 43 now; sampling.temperature: 0.699999988079071 then, 1.0 now; sampling.top_p: 1.0 then, nothing now; n: nothing then, 4 now)";
        assert!(error.contains(expected) && error.contains("--restart"), "{error}");
        Journal::discard(&output).unwrap();
        Journal::discard(&output).unwrap();
        assert!(Journal::open(&output, &other).unwrap().1.is_empty());
    }

    #[test]
    fn what_is_no_progress_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.csv");
        let path = Journal::path_of(&output);
        for text in ["my notes", "{\"a\":1}\n"] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(&output, &settings()).unwrap_err();
            assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    /// The rest of its responses would end by other rules than those that are there.
    #[test]
    fn f4_a_run_of_another_version_is_not_continued() {
        let directory = tempfile::tempdir().unwrap();
        let output = begun(directory.path());
        let path = Journal::path_of(&output);
        let older =
            std::fs::read_to_string(&path).unwrap().replacen("{\"kudos_generate\":2", "{\"kudos_generate\":1", 1);
        std::fs::write(&path, &older).unwrap();
        let error = Journal::open(&output, &settings()).unwrap_err();
        assert!(matches!(error, JournalError::Version { found: 1, .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), older, "what is there stays");
        Journal::discard(&output).unwrap();
        assert!(Journal::open(&output, &settings()).unwrap().1.is_empty());
    }

    #[test]
    fn a_bad_line_is_an_error_in_the_middle_and_dropped_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let output = begun(directory.path());
        let path = Journal::path_of(&output);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}\0\0\0\n")).unwrap();
        assert_eq!(Journal::open(&output, &settings()).unwrap().1.len(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        std::fs::write(&path, whole.replacen("index", "idx", 1)).unwrap();
        let error = Journal::open(&output, &settings()).unwrap_err().to_string();
        assert!(
            error.contains("progress.jsonl:2: expected a finished response, found missing field `index`"),
            "{error}"
        );
    }

    #[test]
    fn two_runs_do_not_share_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.csv");
        let (_journal, _) = Journal::open(&output, &settings()).unwrap();
        let error = Journal::open(&output, &settings()).unwrap_err();
        assert!(matches!(error, JournalError::Busy { .. }), "{error}");
        assert!(matches!(Journal::discard(&output), Err(JournalError::Busy { .. })));
    }

    fn prompts() -> Vec<Prompt> {
        let place = || "p:1".to_owned();
        let messages = serde_json::from_value(json!([{"role": "user", "content": "x"}])).unwrap();
        vec![
            Prompt { content: Content::Text("p".into()), place: place() },
            Prompt { content: messages, place: place() },
        ]
    }

    #[test]
    fn the_output_is_ordered_and_plain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        let second = generated(Attempt { prompt: 1, index: 0, retry: 3 }, "b, \"c\"");
        let (one, two) = (response(0, "one"), response(1, "two\n"));
        let rows = write_output(&path, &prompts(), &[&second, &two, &one], "m").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let [a, b, c] = [&one, &two, &second].map(|one| one.seed);
        let expected = format!(
            "prompt,answer,rank,model,seed,temperature,tokens,finish_reason,stopped_by\np,one,,m,{a},0.7,3,stop,</s>\n\
             p,\"two\n\",,m,{b},0.7,4,stop,</s>\n\
             \"[{{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"x\"\"}}]\",\"b, \"\"c\"\"\",,m,{c},0.7,6,stop,</s>\n"
        );
        assert_eq!((rows, text), (3, expected));
    }

    #[test]
    fn failures_stand_in_a_column_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.csv", "a.jsonl", "a.parquet"] {
            let path = directory.path().join(name);
            write_output(&path, &prompts()[..1], &[&response(0, "one"), &failed(1)], "m").unwrap();
            let rows: Vec<_> = Reader::open(&path, &Options::default()).unwrap().map(Result::unwrap).collect();
            assert_eq!(rows[1].original["error"], "HTTP status 500", "{name}");
            assert_eq!(rows[1].original["finish_reason"], "error", "{name}");
            assert!(
                matches!(
                    rows[0].record,
                    crate::data::Record::Ranked { place: crate::data::RankOrRating::Rank(None), .. }
                ),
                "{name}"
            );
        }
    }
}
