//! What was asked for → what will be done. All defaults stand here.

use super::examples::{Example, preferred_pairs};
use super::loss::Loss;
use super::optimizer::LearningRateSchedule;
use super::start::{Opened, open_anew, open_head};
use super::visits::epoch;
use crate::models::adapter::LoraSettings;
use crate::models::{AttributeHead, Model};
use crate::nn::Precision;
use crate::text::Truncation;
use serde::{Deserialize, Serialize};

/// A named set of defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// Whole groups, centring, warm-up, the checkpoint with the lowest held-out loss.
    #[default]
    Default,
    /// TRL's RewardTrainer, step by step.
    Trl,
}

/// What a user may ask for; `None` is "as the recipe has it".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[allow(missing_docs)] // Each is the flag of the same name, documented there.
pub struct Asked {
    pub recipe: Option<Recipe>,
    pub loss: Option<Loss>,
    pub max_steps: Option<u64>,
    pub epochs: Option<f64>,
    pub batch_size: Option<usize>,
    pub accumulate: Option<usize>,
    pub group_size: Option<usize>,
    pub learning_rate: Option<f64>,
    pub layer_decay: Option<f64>,
    pub keep_layers: Option<usize>,
    pub renew_layers: Option<usize>,
    pub freeze: Option<usize>,
    pub memory: Option<u64>,
    pub schedule: Option<LearningRateSchedule>,
    pub warmup_steps: Option<u64>,
    pub weight_decay: Option<f32>,
    pub max_grad_norm: Option<f64>,
    pub center_coefficient: Option<f64>,
    pub max_length: Option<usize>,
    pub truncation: Option<Truncation>,
    pub precision: Option<Precision>,
    pub seed: Option<u64>,
    pub no_shuffle: Option<bool>,
    pub eval_fraction: Option<f64>,
    pub eval_every: Option<u64>,
    pub early_stop: Option<u64>,
    pub save_every: Option<u64>,
    pub head_first: Option<bool>,
    /// The rank.
    pub lora: Option<usize>,
    pub lora_alpha: Option<f64>,
    pub lora_dropout: Option<f32>,
    pub lora_targets: Vec<String>,
    pub rslora: bool,
}

/// What will be done. Written to `training_args.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where the defaults came from.
    pub recipe: Recipe,
    /// What is minimised.
    pub loss: Loss,
    /// Optimizer steps of the run.
    pub max_steps: u64,
    /// Groups a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// Most responses of one visit to a group.
    pub group_size: usize,
    /// Peak learning rate, of the head.
    pub learning_rate: f64,
    /// Factor on the learning rate from each layer to the one below (Howard and Ruder 2018); 1 is off.
    pub layer_decay: f64,
    /// Lower layers of the base that a last layer that starts as the mean of all tokens stands above; half of them if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_layers: Option<usize>,
    /// Last layers of the base that start anew.
    pub renew_layers: usize,
    /// Top layers that are trained, with the head; all of the model if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<usize>,
    /// Bytes that the run may take; layers are computed again on the way back as far as that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Its course.
    pub schedule: LearningRateSchedule,
    /// Steps to reach it.
    pub warmup_steps: u64,
    /// Decoupled weight decay, on weights that are no biases or norms.
    pub weight_decay: f32,
    /// Gradients are scaled down to this norm; 0 is off.
    pub max_grad_norm: f64,
    /// Weight of the centring term.
    pub center_coefficient: f64,
    /// Arithmetic.
    pub precision: Precision,
    /// Seed of the head, the order and the split.
    pub seed: u64,
    /// Whether the order is random.
    pub shuffle: bool,
    /// Share of the prompts held out when no file is given for it.
    pub eval_fraction: f64,
    /// Steps between evaluations; 0 is never.
    pub eval_every: u64,
    /// Evaluations without improvement before the run stops; 0 is never.
    pub early_stop: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Whether the judge is the best evaluated checkpoint, not the last one.
    pub keep_best: bool,
    /// Whether the head is fitted on frozen features first.
    pub head_first: bool,
    /// Whether the head, if it is kept, is fitted again to all prompts once the held-out ones have decided that.
    #[serde(default)]
    pub refit_head: bool,
    /// Whether the base came without a head.
    pub new_head: bool,
    /// Whether that replaces a head over all layers because it predicts the examples better over the lower ones.
    #[serde(default)]
    pub reopened: bool,
    /// The attributes that are learnt, one output each; without them, one score from the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<AttributeHead>,
    /// The adapters that are trained instead of the base's own weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
}

impl Settings {
    /// Opens a new head as the default recipe does ([`open_head`]; where the pooler was trained only if that was chosen or
    /// asked for). Half of the layers is what a frozen head was best on; a run that only fine-tunes has all of them.
    pub fn open_head(&self, model: &mut Model) -> Opened {
        // An adapter is one of the base as it is.
        if !self.new_head || self.recipe != Recipe::Default || self.lora.is_some() {
            return Opened::Nothing;
        }
        let keep = self.keep_layers.or((!self.head_first).then_some(usize::MAX));
        match self.reopened || self.keep_layers.is_some() {
            true => open_anew(model, keep),
            false => open_head(model, keep),
        }
    }
}

/// How much data there is to train on.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Groups an epoch visits.
    pub visits: usize,
    /// Responses these encode.
    pub responses: usize,
    /// Pairs with a preferred side.
    pub pairs: usize,
    /// What it is measured with.
    pub held_out: HeldOutData,
    /// What the run starts from.
    pub start: Start,
}

/// Where held-out data come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOutData {
    /// There are none.
    None,
    /// Prompts of the training data: what nobody asked to keep apart for good.
    Drawn,
    /// Files of their own.
    Given,
}

/// What a run starts from, as far as the recipe depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Whether the base came without a head, or with one that is replaced.
    pub new_head: bool,
    /// Whether it is replaced by one over the base's lower layers because that predicts the examples better ([`compare_starts`](super::compare_starts)).
    pub reopened: bool,
    /// Width of the base's layers.
    pub width: usize,
}

impl Extent {
    /// Of these examples, visited in parts of at most `group_size` responses.
    pub fn of(examples: &[Example], group_size: usize, held_out: HeldOutData, start: Start) -> Self {
        let visits = epoch(examples, group_size, false, 0, 0);
        let responses = visits.iter().map(|visit| visit.members.len()).sum();
        Self { visits: visits.len(), responses, pairs: preferred_pairs(examples), held_out, start }
    }

    /// Groups that have about four responses: one of four or more, two pairs.
    fn groups_a_step(&self) -> usize {
        let mean = self.responses as f64 / self.visits.max(1) as f64;
        ((STEP_RESPONSES / mean.max(1.0)).round() as usize).max(1)
    }

    /// A new head and a narrow base need larger steps: at 5e-5 sixty steps over MiniLM learnt nothing from
    /// rankings that 120 of half the responses begin to learn at 1e-4 (docs/recipe.md). A judge that is trained on has less to learn and more to lose.
    fn learning_rate(&self, trl: bool) -> f64 {
        let narrow =
            if self.start.new_head && !trl { (WIDTH / self.start.width.max(1) as f64).clamp(1.0, 2.0) } else { 1.0 };
        LEARNING_RATE * narrow
    }
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("--{flag} is {found}, expected {expected}")]
pub struct SettingsError {
    flag: &'static str,
    found: String,
    expected: &'static str,
}

/// Fewest steps of the default recipe: with tens of rankings, three epochs would be a handful.
const FEWEST_STEPS: u64 = 200;
/// Peak learning rate: of TRL's recipe, of a judge that is trained on, and of a new head from DistilBERT's width on.
const LEARNING_RATE: f64 = 5e-5;
/// Of adapters, whose B starts at 0.
const LORA_LEARNING_RATE: f64 = 2e-4;
/// The largest rank of an adapter.
const MOST_RANK: usize = 4096;
/// All linear layers, as PEFT says it.
const ALL_LINEAR: &str = "all-linear";
/// The width for which [`LEARNING_RATE`] is meant. A new head on a narrower base takes more: at its half, twice as much.
const WIDTH: f64 = 768.0;
const EPOCHS: f64 = 3.0;
/// Evaluations of a run, unless an epoch would have more than [`EVALUATIONS_AN_EPOCH`]: these read a fifth of the data each, and
/// reading costs a third of training.
const EVALUATIONS: u64 = 10;
const EVALUATIONS_AN_EPOCH: u64 = 3;
/// Pairs a batch of TRL's recipe.
const TRL_BATCH: usize = 4;
/// Responses a step of the default recipe, about. More would be fewer steps of the same texts (docs/recipe.md).
const STEP_RESPONSES: f64 = 4.0;
/// Below this many pairs the default recipe fits the head on frozen features first. Up to 5,833 pairs, the most that was tried, the head could
/// not be told from fine-tuning by accuracy (docs/recipe.md); beyond, this is a guess. All features are in memory.
const FEW_PAIRS: usize = 20_000;

impl Asked {
    /// Share of the prompts to hold out when no evaluation file is given.
    pub fn eval_fraction_or_default(&self) -> f64 {
        let trl = self.recipe == Some(Recipe::Trl);
        self.eval_fraction.unwrap_or(if trl { 0.0 } else { 0.2 })
    }

    /// Most responses of one visit to a group.
    pub fn group_size_or_default(&self) -> usize {
        self.group_size.unwrap_or(8).max(2)
    }

    /// Checks every value and fills in the recipe's.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn decide(&self, extent: Extent) -> Result<Settings, SettingsError> {
        self.check()?;
        let recipe = self.recipe.unwrap_or_default();
        let trl = recipe == Recipe::Trl;
        let batch_size = self.batch_size.unwrap_or_else(|| if trl { TRL_BATCH } else { extent.groups_a_step() });
        let accumulate = self.accumulate.unwrap_or(1);
        let an_epoch = extent.visits.div_ceil(batch_size * accumulate) as u64;
        let max_steps = self.max_steps.unwrap_or_else(|| self.steps(an_epoch, trl));
        let a_third = an_epoch.div_ceil(EVALUATIONS_AN_EPOCH);
        let eval_every = self.eval_every.unwrap_or_else(|| max_steps.div_ceil(EVALUATIONS).max(a_third));
        let measured = extent.held_out != HeldOutData::None;
        self.check_early_stop(measured)?;
        let head_first = self.head_first.unwrap_or(!trl && extent.pairs < FEW_PAIRS);
        Ok(Settings {
            recipe,
            loss: self.loss.unwrap_or(Loss::BradleyTerry),
            max_steps,
            batch_size,
            accumulate,
            group_size: self.group_size_or_default(),
            learning_rate: self.learning_rate.unwrap_or_else(|| self.usual_rate(&extent, trl)),
            layer_decay: self.layer_decay.unwrap_or(1.0),
            keep_layers: self.keep_layers,
            renew_layers: self.renew_layers.unwrap_or(0),
            freeze: self.freeze,
            memory: self.memory,
            schedule: self.schedule.unwrap_or(LearningRateSchedule::Linear),
            warmup_steps: self.warmup_steps.unwrap_or(if trl { 0 } else { max_steps / 10 }),
            weight_decay: self.weight_decay.unwrap_or(0.0),
            max_grad_norm: self.max_grad_norm.unwrap_or(1.0),
            center_coefficient: self.center_coefficient.unwrap_or(if trl { 0.0 } else { 0.01 }),
            precision: self.precision.unwrap_or_else(Precision::best),
            seed: self.seed.unwrap_or(42),
            shuffle: !self.no_shuffle.unwrap_or(false),
            eval_fraction: self.eval_fraction_or_default(),
            eval_every: if measured { eval_every } else { 0 },
            early_stop: self.early_stop.unwrap_or(0),
            save_every: self.save_every.unwrap_or(100),
            keep_best: measured && !trl,
            head_first,
            refit_head: head_first && !trl && extent.held_out == HeldOutData::Drawn,
            new_head: extent.start.new_head,
            reopened: extent.start.reopened,
            attributes: None,
            lora: self.lora_settings(),
        })
    }

    fn usual_rate(&self, extent: &Extent, trl: bool) -> f64 {
        if self.lora.is_some() { LORA_LEARNING_RATE } else { extent.learning_rate(trl) }
    }

    /// The adapters that are asked for.
    pub fn lora_settings(&self) -> Option<LoraSettings> {
        let all = |targets: &[String]| targets.iter().any(|target| target == ALL_LINEAR);
        self.lora.map(|rank| LoraSettings {
            rank,
            alpha: self.lora_alpha.unwrap_or(2.0 * rank as f64),
            dropout: self.lora_dropout.unwrap_or(0.0),
            rslora: self.rslora,
            targets: if all(&self.lora_targets) { Vec::new() } else { self.lora_targets.clone() },
            top: self.freeze,
        })
    }

    fn check_lora(&self) -> Result<(), SettingsError> {
        let bad = |flag, found: String, expected| Err(SettingsError { flag, found, expected });
        let alone = [
            ("lora-alpha", self.lora_alpha.map(|alpha| alpha.to_string())),
            ("lora-dropout", self.lora_dropout.map(|dropout| dropout.to_string())),
            ("lora-targets", (!self.lora_targets.is_empty()).then(|| self.lora_targets.join(","))),
            ("rslora", self.rslora.then(|| "set".into())),
        ];
        let Some(rank) = self.lora else {
            return match alone.into_iter().find_map(|(flag, found)| found.map(|found| (flag, found))) {
                Some((flag, found)) => bad(flag, found, "--lora beside it"),
                None => Ok(()),
            };
        };
        if !(1..=MOST_RANK).contains(&rank) {
            return bad("lora", rank.to_string(), "a rank from 1 to 4096");
        }
        if let Some(alpha) = self.lora_alpha.filter(|alpha| !(*alpha > 0.0 && *alpha < 1e6)) {
            return bad("lora-alpha", alpha.to_string(), "a positive number");
        }
        if let Some(dropout) = self.lora_dropout.filter(|dropout| !(0.0..0.95).contains(dropout)) {
            return bad("lora-dropout", dropout.to_string(), "from 0 to below 0.95");
        }
        match self.renew_layers.filter(|layers| *layers > 0) {
            Some(layers) => {
                bad("renew-layers", layers.to_string(), "none beside --lora: an adapter keeps no whole layers")
            }
            None => Ok(()),
        }
    }

    /// The held-out loss decides when to stop early, so there must be one.
    fn check_early_stop(&self, measured: bool) -> Result<(), SettingsError> {
        let Some(evaluations) = self.early_stop.filter(|n| *n > 0) else { return Ok(()) };
        let expected = match (measured, self.eval_every) {
            (false, _) => "held-out data to decide by: --eval DATA or an --eval-fraction above 0",
            (true, Some(0)) => "evaluations to decide by: an --eval-every above 0",
            (true, _) => return Ok(()),
        };
        Err(SettingsError { flag: "early-stop", found: evaluations.to_string(), expected })
    }

    fn steps(&self, an_epoch: u64, trl: bool) -> u64 {
        let steps = (self.epochs.unwrap_or(EPOCHS) * an_epoch as f64).ceil() as u64;
        if trl || self.epochs.is_some() { steps.max(1) } else { steps.max(FEWEST_STEPS) }
    }

    /// Checks every value by itself, before any data are read.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        let bad = |flag, found: String, expected| Err(SettingsError { flag, found, expected });
        let sizes = [("batch-size", self.batch_size), ("accumulate", self.accumulate), ("max-length", self.max_length)];
        for (flag, value) in sizes {
            if value == Some(0) {
                return bad(flag, "0".into(), "1 or more");
            }
        }
        if let Some(size) = self.group_size.filter(|size| *size < 2) {
            return bad("group-size", size.to_string(), "2 or more");
        }
        if self.save_every == Some(0) {
            return bad("save-every", "0".into(), "1 or more");
        }
        let positive = [
            ("learning-rate", self.learning_rate, 10.0, "a number above 0, at most 10"),
            ("epochs", self.epochs, 1e6, "a number above 0, at most 1,000,000"),
        ];
        for (flag, value, limit, expected) in positive {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && *v <= limit)) {
                return bad(flag, value.to_string(), expected);
            }
        }
        let decay = self.weight_decay.map(f64::from);
        let not_negative = [
            ("weight-decay", decay),
            ("max-grad-norm", self.max_grad_norm),
            ("center-coefficient", self.center_coefficient),
        ];
        for (flag, value) in not_negative {
            if let Some(value) = value.filter(|v| !(*v >= 0.0 && v.is_finite())) {
                return bad(flag, value.to_string(), "0 or a positive number");
            }
        }
        if self.precision == Some(Precision::Int8) && self.lora.is_none() {
            return bad(
                "precision",
                "int8".into(),
                "bf16 or f32; int8 is for scoring (`kudos quantize`) and for --lora",
            );
        }
        self.check_lora()?;
        if let Some(decay) = self.layer_decay.filter(|d| !(*d > 0.0 && *d <= 1.0)) {
            return bad("layer-decay", decay.to_string(), "above 0 and at most 1");
        }
        match self.eval_fraction.filter(|f| !(0.0..=0.9).contains(f)) {
            Some(fraction) => bad("eval-fraction", fraction.to_string(), "from 0 to 0.9"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start = Start { new_head: true, reopened: false, width: 768 };

    fn extent(visits: usize) -> Extent {
        Extent { visits, responses: 4 * visits, pairs: 6 * visits, held_out: HeldOutData::Drawn, start: START }
    }

    #[test]
    fn recipes_differ_where_they_should() {
        let decide = |recipe| Asked { recipe: Some(recipe), ..Asked::default() }.decide(extent(40)).unwrap();
        let (default, trl) = (decide(Recipe::Default), decide(Recipe::Trl));
        assert_eq!((default.max_steps, trl.max_steps), (200, 30));
        assert_eq!((default.batch_size, trl.batch_size), (1, 4));
        assert_eq!((default.warmup_steps, trl.warmup_steps), (20, 0));
        assert_eq!((default.center_coefficient, trl.center_coefficient), (0.01, 0.0));
        assert!(default.keep_best && !trl.keep_best);
        assert_eq!((default.learning_rate, trl.learning_rate, default.seed), (5e-5, 5e-5, 42));
    }

    #[test]
    fn a_head_sees_all_prompts_unless_some_were_kept_apart() {
        let refits = |held_out, asked: Asked| asked.decide(Extent { held_out, ..extent(40) }).unwrap().refit_head;
        let found =
            [HeldOutData::None, HeldOutData::Drawn, HeldOutData::Given].map(|from| refits(from, Asked::default()));
        assert_eq!(found, [false, true, false]);
        assert!(!refits(HeldOutData::Drawn, Asked { head_first: Some(false), ..Asked::default() }));
        assert!(!refits(HeldOutData::Drawn, Asked { recipe: Some(Recipe::Trl), ..Asked::default() }));
    }

    #[test]
    fn a_step_has_about_four_responses() {
        let batch = |responses| {
            let extent = Extent { responses, ..extent(100) };
            Asked::default().decide(extent).unwrap().batch_size
        };
        assert_eq!([200, 300, 400, 533, 800].map(batch), [2, 1, 1, 1, 1]);
        assert_eq!(Extent::of(&[], 8, HeldOutData::None, START).groups_a_step(), 4);
    }

    #[test]
    fn an_epoch_is_evaluated_three_times_and_a_run_ten() {
        let every = |epochs| Asked { epochs: Some(epochs), ..Asked::default() }.decide(extent(300)).unwrap().eval_every;
        assert_eq!([0.1, 1.0, 3.0, 10.0].map(every), [100, 100, 100, 300]);
    }

    #[test]
    fn a_new_head_on_a_narrow_base_takes_larger_steps() {
        let rate = |new_head, width, recipe| {
            let extent = Extent { start: Start { new_head, reopened: false, width }, ..extent(100) };
            Asked { recipe, ..Asked::default() }.decide(extent).unwrap().learning_rate
        };
        for (width, expected) in [(32, 1e-4), (384, 1e-4), (512, 7.5e-5), (768, 5e-5), (1024, 5e-5)] {
            assert!((rate(true, width, None) - expected).abs() < 1e-12, "{width}");
        }
        assert_eq!(rate(false, 384, None), 5e-5);
        assert_eq!(rate(true, 384, Some(Recipe::Trl)), 5e-5);
    }

    #[test]
    fn c5_an_early_stop_needs_something_to_decide_by() {
        for recipe in [Recipe::Default, Recipe::Trl] {
            let decide = |held_out, eval_every| {
                let asked = Asked { recipe: Some(recipe), early_stop: Some(2), eval_every, ..Asked::default() };
                asked.decide(Extent { held_out, ..extent(40) }).map(|s| s.early_stop).map_err(|e| e.to_string())
            };
            assert_eq!(decide(HeldOutData::Given, None), Ok(2), "{recipe:?}");
            let message = decide(HeldOutData::None, None).unwrap_err();
            assert!(message.starts_with("--early-stop is 2, expected held-out data"), "{message}");
            assert!(decide(HeldOutData::Drawn, Some(0)).unwrap_err().contains("--eval-every above 0"));
        }
    }

    #[test]
    fn nonsense_is_refused_by_flag() {
        let cases = [
            (Asked { batch_size: Some(0), ..Asked::default() }, "--batch-size is 0, expected 1 or more"),
            (Asked { group_size: Some(1), ..Asked::default() }, "--group-size is 1, expected 2 or more"),
            (
                Asked { learning_rate: Some(f64::NAN), ..Asked::default() },
                "--learning-rate is NaN, expected a number above 0",
            ),
            (Asked { epochs: Some(-1.0), ..Asked::default() }, "--epochs is -1, expected"),
            (Asked { weight_decay: Some(-0.1), ..Asked::default() }, "--weight-decay"),
            (Asked { eval_fraction: Some(1.0), ..Asked::default() }, "--eval-fraction is 1, expected from 0 to 0.9"),
            (
                Asked { precision: Some(Precision::Int8), ..Asked::default() },
                "--precision is int8, expected bf16 or f32",
            ),
        ];
        for (asked, expected) in cases {
            let message = asked.decide(extent(10)).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
