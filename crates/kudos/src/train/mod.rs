//! Training: groups of encoded responses in, a judge out.
//!
//! The loop is [`Trainer::run`]; a step is `Trainer::step`. Everything a step depends on is in the
//! [`Settings`], the examples and the counters of [`State`], so a run that was killed continues from its
//! last checkpoint to the same bytes.

mod attributes;
mod card;
mod checkpoint;
mod ensemble;
mod examples;
mod folds;
mod head;
mod judge;
mod log;
mod loss;
mod optimizer;
mod sampler;
mod settings;
mod start;
mod step;

pub use attributes::{AttributeError, Weights as AttributeWeights, attribute_head, attribute_loss};
pub use checkpoint::{Best, State};
pub use ensemble::{Chosen, Ensemble, Figures, Member, run_ensemble};
pub use examples::{Example, HeldOut, Measured, each_pair_alone, is_rated, preferred_pairs, truncated_share};
pub use folds::{FoldError, FoldOptions, FoldProgress, FoldResult, Folds, Labelled, Suspect};
pub use head::{Head, fit_head};
pub use judge::{JudgeFiles, write_judge};
pub use log::{Evaluation, StepMetrics};
pub use loss::{Judged, Loss, group_loss};
pub use optimizer::{Optimizer, Schedule, clip_scale};
pub use sampler::{Visit, epoch};
pub use settings::{Asked, Extent, HeldOutData, Recipe, Settings, SettingsError, Start};
pub use start::{Starts, compare_starts};

use crate::eval::EvalError;
use crate::models::{JudgeError, Model, Opened, Workspace, score_encoded};
use crate::nn::Gradients;
use crate::nn::weights::{self, WeightError};
use crate::text::Encoded;
use head::frozen_features;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Nothing to learn from.
    #[error("no pairs to train on: {reason}; `kudos check` on the same files says why")]
    NoPairs {
        /// What was found instead.
        reason: String,
    },
    /// Loss or gradient is not a number.
    #[error(
        "step {step}: the {what} is {value}; the run diverged. The last checkpoint (step {saved}) and the best judge so \
         far are intact in {dir}; lower --learning-rate or set --max-grad-norm"
    )]
    NotFinite {
        /// Step that failed.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Step of the last checkpoint.
        saved: u64,
        /// Output directory.
        dir: PathBuf,
    },
    /// Encoding or scoring.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Held-out scores cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The output directory.
    #[error("{path}: {source}; the last checkpoint is intact")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Whoever watched asked to stop.
    #[error("interrupted; step {step} is saved in {dir}: the same command with --resume continues")]
    Interrupted {
        /// Last step done.
        step: u64,
        /// Output directory.
        dir: PathBuf,
    },
    /// A checkpoint of another run.
    #[error("{path}: {reason}; resume with the same data and flags, or choose another -o")]
    OtherRun {
        /// File.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

impl TrainError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| TrainError::Io { path, source }
    }
}

/// What the loop tells whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// The head was fitted on frozen features; its held-out metrics, if there is such data.
    Head(&'a Head, Option<&'a Evaluation>),
    /// A step was done.
    Step(&'a StepMetrics),
    /// The held-out data was scored.
    Evaluated(&'a Evaluation),
}

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// Steps done.
    pub steps: u64,
    /// Step whose weights the judge has.
    pub kept: u64,
    /// The judge on the held-out data.
    pub held_out: Option<Measured>,
    /// Mean accuracy on the training pairs of the last 20 steps.
    pub train_accuracy: Option<f64>,
    /// Mean training loss of the first and of the last 20 steps.
    pub loss: Option<[f64; 2]>,
    /// Whether the run stopped before `max_steps` because the held-out loss no longer fell.
    pub stopped_early: bool,
    /// Whether the held-out loss chose the weights.
    pub chosen_by_held_out: bool,
    /// The head on frozen features, on the held-out data, where the run started with it.
    pub head: Option<Best>,
    /// Whether the head was fitted again, with the held-out prompts, after it was measured on them.
    pub refitted: bool,
    /// The runs behind the weights, if they are not those of one.
    pub ensemble: Option<Ensemble>,
}

impl Finished {
    /// What the held-out data was used for, which makes its figures look better than they are.
    pub fn caution(&self) -> Option<&'static str> {
        self.held_out.as_ref()?;
        Some(match self.chosen_by_held_out {
            true if self.refitted => {
                "These figures come from the first fit of the head, which had not seen the held-out prompts. They are \
                 slightly optimistic, because the same prompts chose the head and its temperature. The judge itself was \
                 then fitted on all prompts: evaluate it on others."
            }
            true => {
                "These figures are slightly optimistic, because the same prompts chose the weights and the temperature: \
                 evaluate the judge on others."
            }
            false => {
                "Log loss, Brier score and ECE are slightly optimistic, because the temperature was fitted to these prompts: \
                 evaluate the judge on others."
            }
        })
    }

    /// Whether the judge is the head on frozen features: then the last steps' accuracy and loss are not its own.
    pub fn kept_head(&self) -> bool {
        let averaged = self.ensemble.as_ref().is_some_and(|ensemble| ensemble.chosen == Chosen::Average);
        self.kept == 0 && !averaged
    }

    /// Whose weights were kept, in words.
    pub fn kept_weights(&self) -> String {
        match &self.ensemble {
            Some(Ensemble { chosen: Chosen::Average, members, .. }) => {
                format!("kept: the average of the weights of {} runs", members.len())
            }
            _ if self.kept_head() => {
                let then = if self.refitted { "; it was then fitted again, on all prompts" } else { "" };
                format!("kept: the head alone, as fine-tuning was not clearly better on the held-out prompts{then}")
            }
            _ => format!("kept: the weights of step {}", self.kept),
        }
    }
}

/// A run: the model, its data and its counters.
pub struct Trainer {
    /// What is trained.
    pub model: Model,
    /// What of it starts anew under a new head.
    pub opened: Opened,
    settings: Settings,
    examples: Vec<Example>,
    held_out: Option<HeldOut>,
    dir: PathBuf,
    fingerprint: String,
    /// What a head on frozen features is drawn to.
    prior: Vec<f32>,
    optimizer: Optimizer,
    gradients: Gradients,
    state: State,
    visits: Vec<Visit>,
    workspace: Workspace,
}

impl Trainer {
    /// Sets a run up in the output directory `dir`. `fingerprint` names the data and the base, so that a
    /// checkpoint of another run is not resumed.
    ///
    /// # Errors
    /// When there is nothing to train on or the directory cannot be made.
    pub fn new(
        mut model: Model,
        mut settings: Settings,
        examples: Vec<Example>,
        held_out: Option<HeldOut>,
        dir: PathBuf,
        fingerprint: String,
    ) -> Result<Self, TrainError> {
        if examples.is_empty() {
            return Err(TrainError::NoPairs { reason: "every group is unlabelled, tied or held out".into() });
        }
        let run = dir.join("run");
        std::fs::create_dir_all(&run).map_err(TrainError::io(&run))?;
        for directory in [&dir, &run] {
            crate::files::remove_leftovers(directory).map_err(TrainError::io(directory))?;
        }
        settings.precision = model.precision(settings.precision);
        let opened = settings.open_head(&mut model);
        model.renew_top_layers(settings.renew_layers, settings.seed); // After it: who asks for a new last layer gets one.
        let head = model.head_out().weight;
        let prior =
            if settings.new_head { vec![0.0; head.len] } else { model.parameters.values[head.range()].to_vec() };
        let packed = model.pack_for_training(settings.precision);
        let workspace = Workspace { packed, ..Workspace::default() };
        let gradients = Gradients::new(&model.parameters);
        let top = model.config.layers + 1;
        let rate = |name: &str| settings.layer_decay.powi((top - model.depth(name)) as i32) as f32;
        let optimizer = Optimizer::new(&model.parameters, settings.weight_decay).with_rates(&model.parameters, rate);
        let visits = sampler::epoch(&examples, settings.group_size, settings.shuffle, settings.seed, 0);
        Ok(Self {
            model,
            opened,
            settings,
            examples,
            held_out,
            dir,
            fingerprint,
            prior,
            optimizer,
            gradients,
            state: State::default(),
            visits,
            workspace,
        })
    }

    /// Continues from the last checkpoint of the output directory; from the start when there is none.
    /// Returns the step it continues after.
    ///
    /// # Errors
    /// When the checkpoint belongs to another run or is damaged.
    pub fn resume(&mut self) -> Result<u64, TrainError> {
        let path = self.checkpoint_path();
        if path.exists() {
            let identity = self.identity();
            self.state = checkpoint::read(&path, &mut self.model.parameters, &mut self.optimizer, &identity)?;
            self.visits = self.epoch(self.state.epoch);
            self.pack();
        }
        log::truncate(&self.dir, self.state.step)?;
        Ok(self.state.step)
    }

    /// Trains to the end and leaves the chosen weights in the model and in `model.safetensors`.
    ///
    /// # Errors
    /// [`TrainError`]; the last checkpoint and the best weights so far stay as they were. When `watch` breaks,
    /// a checkpoint is written first.
    pub fn run(&mut self, watch: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<Finished, TrainError> {
        let mut log = log::Log::open(&self.dir)?;
        if self.state.step == 0 && self.settings.head_first {
            self.start_with_head(watch)?;
        }
        while self.state.step < self.settings.max_steps && !self.is_stale() {
            let started = Instant::now();
            let mut metrics = self.step()?;
            self.check_finite(&metrics)?;
            metrics.seconds = started.elapsed().as_secs_f64();
            self.state.remember(&metrics);
            let stop = watch(Event::Step(&metrics)).is_break();
            let evaluation = if self.is_due(self.settings.eval_every) { Some(self.evaluate()?) } else { None };
            if let Some(evaluation) = &evaluation {
                let _ = watch(Event::Evaluated(evaluation));
            }
            log.append(&metrics, evaluation.as_ref())?;
            if stop || self.is_due(self.settings.save_every) {
                log.flush()?;
                self.save()?;
            }
            if stop {
                return Err(TrainError::Interrupted { step: self.state.step, dir: self.dir.clone() });
            }
        }
        self.finish()
    }

    /// True after every `every` steps and after the last; never for 0.
    fn is_due(&self, every: u64) -> bool {
        every > 0 && (self.state.step.is_multiple_of(every) || self.state.step == self.settings.max_steps)
    }

    fn is_stale(&self) -> bool {
        self.settings.early_stop > 0 && self.state.without_improvement >= self.settings.early_stop
    }

    fn check_finite(&self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let values = [("loss", metrics.loss), ("gradient norm", metrics.grad_norm)];
        match values.into_iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((what, value)) => Err(TrainError::NotFinite {
                step: self.state.step,
                what,
                value,
                saved: self.state.saved,
                dir: self.dir.clone(),
            }),
        }
    }

    fn epoch(&self, epoch: u64) -> Vec<Visit> {
        let Settings { group_size, shuffle, seed, .. } = self.settings;
        sampler::epoch(&self.examples, group_size, shuffle, seed, epoch)
    }

    /// Fits the head on the features of the base as it is. With held-out data that is the first candidate for the judge.
    fn start_with_head(&mut self, watch: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<(), TrainError> {
        let head = self.fit_head(&[])?;
        let evaluation = if self.settings.eval_every > 0 { Some(self.evaluate()?) } else { None };
        self.state.head = evaluation.as_ref().map(Evaluation::as_best);
        self.state.head_layer = self.model.output_layer();
        self.state.head_losses = evaluation.as_ref().map(|e| e.losses.clone()).unwrap_or_default();
        let _ = watch(Event::Head(&head, evaluation.as_ref()));
        Ok(())
    }

    /// Fits the head to the run's examples and these, on the features of the encoder as it is.
    fn fit_head(&mut self, more: &[Example]) -> Result<Head, TrainError> {
        let examples: Vec<&Example> = self.examples.iter().chain(more).collect();
        let features = frozen_features(&self.model, &examples, &mut self.workspace)?;
        let head = fit_head(&examples, &features, &self.prior);
        let layer = self.model.head_out();
        self.model.parameters.values[layer.weight.range()].copy_from_slice(&head.weight);
        self.model.parameters.values[layer.bias.range()].fill(head.bias);
        Ok(head)
    }

    /// Scores the held-out data; keeps the weights when they are the best so far, and clearly better than the head on frozen features.
    fn evaluate(&mut self) -> Result<Evaluation, TrainError> {
        let held_out = self.held_out.as_ref().expect("evaluation is only due with held-out data");
        let outputs = score_encoded(&self.model, &held_out.sequences, &mut self.workspace)?;
        let evaluation = match &self.settings.attributes {
            None => held_out.evaluation(&self.settings, self.state.step, &outputs)?,
            Some(head) => held_out.attribute_evaluation(&self.settings, head, self.state.step, &outputs)?,
        };
        if self.settings.keep_best {
            let head = &self.state.head_losses; // Empty while the head itself is evaluated, and where there is none.
            let earned = head.is_empty() || evaluation.clearly_beats(head);
            if earned && self.state.best.is_none_or(|best| evaluation.beats(&best)) {
                self.write_judge_weights()?;
                self.state.best = Some(evaluation.as_best());
                self.state.without_improvement = 0;
            } else {
                self.state.without_improvement += 1;
            }
        }
        Ok(evaluation)
    }

    /// Writes the weights as a judge has them: outputs of attributes are ratings there, and standardised in training.
    fn write_judge_weights(&mut self) -> Result<(), WeightError> {
        let training = self.model.output_layer();
        if let Some(head) = &self.settings.attributes {
            head.to_ratings(&mut self.model);
        }
        let written = weights::write(&self.dir.join("model.safetensors"), &self.model.parameters);
        self.model.set_output_layer(&training);
        written
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.dir.join("run").join("checkpoint.safetensors")
    }

    /// What a checkpoint must agree with to be resumed.
    fn identity(&self) -> String {
        let mut identity = serde_json::to_value(&self.settings).expect("settings are plain data");
        identity["data"] = self.fingerprint.as_str().into();
        identity.to_string()
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.state.saved = self.state.step;
        let path = self.checkpoint_path();
        checkpoint::write(&path, &self.model.parameters, &self.optimizer, &self.state, &self.identity())
    }

    /// Settles on the best weights or the last, and says how good they are.
    fn finish(&mut self) -> Result<Finished, TrainError> {
        if self.state.best.is_none() {
            self.write_judge_weights()?;
        }
        checkpoint::read_weights(&self.dir.join("model.safetensors"), &mut self.model.parameters)?;
        self.pack();
        let refits = self.settings.refit_head && self.state.best.is_some_and(|best| best.step == 0);
        let held_out = if refits { self.refit_head()? } else { self.measure()? };
        Ok(Finished {
            steps: self.state.step,
            kept: self.state.best.map_or(self.state.step, |best| best.step),
            held_out,
            train_accuracy: self.state.late_accuracy(),
            loss: self.state.loss_ends(),
            stopped_early: self.state.step < self.settings.max_steps,
            chosen_by_held_out: self.state.best.is_some(),
            head: self.state.head,
            refitted: refits,
            ensemble: None,
        })
    }

    /// Gives the kept head the held-out prompts to learn from, too, now that they have nothing left to decide. Measures it before.
    fn refit_head(&mut self) -> Result<Option<Measured>, TrainError> {
        // As it was: the weights of a finished run that is continued have seen the held-out prompts.
        self.model.set_output_layer(&self.state.head_layer);
        let measured = self.measure()?;
        let more = self.held_out.as_ref().map(HeldOut::examples).unwrap_or_default();
        self.fit_head(&more)?;
        self.write_judge_weights()?;
        Ok(measured)
    }

    /// The model as it is on the held-out data, if there is such data.
    fn measure(&mut self) -> Result<Option<Measured>, TrainError> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let outputs = score_encoded(&self.model, &held_out.sequences, &mut self.workspace)?;
        Ok(Some(held_out.measure(&outputs, self.settings.attributes.as_ref())?))
    }

    /// Scores of encoded texts by the model as it is.
    ///
    /// # Errors
    /// As [`score_encoded`].
    pub fn score(&mut self, encoded: &[Encoded]) -> Result<Vec<f32>, JudgeError> {
        score_encoded(&self.model, encoded, &mut self.workspace)
    }

    /// Brings the packed weights up to date.
    fn pack(&mut self) {
        self.workspace.packed.refresh(&self.model.parameters.values);
    }

    /// Steps done, those of the run that is continued included.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// The settings of the run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The data of the run.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }
}
