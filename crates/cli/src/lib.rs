//! The `kudos` command, as a function.
//!
//! `run` shows the program: settings file → arguments → one command. Each command has its own file. The binary calls
//! [`main_with`]; the Python package calls that for its own `kudos`, and [`call()`] for its functions.

/// `print!` for results: a reader that went away ends the program quietly, any other failure loudly.
macro_rules! out {
    ($($text:tt)*) => { crate::display::print(format_args!($($text)*)) };
}

/// As `out!`, with a line's end.
macro_rules! outln {
    () => { out!("\n") };
    ($($text:tt)*) => { out!("{}\n", format_args!($($text)*)) };
}

/// A line for whoever called the command: on standard error, unless a caller listens.
macro_rules! say {
    ($($text:tt)*) => { crate::display::say(&format!($($text)*)) };
}

mod boxed;
mod call;
mod commands;
mod defaults;
mod display;
mod help;
mod interrupt;
mod program;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{
    Global, best, check, collect, convert, convert_judge, eval, generate, improve, merge, pairs, pull, quantize,
    quickstart, rank, score, serve, train, verify,
};
use std::ffi::OsString;

pub use boxed::NAME as BOXED_JUDGE;
pub use call::{Called, Caller, call, flags, heard, job};
pub use commands::columns::Added;
pub use commands::report::hashes;
pub use commands::score::{inputs, score_columns};
pub use commands::shard::{Done, Job};
pub use commands::{Usage, load_judge_for as load_judge, resolve};
pub use program::set_program;

/// Train, measure and use reward models, on a CPU.
#[derive(Parser)]
#[command(name = "kudos", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors alone
    #[arg(long, short, global = true, display_order = 900)]
    quiet: bool,
    /// Print the settings as kudos.toml would hold them, and do nothing else
    #[arg(long, global = true, display_order = 901)]
    print_settings: bool,
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, display_order = 902, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  kudos quickstart                      the whole loop on a bundled example
  kudos check rankings.csv              what is wrong with this data
  kudos train rankings.csv -o judge
  kudos eval test.jsonl --judge judge
  kudos score answers.csv --judge judge -o scored.csv

A judge is a reward model: a directory that `kudos train` writes. Without
--judge or --base, Kudos uses the small judge that is built in (kudos-judge).
Settings also come from kudos.toml in the working directory: a table for each
command, keys named as its flags.
Exit status: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    Quickstart(quickstart::Args),
    Pull(WithJson<pull::Args>),
    Generate(Box<generate::Args>),
    Improve(Box<improve::Args>),
    Rank(Box<rank::Args>),
    Check(WithJson<check::Args>),
    Convert(convert::Args),
    Pairs(WithJson<pairs::Args>),
    Train(Box<train::Args>),
    Eval(eval::Args),
    Score(score::Args),
    Collect(collect::Args),
    Best(best::Args),
    Serve(Box<serve::Args>),
    ConvertJudge(convert_judge::Args),
    Quantize(quantize::Args),
    Merge(merge::Args),
    Verify(WithJson<verify::Args>),
}

// A command whose result can be had as JSON. (A doc comment would become the command's description.)
#[derive(clap::Args)]
struct WithJson<T: clap::Args> {
    #[command(flatten)]
    args: T,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command line `typed`, whose first word is the program, and gives the exit status: 0 done, 1 failed, 2 wrong usage.
pub fn main_with(typed: Vec<OsString>) -> u8 {
    match run(typed) {
        Ok(status) => status,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            eprintln!("kudos: {}", message(&error));
            if is_wrong_usage(&error) { 2 } else { 1 }
        }
    }
}

/// True when whoever read our output has read enough (`kudos score … | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let data = cause.downcast_ref::<kudos::data::DataError>().is_some_and(|e| e.is_broken_pipe());
        let io = cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
        data || io
    })
}

/// True when what was typed cannot be done with any files.
fn is_wrong_usage(error: &anyhow::Error) -> bool {
    use kudos::train::{SettingsError, TrainError};
    let is_setting = |cause: &(dyn std::error::Error + 'static)| {
        let of_run = matches!(cause.downcast_ref::<TrainError>(), Some(TrainError::Settings(_)));
        of_run || cause.is::<SettingsError>()
    };
    error.chain().any(|cause| cause.is::<commands::Usage>() || is_setting(cause))
}

fn run(typed: Vec<OsString>) -> anyhow::Result<u8> {
    let command = help::grouped(Cli::command());
    let arguments = defaults::with_settings_file(&command, typed)?;
    let parsed = command.try_get_matches_from(arguments);
    let (cli, matches) = match parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(told(&error)),
    };
    if let Err(error) = kernels::check_isa() {
        return Ok(told(&Cli::command().error(clap::error::ErrorKind::InvalidValue, error)));
    }
    if cli.print_settings {
        out!("{}", defaults::describe(&matches));
        return Ok(0);
    }
    if let Some(threads) = cli.threads {
        kernels::parallel::set_threads(threads.into()).map_err(anyhow::Error::msg)?;
    }
    // It has signals of its own, and waits: a thread of the pool would be lost to it.
    if let Command::Serve(args) = &cli.command {
        return serve::run(args, &cli.global(false)).map(|()| 0);
    }
    interrupt::watch();
    kernels::parallel::inside(|| cli.execute()).map(|()| 0)
}

/// Prints what clap says (help, the version, or what is wrong with the arguments), and gives its exit status.
fn told(error: &clap::Error) -> u8 {
    let _ = error.print();
    error.exit_code().try_into().unwrap_or(2)
}

impl Cli {
    fn global(&self, json: bool) -> Global {
        Global { json, quiet: self.quiet }
    }

    /// The command itself, on a thread of the pool.
    fn execute(&self) -> anyhow::Result<()> {
        let global = |json| self.global(json);
        match &self.command {
            Command::Quickstart(args) => quickstart::run(args, &global(false)),
            Command::Pull(with) => pull::run(&with.args, &global(with.json)),
            Command::Generate(args) => generate::run(args, &global(false)),
            Command::Improve(args) => improve::run(args, &global(false)),
            Command::Rank(args) => rank::run(args, &global(false)),
            Command::Check(with) => check::run(&with.args, &global(with.json)),
            Command::Convert(args) => convert::run(args, &global(false)),
            Command::Pairs(with) => pairs::run(&with.args, &global(with.json)),
            Command::Train(args) => train::run(args, &global(false)),
            Command::Eval(args) => eval::run(args, &global(false)),
            Command::Score(args) => score::run(args, &global(false)),
            Command::Collect(args) => collect::run(args, &global(false)),
            Command::Best(args) => best::run(args, &global(false)),
            Command::Serve(args) => serve::run(args, &global(false)),
            Command::ConvertJudge(args) => convert_judge::run(args, &global(false)),
            Command::Quantize(args) => quantize::run(args, &global(false)),
            Command::Merge(args) => merge::run(args, &global(false)),
            Command::Verify(with) => verify::run(&with.args, &global(with.json)),
        }
    }
}

/// The error and its causes in one line; a cause that stands in what was said before it is not said twice.
pub fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.is_empty() {
        true => cause,
        false if said.contains(&cause) => said,
        false => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_said_twice() {
        let cause = std::io::Error::other("the disk is on fire");
        let error = anyhow::Error::new(cause).context("a.csv: the disk is on fire; use water").context("cannot train");
        assert_eq!(message(&error), "cannot train: a.csv: the disk is on fire; use water");
        assert_eq!(message(&anyhow::anyhow!("inner").context("outer")), "outer: inner");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
