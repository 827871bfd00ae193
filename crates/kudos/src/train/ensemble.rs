//! An ensemble that costs nothing to use: several runs from the same start, their weights averaged into one judge.
//!
//! Runs that start from the same weights, head included, and differ in the order of their data alone end in one
//! valley of the loss, where the mean of their weights is usually at least as good as they are ("model soups",
//! Wortsman et al. 2022). That is not always so, so it is measured: the average is kept when its held-out accuracy
//! is not below the mean of the members', else the best member. The judge has the size of one.
//!
//! Each member is a run of its own in `run/ensemble/N`, resumed as any run. Member 1 has the seed of a single run
//! and is that run.

use super::{Event, Finished, Measured, TrainError, Trainer, checkpoint, log};
use crate::nn::weights;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// One run of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Member {
    /// Seed of its order.
    pub seed: u64,
    /// Step whose weights it brings.
    pub step: u64,
    /// Held-out accuracy of these.
    pub accuracy: Option<f64>,
}

/// Whose weights the judge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// The mean of all members.
    Average,
    /// The best member, by its place from 0.
    Member(usize),
}

/// How an ensemble went.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ensemble {
    /// Its runs.
    pub members: Vec<Member>,
    /// Held-out accuracy of the average of their weights.
    pub average: Option<f64>,
    /// Whose weights were kept.
    pub chosen: Chosen,
}

impl Ensemble {
    /// Mean held-out accuracy of the members.
    pub fn mean_accuracy(&self) -> Option<f64> {
        let known: Option<Vec<f64>> = self.members.iter().map(|member| member.accuracy).collect();
        known.map(|known| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// The average, unless the held-out pairs say that it is worse than its members are.
    fn choose(members: Vec<Member>, average: Option<f64>) -> Self {
        let mut ensemble = Self { members, average, chosen: Chosen::Average };
        if let (Some(average), Some(mean)) = (average, ensemble.mean_accuracy())
            && average < mean
        {
            let accuracy = |member: &usize| ensemble.members[*member].accuracy.unwrap_or(0.0);
            let best = (0..ensemble.members.len()).rev().max_by(|a, b| accuracy(a).total_cmp(&accuracy(b)));
            ensemble.chosen = Chosen::Member(best.unwrap_or(0));
        }
        ensemble
    }
}

/// Trains `members` runs with the trainer's data and leaves the chosen weights in its model and in its directory's
/// `model.safetensors`. `watch` is told the place of the member, from 0.
///
/// # Errors
/// As [`Trainer::run`]; finished members and the checkpoint of the one that runs stay, for `resume`.
pub fn run_ensemble(
    trainer: &mut Trainer,
    members: usize,
    resume: bool,
    watch: &mut dyn FnMut(usize, Event) -> ControlFlow<()>,
) -> Result<Finished, TrainError> {
    let (dir, seed, start) = (trainer.dir.clone(), trainer.settings.seed, trainer.model.parameters.values.clone());
    let mut mean = vec![0.0; start.len()];
    let mut runs = Vec::new();
    for place in 0..members {
        trainer.start_over(&start, seed.wrapping_add(place as u64), member_dir(&dir, place))?;
        if resume {
            trainer.resume()?;
        }
        runs.push(trainer.run(&mut |event| watch(place, event))?);
        add_to_mean(&mut mean, &trainer.model.parameters.values, place + 1);
    }
    trainer.dir = dir;
    trainer.settings.seed = seed;
    settle(trainer, &mean, runs)
}

fn member_dir(dir: &Path, place: usize) -> PathBuf {
    dir.join("run").join("ensemble").join((place + 1).to_string())
}

/// The mean of `count` vectors from the mean of all but the last and the last.
fn add_to_mean(mean: &mut [f32], last: &[f32], count: usize) {
    mean.iter_mut().zip(last).for_each(|(mean, value)| *mean += (value - *mean) / count as f32);
}

/// Chooses the weights, writes them and tidies up.
fn settle(trainer: &mut Trainer, mean: &[f32], mut runs: Vec<Finished>) -> Result<Finished, TrainError> {
    trainer.model.parameters.values.copy_from_slice(mean);
    trainer.pack();
    let average = trainer.measure()?;
    let accuracy =
        |held_out: &Option<Measured>| held_out.as_ref().and_then(|held_out| held_out.report.metrics.accuracy);
    let seed = trainer.settings.seed;
    let member = |(place, run): (usize, &Finished)| Member {
        seed: seed.wrapping_add(place as u64),
        step: run.kept,
        accuracy: accuracy(&run.held_out),
    };
    let members = runs.iter().enumerate().map(member).collect();
    let ensemble = Ensemble::choose(members, accuracy(&average));
    let mut finished = match ensemble.chosen {
        Chosen::Average => Finished { held_out: average, ..runs.swap_remove(0) },
        Chosen::Member(best) => {
            let path = member_dir(&trainer.dir, best).join("model.safetensors");
            checkpoint::read_weights(&path, &mut trainer.model.parameters)?;
            trainer.pack();
            runs.swap_remove(best)
        }
    };
    weights::write(&trainer.dir.join("model.safetensors"), &trainer.model.parameters)?;
    tidy(&trainer.dir, ensemble.members.len())?;
    finished.ensemble = Some(ensemble);
    Ok(finished)
}

/// Of the members only the metrics stay; those of the first are also the judge's.
fn tidy(dir: &Path, members: usize) -> Result<(), TrainError> {
    let metrics = log::path(&member_dir(dir, 0));
    let bytes = std::fs::read(&metrics).map_err(TrainError::io(&metrics))?;
    crate::files::write(&log::path(dir), &bytes).map_err(TrainError::io(log::path(dir)))?;
    for place in 0..members {
        let member = member_dir(dir, place);
        for file in [member.join("model.safetensors"), member.join("run").join("checkpoint.safetensors")] {
            if file.exists() {
                std::fs::remove_file(&file).map_err(TrainError::io(&file))?;
            }
        }
    }
    Ok(())
}

impl Trainer {
    /// Sets the run back to before its first step, in another directory, from these weights, in the order of `seed`.
    fn start_over(&mut self, values: &[f32], seed: u64, dir: PathBuf) -> Result<(), TrainError> {
        let run = dir.join("run");
        std::fs::create_dir_all(&run).map_err(TrainError::io(&run))?;
        for directory in [&dir, &run] {
            crate::files::remove_leftovers(directory).map_err(TrainError::io(directory))?;
        }
        self.dir = dir;
        self.settings.seed = seed;
        self.model.parameters.values.copy_from_slice(values);
        self.optimizer.first.fill(0.0);
        self.optimizer.second.fill(0.0);
        self.optimizer.restored(&self.model.parameters, 0);
        self.state = super::State::default();
        self.visits = self.epoch(0);
        self.pack();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_weights() {
        let mut mean = vec![0.0; 2];
        for (place, values) in [[1.0, -2.0], [2.0, 4.0], [6.0, 1.0]].iter().enumerate() {
            add_to_mean(&mut mean, values, place + 1);
        }
        assert_eq!(mean, [3.0, 1.0]);
    }

    #[test]
    fn the_average_is_kept_unless_it_is_worse() {
        let member = |accuracy| Member { seed: 1, step: 1, accuracy };
        let cases = [
            ([Some(0.6), Some(0.7)], Some(0.65), Chosen::Average),
            ([Some(0.6), Some(0.7)], Some(0.64), Chosen::Member(1)),
            ([Some(0.7), Some(0.7)], Some(0.1), Chosen::Member(0)),
            ([None, None], None, Chosen::Average),
        ];
        for (accuracies, average, chosen) in cases {
            let found = Ensemble::choose(accuracies.map(member).to_vec(), average);
            assert_eq!(found.chosen, chosen, "{accuracies:?} {average:?}");
        }
    }
}
