//! One file per command.

mod attributes;
pub mod best;
pub mod check;
pub mod collect;
pub mod columns;
pub mod convert;
pub mod convert_judge;
pub mod data;
pub mod eval;
pub mod folds;
pub mod generate;
pub mod improve;
pub mod merge;
pub mod pairs;
pub mod pull;
pub mod quantize;
pub mod quickstart;
pub mod rank;
mod refused;
pub mod report;
pub mod score;
pub mod serve;
pub mod shard;
pub mod train;
pub mod verify;

use crate::boxed;
use anyhow::{Context, bail};
use kudos::models::adapter::tokenizer_dir;
use kudos::models::{Config, RewardConfig, RewardModel, Scorer, check_length, default_reward};
use kudos::nn::Precision;
use kudos::text::{EncodeSettings, Encoder, Truncation};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was said for every command.
#[derive(Clone, Copy)]
pub struct Global {
    /// Print results as JSON.
    pub json: bool,
    /// Say nothing but results and errors.
    pub quiet: bool,
}

/// What was typed makes no sense, whatever the files hold: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// As [`anyhow::bail`], for wrong usage.
macro_rules! wrong_usage {
    ($($text:tt)*) => { return Err($crate::commands::Usage(format!($($text)*)).into()) };
}
use wrong_usage;

/// Loads the judge that `--judge` names: a directory, or a model that was pulled.
fn load_judge(name: &str, precision: Option<Precision>) -> anyhow::Result<Scorer> {
    load_judge_for(name, precision, false)
}

/// Loads the judge that `--judge` names: a directory, or a model that was pulled. With `literal`, control tokens inside texts
/// are plain text, whatever `reward.json` says.
///
/// # Errors
/// If there is none, if it cannot be loaded, or if the processor or the judge forbids the precision that was asked for.
pub fn load_judge_for(name: &str, precision: Option<Precision>, literal: bool) -> anyhow::Result<Scorer> {
    let dir = resolve(name)?;
    let mut judge = RewardModel::load(&dir, precision).with_context(|| format!("cannot load the judge {name}"))?;
    if let Some(asked) = precision.filter(|asked| *asked != judge.precision()) {
        bail!(
            "--precision {asked}: expected {} and layers of even sizes; leave it away to score in {}",
            asked.processor(),
            judge.precision()
        )
    }
    if literal && !judge.reward.encode.literal {
        judge.reward.encode.literal = true;
        judge.encoder = Arc::new(Encoder::load(&tokenizer_dir(&dir)?, judge.reward.encode.clone())?);
    }
    judge.encoder.date_note().into_iter().chain(judge.pad_note()).for_each(|note| say!("{note}"));
    Ok(Arc::new(judge).into())
}

/// Says in which arithmetic a judge will score.
fn announce_precision(judge: &RewardModel, global: &Global) {
    if !global.quiet {
        say!("scoring in {}, {} threads", judge.precision(), kernels::parallel::threads());
    }
}

/// Parses a name as its serde type spells it; the error names what is accepted.
fn choice<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| {
        let said = error.to_string(); // "unknown variant `x`, expected `a` or `b`"; clap has said what was found
        said.split_once(", expected").map_or(said.clone(), |(_, accepted)| format!("expected{accepted}"))
    })
}

/// The directory of a model given by path or by name.
///
/// # Errors
/// If there is none.
pub fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    match boxed::resolve(name)? {
        Some(dir) => Ok(dir),
        None => Ok(kudos::hub::resolve(name)?),
    }
}

/// Tokens of a text where a decoder is the base and nothing else is said: what TRL's RewardTrainer takes.
const DECODER_TOKENS: usize = 1024;

/// How training on a base encodes: a base that is a judge keeps its rendering, and flags win.
fn encode_settings(
    base: &Path,
    config: &Config,
    max_length: Option<usize>,
    truncation: Option<Truncation>,
) -> anyhow::Result<EncodeSettings> {
    let inherited = match RewardConfig::read(base)? {
        Some(reward) => reward.encode,
        None => {
            let own = default_reward(base, config)?.encode;
            let most = if config.decoder().is_some() { DECODER_TOKENS } else { own.max_length };
            EncodeSettings { max_length: own.max_length.min(most), ..own }
        }
    };
    let encode = EncodeSettings {
        max_length: max_length.unwrap_or(inherited.max_length),
        truncation: truncation.unwrap_or(inherited.truncation),
        ..inherited
    };
    check_length(Path::new("--max-length"), &encode, config)?;
    Ok(encode)
}
