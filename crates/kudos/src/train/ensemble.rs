//! An ensemble that costs nothing to use: several runs from the same start, their weights averaged into one judge.
//!
//! Runs that start from the same weights, head included, and differ in the order of their data alone end in one
//! valley of the loss, where the mean of their weights is usually at least as good as they are ("model soups",
//! Wortsman et al. 2022). That is not always so, so it is measured: the average is kept when its held-out log loss
//! is not above the mean of the members', else the best member. The judge has the size of one.
//!
//! Adapters are averaged as what they add to the base: the mean of the products B·A, which is no product of the mean B
//! and the mean A. It is an adapter again, of the members' ranks together.
//!
//! Each member is a run of its own in `run/ensemble/N`, resumed as any run. Member 1 has the seed of a single run
//! and is that run.

use super::{Event, Finished, Measured, TrainError, Trainer, log, run_state};
use crate::models::adapter;
use crate::models::{JudgeError, LoadError, Model};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Weights on the held-out data; nothing where there is none, or no order in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Share of the pairs in the right order.
    pub accuracy: Option<f64>,
    /// Log loss at the temperature that suits these weights. It decides.
    pub log_loss: Option<f64>,
}

impl Figures {
    fn of(held_out: Option<&Measured>) -> Self {
        let metrics = held_out.map(|held_out| &held_out.report.metrics);
        metrics.map_or(Self::default(), |metrics| Self { accuracy: metrics.accuracy, log_loss: metrics.log_loss })
    }
}

/// One run of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Member {
    /// Seed of its order.
    pub seed: u64,
    /// Step whose weights it brings.
    pub step: u64,
    /// These on the held-out data.
    #[serde(flatten)]
    pub held_out: Figures,
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
    /// The average of their weights on the held-out data.
    pub average: Figures,
    /// Whose weights were kept.
    pub chosen: Chosen,
}

impl Ensemble {
    /// Means of the members' figures.
    pub fn mean(&self) -> Figures {
        let mean = |figure: fn(&Figures) -> Option<f64>| {
            let known: Option<Vec<f64>> = self.members.iter().map(|member| figure(&member.held_out)).collect();
            known.map(|known| known.iter().sum::<f64>() / known.len() as f64)
        };
        Figures { accuracy: mean(|f| f.accuracy), log_loss: mean(|f| f.log_loss) }
    }

    /// The average, unless the held-out pairs say that it is worse than its members are.
    fn choose(members: Vec<Member>, average: Figures) -> Self {
        let mut ensemble = Self { members, average, chosen: Chosen::Average };
        if let (Some(average), Some(mean)) = (average.log_loss, ensemble.mean().log_loss)
            && average > mean
        {
            let loss = |member: &usize| ensemble.members[*member].held_out.log_loss.unwrap_or(f64::INFINITY);
            let best = (0..ensemble.members.len()).min_by(|a, b| loss(a).total_cmp(&loss(b)));
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
    let narrow = average(trainer, mean, runs.len())?;
    let average = trainer.measure()?;
    let seed = trainer.settings.seed;
    let member = |(place, run): (usize, &Finished)| Member {
        seed: seed.wrapping_add(place as u64),
        step: run.kept,
        held_out: Figures::of(run.held_out.as_ref()),
    };
    let members = runs.iter().enumerate().map(member).collect();
    let ensemble = Ensemble::choose(members, Figures::of(average.as_ref()));
    let mut finished = match ensemble.chosen {
        Chosen::Average => Finished { held_out: average, ..runs.swap_remove(0) },
        Chosen::Member(best) => {
            if let Some(narrow) = narrow {
                let wide = std::mem::replace(&mut trainer.model, narrow);
                trainer.model.packed = wide.packed;
                trainer.adapters.clone_from(&trainer.settings.lora);
            }
            trainer.read_weights(&member_dir(&trainer.dir, best))?;
            trainer.pack();
            runs.swap_remove(best)
        }
    };
    trainer.write_weights(&trainer.dir)?;
    tidy(trainer, ensemble.members.len())?;
    finished.ensemble = Some(ensemble);
    Ok(finished)
}

/// Makes the trainer's model the mean of all members. If adapters are trained, it gets wider ones; then the model as it
/// was is given back, but for what is packed.
fn average(trainer: &mut Trainer, mean: &[f32], members: usize) -> Result<Option<Model>, TrainError> {
    let Some(lora) = trainer.settings.lora.clone() else {
        trainer.model.parameters.values.copy_from_slice(mean);
        trainer.frozen = false;
        trainer.pack();
        return Ok(None);
    };
    let (mut wide, settings) =
        adapter::widened(&trainer.model, &lora, members).map_err(|e| JudgeError::from(LoadError::from(e)))?;
    for place in 0..members {
        trainer.read_weights(&member_dir(&trainer.dir, place))?;
        adapter::add_to_mean(&mut wide.parameters, &trainer.model.parameters, place, members);
    }
    let mut narrow = std::mem::replace(&mut trainer.model, wide);
    trainer.model.packed = std::mem::take(&mut narrow.packed);
    trainer.adapters = Some(settings);
    trainer.frozen = false;
    Ok(Some(narrow))
}

/// Of the members only the metrics stay; those of the first are also the judge's.
fn tidy(trainer: &Trainer, members: usize) -> Result<(), TrainError> {
    let dir = &trainer.dir;
    let metrics = log::path(&member_dir(dir, 0));
    let bytes = std::fs::read(&metrics).map_err(TrainError::io(&metrics))?;
    crate::files::write(&log::path(dir), &bytes).map_err(TrainError::io(log::path(dir)))?;
    for place in 0..members {
        let member = member_dir(dir, place);
        for file in [member.join(trainer.weights_name()), member.join("run").join(run_state::FILE)] {
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
        self.frozen = true;
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
        let figures = |log_loss| Figures { accuracy: Some(0.5), log_loss };
        let member = |log_loss| Member { seed: 1, step: 1, held_out: figures(log_loss) };
        let cases = [
            ([Some(0.75), Some(0.5)], Some(0.625), Chosen::Average),
            ([Some(0.75), Some(0.5)], Some(0.63), Chosen::Member(1)),
            ([Some(0.6), Some(0.6)], Some(0.9), Chosen::Member(0)),
            ([None, None], None, Chosen::Average),
        ];
        for (losses, average, chosen) in cases {
            let found = Ensemble::choose(losses.map(member).to_vec(), figures(average));
            assert_eq!(found.chosen, chosen, "{losses:?} {average:?}");
        }
    }
}
