//! Optimizer state and the learning-rate schedule.

use crate::nn::Parameters;
use kernels::optimizer::{AdamW, Tensor, adamw};

/// AdamW's moments over the flat parameter buffer.
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
}

impl Optimizer {
    /// β₁ of PyTorch and TRL.
    pub const BETA1: f32 = 0.9;
    /// β₂ of PyTorch and TRL.
    pub const BETA2: f32 = 0.999;
    /// ε of PyTorch and TRL.
    pub const EPSILON: f32 = 1e-8;

    /// Fresh state for `len` parameters.
    pub fn new(len: usize, weight_decay: f32) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len], step: 0, weight_decay }
    }

    /// One step of bias-corrected AdamW on every tensor, gradients scaled by `gradient_scale`.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &[f32], learning_rate: f32, gradient_scale: f32) {
        self.step += 1;
        let mut values = std::mem::take(&mut parameters.values);
        for spec in parameters.specs() {
            let range = spec.span.range();
            let update = self.update(spec.decay, learning_rate, gradient_scale);
            let tensor = Tensor {
                values: &mut values[range.clone()],
                first: &mut self.first[range.clone()],
                second: &mut self.second[range.clone()],
                gradient: &gradients[range],
            };
            adamw(tensor, update);
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
pub enum Schedule {
    /// Straight down to 0 at the last step.
    Linear,
    /// Half a cosine down to 0.
    Cosine,
    /// Constant after the warm-up.
    Constant,
}

impl Schedule {
    /// Factor on the peak rate for the step after `done` steps (transformers' `get_*_schedule_with_warmup`).
    pub fn factor(self, done: u64, warmup: u64, total: u64) -> f64 {
        if done < warmup {
            return done as f64 / warmup.max(1) as f64;
        }
        let progress = (done - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Schedule::Linear => (1.0 - progress).max(0.0),
            Schedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())).max(0.0),
            Schedule::Constant => 1.0,
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
            (Schedule::Linear, [0.0, 0.5, 1.0, 0.875, 0.125]),
            (Schedule::Cosine, [0.0, 0.5, 1.0, 0.961_939_766_255_643_4, 0.038_060_233_744_356_63]),
            (Schedule::Constant, [0.0, 0.5, 1.0, 1.0, 1.0]),
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
