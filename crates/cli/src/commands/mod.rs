//! One file per command.

pub mod best;
pub mod check;
pub mod eval;
pub mod pairs;
pub mod pull;
pub mod quickstart;
pub mod score;
pub mod train;

use anyhow::Context;
use kudos::models::RewardModel;
use std::path::PathBuf;

/// What was said for every command.
#[derive(Clone, Copy)]
pub struct Global {
    /// Print results as JSON.
    pub json: bool,
    /// Say nothing but results and errors.
    pub quiet: bool,
    /// Threads, when they were fixed.
    #[allow(dead_code)] // The pool is set in `run`; commands that start processes pass it on.
    pub threads: Option<usize>,
}

/// Loads the judge that `--judge` names: a directory, or a model that was pulled.
fn load_judge(name: &str) -> anyhow::Result<RewardModel> {
    let dir = resolve(name)?;
    RewardModel::load(&dir).with_context(|| format!("cannot load the judge {name}"))
}

/// The directory of a model given by path or by name.
fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    Ok(kudos::hub::resolve(name)?)
}
