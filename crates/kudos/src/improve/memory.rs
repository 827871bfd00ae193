//! How much memory a run takes, and how many layers are computed twice so that it takes no more than was asked for.

use super::learn::{Desk, Lesson};
use super::{ImproveError, Settings};
use crate::models::Decoder;
use crate::nn::Precision;
use crate::train::Bytes;
use std::sync::Arc;

/// Where the memory of a run goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The values that are learnt, and those of them that are packed for products.
    pub weights: u64,
    /// Gradients and moments.
    pub optimizer: u64,
    /// The start model.
    pub start: u64,
    /// The copy that writes: its memory is free while the policy learns, and so is that of what is learnt from while it writes.
    pub writer: u64,
    /// Values and gradients of the largest batch.
    pub activations: u64,
    /// Layers that are computed again on the way back.
    pub recomputed: usize,
}

impl MemoryPlan {
    /// All of it at the most.
    pub fn total(&self) -> u64 {
        self.weights + self.optimizer + self.start + self.activations + self.writer
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { weights, optimizer, start, writer, activations, recomputed } = self;
        let [weights, optimizer, start, writer, activations] =
            [*weights, *optimizer, *start, *writer, *activations].map(Bytes);
        write!(f, "weights {weights}, gradients and moments {optimizer}, start model {start}, ")?;
        write!(f, "copy to write {writer}, activations {activations}; {recomputed} layers are computed again")
    }
}

/// Plans a run whose prompts are these, and lets as few layers be computed again as bring it below the limit.
///
/// # Errors
/// [`ImproveError::Memory`] where all of them do not.
pub(super) fn fit(
    policy: &mut Decoder,
    start: &Decoder,
    settings: &Settings,
    longest: &Arc<[u32]>,
) -> Result<MemoryPlan, ImproveError> {
    let response = vec![0; settings.max_new_tokens.min(policy.config.positions - longest.len())];
    let lesson = Lesson { prompt: Arc::clone(longest), response, weight: 1.0 };
    let lessons = vec![lesson; settings.n];
    let values = policy.parameters().len() as u64;
    let bytes = if settings.precision == Precision::F32 { 4 } else { 2 };
    let fixed = MemoryPlan {
        weights: 4 * values + policy.weights().packed.bytes() as u64,
        optimizer: 3 * 4 * values,
        start: start.weights().packed.bytes() as u64,
        writer: bytes * values,
        ..MemoryPlan::default()
    };
    let mut desk = Desk::default();
    let mut least = None;
    for recomputed in 0..=policy.config.layers {
        policy.recompute(recomputed);
        let plan = MemoryPlan { activations: 4 * desk.needed(policy, &lessons) as u64, recomputed, ..fixed };
        if settings.memory.is_none_or(|limit| plan.total() <= limit) {
            return Ok(plan);
        }
        least = least.filter(|least: &MemoryPlan| least.total() <= plan.total()).or(Some(plan));
    }
    let (limit, plan) = (settings.memory.unwrap_or_default(), least.unwrap_or(fixed));
    Err(ImproveError::Memory { limit: Bytes(limit), needed: Bytes(plan.total()), where_to: plan.to_string() })
}
