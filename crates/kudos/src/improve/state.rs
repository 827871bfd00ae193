//! What a run continues from: counters, weights and moments in one checkpoint, and how it was before.

use super::measure::Measurement;
use super::optimizer::{Moments, PolicyOptimizer};
use super::{ImproveError, output};
use crate::nn::weights::{self, Checkpoint, Raw};
use crate::nn::{ParameterSpec, Parameters};
use crate::train::{TrainError, difference};
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

/// The tensors of a checkpoint: each parameter, and its moments under these prefixes.
const PREFIXES: [&str; 2] = ["adamw.first.", "adamw.second."];

/// Writes weights, moments and counters, for a run that is known by `identity`.
pub(super) fn write(
    path: &Path,
    parameters: &Parameters,
    optimizer: &PolicyOptimizer,
    state: &State,
    identity: &str,
) -> Result<(), ImproveError> {
    let raw = |name: String, dtype, spec: &ParameterSpec, bytes| Raw { name, dtype, shape: spec.shape.clone(), bytes };
    let mut tensors = Vec::new();
    for spec in parameters.specs() {
        let values = bytemuck::cast_slice(&parameters.values[spec.span.range()]);
        tensors.push(raw(spec.name.clone(), "F32", spec, values));
        let Some(place) = optimizer.trained.place(spec.span) else { continue };
        for (at, prefix) in PREFIXES.iter().enumerate() {
            let (dtype, bytes) = match &optimizer.moments {
                Moments::Full(moments) => ("F32", bytemuck::cast_slice(&moments[at][place.range()])),
                Moments::Half(moments) => ("BF16", bytemuck::cast_slice(&moments[at][place.range()])),
            };
            tensors.push(raw(format!("{prefix}{}", spec.name), dtype, spec, bytes));
        }
    }
    let state = serde_json::to_string(state).expect("counters are plain data");
    Ok(weights::write_raw(path, &tensors, &[("state", &state), ("run", identity)])?)
}

/// Restores what [`write`] wrote, if it is the same run.
pub(super) fn read(
    path: &Path,
    parameters: &mut Parameters,
    optimizer: &mut PolicyOptimizer,
    identity: &str,
) -> Result<State, ImproveError> {
    let checkpoint = Checkpoint::open_file(path)?;
    let other = |reason: String| TrainError::OtherRun { path: path.into(), reason };
    let metadata = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| other(format!("it holds no `{key}`")));
    let found = metadata("run")?;
    if found != identity {
        return Err(other(difference(found, identity)).into());
    }
    let state: State = serde_json::from_str(metadata("state")?).map_err(|error| other(error.to_string()))?;
    for spec in parameters.specs().to_vec() {
        checkpoint.expect(&spec.name, &spec.shape)?;
        checkpoint.read(&spec.name, &mut parameters.values[spec.span.range()])?;
        let Some(place) = optimizer.trained.place(spec.span) else { continue };
        for (at, prefix) in PREFIXES.iter().enumerate() {
            let name = format!("{prefix}{}", spec.name);
            checkpoint.expect(&name, &spec.shape)?;
            match &mut optimizer.moments {
                Moments::Full(moments) => checkpoint.read(&name, &mut moments[at][place.range()])?,
                Moments::Half(moments) => checkpoint.read_bf16(&name, &mut moments[at][place.range()])?,
            }
        }
    }
    optimizer.step = state.step;
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
