//! Training: groups of encoded responses in, a judge out.
//!
//! The loop is [`Trainer::run`]; a step is `Trainer::step`. Everything a step depends on is in the
//! [`Settings`], the examples and the counters of [`State`], so a run that was killed continues from its
//! last checkpoint to the same bytes.

mod attributes;
mod card;
mod ensemble;
mod error;
mod examples;
mod features;
mod folds;
mod head;
mod judge;
mod log;
mod loss;
mod lower;
mod memory;
mod optimizer;
mod plan;
mod run_state;
mod settings;
mod solve;
mod start;
mod step;
mod teacher;
mod visits;

pub use attributes::{AttributeError, AttributeWeights, attribute_head, attribute_loss};
pub use ensemble::{Chosen, Ensemble, Figures, Member, run_ensemble};
pub use error::TrainError;
pub use examples::{Example, HeldOut, Measured, each_pair_alone, is_rated, preferred_pairs, truncated_share};
pub use features::Features;
pub use folds::{FOLD_FILES, FoldError, FoldOptions, FoldProgress, FoldResult, Folds, Labelled, Suspect};
pub use head::{Head, fit_head};
pub use judge::{JudgeFiles, clear_judge, holds_judge, write_judge};
pub use log::{Evaluation, StepMetrics};
pub(crate) use log::{Log, truncate as truncate_log};
pub use loss::{Judged, Loss, group_loss};
pub use lower::write_lower_base;
pub use memory::{Bytes, MemoryPlan};
pub use optimizer::{LearningRateSchedule, Optimizer, clip_scale};
pub use plan::{Given, Plan, plan};
pub(crate) use run_state::difference;
pub use run_state::{Best, State, resumed_day, resumed_settings};
pub use settings::{Asked, Extent, HeldOutData, Recipe, Settings, SettingsError, Start};
pub use start::{Opened, Starts, compare_starts, open_anew, open_head, renew_top_layers};
pub use teacher::{Taught, teach};
pub use visits::{Visit, epoch};

use crate::data::Location;
use crate::models::adapter::{self, LoraSettings};
use crate::models::{JudgeError, Model, ScoreError, Workspace, score_encoded};
use crate::nn::Gradients;
use crate::nn::weights;
use crate::text::Encoded;
use memory::fit_memory;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Groups whose mean a new head without biases starts from.
const MEAN_OF: usize = 64;

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
    /// Where its memory goes, if it was limited.
    pub memory: Option<MemoryPlan>,
    settings: Settings,
    /// The adapters that the model has: those of the settings, or of an average wider ones.
    adapters: Option<LoraSettings>,
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
    features: Features,
    /// Whether the encoder is as the run found it.
    frozen: bool,
}

impl Trainer {
    /// Sets a run up in the output directory `dir`. `fingerprint` names the data and the base, so that a
    /// checkpoint of another run is not resumed.
    ///
    /// # Errors
    /// When there is nothing to train on or the directory cannot be made.
    #[allow(clippy::too_many_lines)] // One field after the other.
    pub fn new(
        mut model: Model,
        mut settings: Settings,
        examples: Vec<Example>,
        held_out: Option<HeldOut>,
        dir: PathBuf,
        fingerprint: String,
    ) -> Result<Self, TrainError> {
        if examples.is_empty() {
            return Err(TrainError::NoPairs { reason: "no response is compared with another".into() });
        }
        let run = dir.join("run");
        std::fs::create_dir_all(&run).map_err(TrainError::io(&run))?;
        for directory in [&dir, &run] {
            crate::files::remove_leftovers(directory).map_err(TrainError::io(directory))?;
        }
        let adapted = settings.lora.is_some();
        settings.precision = if adapted { model.packed.precision() } else { model.precision(settings.precision) };
        let opened = settings.open_head(&mut model);
        renew_top_layers(&mut model, settings.renew_layers, settings.seed); // After it: who asks for a new last layer gets one.
        if let Some(layers) = settings.freeze {
            model.freeze_below_top(layers);
        }
        let head = model.head_out().weight;
        let prior =
            if settings.new_head { vec![0.0; head.len] } else { model.parameters.values[head.range()].to_vec() };
        if !adapted {
            model.pack_for_training(settings.precision);
        }
        let memory = settings.memory.map(|limit| fit_memory(&mut model, &examples, limit)).transpose()?;
        let gradients = Gradients::new(&model.parameters);
        let top = model.config.layers() + 1;
        let rate = |role| settings.layer_decay.powi((top - model.depth(role)) as i32) as f32;
        let optimizer = Optimizer::new(&model.parameters, settings.weight_decay).with_rates(&model.parameters, rate);
        let visits = visits::epoch(&examples, settings.group_size, settings.shuffle, settings.seed, 0);
        Ok(Self {
            model,
            opened,
            memory,
            adapters: settings.lora.clone(),
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
            workspace: Workspace::default(),
            features: Features::default(),
            frozen: true,
        })
    }

    /// Gives the run the features that others have read, so that it does not read their texts again. Features of another
    /// encoder are of no use to it, and do no harm.
    pub fn lend_features(&mut self, features: Features) {
        self.features = features;
    }

    /// Takes back what [`Self::lend_features`] gave, with what the run has read.
    pub fn take_features(&mut self) -> Features {
        std::mem::take(&mut self.features)
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
            self.state = run_state::read(&path, &mut self.model.parameters, &mut self.optimizer, &identity)?;
            self.visits = self.epoch(self.state.epoch);
            self.frozen = self.state.step == 0;
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
        if self.state.step == 0 && self.settings.new_head {
            self.start_at_means()?;
        }
        while self.state.step < self.settings.max_steps && !self.is_stale() {
            let started = Instant::now();
            self.frozen = false;
            let mut metrics = self.step()?;
            metrics.seconds = started.elapsed().as_secs_f64();
            self.state.remember(&metrics);
            let stop = watch(Event::Step(&metrics)).is_break();
            let evaluation = if self.is_due(self.settings.eval_every) { Some(self.evaluate()?) } else { None };
            if let Some(evaluation) = &evaluation {
                let _ = watch(Event::Evaluated(evaluation));
            }
            log.append_step(&metrics, evaluation.as_ref())?;
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

    fn not_finite(&self, step: u64, place: impl ToString, what: &'static str, value: f64) -> TrainError {
        let (place, saved, dir) = (place.to_string(), self.state.saved, self.dir.clone());
        TrainError::NotFinite { step, place, what, value, saved, dir }
    }

    /// Refuses weights that are no numbers, which a last step can leave behind.
    fn check_weights(&self) -> Result<(), TrainError> {
        let parameters = &self.model.parameters;
        let Some(at) = parameters.values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let tensor = parameters.specs().iter().find(|spec| spec.span.range().contains(&at));
        let place = tensor.map_or("weights", |spec| spec.name.as_str());
        Err(self.not_finite(self.state.step, place, "weight", f64::from(parameters.values[at])))
    }

    fn epoch(&self, epoch: u64) -> Vec<Visit> {
        let Settings { group_size, shuffle, seed, .. } = self.settings;
        visits::epoch(&self.examples, group_size, shuffle, seed, epoch)
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

    /// Makes a new head without biases give about the mean ratings: along the mean of what it reads, which is far from 0 in
    /// a decoder. From 0, a rating of 4 ± 0.5 would be learnt for long before anything is learnt of the response.
    fn start_at_means(&mut self) -> Result<(), TrainError> {
        let Some(attributes) = self.settings.attributes.clone().filter(|head| !head.centred) else { return Ok(()) };
        let examples: Vec<&Example> = self.examples.iter().take(MEAN_OF).collect();
        let precision = self.settings.precision;
        let features = self.features.of_examples(&self.model, precision, &examples, &mut self.workspace)?.concat();
        let layer = self.model.head_out();
        let rows = features.chunks_exact(layer.inputs);
        let count = rows.len() as f64;
        let mut mean = vec![0.0; layer.inputs];
        rows.for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / count));
        let square: f64 = mean.iter().map(|x| x * x).sum();
        if square == 0.0 {
            return Ok(());
        }
        let head = self.model.parameters.values[layer.weight.range()].chunks_exact_mut(layer.inputs);
        for (row, rating) in head.zip(attributes.standardised_means()) {
            let found: f64 = row.iter().zip(&mean).map(|(w, x)| f64::from(*w) * x).sum();
            let share = (rating - found) / square;
            row.iter_mut().zip(&mean).for_each(|(w, x)| *w = (f64::from(*w) + share * x) as f32);
        }
        Ok(())
    }

    /// Fits the head to the run's examples and these, on the features of the encoder as it is.
    fn fit_head(&mut self, more: &[Example]) -> Result<Head, TrainError> {
        let examples: Vec<&Example> = self.examples.iter().chain(more).collect();
        let precision = self.settings.precision;
        let features = self.features.of_examples(&self.model, precision, &examples, &mut self.workspace)?;
        let head = fit_head(&examples, &features, &self.prior);
        if let Some(value) = head.not_finite() {
            return Err(TrainError::Head { value });
        }
        let layer = self.model.head_out();
        self.model.parameters.values[layer.weight.range()].copy_from_slice(&head.weight);
        self.model.parameters.values[layer.bias.range()].fill(head.bias);
        Ok(head)
    }

    /// Scores the held-out data. An evaluation is the best so far when its loss is lower than that of the others, and clearly
    /// lower than that of the head on frozen features; its weights are kept where the settings say so.
    fn evaluate(&mut self) -> Result<Evaluation, TrainError> {
        let (outputs, step) = (self.held_out_outputs()?, self.state.step);
        let held_out = self.held_out.as_ref().expect("evaluation is only due with held-out data");
        let evaluation = match &self.settings.attributes {
            None => held_out.evaluation(&self.settings, step, &outputs)?,
            Some(head) => held_out.attribute_evaluation(&self.settings, head, step, &outputs)?,
        };
        if let Some((loss, place)) =
            evaluation.losses.iter().zip(&evaluation.places).find(|(loss, _)| !loss.is_finite())
        {
            return Err(self.not_finite(step, place, "held-out loss", *loss));
        }
        let head = &self.state.head_losses; // Empty while the head itself is evaluated, and where there is none.
        let earned = head.is_empty() || evaluation.clearly_beats(head);
        if earned && self.state.best.is_none_or(|best| evaluation.beats(&best)) {
            if self.settings.keep_best {
                self.write_judge_weights()?;
            }
            self.state.best = Some(evaluation.as_best());
            self.state.without_improvement = 0;
        } else {
            self.state.without_improvement += 1;
        }
        Ok(evaluation)
    }

    /// What the model as it is says of the held-out texts, `[texts, labels]`.
    fn held_out_outputs(&mut self) -> Result<Vec<f32>, TrainError> {
        let held_out = self.held_out.take().expect("only with held-out data");
        let outputs = self.outputs(&held_out.sequences);
        let outputs = outputs.map_err(|error| match error {
            JudgeError::Unscored { text, error: ScoreError::NotFinite { value } } => {
                let place = held_out.place(text).map_or("--eval".into(), Location::to_string);
                self.not_finite(self.state.step, place, "held-out score", f64::from(value))
            }
            error => error.into(),
        });
        self.held_out = Some(held_out);
        outputs
    }

    /// What the model as it is says of texts, `[texts, labels]`; from the features that were read where the encoder still is
    /// as it was then.
    fn outputs(&mut self, texts: &[Encoded]) -> Result<Vec<f32>, JudgeError> {
        if !(self.frozen && self.settings.head_first) {
            return score_encoded(&self.model, texts, &mut self.workspace);
        }
        let (labels, precision) = (self.model.config.labels(), self.settings.precision);
        let texts: Vec<&Encoded> = texts.iter().collect();
        let outputs = self.model.logits(&self.features.of(&self.model, precision, &texts, &mut self.workspace)?);
        match outputs.iter().position(|output| !output.is_finite()) {
            Some(at) => {
                let error = ScoreError::NotFinite { value: outputs[at] };
                Err(JudgeError::Unscored { text: at / labels, error })
            }
            None => Ok(outputs),
        }
    }

    /// Writes the weights as a judge has them: outputs of attributes are ratings there, and standardised in training.
    fn write_judge_weights(&mut self) -> Result<(), TrainError> {
        self.check_weights()?;
        let training = self.model.output_layer();
        if let Some(head) = &self.settings.attributes {
            head.to_ratings(&mut self.model);
        }
        let written = self.write_weights(&self.dir);
        self.model.set_output_layer(&training);
        written
    }

    /// What the file is called that keeps the weights of a judge: all, or those of the adapters and the head.
    fn weights_name(&self) -> &'static str {
        if self.settings.lora.is_some() { adapter::TENSORS_FILE } else { "model.safetensors" }
    }

    /// Writes the weights as they are.
    fn write_weights(&self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(self.weights_name());
        let written = match self.settings.lora {
            None => weights::write(&path, &self.model.parameters),
            Some(_) => adapter::write_tensors(&path, &self.model.parameters),
        };
        Ok(written?)
    }

    /// Reads what [`Self::write_weights`] wrote.
    fn read_weights(&mut self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(self.weights_name());
        let read = match self.settings.lora {
            None => run_state::read_weights(&path, &mut self.model.parameters),
            Some(_) => adapter::read_tensors(&path, &mut self.model.parameters),
        };
        Ok(read?)
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.dir.join("run").join(run_state::FILE)
    }

    /// What a checkpoint must agree with to be resumed.
    fn identity(&self) -> String {
        let mut identity = serde_json::to_value(&self.settings).expect("settings are plain data");
        if let Some(settings) = identity.as_object_mut() {
            settings.remove("memory"); // It changes no number.
        }
        identity["data"] = self.fingerprint.as_str().into();
        identity.to_string()
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.check_weights()?;
        self.state.saved = self.state.step;
        let path = self.checkpoint_path();
        run_state::write(&path, &self.model.parameters, &self.optimizer, &self.state, &self.identity())
    }

    /// Settles on the best weights or the last, and says how good they are.
    fn finish(&mut self) -> Result<Finished, TrainError> {
        let best = self.state.best.filter(|_| self.settings.keep_best);
        if best.is_none() {
            self.write_judge_weights()?;
        }
        self.read_weights(&self.dir.clone())?;
        self.pack();
        self.frozen = best.is_some_and(|best| best.step == 0);
        let refits = self.settings.refit_head && self.frozen;
        let held_out = if refits { self.refit_head()? } else { self.measure()? };
        Ok(Finished {
            steps: self.state.step,
            kept: best.map_or(self.state.step, |best| best.step),
            held_out,
            train_accuracy: self.state.late_accuracy(),
            loss: self.state.loss_ends(),
            stopped_early: self.state.step < self.settings.max_steps,
            chosen_by_held_out: best.is_some(),
            head: self.state.head,
            refitted: refits,
            ensemble: None,
        })
    }

    /// Gives the kept head the held-out prompts to learn from, too, now that they have nothing left to decide. Measures it before.
    fn refit_head(&mut self) -> Result<Option<Measured>, TrainError> {
        // As it was: the weights of a finished run that is continued have seen the held-out prompts.
        if self.state.head_layer.len() != self.model.output_layer().len() {
            return Err(TrainError::OtherRun {
                path: self.checkpoint_path(),
                reason: "it was written by an earlier version, which did not store the head that is now fitted again"
                    .into(),
            });
        }
        self.model.set_output_layer(&self.state.head_layer);
        let measured = self.measure()?;
        let more = self.held_out.as_ref().map(HeldOut::examples).unwrap_or_default();
        self.fit_head(&more)?;
        self.write_judge_weights()?;
        Ok(measured)
    }

    /// The model as it is on the held-out data, if there is such data.
    fn measure(&mut self) -> Result<Option<Measured>, TrainError> {
        if self.held_out.is_none() {
            return Ok(None);
        }
        let outputs = self.held_out_outputs()?;
        let Some(held_out) = &self.held_out else { return Ok(None) };
        Ok(Some(held_out.measure(&outputs, self.settings.attributes.as_ref())?))
    }

    /// Scores of encoded texts by the model as it is.
    ///
    /// # Errors
    /// As [`score_encoded`].
    pub fn score(&mut self, encoded: &[Encoded]) -> Result<Vec<f32>, JudgeError> {
        self.outputs(encoded)
    }

    /// Brings the packed weights up to date.
    fn pack(&mut self) {
        self.model.repack();
    }

    /// Steps done, those of the run that is continued included.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// The adapters of the judge, if it is its base with such.
    pub fn adapters(&self) -> Option<&LoraSettings> {
        self.adapters.as_ref()
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
