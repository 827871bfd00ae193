//! `kudos rank export`: the votes of a database as a file.

use super::super::{Global, choice};
use anyhow::bail;
use kudos::data::{OutputFormat, Writer};
use rank::Store;
use rank::export::Format;
use rank::merge::{MergeSettings, Method};
use std::path::PathBuf;

/// Write the rankings of a database as a file: the consensus, shares of votes, pairs, or every vote.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos rank export answers.rankings.db -o ranked.csv
  kudos rank export answers.rankings.db -o groups.jsonl --format groups
  kudos rank export answers.rankings.db -o pairs.jsonl --format pairs
  kudos rank export answers.rankings.db --format votes | head -3

ranked  prompt, answer, rank: what people agree on, one row a response
groups  prompt, responses, comparisons: the share of votes of each two responses
pairs   prompt, chosen, rejected: as TRL reads them
votes   every vote as it was given, those that were withdrawn too")]
pub struct Args {
    /// The database of `kudos rank`
    #[arg(value_name = "DATABASE")]
    database: PathBuf,
    /// File to write: .jsonl, .json, .csv or .parquet, also .gz and .zst [default: JSONL on standard output]
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    /// What to write: ranked, groups, pairs or votes
    #[arg(long, value_name = "FORMAT", value_parser = choice::<Format>, default_value = "ranked")]
    format: Format,
    #[command(flatten)]
    merge: Merge,
}

/// How people are merged.
#[derive(Debug, clap::Args)]
pub struct Merge {
    /// How people's votes are merged: shares, crowd-bt (by reliability), or auto: crowd-bt where agreement is uneven
    #[arg(long = "merge", value_name = "METHOD", value_parser = choice::<Method>, default_value = "auto")]
    method: Method,
}

impl Merge {
    /// As the library takes it.
    pub fn settings(&self) -> MergeSettings {
        MergeSettings { method: self.method }
    }
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let store = Store::read(&args.database)?;
    let export = store.export(args.format, &args.merge.settings(), false)?;
    if export.rows.is_empty() {
        let found = if args.format == Format::Pairs { "no preference" } else { "none" };
        bail!("{}: expected rankings to write, found {found}; rank some with `kudos rank`", args.database.display());
    }
    let mut writer = Writer::create(&args.output, OutputFormat::of_name(&args.output))?;
    for row in &export.rows {
        writer.write(row)?;
    }
    let rows = writer.finish()?;
    if !global.quiet {
        export.notes.iter().for_each(|note| say!("{note}"));
        say!("{rows} rows written");
    }
    Ok(())
}
