//! How much memory a run takes, and how many layers are computed twice so that it takes no more than was asked for (Chen
//! et al. 2016, "Training deep nets with sublinear memory cost").

use super::step::PACKED_TOKENS;
use super::{Example, TrainError};
use crate::models::{Model, ScoreError, Scores, push};
use crate::nn::{Batch, Mode, Tape};
use crate::text::Encoded;

/// Where the memory of a run goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights, and those of them that are packed for products.
    pub weights: u64,
    /// Gradients and moments of what is trained.
    pub optimizer: u64,
    /// Values and gradients of the largest batch.
    pub activations: u64,
    /// Layers that are computed again on the way back.
    pub recomputed: usize,
    /// Layers that have a way back.
    pub layers: usize,
}

/// A number of bytes, for people: in MB below 1 GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let bytes = self.0 as f64;
        if bytes < 1e9 { write!(f, "{:.1} MB", bytes / 1e6) } else { write!(f, "{:.2} GB", bytes / 1e9) }
    }
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.optimizer + self.activations
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { weights, optimizer, activations, recomputed, layers } = self;
        let [weights, optimizer, activations] = [*weights, *optimizer, *activations].map(Bytes);
        write!(f, "weights {weights}, gradients and moments {optimizer}, activations {activations}")?;
        write!(f, "; {recomputed} of {layers} layers are computed again on the way back")
    }
}

/// Lets the model compute again as few layers as bring the run below `limit` bytes.
///
/// # Errors
/// [`TrainError::Memory`] where all of them do not.
pub(super) fn fit_memory(model: &mut Model, examples: &[Example], limit: u64) -> Result<MemoryPlan, TrainError> {
    let batch = largest_batch(model, examples)?;
    let layers = model.trained_layers();
    let fixed = MemoryPlan {
        weights: 4 * model.parameters.values.len() as u64 + model.packed.bytes() as u64,
        optimizer: 3 * 4 * model.parameters.trained().len() as u64,
        layers,
        ..MemoryPlan::default()
    };
    let mut least: Option<MemoryPlan> = None;
    for recomputed in 0..=layers {
        model.recompute(recomputed);
        let plan = MemoryPlan { activations: 4 * words(model, &batch) as u64, recomputed, ..fixed };
        if plan.total() <= limit {
            return Ok(plan);
        }
        least = Some(least.filter(|least| least.total() <= plan.total()).unwrap_or(plan));
    }
    let plan = least.unwrap_or(fixed);
    Err(TrainError::Memory { limit: Bytes(limit), needed: Bytes(plan.total()), plan })
}

/// Words that the program of a batch takes.
fn words(model: &Model, batch: &Batch) -> usize {
    let mut tape = Tape::default();
    tape.start(Mode::Train, Scores::storage(model));
    let result = model.build(&mut tape, batch);
    tape.needed(result)
}

/// A batch as large as any of the run: the longest text, as often as fills a packed batch or the largest group.
fn largest_batch(model: &Model, examples: &[Example]) -> Result<Batch, TrainError> {
    let texts = || examples.iter().flat_map(|example| &example.sequences);
    let groups = examples.iter().map(|example| example.sequences.iter().map(|text| text.ids.len()).sum::<usize>());
    let tokens = groups.max().unwrap_or(0).max(PACKED_TOKENS);
    let mut batch = Batch::default();
    let Some(longest) = texts().max_by_key(|text| text.ids.len()) else { return Ok(batch) };
    for _ in 0..tokens.div_ceil(longest.ids.len().max(1)) {
        push(model, longest, &mut batch).map_err(|error| unreadable(examples, longest, error))?;
    }
    Ok(batch)
}

fn unreadable(examples: &[Example], text: &Encoded, error: ScoreError) -> TrainError {
    let of_text = |example: &&Example| example.sequences.iter().any(|own| std::ptr::eq(own, text));
    let place = examples.iter().find(of_text).map_or_else(String::new, |example| example.location.to_string());
    TrainError::Text { place, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_unit_that_shows_them() {
        let said = [400_000, 999_949_999, 1_610_000_000].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(said, ["0.4 MB", "999.9 MB", "1.61 GB"]);
    }
}
