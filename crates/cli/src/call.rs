//! A command as a function: for callers that want its result and no terminal.
//!
//! The arguments are the command line's, so settings, names and defaults are the same. What the command prints is kept for the
//! caller; what it says, its progress and Ctrl-C are the caller's business. A settings file is not read.

use crate::{Cli, help, interrupt};
use clap::{CommandFactory, FromArgMatches};
use std::cell::RefCell;
use std::ffi::OsString;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hears how many steps are done, of how many, what they are, and the latest figures.
pub type Progress = Box<dyn Fn(u64, Option<u64>, &str, &str) + Send>;

/// Who called a command.
pub struct Caller {
    /// Hears each line that is for people.
    pub say: Box<dyn Fn(&str) + Send>,
    /// Hears of each step.
    pub progress: Progress,
    /// Ends the command as Ctrl-C does, once it is true.
    pub stop: Arc<AtomicBool>,
}

/// What a command came to.
pub struct Called {
    /// All that it wrote to standard output.
    pub output: String,
    /// Whether it was done. A report may be complete and yet end in an error (`check`).
    pub result: anyhow::Result<()>,
}

struct Listening {
    caller: Caller,
    output: RefCell<String>,
}

thread_local! {
    static LISTENING: RefCell<Option<Rc<Listening>>> = const { RefCell::new(None) };
}

fn listening() -> Option<Rc<Listening>> {
    LISTENING.with_borrow(Clone::clone)
}

/// Runs a command on this thread, as the command line `kudos WORDS…` does.
///
/// # Errors
/// If the words are no command line of Kudos.
pub fn call(words: Vec<OsString>, caller: Caller) -> anyhow::Result<Called> {
    let cli = parse(words).map_err(|error| crate::commands::Usage(in_short(&error)))?;
    let (result, output) = heard(caller, || cli.execute());
    Ok(Called { output, result })
}

/// Runs `work` on this thread while the caller hears what it says; with what it wrote to standard output.
pub fn heard<T>(caller: Caller, work: impl FnOnce() -> T) -> (T, String) {
    let listening = Rc::new(Listening { caller, output: RefCell::default() });
    let restore = Restore(LISTENING.replace(Some(listening.clone())));
    let result = work();
    drop(restore);
    (result, listening.output.take())
}

/// Gives the thread back to the caller that it had, after a panic too.
struct Restore(Option<Rc<Listening>>);

impl Drop for Restore {
    fn drop(&mut self) {
        LISTENING.set(self.0.take());
    }
}

/// The job of the command line `kudos score … --shard I/N`. What it says goes to the caller that hears this thread. One that
/// `joins` takes the inputs for those of the job, which whoever began it has seen to.
///
/// # Errors
/// If the words are no such command line, and as the command has them.
pub fn job(words: Vec<OsString>, joins: bool) -> anyhow::Result<crate::Job> {
    let cli = parse(words).map_err(|error| crate::commands::Usage(in_short(&error)))?;
    match &cli.command {
        crate::Command::Score(args) if args.is_sharded() => crate::Job::begin(args, &cli.global(false), joins),
        _ => Err(crate::commands::Usage("expected `score` with --shard".to_owned()).into()),
    }
}

fn parse(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    let words = std::iter::once("kudos".into()).chain(words);
    Cli::from_arg_matches(&help::grouped(Cli::command()).try_get_matches_from(words)?)
}

/// What clap found, in one line, without the hints for a terminal.
fn in_short(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect();
    words.join(" ")
}

/// The flags of a command that have a long name, each with whether it takes a value.
pub fn flags(command: &str) -> Vec<(String, bool)> {
    let cli = Cli::command();
    let arguments = cli.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments);
    arguments.filter_map(|a| Some((a.get_long()?.to_owned(), a.get_action().takes_values()))).collect()
}

/// True if a caller took the text that would go to standard output.
pub(crate) fn takes_output(text: std::fmt::Arguments) -> bool {
    listening().map(|to| to.output.borrow_mut().push_str(&text.to_string())).is_some()
}

/// True if a caller heard the line.
pub(crate) fn hears(line: &str) -> bool {
    listening().map(|to| (to.caller.say)(line)).is_some()
}

/// True if a caller listens on this thread.
pub(crate) fn is_called() -> bool {
    listening().is_some()
}

/// Tells the caller of progress.
pub(crate) fn progress(done: u64, total: Option<u64>, what: &str, message: &str) {
    if let Some(to) = listening() {
        (to.caller.progress)(done, total, what, message);
    }
}

/// Whether the command was asked to end.
pub(crate) fn is_stopped() -> bool {
    listening().map_or_else(interrupt::was_pressed, |to| to.caller.stop.load(Ordering::SeqCst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(words: &[&str]) -> anyhow::Result<Called> {
        let caller = Caller { say: Box::new(|_| {}), progress: Box::new(|_, _, _, _| {}), stop: Arc::default() };
        call(words.iter().map(Into::into).collect(), caller)
    }

    #[test]
    fn a_caller_has_what_is_printed_and_the_error() {
        let pairs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/answers.csv");
        let check = called(&["check", pairs, "--json"]).unwrap();
        let report: serde_json::Value = serde_json::from_str(&check.output).unwrap();
        assert!(check.result.is_ok() && report["pairs"].as_u64() > Some(0), "{report}");
        let missing = called(&["check", "no-such-file.csv", "--json"]).unwrap();
        assert!(missing.output.is_empty() && missing.result.unwrap_err().to_string().contains("no-such-file.csv"));
        assert!(!is_called(), "the thread has no caller afterwards");
    }

    #[test]
    fn wrong_words_are_one_line() {
        let error = called(&["train", "a.csv", "--loss", "none"]).err().unwrap().to_string();
        assert!(error.contains("--loss") && error.contains("bradley-terry") && !error.contains('\n'), "{error}");
        let error = called(&["train", "a.csv", "--no-such-flag"]).err().unwrap().to_string();
        assert!(error.contains("--no-such-flag"), "{error}");
    }

    #[test]
    fn flags_are_those_of_the_command() {
        let train = flags("train");
        assert!(train.contains(&("learning-rate".into(), true)) && train.contains(&("no-shuffle".into(), false)));
        assert!(flags("no such command").is_empty());
    }
}
