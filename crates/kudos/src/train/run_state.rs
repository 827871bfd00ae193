//! Checkpoints: one file that holds everything a run needs to continue, replaced in one step.

use super::log::StepMetrics;
use super::{Optimizer, Settings, TrainError};
use crate::nn::weights::{self, Checkpoint, WeightError};
use crate::nn::{ParameterSpec, Parameters};
use crate::text::Day;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Held-out accuracy.
    pub accuracy: f64,
    /// Held-out loss.
    pub loss: f64,
}

/// The counters of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Epoch the next step is in.
    pub epoch: u64,
    /// Visit of that epoch the next step starts with.
    pub next_visit: usize,
    /// Best evaluation so far.
    pub best: Option<Best>,
    /// The head on frozen features, evaluated, where the run started with it.
    #[serde(default)]
    pub head: Option<Best>,
    /// Its output layer.
    #[serde(default)]
    pub head_layer: Vec<f32>,
    /// Its loss on each held-out group.
    #[serde(default)]
    pub head_losses: Vec<f64>,
    /// Evaluations since then.
    pub without_improvement: u64,
    /// Step of the last checkpoint.
    pub saved: u64,
    /// (loss, accuracy) of the first steps.
    first: Vec<(f64, Option<f64>)>,
    /// (loss, accuracy) of the last steps.
    last: Vec<(f64, Option<f64>)>,
}

/// Steps that "at the start" and "at the end" are averaged over.
const END: usize = 20;

impl State {
    pub(super) fn remember(&mut self, metrics: &StepMetrics) {
        let entry = (metrics.loss, metrics.accuracy);
        if self.first.len() < END {
            self.first.push(entry);
        }
        if self.last.len() == END {
            self.last.remove(0);
        }
        self.last.push(entry);
    }

    /// Mean accuracy on the training pairs over the last steps.
    pub fn late_accuracy(&self) -> Option<f64> {
        let known: Vec<f64> = self.last.iter().filter_map(|(_, accuracy)| *accuracy).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// Mean loss over the first and over the last steps.
    pub fn loss_ends(&self) -> Option<[f64; 2]> {
        let mean = |part: &[(f64, _)]| part.iter().map(|(loss, _)| loss).sum::<f64>() / part.len() as f64;
        (!self.last.is_empty()).then(|| [mean(&self.first), mean(&self.last)])
    }
}

/// Name of the file, in `run/`.
pub(super) const FILE: &str = "checkpoint.safetensors";
/// Prefixes of a parameter's name in the checkpoint.
const WEIGHTS: &str = "";
const FIRST: &str = "adamw.first.";
const SECOND: &str = "adamw.second.";

/// The trained tensors, with their spans in the flat buffer and in that of the moments. What is not trained is the base's,
/// and no checkpoint repeats it.
fn trained_specs(parameters: &Parameters) -> [Vec<ParameterSpec>; 2] {
    let places = parameters.trained();
    let trained = parameters.specs().iter().filter(|spec| spec.trained);
    let moved =
        trained.clone().filter_map(|spec| Some(ParameterSpec { span: places.place(spec.span)?, ..spec.clone() }));
    [trained.cloned().collect(), moved.collect()]
}

/// Writes weights and moments of what is trained, and counters.
pub(super) fn write(
    path: &Path,
    parameters: &Parameters,
    optimizer: &Optimizer,
    state: &State,
    identity: &str,
) -> Result<(), TrainError> {
    let state = serde_json::to_string(state).expect("counters are plain data");
    let [weights, moments] = trained_specs(parameters);
    let buffers: [(&str, &[ParameterSpec], &[f32]); 3] = [
        (WEIGHTS, &weights, &parameters.values),
        (FIRST, &moments, &optimizer.first),
        (SECOND, &moments, &optimizer.second),
    ];
    let metadata = [("state", state.as_str()), ("run", identity)];
    Ok(weights::write_tensors(path, &buffers, &metadata)?)
}

/// Restores what [`write`] wrote, if it is the same run.
pub(super) fn read(
    path: &Path,
    parameters: &mut Parameters,
    optimizer: &mut Optimizer,
    identity: &str,
) -> Result<State, TrainError> {
    let checkpoint = Checkpoint::open_file(path)?;
    let other = |reason: String| TrainError::OtherRun { path: path.into(), reason };
    let metadata = |key: &str| checkpoint.metadata.get(key).ok_or_else(|| other(format!("it holds no `{key}`")));
    let found = metadata("run")?;
    if found != identity {
        return Err(other(difference(found, identity)));
    }
    let state: State = serde_json::from_str(metadata("state")?).map_err(|e| other(e.to_string()))?;
    let [weights, moments] = trained_specs(parameters);
    read_all(&checkpoint, &weights, WEIGHTS, &mut parameters.values)?;
    read_all(&checkpoint, &moments, FIRST, &mut optimizer.first)?;
    read_all(&checkpoint, &moments, SECOND, &mut optimizer.second)?;
    optimizer.restored(parameters, state.step);
    Ok(state)
}

/// The settings of the run whose checkpoint lies in a judge's directory, be it a single one or the first of an ensemble; `None`
/// without a checkpoint that can be read.
pub fn resumed_settings(dir: &Path) -> Option<Settings> {
    serde_json::from_str(&resumed_identity(dir)?).ok()
}

/// The day that the texts of that run were encoded with, where its template asks for one.
pub fn resumed_day(dir: &Path) -> Option<Day> {
    let identity: Value = serde_json::from_str(&resumed_identity(dir)?).ok()?;
    let (_, date) = identity.get("data")?.as_str()?.split_once("\"date\":\"")?;
    date.split('"').next()?.parse().ok()
}

fn resumed_identity(dir: &Path) -> Option<String> {
    let runs = [dir.join("run"), dir.join("run").join("ensemble").join("1").join("run")];
    let path = runs.iter().map(|run| run.join(FILE)).find(|path| path.exists())?;
    Checkpoint::open_file(&path).ok()?.metadata.get("run").cloned()
}

/// Reads plain weights that this run wrote.
pub(super) fn read_weights(path: &Path, parameters: &mut Parameters) -> Result<(), WeightError> {
    let specs = parameters.specs().to_vec();
    read_all(&Checkpoint::open_file(path)?, &specs, WEIGHTS, &mut parameters.values)?;
    specs.iter().for_each(|spec| spec.form.read(&mut parameters.values[spec.span.range()], &spec.shape));
    Ok(())
}

fn read_all(
    checkpoint: &Checkpoint,
    specs: &[ParameterSpec],
    prefix: &str,
    values: &mut [f32],
) -> Result<(), WeightError> {
    for spec in specs {
        let name = format!("{prefix}{}", spec.name);
        checkpoint.expect(&name, &spec.shape)?;
        checkpoint.read(&name, &mut values[spec.span.range()])?;
    }
    Ok(())
}

/// Names the first setting in which two runs differ.
pub(crate) fn difference(found: &str, expected: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let (found, expected) = (parse(found), parse(expected));
    let differs = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
    match differs {
        Some((key, value)) => {
            let found = found.get(key).map_or("missing".into(), Value::to_string);
            format!("it belongs to another run: {key} was {found}, now {value}")
        }
        None => "it belongs to another run".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Initial;

    fn parts() -> (Parameters, Optimizer) {
        let mut parameters = Parameters::default();
        parameters.declare("w.weight", &[2, 3], Initial::Zero).unwrap();
        parameters.values = (0..6).map(|i| i as f32).collect();
        let mut optimizer = Optimizer::new(&parameters, 0.0);
        optimizer.first[2] = 0.5;
        optimizer.second[3] = 0.25;
        (parameters, optimizer)
    }

    #[test]
    fn a_checkpoint_restores_everything_and_refuses_another_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.safetensors");
        let (parameters, optimizer) = parts();
        let best = Some(Best { step: 4, accuracy: 0.1 + 0.2, loss: 1.0 / 3.0 });
        let state = State { step: 7, epoch: 1, next_visit: 3, best, first: vec![(0.7, None)], ..State::default() };
        write(&path, &parameters, &optimizer, &state, r#"{"seed":1}"#).unwrap();
        let (mut restored, mut moments) = parts();
        restored.values.fill(9.0);
        moments.first.fill(9.0);
        assert_eq!(read(&path, &mut restored, &mut moments, r#"{"seed":1}"#).unwrap(), state);
        assert_eq!((restored.values, moments.first, moments.step), (parameters.values.clone(), optimizer.first, 7));
        let (mut restored, mut moments) = parts();
        let error = read(&path, &mut restored, &mut moments, r#"{"seed":2}"#).unwrap_err().to_string();
        assert!(error.contains("seed was 1, now 2"), "{error}");
        std::fs::write(&path, b"cut").unwrap();
        assert!(read(&path, &mut restored, &mut moments, "{}").is_err());
    }

    #[test]
    fn ends_are_averages_of_twenty_steps() {
        let mut state = State::default();
        assert_eq!((state.late_accuracy(), state.loss_ends()), (None, None));
        for step in 0..50 {
            let metrics = StepMetrics { loss: f64::from(step), accuracy: Some(0.5), ..StepMetrics::default() };
            state.remember(&metrics);
        }
        assert_eq!((state.loss_ends(), state.late_accuracy()), (Some([9.5, 39.5]), Some(0.5)));
    }
}
