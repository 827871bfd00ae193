//! `kudos quantize`: a judge in 8 bits, a quarter of the size and the fastest to load and to score with.

use super::{Global, resolve};
use anyhow::{Context, anyhow, bail};
use kudos::models::adapter::Adapter;
use kudos::models::{RewardConfig, quantize};
use kudos::nn::weights::INT8_FILE;
use kudos::text::{TOKENIZER_CONFIG, with_max_length};
use kudos::train::{clear_judge, holds_judge};
use std::path::{Path, PathBuf};

/// Store a judge in 8 bits: a quarter of the size, and faster to load.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kudos quantize --judge judge -o judge-int8
  kudos score answers.csv --judge judge-int8 -o scored.csv

Its scores differ slightly: compare both judges with `kudos eval` on your data.
Only Kudos reads the result (model.int8.safetensors). Keep the full judge for
other programs.")]
pub struct Args {
    /// The judge: a directory, or a name that `kudos pull` knows
    #[arg(long, value_name = "JUDGE")]
    judge: String,
    /// Directory of the new judge
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace what the output directory holds
    #[arg(long)]
    overwrite: bool,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let judge = resolve(&args.judge)?;
    let output = &args.output;
    if Adapter::is_in(&judge) {
        bail!("{}: it is an adapter over a base; `kudos merge` makes one judge of both", args.judge);
    }
    if ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| output.join(name).exists()) {
        bail!("{}: it holds a full judge; choose another -o", output.display());
    }
    if holds_judge(output) && !args.overwrite {
        bail!("{}: it already holds a quantized judge or a run; --overwrite replaces it", output.display());
    }
    std::fs::create_dir_all(output).with_context(|| output.display().to_string())?;
    let itself = output.canonicalize().is_ok_and(|output| judge.canonicalize().is_ok_and(|judge| judge == output));
    if !itself {
        clear_judge(output)?; // Files of another judge must not stay beside the new one's.
    }
    quantize(&judge, output).with_context(|| format!("cannot quantize {}", args.judge))?;
    copy_rest(&judge, output)?;
    let size = |dir: &Path, name: &str| std::fs::metadata(dir.join(name)).map_or(0, |m| m.len());
    let (full, small) = (size(&judge, "model.safetensors"), size(output, INT8_FILE));
    if !global.quiet {
        let from = if full > 0 { format!(" (from {:.1} MB)", full as f64 / 1e6) } else { String::new() };
        let name = output.display();
        say!("{name}: {:.1} MB{from}    next: kudos eval DATA --judge {name}", small as f64 / 1e6);
    }
    Ok(())
}

/// Everything but weights and the training run: config, tokenizer, rendering, card.
/// The tokenizer's limit is the judge's, as in a judge that was trained.
fn copy_rest(judge: &Path, output: &Path) -> anyhow::Result<()> {
    let limit = RewardConfig::read(judge)?.map(|reward| reward.encode.max_length);
    for entry in std::fs::read_dir(judge).with_context(|| judge.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let weights = name.contains(".safetensors") || name.ends_with(".bin") || name.starts_with('.');
        if path.is_file() && !weights {
            let mut bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if let Some(limit) = limit.filter(|_| name == TOKENIZER_CONFIG) {
                bytes = with_max_length(&bytes, limit).map_err(|e| anyhow!("{}: {e}", path.display()))?;
            }
            kudos::files::write(&output.join(&name), &bytes).with_context(|| output.display().to_string())?;
        }
    }
    Ok(())
}
