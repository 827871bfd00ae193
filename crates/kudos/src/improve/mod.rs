//! Improvement: a generator is made better by its judge.
//!
//! A step draws responses, judges them, and moves the policy towards those that the judge prefers to the others of their
//! prompt. [`Improver::run`] is the loop. Everything a step depends on is in the [`Settings`], the prompts and the counters
//! of [`State`], so a run that was killed continues from its last checkpoint to the same bytes.
//!
//! | file | subject |
//! |---|---|
//! | `settings.rs` | what was asked → what will be done; all defaults |
//! | `sample.rs` | the policy draws responses |
//! | `reward.rs` | judged responses, and what each is worth |
//! | `learn.rs` | the loss, its gradient, and the distance from the start model |
//! | `optimizer.rs` | AdamW over one layer at a time |
//! | `step.rs` | one step |
//! | `state.rs` | what a run continues from |
//! | `log.rs` | `run/metrics.jsonl`; how responses look |
//! | `measure.rs` | held-out prompts before and after |
//! | `report.rs` | the verdict, and the page around it |
//! | `output.rs` | the checkpoint directory that comes out |
//! | `memory.rs` | where the memory goes |

mod error;
mod learn;
mod log;
mod measure;
mod memory;
mod optimizer;
mod output;
mod report;
mod reward;
mod sample;
mod settings;
mod state;
mod step;

pub use error::ImproveError;
pub use learn::{Desk, Learnt, Lesson, Objective, Refuses, Step};
pub use log::{StepMetrics, Writing};
pub use measure::{Answer, Change, Measurement, Sample};
pub use memory::MemoryPlan;
pub use optimizer::PolicyOptimizer;
pub use output::{clear_model, holds_model};
pub use report::{About, Report};
pub use reward::{advantages, best};
pub use sample::Response;
pub use settings::{Algorithm, Asked, Settings};
pub use state::State;

use crate::data::Content;
use crate::generate::{LocalSettings, Prompt, Wording};
use crate::models::{Decoder, DecoderHead, RewardModel, Workspace};
use crate::nn::{Gradients, Precision};
use crate::random::Stream;
use report::Done;
use sample::{Sampled, Wanted, sample};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use step::Outcome;

/// Steps in a row whose responses say nothing, or all the same, after which the policy has collapsed.
const DEGENERATE_STEPS: u64 = 3;

/// What the loop tells whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// Tokens are being drawn.
    Drawing,
    /// The held-out prompts were answered before the first step.
    Before(&'a Measurement),
    /// A step was done.
    Step(&'a StepMetrics),
}

/// Whoever watches; `Break` ends the run with a checkpoint.
pub type Watch<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// The judges of a run.
pub struct Judges {
    /// The one that is optimised.
    pub judge: Arc<RewardModel>,
    /// One that only looks.
    pub check: Option<Arc<RewardModel>>,
}

/// What a run works on, and where.
pub struct Job {
    /// The start model: a directory or a `.gguf` file. It is not changed.
    pub start: PathBuf,
    /// Prompts to learn from.
    pub prompts: Vec<Prompt>,
    /// Prompts to be measured on.
    pub held_out: Vec<Prompt>,
    /// How prompts are put to the model.
    pub local: LocalSettings,
    /// The output directory.
    pub dir: PathBuf,
    /// What a checkpoint must agree with to be continued: hashes of start model, judges and prompts.
    pub fingerprint: String,
}

/// A prompt with its ids.
struct Question {
    content: Content,
    ids: Arc<[u32]>,
}

/// A run: the policy, the start model, the judges, the prompts and the counters.
pub struct Improver {
    /// Where its memory goes.
    pub memory: MemoryPlan,
    job: Job,
    settings: Settings,
    judges: Judges,
    wording: Wording,
    train: Vec<Question>,
    held_out: Vec<Question>,
    policy: Decoder,
    writer: Decoder,
    start: Decoder,
    optimizer: PolicyOptimizer,
    gradients: Gradients,
    state: State,
    desk: Desk,
    workspace: Workspace,
}

impl Improver {
    /// Loads the start model and sets a run up in the output directory. `precision` is that of learning: what was asked for,
    /// or the best here.
    ///
    /// # Errors
    /// A model that cannot be read or cannot generate, prompts that it cannot answer, more memory than is allowed.
    pub fn new(job: Job, asked: &Asked, precision: Precision, judges: Judges) -> Result<Self, ImproveError> {
        let prompter = Wording::prompter(&job.start)?;
        let mut policy = Decoder::load_flat(&job.start, DecoderHead::Words)?;
        let wording = Wording::new(prompter, &policy)?;
        let precision = policy.training_precision(precision);
        let settings = asked.settings(precision)?;
        let encode = |prompts: &[Prompt]| prompts.iter().map(|prompt| encoded(&wording, prompt, &job.local)).collect();
        let train: Vec<Question> = Result::from_iter::<Vec<_>>(encode(&job.prompts))?;
        let held_out: Vec<Question> = Result::from_iter::<Vec<_>>(encode(&job.held_out))?;
        if train.is_empty() {
            return Err(ImproveError::NoPrompts { found: "none".into() });
        }
        let longest = train.iter().chain(&held_out).map(|one| &one.ids).max_by_key(|ids| ids.len());
        let longest = Arc::clone(longest.expect("there is a prompt"));
        let capacity = (longest.len() + settings.max_new_tokens).min(policy.config.positions);
        policy.prepare_turns(capacity);
        policy.pack_for_training(precision);
        let mut start = Decoder::load_to_read(&job.start, precision)?;
        start.prepare_turns(capacity);
        let by_layer = memory::fits_one_batch(&policy, &settings, &longest);
        let gradients =
            if by_layer { Gradients::by_layer(policy.parameters()) } else { Gradients::new(policy.parameters()) };
        let optimizer = PolicyOptimizer::new(&policy, precision);
        let held = optimizer.bytes() + 4 * gradients.values().len() as u64;
        let memory = memory::fit(&mut policy, (&start, held), &settings, &longest)?;
        policy.forget();
        let writer = policy.writer(precision)?;
        let run = job.dir.join("run");
        std::fs::create_dir_all(&run).map_err(ImproveError::io(&run))?;
        for directory in [&job.dir, &run] {
            crate::files::remove_leftovers(directory).map_err(ImproveError::io(directory))?;
        }
        Ok(Self {
            memory,
            writer,
            optimizer,
            gradients,
            state: State::default(),
            desk: Desk::default(),
            workspace: Workspace::default(),
            job,
            settings,
            judges,
            wording,
            train,
            held_out,
            policy,
            start,
        })
    }

    /// Continues from the last checkpoint of the output directory; from the start when there is none. Returns the step it
    /// continues after.
    ///
    /// # Errors
    /// When the checkpoint belongs to another run or is damaged.
    pub fn resume(&mut self) -> Result<u64, ImproveError> {
        let path = state::checkpoint(&self.job.dir);
        if path.exists() {
            self.restore()?;
        }
        crate::train::truncate_log(&self.job.dir, self.state.step)?;
        Ok(self.state.step)
    }

    /// Runs to the end, and writes model and report.
    ///
    /// # Errors
    /// [`ImproveError`]; the last checkpoint stays as it was. When `watch` breaks, a checkpoint is written first.
    pub fn run(&mut self, about: &About, watch: &mut Watch) -> Result<Report, ImproveError> {
        let before = self.before(watch)?;
        let stopped = self.steps(watch)?;
        let steps = self.state.step;
        if stopped.is_some() {
            self.go_back()?;
        }
        output::write_model(&self.job.dir, &self.job.start, &self.policy, self.wording.stops())?;
        let after = match self.measure(false, watch)? {
            ControlFlow::Continue(after) => after,
            ControlFlow::Break(()) => return Err(self.interrupted()),
        };
        let seconds = self.state.seconds;
        let done = Done { trained_prompts: self.train.len(), stopped, steps, kept: self.state.step, seconds };
        let prompts: Vec<&Content> = self.held_out.iter().map(|one| &one.content).collect();
        let report = Report::new(about, &self.settings, done, &prompts, [&before, &after]);
        let json = serde_json::to_value(&report).expect("plain data");
        output::write(&self.job.dir, "report.json", &output::pretty(&json))?;
        output::write(&self.job.dir, "README.md", report.page().as_bytes())?;
        Ok(report)
    }

    /// All steps that are left; gives the reason when the policy collapsed.
    fn steps(&mut self, watch: &mut Watch) -> Result<Option<String>, ImproveError> {
        let mut log = crate::train::Log::open(&self.job.dir)?;
        while self.state.step < self.settings.steps {
            let metrics = match self.step(watch)? {
                Outcome::Done(metrics) => metrics,
                Outcome::Collapsed(why) => return Ok(Some(why)),
                Outcome::Stopped => {
                    self.save()?;
                    return Err(self.interrupted());
                }
            };
            log.append(&metrics)?;
            let stop = watch(Event::Step(&metrics)).is_break();
            let every = self.settings.save_every;
            let due = every > 0 && (self.state.step.is_multiple_of(every) || self.state.step == self.settings.steps);
            if stop || due && self.state.is_healthy() {
                log.flush()?;
                self.save()?;
            }
            if stop {
                return Err(self.interrupted());
            }
        }
        Ok(None)
    }

    fn interrupted(&self) -> ImproveError {
        ImproveError::Interrupted { step: self.state.step, dir: self.job.dir.clone() }
    }

    /// The start model's responses to the held-out prompts: measured, or read where an earlier part of the run did.
    fn before(&mut self, watch: &mut Watch) -> Result<Measurement, ImproveError> {
        if let Some(known) = state::read_before(&self.job.dir, &self.identity()) {
            return Ok(known);
        }
        // Of a run that was continued, the policy has moved on.
        let moved =
            (self.state.step > 0).then(|| Decoder::load_flat(&self.job.start, DecoderHead::Words)).transpose()?;
        if let Some(fresh) = &moved {
            self.writer.follow(fresh);
        }
        let measured = self.measure(moved.is_some(), watch)?;
        let ControlFlow::Continue(measured) = measured else { return Err(self.interrupted()) };
        state::write_before(&self.job.dir, &self.identity(), &measured)?;
        let _ = watch(Event::Before(&measured));
        Ok(measured)
    }

    /// Draws and judges responses to the held-out prompts, each time with the same random numbers. `ready` says that the
    /// writer is not to follow the policy.
    fn measure(&mut self, ready: bool, watch: &mut Watch) -> Result<ControlFlow<(), Measurement>, ImproveError> {
        if self.held_out.is_empty() {
            return Ok(ControlFlow::Continue(Measurement::default()));
        }
        self.desk = Desk::default();
        self.policy.forget();
        if !ready {
            self.writer.follow(&self.policy);
        }
        let wanted = Wanted {
            n: self.settings.held_out_samples,
            most: self.settings.max_new_tokens,
            temperature: self.settings.temperature,
            random: Stream::named(self.settings.seed, "held-out responses"),
        };
        let prompts: Vec<Arc<[u32]>> = self.held_out.iter().map(|one| Arc::clone(&one.ids)).collect();
        let sampled = sample(&mut self.writer, &self.wording, &prompts, &wanted, &mut || watch(Event::Drawing))?;
        self.writer.forget();
        let groups = match sampled {
            Sampled::All(groups) => groups,
            Sampled::Stopped => return Ok(ControlFlow::Break(())),
            Sampled::NotFinite => return Err(ImproveError::Prompt("the model's logits are no numbers".into())),
        };
        let contents: Vec<&Content> = self.held_out.iter().map(|one| &one.content).collect();
        let judged = reward::judge(&self.judges.judge, &mut self.workspace, &contents, &groups);
        if let (0, Some(first)) = (judged.all().count(), judged.failure) {
            let responses = groups.iter().map(Vec::len).sum();
            return Err(ImproveError::Unscored { step: self.state.step, responses, first });
        }
        let check = self.judges.check.as_ref();
        let check = check.map(|check| reward::judge(check, &mut self.workspace, &contents, &groups).scores);
        let kl = if ready || self.state.step == 0 { 0.0 } else { self.kl_of(&prompts, &groups) };
        let answer = |prompt: usize, place: usize| {
            let Response { ids, text, cut } = &groups[prompt][place];
            let check = check.as_ref().and_then(|check| check[prompt][place]);
            let reward = judged.scores[prompt][place];
            Answer { text: text.clone(), tokens: ids.len(), cut: *cut, reward, check }
        };
        let answers =
            groups.iter().enumerate().map(|(at, group)| (0..group.len()).map(|place| answer(at, place)).collect());
        Ok(ControlFlow::Continue(Measurement { answers: answers.collect(), kl }))
    }

    /// How far the policy has gone from the start model, on responses that it drew.
    fn kl_of(&mut self, prompts: &[Arc<[u32]>], groups: &[Vec<Response>]) -> f64 {
        let lesson = |prompt: &Arc<[u32]>, one: &Response| Lesson {
            prompt: Arc::clone(prompt),
            response: one.ids.clone(),
            weight: 0.0,
        };
        self.policy.pack_for_training(self.settings.precision);
        let each = prompts.iter().zip(groups);
        let lessons: Vec<Lesson> =
            each.flat_map(|(prompt, group)| group.iter().map(move |one| lesson(prompt, one))).collect();
        let objective = Objective { kl: 0.0, temperature: self.settings.temperature };
        kernels::parallel::inside(|| self.desk.learn([&self.policy, &self.start], &lessons, objective, None)).kl
    }

    /// Goes back to the last checkpoint, or to the start.
    fn go_back(&mut self) -> Result<(), ImproveError> {
        if state::checkpoint(&self.job.dir).exists() {
            return self.restore();
        }
        let fresh = Decoder::load_flat(&self.job.start, DecoderHead::Words)?;
        self.policy.trained_mut().0.values.copy_from_slice(&fresh.parameters().values);
        self.state = State { seconds: self.state.seconds, ..State::default() };
        Ok(())
    }

    fn restore(&mut self) -> Result<(), ImproveError> {
        let (path, identity) = (state::checkpoint(&self.job.dir), self.identity());
        let (parameters, _) = self.policy.trained_mut();
        self.state = state::read(&path, parameters, &mut self.optimizer, &identity)?;
        Ok(())
    }

    fn save(&self) -> Result<(), ImproveError> {
        let path = state::checkpoint(&self.job.dir);
        state::write(&path, self.policy.parameters(), &self.optimizer, &self.state, &self.identity())
    }

    /// What a checkpoint must agree with to be continued.
    fn identity(&self) -> String {
        let mut identity = serde_json::to_value(&self.settings).expect("settings are plain data");
        if let Some(settings) = identity.as_object_mut() {
            settings.remove("memory"); // It changes no number.
            settings.remove("save_every");
        }
        identity["data"] = self.job.fingerprint.as_str().into();
        identity.to_string()
    }

    /// Steps done, those of the run that is continued included.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// The settings of the run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a user should know about the model's tokenizer, one line each.
    pub fn notes(&self) -> &[String] {
        self.wording.notes()
    }

    /// The output directory.
    pub fn dir(&self) -> &Path {
        &self.job.dir
    }
}

fn encoded(wording: &Wording, prompt: &Prompt, local: &LocalSettings) -> Result<Question, ImproveError> {
    let ids = wording.encode(prompt, local).map_err(ImproveError::Prompt)?;
    Ok(Question { content: prompt.content.clone(), ids })
}

/// The time since `from`, which starts anew.
fn lap(from: &mut Instant) -> f64 {
    std::mem::replace(from, Instant::now()).elapsed().as_secs_f64()
}
