//! What was asked for → what will be done. All defaults stand here.

use super::ImproveError;
use crate::nn::Precision;
use crate::train::LearningRateSchedule;
use serde::{Deserialize, Serialize};

/// What a step learns from the judged responses to a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each response, weighted by (score − mean of the group) / standard deviation of the group: REINFORCE against the
    /// group's mean (Ahmadian et al. 2024; GRPO of Shao et al. 2024 with one update a batch).
    #[default]
    Rloo,
    /// The best response alone (RAFT, Dong et al. 2023).
    BestOfN,
}

/// What a user may ask for; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // Each is the flag of the same name, documented there.
pub struct Asked {
    pub algorithm: Algorithm,
    pub steps: Option<u64>,
    pub n: Option<usize>,
    pub batch_size: Option<usize>,
    pub learning_rate: Option<f64>,
    pub schedule: Option<LearningRateSchedule>,
    pub kl: Option<f64>,
    pub max_kl: Option<f64>,
    pub max_new_tokens: Option<usize>,
    pub temperature: Option<f32>,
    pub seed: Option<u64>,
    pub held_out_samples: Option<usize>,
    pub save_every: Option<u64>,
    pub memory: Option<u64>,
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is learnt.
    pub algorithm: Algorithm,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Responses to each prompt of a step.
    pub n: usize,
    /// Prompts a step.
    pub batch_size: usize,
    /// Learning rate of the first step.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: LearningRateSchedule,
    /// Weight of the KL divergence from the start model in the loss.
    pub kl: f64,
    /// KL divergence a token at which the run stops.
    pub max_kl: f64,
    /// Most tokens of a response.
    pub max_new_tokens: usize,
    /// At which responses are drawn, and their likelihood is computed.
    pub temperature: f32,
    /// Seed of all random choices.
    pub seed: u64,
    /// Responses to each held-out prompt, before and after.
    pub held_out_samples: usize,
    /// Steps between checkpoints; 0 writes none.
    pub save_every: u64,
    /// Bytes that the run may take.
    pub memory: Option<u64>,
    /// The arithmetic of learning.
    pub precision: Precision,
}

impl Asked {
    /// The settings of a run in this precision.
    ///
    /// # Errors
    /// [`ImproveError::Setting`] for what makes no sense.
    pub fn settings(&self, precision: Precision) -> Result<Settings, ImproveError> {
        let settings = Settings {
            algorithm: self.algorithm,
            steps: self.steps.unwrap_or(50),
            n: self.n.unwrap_or(8),
            batch_size: self.batch_size.unwrap_or(1),
            learning_rate: self.learning_rate.unwrap_or(match self.algorithm {
                Algorithm::Rloo => 2e-5,
                Algorithm::BestOfN => 1e-4,
            }),
            schedule: self.schedule.unwrap_or(LearningRateSchedule::Linear),
            kl: self.kl.unwrap_or(0.0),
            max_kl: self.max_kl.unwrap_or(1.0),
            max_new_tokens: self.max_new_tokens.unwrap_or(64),
            temperature: self.temperature.unwrap_or(1.0),
            seed: self.seed.unwrap_or(42),
            held_out_samples: self.held_out_samples.unwrap_or(4),
            save_every: self.save_every.unwrap_or(25),
            memory: self.memory,
            precision,
        };
        settings.check().map(|()| settings)
    }
}

impl Settings {
    fn check(&self) -> Result<(), ImproveError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let from_zero = |value: f64| value.is_finite() && value >= 0.0;
        let fewest = if self.algorithm == Algorithm::Rloo { 2 } else { 1 };
        let checks = [
            (
                "-n",
                self.n >= fewest,
                format!("{fewest} responses or more, whose scores are compared"),
                self.n.to_string(),
            ),
            ("--steps", self.steps > 0, "1 or more".into(), self.steps.to_string()),
            ("--batch-size", self.batch_size > 0, "1 prompt or more".into(), self.batch_size.to_string()),
            (
                "--learning-rate",
                positive(self.learning_rate),
                "a number above 0".into(),
                self.learning_rate.to_string(),
            ),
            ("--kl", from_zero(self.kl), "a number from 0".into(), self.kl.to_string()),
            ("--max-kl", positive(self.max_kl), "a number above 0".into(), self.max_kl.to_string()),
            ("--max-new-tokens", self.max_new_tokens > 0, "1 or more".into(), self.max_new_tokens.to_string()),
            (
                "--temperature",
                positive(self.temperature.into()),
                "a number above 0: at 0 all responses to a prompt are equal".into(),
                self.temperature.to_string(),
            ),
            ("--held-out-samples", self.held_out_samples > 0, "1 or more".into(), self.held_out_samples.to_string()),
        ];
        match checks.into_iter().find(|(_, fits, ..)| !fits) {
            None => Ok(()),
            Some((flag, _, expected, found)) => Err(ImproveError::Setting { flag, expected, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_its_flag() {
        let refused = |asked: Asked| asked.settings(Precision::F32).unwrap_err().to_string();
        let one = refused(Asked { n: Some(1), ..Asked::default() });
        assert!(one.starts_with("-n 1: expected 2 responses or more"), "{one}");
        assert!(refused(Asked { temperature: Some(0.0), ..Asked::default() }).starts_with("--temperature 0: "));
        assert!(refused(Asked { kl: Some(f64::NAN), ..Asked::default() }).starts_with("--kl NaN: "));
        let best = Asked { n: Some(1), algorithm: Algorithm::BestOfN, ..Asked::default() };
        assert_eq!(best.settings(Precision::F32).unwrap().learning_rate, 1e-4, "one response is its own best");
    }
}
