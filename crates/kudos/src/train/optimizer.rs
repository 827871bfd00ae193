//! Optimizer state and the learning-rate schedule.

use crate::nn::{Gradients, Packed, Parameters, Role, Trained};
use kernels::memory::touched;
use kernels::optimizer::{AdamW, Tensor, adamw, adamw_rows};

/// AdamW's moments, as long as what is trained.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Steps done.
    pub step: u64,
    /// Decoupled weight decay of the parameters it applies to.
    pub weight_decay: f32,
    /// Factor on the learning rate of each tensor, in declaration order.
    rates: Vec<f32>,
    trained: Trained,
    live: LiveRows,
}

/// Rows of the table of words that ever had a gradient. The moments of the others are zero, so a step
/// leaves them as they are, but for weight decay.
#[derive(Clone, Debug, Default)]
struct LiveRows {
    lives: Vec<bool>,
}

impl LiveRows {
    /// Adds rows of a table that has `total`.
    fn add(&mut self, rows: &[u32], total: usize) {
        self.lives.resize(total, false);
        for row in rows {
            self.lives[*row as usize] = true;
        }
    }
}

impl Optimizer {
    /// β₁ of PyTorch and TRL.
    pub const BETA1: f32 = 0.9;
    /// β₂ of PyTorch and TRL.
    pub const BETA2: f32 = 0.999;
    /// ε of PyTorch and TRL.
    pub const EPSILON: f32 = 1e-8;

    /// Fresh state for these parameters.
    pub fn new(parameters: &Parameters, weight_decay: f32) -> Self {
        let trained = parameters.trained();
        let (first, second) = (touched(trained.len()), touched(trained.len()));
        let rates = vec![1.0; parameters.specs().len()];
        Self { first, second, step: 0, weight_decay, rates, trained, live: LiveRows::default() }
    }

    /// The same, with each tensor's learning rate multiplied by a factor of its role.
    pub fn with_rates(mut self, parameters: &Parameters, rate: impl Fn(Role) -> f32) -> Self {
        self.rates = parameters.specs().iter().map(|spec| rate(spec.role)).collect();
        self
    }

    /// Brings the state in order after the moments were read from a checkpoint.
    pub(super) fn restored(&mut self, parameters: &Parameters, step: u64) {
        self.step = step;
        self.live = LiveRows::default();
        let Some(spec) = parameters.specs().iter().find(|spec| spec.sparse) else { return };
        let Some(place) = self.trained.place(spec.span) else { return };
        let range = place.range();
        let rows = self.first[range.clone()].chunks(spec.shape[1]).zip(self.second[range].chunks(spec.shape[1]));
        let lives = |(first, second): (&[f32], &[f32])| first.iter().chain(second).any(|v| *v != 0.0);
        let live: Vec<u32> = (0u32..).zip(rows).filter(|(_, row)| lives(*row)).map(|(i, _)| i).collect();
        self.live.add(&live, spec.shape[0]);
    }

    /// One step of bias-corrected AdamW on every tensor that is trained, gradients scaled by `gradient_scale`; the packed weights
    /// follow while they are in the cache.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        packed: &mut Packed,
        gradients: &Gradients,
        learning_rate: f32,
        gradient_scale: f32,
    ) {
        self.step += 1;
        let mut values = std::mem::take(&mut parameters.values);
        for (index, spec) in parameters.specs().iter().enumerate() {
            let Some(place) = self.trained.place(spec.span) else { continue };
            let (range, own) = (spec.span.range(), place.range());
            let update = self.update(spec.decay, learning_rate * self.rates[index], gradient_scale);
            let tensor = Tensor {
                values: &mut values[range.clone()],
                first: &mut self.first[own.clone()],
                second: &mut self.second[own.clone()],
                gradient: &gradients.values()[own],
            };
            match spec.sparse {
                false => adamw(tensor, update),
                true => {
                    self.live.add(gradients.touched(), spec.shape[0]);
                    adamw_rows(tensor, update, spec.shape[1], &self.live.lives);
                }
            }
            packed.refresh_within(&values, range);
        }
        parameters.values = values;
    }

    fn update(&self, decay: bool, learning_rate: f32, gradient_scale: f32) -> AdamW {
        AdamW {
            learning_rate,
            beta1: Self::BETA1,
            beta2: Self::BETA2,
            epsilon: Self::EPSILON,
            weight_decay: if decay { self.weight_decay } else { 0.0 },
            gradient_scale,
            step: self.step,
        }
    }
}

/// Factor on every gradient that brings a norm down to `limit` (`torch.nn.utils.clip_grad_norm_`); 0 means no clip.
pub fn clip_scale(norm: f64, limit: f64) -> f32 {
    if limit <= 0.0 { 1.0 } else { (limit / (norm + 1e-6)).min(1.0) as f32 }
}

/// How the learning rate moves over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearningRateSchedule {
    /// Straight down to 0 at the last step.
    Linear,
    /// Half a cosine down to 0.
    Cosine,
    /// Constant after the warm-up.
    Constant,
}

impl LearningRateSchedule {
    /// Factor on the peak rate for the step after `done` steps (transformers' `get_*_schedule_with_warmup`).
    pub fn factor(self, done: u64, warmup: u64, total: u64) -> f64 {
        if done < warmup {
            return done as f64 / warmup.max(1) as f64;
        }
        let progress = (done - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            LearningRateSchedule::Linear => (1.0 - progress).max(0.0),
            LearningRateSchedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())).max(0.0),
            LearningRateSchedule::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers.get_linear_schedule_with_warmup(2, 10) and get_cosine_schedule_with_warmup(2, 10).
    #[test]
    fn factors_are_transformers() {
        let cases = [
            (LearningRateSchedule::Linear, [0.0, 0.5, 1.0, 0.875, 0.125]),
            (LearningRateSchedule::Cosine, [0.0, 0.5, 1.0, 0.961_939_766_255_643_4, 0.038_060_233_744_356_63]),
            (LearningRateSchedule::Constant, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ];
        for (schedule, expected) in cases {
            for (done, expected) in [0, 1, 2, 3, 9].into_iter().zip(expected) {
                let factor = schedule.factor(done, 2, 10);
                assert!((factor - expected).abs() < 1e-12, "{schedule:?} after {done}: {factor}");
            }
        }
    }

    #[test]
    fn the_clip_is_torchs() {
        assert_eq!((clip_scale(0.5, 1.0), clip_scale(123.0, 0.0)), (1.0, 1.0));
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
