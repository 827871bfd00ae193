//! `kudos merge`: a base and its LoRA adapter as one judge.

use super::{Global, resolve};
use anyhow::{Context, bail};
use kudos::models::adapter::{find_base, merge};
use kudos::train::{clear_judge, holds_judge};
use std::path::{Path, PathBuf};

/// Merge a LoRA adapter into its base: one judge, for every program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos merge adapter -o judge
  kudos merge adapter --base Qwen/Qwen3-0.6B -o judge
  kudos eval test.jsonl --judge judge

ADAPTER is a directory of PEFT's form: adapter_config.json and
adapter_model.safetensors. The judge is stored in f32. Its scores are those of
the adapter over its base.")]
pub struct Args {
    /// Directory of the adapter
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// The base, if it is not where the adapter says: a directory or a name
    #[arg(long, value_name = "BASE")]
    base: Option<String>,
    /// Directory of the new judge
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace what the output directory holds
    #[arg(long)]
    overwrite: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (output, name) = (&args.output, args.output.display());
    let base = base_of(args)?;
    let same = |path: &Path| output.canonicalize().is_ok_and(|output| path.canonicalize().is_ok_and(|p| p == output));
    if same(&args.adapter) || same(&base) {
        bail!("{name}: it holds the adapter or its base; choose another -o");
    }
    if holds_judge(output) && !args.overwrite {
        bail!("{name}: it already holds a judge or a run; --overwrite replaces it");
    }
    std::fs::create_dir_all(output).with_context(|| name.to_string())?;
    // Beside the others until it is whole: a merge that fails leaves the directory as it was.
    let whole = tempfile::tempdir_in(output).with_context(|| name.to_string())?;
    let merged = merge(&args.adapter, Some(&base), whole.path())?;
    clear_judge(output)?;
    publish(whole.path(), output).with_context(|| name.to_string())?;
    if !global.quiet {
        let (adapted, replaced) = (count(merged.adapted, "adapted module"), count(merged.replaced, "replaced tensor"));
        say!("{name}: {} with {adapted}, {replaced}    next: kudos eval DATA --judge {name}", merged.base.display());
    }
    Ok(())
}

/// The base that was named; else what the adapter names.
fn base_of(args: &Args) -> anyhow::Result<PathBuf> {
    match &args.base {
        Some(base) => resolve(base),
        None => Ok(find_base(&args.adapter)?),
    }
}

/// Moves the files of a whole judge to where it belongs, the weights last.
fn publish(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut names =
        std::fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| name.to_string_lossy().ends_with(".safetensors"));
    names.iter().try_for_each(|name| std::fs::rename(from.join(name), to.join(name)))
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
