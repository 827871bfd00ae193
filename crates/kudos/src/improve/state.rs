//! What a run continues from: counters, weights and moments in one checkpoint, and how it was before.

use super::measure::Measurement;
use super::{ImproveError, output};
use crate::nn::Parameters;
use crate::train::{Optimizer, TrainError, read_checkpoint, write_checkpoint};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The counters of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Steps in a row whose responses said nothing or all the same.
    pub degenerate: u64,
    /// Whether the last step was beyond the bound of the KL divergence.
    pub far: bool,
    /// Seconds of all steps.
    pub seconds: f64,
}

impl State {
    /// Whether these weights are worth to be gone back to.
    pub(super) fn is_healthy(&self) -> bool {
        self.degenerate == 0 && !self.far
    }
}

/// The file.
pub(super) fn checkpoint(dir: &Path) -> PathBuf {
    dir.join("run").join("checkpoint.safetensors")
}

pub(super) fn write(
    path: &Path,
    parameters: &Parameters,
    optimizer: &Optimizer,
    state: &State,
    identity: &str,
) -> Result<(), ImproveError> {
    let state = serde_json::to_string(state).expect("counters are plain data");
    Ok(write_checkpoint(path, parameters, optimizer, &state, identity)?)
}

pub(super) fn read(
    path: &Path,
    parameters: &mut Parameters,
    optimizer: &mut Optimizer,
    identity: &str,
) -> Result<State, ImproveError> {
    let text = read_checkpoint(path, parameters, optimizer, identity)?;
    let state: State = serde_json::from_str(&text)
        .map_err(|error| TrainError::OtherRun { path: path.into(), reason: error.to_string() })?;
    optimizer.restored(parameters, state.step);
    Ok(state)
}

/// How the held-out prompts were answered before; `None` where that is not known of this run.
pub(super) fn read_before(dir: &Path, identity: &str) -> Option<Measurement> {
    #[derive(Deserialize)]
    struct Known {
        run: String,
        before: Measurement,
    }
    let bytes = std::fs::read(dir.join("run").join("before.json")).ok()?;
    let known: Known = serde_json::from_slice(&bytes).ok()?;
    (known.run == identity).then_some(known.before)
}

pub(super) fn write_before(dir: &Path, identity: &str, before: &Measurement) -> Result<(), ImproveError> {
    output::write(&dir.join("run"), "before.json", &output::pretty(&json!({"run": identity, "before": before})))
}
