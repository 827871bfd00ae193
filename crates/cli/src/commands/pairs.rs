//! `kudos pairs`: rankings → preference pairs, in the format that trainers read.

use super::data::{self, DataArgs};
use anyhow::bail;
use kudos::data::{DataError, Kind, Loaded, OutputFormat, Writer, preferences};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Turn rankings, comparisons and groups into pairs: prompt, chosen, rejected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos pairs rankings.csv -o pairs.jsonl
  kudos pairs rankings.csv votes.jsonl.gz -o pairs.parquet
  kudos pairs rankings.csv | head -3")]
pub struct Args {
    /// Files in any layout that Kudos reads; `-` is standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// File to write: .jsonl, .json, .csv or .parquet, also .gz and .zst [default: JSONL on standard output]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    #[command(flatten)]
    input: DataArgs,
    /// Stop at the first row that cannot be used
    #[arg(long)]
    strict: bool,
}

/// Unusable rows that are printed; `kudos check` lists all.
const PROBLEMS_SHOWN: usize = 20;

/// Runs the command.
pub fn run(args: &Args, global: &super::Global) -> anyhow::Result<()> {
    let loaded = data::load_groups(&args.data, &args.input.options(args.strict)?)?;
    data::announce(&loaded.files, global);
    if loaded.pairs() == 0 {
        bail!("{}", nothing_to_write(&loaded));
    }
    match write(&loaded, &args.output) {
        Err(error) if error.is_broken_pipe() => return Ok(()),
        written => written?,
    };
    if global.json {
        print_summary(&loaded, &args.output);
    } else if !global.quiet {
        report(&loaded);
    }
    Ok(())
}

fn write(loaded: &Loaded, output: &Path) -> Result<u64, DataError> {
    let mut writer = Writer::create(output, OutputFormat::of_name(output))?;
    for row in preferences(loaded) {
        writer.write(&row)?;
    }
    writer.finish()
}

fn nothing_to_write(loaded: &Loaded) -> String {
    let files: Vec<&str> = loaded.files.iter().map(|file| file.file.as_str()).collect();
    let why = match loaded.problems.first() {
        Some(problem) => format!("{} unusable rows, the first: {problem}", unusable(loaded)),
        None if loaded.weightless() > 0 => {
            format!("{} ties, {} comparisons of weight 0 and no unusable row", loaded.ties(), loaded.weightless())
        }
        None if loaded.files.iter().all(|file| file.kind == Some(Kind::Unlabelled)) => loaded.files[0].no_preference(),
        None => format!("{} ties and no unusable row", loaded.ties()),
    };
    format!(
        "{}: expected two responses of different rank to some prompt, found none ({why}); run `kudos check`",
        files.join(", ")
    )
}

fn unusable(loaded: &Loaded) -> u64 {
    loaded.files.iter().map(|file| file.unusable).sum()
}

/// On standard error, which the pairs never go to.
fn report(loaded: &Loaded) {
    for problem in loaded.problems.iter().take(PROBLEMS_SHOWN) {
        say!("left out: {problem}");
    }
    if loaded.problems.len() > PROBLEMS_SHOWN {
        say!("left out: {} more, listed by `kudos check`", loaded.problems.len() - PROBLEMS_SHOWN);
    }
    let (pairs, ties, unusable) = (loaded.pairs(), loaded.ties(), unusable(loaded));
    if loaded.weightless() > 0 {
        say!("left out: {} comparisons of weight 0", loaded.weightless());
    }
    say!("{pairs} pairs written, {ties} ties left out, {unusable} rows unusable");
}

/// On standard output, or on standard error when the pairs are on standard output.
fn print_summary(loaded: &Loaded, output: &Path) {
    let problem = |problem: &kudos::data::RowProblem| {
        let (file, line) = (&*problem.location.file, problem.location.line);
        json!({"file": file, "line": line, "code": problem.kind.name(), "detail": problem.kind.to_string()})
    };
    let summary = json!({
        "pairs": loaded.pairs(),
        "ties": loaded.ties(),
        "weightless": loaded.weightless(),
        "unusable": unusable(loaded),
        "problems": loaded.problems.iter().map(problem).collect::<Vec<_>>(),
    });
    if output == Path::new("-") { say!("{summary}") } else { outln!("{summary}") }
}
