//! `kudos convert`: any layout that is understood → Kudos' own kinds of row.

use super::data::DataArgs;
use anyhow::bail;
use kudos::data::{Encoding, OutputFormat, Writer, converted, converted_kinds};
use std::path::PathBuf;

/// Write what was understood of any layout as Kudos' own kinds of row.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos convert export.json -o preferences.jsonl
  kudos convert votes.csv --columns prompt=question,label=vote \\
      --labels a=1,b=2,tie=0 -o votes.jsonl
  kudos convert table.xlsx | head -3

Ties, groups, margins, weights and each person's votes are kept, and so are all
other columns. Every command reads the result as it reads DATA itself.")]
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

/// Runs the command.
pub fn run(args: &Args, global: &super::Global) -> anyhow::Result<()> {
    let loaded = super::data::load_groups(&args.data, &args.input.options(args.strict)?)?;
    super::train::report_problems(&loaded, global);
    if loaded.groups.is_empty() {
        let why = loaded.problems.first().map_or("no row".to_owned(), ToString::to_string);
        bail!("expected a prompt with responses, found none: {why}; run `kudos check`");
    }
    let kinds = converted_kinds(&loaded);
    let is_table = matches!(OutputFormat::of_name(&args.output).encoding, Encoding::Csv | Encoding::Parquet);
    if is_table && kinds.len() > 1 {
        let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        bail!(
            "{}: expected rows of one kind for a table, found {}; write them to a .jsonl file",
            args.output.display(),
            kinds.join(" and ")
        );
    }
    let mut writer = Writer::create(&args.output, OutputFormat::of_name(&args.output))?;
    for row in converted(&loaded) {
        writer.write(&row)?;
    }
    let rows = writer.finish()?;
    if !global.quiet {
        let (pairs, ties) = (loaded.pairs(), loaded.ties());
        say!("{rows} rows written: {} groups, {pairs} preferences, {ties} ties", loaded.groups.len());
    }
    Ok(())
}
