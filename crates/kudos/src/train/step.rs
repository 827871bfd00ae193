//! One optimizer step: visits → packed batches → outputs (scores, or one an attribute) → losses → gradients → weights.

use super::attributes::attribute_loss;
use super::log::StepMetrics;
use super::loss::{Judged, group_loss};
use super::{TrainError, Trainer, Visit, clip_scale};
use crate::models::{Model, Workspace, computed_tokens, push_all};
use crate::nn::Mode;
use crate::random::Stream;
use crate::text::Encoded;

/// Tokens packed into one forward and backward. A step of more tokens runs as several, whose gradients
/// add up to the same sum: memory is bounded by this, not by the batch.
pub(super) const PACKED_TOKENS: usize = 4096;

/// What a step adds up over its visits.
#[derive(Default)]
struct Sums {
    loss: f64,
    right: f64,
    margins: f64,
    pairs: usize,
    rewards: Vec<f32>,
    tokens: usize,
    /// Packed batches.
    batches: u64,
}

impl Trainer {
    /// Does the next step and returns its metrics (all but the seconds). It runs on a thread of the pool, whoever calls.
    /// Scores, losses and gradients that are not finite are an error, and the weights stay as they were.
    pub(super) fn step(&mut self) -> Result<StepMetrics, TrainError> {
        kernels::parallel::inside(|| self.step_inside())
    }

    fn step_inside(&mut self) -> Result<StepMetrics, TrainError> {
        let (visits, epoch) = self.next_visits();
        self.gradients.start();
        let mut sums = Sums::default();
        let mut rest = visits.as_slice();
        while !rest.is_empty() {
            let taken = self.fitting(rest);
            self.accumulate(&rest[..taken], visits.len(), &mut sums)?;
            rest = &rest[taken..];
        }
        self.gradients.finish();
        let norm = self.gradients.norm();
        let settings = &self.settings;
        let factor = settings.schedule.factor(self.state.step, settings.warmup_steps, settings.max_steps);
        let learning_rate = settings.learning_rate * factor;
        self.state.step += 1;
        let metrics = sums.metrics(visits.len(), self.state.step, epoch, norm, learning_rate);
        if !norm.is_finite() {
            let groups: Vec<String> = visits.iter().map(|v| self.examples[v.example].location.to_string()).collect();
            return Err(self.not_finite(self.state.step, groups.join(", "), "gradient norm", norm));
        }
        let scale = clip_scale(norm, settings.max_grad_norm);
        let Model { parameters, packed, .. } = &mut self.model;
        self.optimizer.step(parameters, packed, &self.gradients, learning_rate as f32, scale);
        Ok(metrics)
    }

    /// The visits of one step, and the epoch reached after them as a fraction.
    fn next_visits(&mut self) -> (Vec<Visit>, f64) {
        let wanted = self.settings.batch_size * self.settings.accumulate;
        let start = self.state.next_visit;
        let end = (start + wanted).min(self.visits.len());
        let visits = self.visits[start..end].to_vec();
        let epoch = self.state.epoch as f64 + end as f64 / self.visits.len() as f64;
        self.state.next_visit = end;
        if end == self.visits.len() {
            self.state.epoch += 1;
            self.state.next_visit = 0;
            self.visits = self.epoch(self.state.epoch);
        }
        (visits, epoch)
    }

    /// How many of the visits fit one packed batch; at least one.
    fn fitting(&self, visits: &[Visit]) -> usize {
        let mut tokens = 0;
        let fits = |visit: &&Visit| {
            tokens += computed_tokens(&self.model, &self.members(visit));
            tokens <= PACKED_TOKENS
        };
        visits.iter().take_while(fits).count().max(1)
    }

    /// Forward and backward of some visits; each weighs 1 / `total` in the step's loss.
    fn accumulate(&mut self, visits: &[Visit], total: usize, sums: &mut Sums) -> Result<(), TrainError> {
        let packed = self.pack_visits(visits)?;
        self.draw_dropout(sums.batches);
        sums.batches += 1;
        let logits = self.workspace.forward(&self.model, Mode::Train);
        let outputs = self.workspace.tape.value(logits).to_vec(); // [sequences, labels]
        let mut seed = vec![0.0; outputs.len()];
        for (visit, sequences) in visits.iter().zip(packed) {
            let own = gather(&outputs, &sequences, self.model.config.labels());
            let mut own_seed = vec![0.0; own.len()];
            let loss = self.visit_loss(visit, &own, total, &mut own_seed);
            let scores = own.iter().map(|score| ("score", f64::from(*score)));
            if let Some((what, value)) = scores.chain([("loss", loss)]).find(|(_, value)| !value.is_finite()) {
                let place = &self.examples[visit.example].location;
                return Err(self.not_finite(self.state.step + 1, place, what, value));
            }
            scatter(&mut seed, &own_seed, &sequences, self.model.config.labels());
            sums.loss += loss;
            match &self.settings.attributes {
                None => sums.count(visit, &own),
                Some(head) => sums.count(visit, &head.overalls(&head.ratings(&own))),
            }
            sums.tokens += self.members(visit).iter().map(|text| text.ids.len()).sum::<usize>();
        }
        let Workspace { tape, batch } = &mut self.workspace;
        tape.backward(logits, &seed, self.model.weights(), &mut self.gradients, batch);
        Ok(())
    }

    /// Gives the next program what its dropout draws from: seed, step and place of the batch in the step.
    fn draw_dropout(&mut self, batch: u64) {
        if self.settings.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
            let noise = Stream::named(self.settings.seed, "dropout of adapters").fork(self.state.step).fork(batch);
            self.workspace.tape.draw_from(noise);
        }
    }

    /// The texts of a visit.
    fn members(&self, visit: &Visit) -> Vec<&Encoded> {
        let sequences = &self.examples[visit.example].sequences;
        visit.members.iter().map(|member| &sequences[*member]).collect()
    }

    /// Fills the batch with the members of some visits, those of a visit with one beginning where the model allows it.
    /// Gives the sequence of each member.
    fn pack_visits(&mut self, visits: &[Visit]) -> Result<Vec<Vec<usize>>, TrainError> {
        let mut batch = std::mem::take(&mut self.workspace.batch);
        batch.clear();
        let pack = |visit: &Visit| {
            let placed = push_all(&self.model, &self.members(visit), &mut batch);
            let place = || self.examples[visit.example].location.to_string();
            placed.into_iter().map(|own| own.map_err(|error| TrainError::Text { place: place(), error })).collect()
        };
        let packed = visits.iter().map(pack).collect();
        self.workspace.batch = batch;
        packed
    }

    fn visit_loss(&self, visit: &Visit, scores: &[f32], total: usize, seed: &mut [f32]) -> f64 {
        if self.settings.attributes.is_some() {
            let ratings = &self.examples[visit.example].ratings;
            let ratings: Vec<&[Option<f32>]> = visit.members.iter().map(|m| ratings[*m].as_slice()).collect();
            return attribute_loss(&ratings, scores, 1.0 / total as f64, seed);
        }
        let ranks = &self.examples[visit.example].ranks;
        let ranks: Vec<Option<f64>> = visit.members.iter().map(|m| ranks[*m]).collect();
        let judged = Judged { comparisons: &visit.comparisons, ranks: &ranks };
        group_loss(self.settings.loss, self.settings.center_coefficient, judged, scores, 1.0 / total as f64, seed)
    }
}

/// The rows of these sequences, of `width` values each.
fn gather(values: &[f32], sequences: &[usize], width: usize) -> Vec<f32> {
    sequences.iter().flat_map(|at| &values[at * width..(at + 1) * width]).copied().collect()
}

/// Adds rows to those of these sequences. Equal texts are one sequence, whose gradient is the sum of theirs.
fn scatter(values: &mut [f32], rows: &[f32], sequences: &[usize], width: usize) {
    for (row, at) in rows.chunks_exact(width).zip(sequences) {
        values[at * width..(at + 1) * width].iter_mut().zip(row).for_each(|(value, own)| *value += own);
    }
}

impl Sums {
    /// Accuracy and margins of one visit's pairs; equal scores are half right.
    fn count(&mut self, visit: &Visit, scores: &[f32]) {
        for (better, worse) in visit.comparisons.iter().filter_map(|c| c.better_worse()) {
            let margin = f64::from(scores[better]) - f64::from(scores[worse]);
            self.right += if margin > 0.0 { 1.0 } else { 0.5 * f64::from(u8::from(margin == 0.0)) };
            self.margins += margin;
            self.pairs += 1;
        }
        self.rewards.extend_from_slice(scores);
    }

    fn metrics(self, visits: usize, step: u64, epoch: f64, grad_norm: f64, learning_rate: f64) -> StepMetrics {
        let mean = |sum: f64, n: usize| (n > 0).then(|| sum / n as f64);
        StepMetrics {
            step,
            epoch,
            loss: self.loss / visits as f64,
            accuracy: mean(self.right, self.pairs),
            margin: mean(self.margins, self.pairs),
            mean_reward: self.rewards.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rewards.len() as f64,
            min_reward: self.rewards.iter().copied().fold(f32::INFINITY, f32::min),
            max_reward: self.rewards.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            grad_norm,
            learning_rate,
            tokens: self.tokens,
            pairs: self.pairs,
            seconds: 0.0,
        }
    }
}
