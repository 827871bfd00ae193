//! `kudos collect`: the parts of a job in the order of its rows.

use super::Global;
use super::shard::{CONTROL_TOKENS, summarise};
use crate::display::Progress;
use crate::interrupt;
use anyhow::bail;
use kudos::data::{Encoding, FIRST_ROWS, OutputFormat, PartFault, Writer};
use kudos::shard::{Facts, Manifest, ShardError, remove_leftovers};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Join what `kudos score --shard` wrote into one file, rows in order.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos collect scores -o scored.parquet
  kudos collect scores | head

The file is that of `kudos score` without --shard. While a unit is missing,
nothing is written, and the command that does it is printed.")]
pub struct Args {
    /// The directory of the job: -o of `kudos score --shard`
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// File to write: .jsonl, .json, .csv or .parquet, also .gz and .zst [default: JSONL on standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let dir = &args.dir;
    let Some(manifest) = Manifest::read(dir)? else {
        bail!("{}: expected the directory of `kudos score --shard`, found no {}", dir.display(), Manifest::NAME);
    };
    let facts = all_facts(&manifest, dir)?;
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    let format = OutputFormat::of_name(&output);
    let mut writer = Writer::create(&output, format)?;
    let table = matches!(format.encoding, Encoding::Csv | Encoding::Parquet);
    let mut control = Control::new(&manifest, table);
    writer.expect(&manifest.columns.without(&control.column));
    let total = facts.iter().map(|facts| facts.rows).sum();
    let mut progress = Progress::new(Some(total), "rows", global.quiet || args.output.is_none());
    let mut rows = 0;
    for unit in 0..manifest.units.len() {
        let path = manifest.part(dir, unit);
        let damaged = |why: String| anyhow::anyhow!("{}: {why}", path.display());
        let (part, _) = manifest.open_part(dir, unit).map_err(|fault| damaged(fault.to_string()))?;
        for row in part.rows(&manifest.columns).map_err(damaged)? {
            rows += 1;
            writer.write(&control.marked(row.map_err(damaged)?, rows))?;
        }
        progress.set(rows, "");
        interrupt::check()?;
    }
    writer.finish()?;
    progress.finish();
    // What killed writers left is of no use any more. Where it cannot be removed, it does no harm.
    let _ = remove_leftovers(dir);
    if !global.quiet {
        summarise(&manifest, &facts);
    }
    Ok(())
}

/// What each part says of itself.
///
/// # Errors
/// If one is missing or not whole: how many, and what to do.
fn all_facts(manifest: &Manifest, dir: &Path) -> anyhow::Result<Vec<Facts>> {
    let (mut facts, mut missing, mut damaged) = (Vec::new(), Vec::new(), 0);
    for unit in 0..manifest.units.len() {
        match manifest.open_part(dir, unit) {
            Ok((_, found)) => facts.push(found),
            Err(PartFault::Read(reason)) => {
                return Err(ShardError::Read { path: manifest.part(dir, unit), reason }.into());
            }
            Err(fault) => {
                damaged += usize::from(matches!(fault, PartFault::Damaged(_)));
                missing.push(unit);
            }
        }
    }
    if missing.is_empty() {
        return Ok(facts);
    }
    let shown: Vec<String> = missing.iter().take(5).map(usize::to_string).collect();
    let more = if missing.len() > shown.len() { ", …" } else { "" };
    let broken = if damaged > 0 { format!(" ({damaged} of them damaged)") } else { String::new() };
    bail!(
        "{}: expected {} parts, {} are missing{broken}: units {}{more}; run `{}`",
        dir.display(),
        manifest.units.len(),
        missing.len(),
        shown.join(", "),
        command(manifest, dir)
    )
}

/// The command that does what is missing.
fn command(manifest: &Manifest, dir: &Path) -> String {
    let mut words = vec!["kudos".to_owned(), "score".to_owned()];
    words.extend(manifest.inputs.iter().map(|input| quoted(&input.name)));
    words.extend(["-o".to_owned(), quoted(&dir.to_string_lossy()), "--judge".to_owned(), quoted(&manifest.judge)]);
    let setting = |name: &str| manifest.settings.get(name).unwrap_or(&Value::Null);
    words.extend([format!("--precision {}", setting("precision").as_str().unwrap_or_default())]);
    if let Some(prefix) = setting("prefix").as_str() {
        words.push(format!("--prefix {}", quoted(prefix)));
    }
    for (name, value) in setting("data").as_object().into_iter().flatten() {
        let flag = name.replace('_', "-");
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let texts = values.iter().filter_map(Value::as_str);
        words.extend(texts.map(|text| format!("--{flag} {}", quoted(text))));
    }
    if setting("literal") == &Value::Bool(true) {
        words.push("--literal".to_owned());
    }
    words.push("--shard 1/1".to_owned());
    words.join(" ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The column of control tokens, which `kudos score` gives a table only if one of its first rows has some.
struct Control {
    column: String,
    table: bool,
    early: bool,
}

impl Control {
    fn new(manifest: &Manifest, table: bool) -> Self {
        let added = manifest.added.iter().find(|(column, _)| column == CONTROL_TOKENS);
        let column = added.map_or_else(|| CONTROL_TOKENS.to_owned(), |(_, name)| name.clone());
        Self { column, table, early: false }
    }

    /// Row `number`, from 1, as it is written.
    fn marked(&mut self, mut row: Map<String, Value>, number: u64) -> Map<String, Value> {
        if row.contains_key(&self.column) {
            self.early |= number <= FIRST_ROWS as u64;
            if self.table && !self.early {
                row.shift_remove(&self.column);
            }
        }
        row
    }
}
