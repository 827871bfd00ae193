//! `run/metrics.jsonl`: one line a step.

use super::TrainError;
use super::run_state::Best;
use crate::data::Location;
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The metrics of one step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// Epochs done after it.
    pub epoch: f64,
    /// Mean loss over the step's groups, before its update.
    pub loss: f64,
    /// Share of the step's pairs in the right order; equal scores are half right.
    pub accuracy: Option<f64>,
    /// Mean chosen score − rejected score.
    pub margin: Option<f64>,
    /// Mean score.
    pub mean_reward: f64,
    /// Lowest score.
    pub min_reward: f32,
    /// Highest score.
    pub max_reward: f32,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Tokens encoded in this step.
    pub tokens: usize,
    /// Pairs of supervision in this step.
    pub pairs: usize,
    /// Seconds this step took.
    pub seconds: f64,
}

/// The held-out metrics after a step.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // As the step metrics of the same name.
pub struct Evaluation {
    #[serde(skip)]
    pub step: u64,
    pub eval_loss: f64,
    /// The loss of each held-out group, of which `eval_loss` is the mean.
    #[serde(skip)]
    pub losses: Vec<f64>,
    /// The first row of each of these groups.
    #[serde(skip)]
    pub places: Vec<Location>,
    pub eval_accuracy: Option<f64>,
    pub eval_margin: Option<f64>,
    pub eval_mean_reward: Option<f64>,
    pub eval_min_reward: f32,
    pub eval_max_reward: f32,
}

impl Evaluation {
    /// True when these weights are to be preferred: lower loss, or equal loss and higher accuracy. The accuracy of a few
    /// held-out prompts is mostly chance, and its highest of ten a lucky early step (docs/recipe.md).
    pub fn beats(&self, best: &Best) -> bool {
        let accuracy = self.eval_accuracy.unwrap_or(0.5);
        self.eval_loss < best.loss || (self.eval_loss == best.loss && accuracy > best.accuracy)
    }

    /// True when the loss is lower than these losses of the same groups by more than two standard errors of the difference: where it
    /// cannot be told, the simpler judge is to be preferred (Breiman et al. 1984). Not one error as there, since a run is looked at up to
    /// ten times, and each time could be the lucky one.
    pub fn clearly_beats(&self, losses: &[f64]) -> bool {
        is_clearly_positive(losses.iter().zip(&self.losses).map(|(other, own)| other - own), 2.0)
    }

    /// What is remembered of the best.
    pub fn as_best(&self) -> Best {
        Best { step: self.step, accuracy: self.eval_accuracy.unwrap_or(0.5), loss: self.eval_loss }
    }
}

/// Whether the mean of paired differences is more than so many standard errors above 0. Not where one of them is no number.
pub(super) fn is_clearly_positive(differences: impl ExactSizeIterator<Item = f64> + Clone, errors: f64) -> bool {
    let count = differences.len().max(1) as f64;
    let mean = differences.clone().sum::<f64>() / count;
    let squares: f64 = differences.map(|difference| (difference - mean).powi(2)).sum();
    mean > errors * (squares / (count - 1.0).max(1.0) / count).sqrt()
}

/// The file, in a judge's or a member's directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("run").join("metrics.jsonl")
}

/// The open log.
pub(crate) struct Log {
    out: BufWriter<File>,
    path: PathBuf,
}

impl Log {
    pub(crate) fn open(dir: &Path) -> Result<Self, TrainError> {
        let path = path(dir);
        let file = File::options().create(true).append(true).open(&path).map_err(TrainError::io(&path))?;
        Ok(Self { out: BufWriter::new(file), path })
    }

    /// Writes the line of a step.
    pub(super) fn append_step(
        &mut self,
        step: &StepMetrics,
        evaluation: Option<&Evaluation>,
    ) -> Result<(), TrainError> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            step: &'a StepMetrics,
            #[serde(flatten)]
            evaluation: Option<&'a Evaluation>,
        }
        self.append(&Line { step, evaluation })
    }

    /// Writes one line and hands it to the system at once, so that the run can be watched.
    pub(crate) fn append(&mut self, metrics: &impl Serialize) -> Result<(), TrainError> {
        let line = serde_json::to_string(metrics).expect("metrics are plain data");
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(TrainError::io(&self.path))
    }

    pub(crate) fn flush(&mut self) -> Result<(), TrainError> {
        self.out.get_ref().sync_all().map_err(TrainError::io(&self.path))
    }
}

/// Drops the lines after `step`, and a last line that was cut: they will be written again.
pub(crate) fn truncate(dir: &Path, step: u64) -> Result<(), TrainError> {
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let path = path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(TrainError::io(&path)(e)),
    };
    let mut kept = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(TrainError::io(&path))?;
        match serde_json::from_str::<Line>(&line) {
            Ok(parsed) if parsed.step <= step => kept.extend_from_slice(format!("{line}\n").as_bytes()),
            _ => break,
        }
    }
    crate::files::write(&path, &kept).map_err(TrainError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_chooses_and_the_accuracy_breaks_ties() {
        let evaluation = |eval_loss, accuracy| Evaluation {
            step: 1,
            eval_loss,
            eval_accuracy: Some(accuracy),
            eval_margin: None,
            eval_mean_reward: None,
            losses: vec![eval_loss; 4],
            places: Vec::new(),
            eval_min_reward: 0.0,
            eval_max_reward: 0.0,
        };
        let best = evaluation(0.6, 0.7).as_best();
        assert!(evaluation(0.5, 0.6).beats(&best));
        assert!(!evaluation(0.65, 0.9).beats(&best));
        assert!(evaluation(0.6, 0.8).beats(&best));
        assert!(!evaluation(0.6, 0.7).beats(&best));
    }

    #[test]
    fn a_gain_must_be_told_from_chance() {
        let of = |losses: [f64; 4]| Evaluation {
            step: 1,
            eval_loss: losses.iter().sum::<f64>() / 4.0,
            losses: losses.to_vec(),
            places: Vec::new(),
            eval_accuracy: None,
            eval_margin: None,
            eval_mean_reward: None,
            eval_min_reward: 0.0,
            eval_max_reward: 0.0,
        };
        let head = [0.7, 0.6, 0.8, 0.5];
        assert!(of([0.6, 0.5, 0.7, 0.4]).clearly_beats(&head), "better on each");
        assert!(!of([0.2, 0.8, 0.9, 0.6]).clearly_beats(&head), "better on average, by one group");
        assert!(
            !of([0.6, 0.3, 0.9, 0.4]).clearly_beats(&head),
            "by a little more than one standard error: one of ten looks"
        );
        assert!(!of(head).clearly_beats(&head));
    }

    #[test]
    fn resuming_drops_later_and_broken_lines() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        truncate(dir.path(), 3).unwrap();
        std::fs::write(path(dir.path()), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").unwrap();
        truncate(dir.path(), 2).unwrap();
        assert_eq!(std::fs::read_to_string(path(dir.path())).unwrap(), "{\"step\":1}\n{\"step\":2}\n");
    }
}
