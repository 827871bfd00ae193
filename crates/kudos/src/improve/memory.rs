//! How much memory a run takes, and how many layers are computed twice so that it takes no more than was asked for.

use super::learn::{Desk, Lesson, PACKED_TOKENS};
use super::{ImproveError, Settings};
use crate::models::Decoder;
use crate::nn::Precision;
use crate::train::Bytes;
use std::sync::Arc;

/// Where the memory of a run goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The values that are learnt.
    pub weights: u64,
    /// Gradients and moments.
    pub optimizer: u64,
    /// The start model.
    pub start: u64,
    /// The copy that writes.
    pub writer: u64,
    /// What learning needs instead of that copy: packed weights, and values and gradients of the largest batch.
    pub learning: u64,
    /// Layers that are computed again on the way back.
    pub recomputed: usize,
}

impl MemoryPlan {
    /// All of it at the most.
    pub fn total(&self) -> u64 {
        self.weights + self.optimizer + self.start + self.learning.max(self.writer)
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { weights, optimizer, start, writer, learning, recomputed } = self;
        let [weights, optimizer, start, writer, learning] =
            [*weights, *optimizer, *start, *writer, *learning].map(Bytes);
        write!(f, "weights {weights}, gradients and moments {optimizer}, start model {start}, ")?;
        write!(f, "to write {writer} or to learn {learning}; {recomputed} layers are computed again")
    }
}

/// Activations that a small model may have without a limit.
const SMALL: u64 = 64 << 20;

/// The largest step that a run can have.
fn largest_step(policy: &Decoder, settings: &Settings, longest: &Arc<[u32]>) -> Vec<Lesson> {
    let response = vec![0; settings.max_new_tokens.min(policy.config.positions - longest.len())];
    let group = |_| {
        let prompt: Arc<[u32]> = longest.to_vec().into();
        let lesson = Lesson { prompt, response: response.clone(), weight: 1.0 };
        vec![lesson; settings.n]
    };
    (0..settings.batch_size).flat_map(group).collect()
}

/// Whether the responses of each step fit one packed batch.
pub(super) fn fits_one_batch(policy: &Decoder, settings: &Settings, longest: &Arc<[u32]>) -> bool {
    let group = longest.len() + settings.n * settings.max_new_tokens;
    group.saturating_mul(settings.batch_size) <= PACKED_TOKENS && policy.config.layers > 0
}

/// Plans a run whose prompts are no longer than this: as few layers are computed again as bring it below the limit. Without
/// one, what is kept for the way back shall be small beside the weights. `start` comes with the bytes of gradients and moments.
///
/// # Errors
/// [`ImproveError::Memory`] where all of them do not.
pub(super) fn fit(
    policy: &mut Decoder,
    (start, optimizer): (&Decoder, u64),
    settings: &Settings,
    longest: &Arc<[u32]>,
) -> Result<MemoryPlan, ImproveError> {
    let lessons = largest_step(policy, settings, longest);
    let values = policy.parameters().len() as u64;
    let packed = policy.weights().packed.bytes() as u64;
    let writer = if settings.precision == Precision::F32 { 4 * values } else { 2 * values };
    let start = start.weights().packed.bytes() as u64;
    let fixed = MemoryPlan { weights: 4 * values, optimizer, start, writer, ..MemoryPlan::default() };
    let mut desk = Desk::default();
    let mut least: Option<MemoryPlan> = None;
    for recomputed in 0..=policy.config.layers {
        policy.recompute(recomputed);
        let activations = 4 * desk.needed(policy, &lessons) as u64;
        let plan = MemoryPlan { learning: packed + activations, recomputed, ..fixed };
        let fits = settings.memory.map_or(activations <= (3 * values / 2).max(SMALL), |limit| plan.total() <= limit);
        if fits {
            return Ok(plan);
        }
        least = Some(least.filter(|least| least.learning <= plan.learning).unwrap_or(plan));
    }
    let plan = least.unwrap_or(fixed);
    let Some(limit) = settings.memory else {
        policy.recompute(plan.recomputed);
        return Ok(plan);
    };
    Err(ImproveError::Memory { limit: Bytes(limit), needed: Bytes(plan.total()), where_to: plan.to_string() })
}
