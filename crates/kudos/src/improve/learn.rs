//! One update: weighted cross-entropy of responses' tokens, and how far the policy has gone from the start model.
//!
//! A prompt stands once in a batch, and its responses continue it. With advantage `A` of a response, `T` tokens of all
//! responses and β the weight of the KL divergence, the loss is
//!
//! ```text
//! Σ over tokens  (A · −ln p(token) + β · k3) / T
//! ```
//!
//! k3 = r − 1 − ln r with r = p_start / p (Schulman 2020): its mean over tokens drawn from p is the KL divergence of p from
//! p_start, each token's is at least 0, and it varies little. Its gradient is that of TRL's GRPO.

use super::optimizer::PolicyOptimizer;
use crate::models::{Decoder, NextWords};
use crate::nn::{Batch, Gradients, Mode, Role, Sequence, Tape, Var};
use std::sync::Arc;

/// Tokens packed into one forward and backward; a prompt with one response may have more.
pub(super) const PACKED_TOKENS: usize = 2048;

/// A response to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// Ids of the prompt; lessons of one prompt share them.
    pub prompt: Arc<[u32]>,
    /// Ids of the response, at least one.
    pub response: Vec<u32>,
    /// Its weight in the loss.
    pub weight: f64,
}

/// What a step came to, over all tokens of the responses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learnt {
    /// The loss.
    pub loss: f64,
    /// k3, mean over tokens.
    pub kl: f64,
    /// −ln p, mean over tokens: of tokens that the policy drew, an estimate of its entropy without bias.
    pub entropy: f64,
    /// Tokens of the responses.
    pub tokens: usize,
}

/// What a policy computes with.
#[derive(Default)]
pub struct Desk {
    tape: Tape,
    batch: Batch,
}

/// Finds a reason not to move.
pub type Refuses<'a> = &'a dyn Fn(&Learnt) -> Result<(), String>;

/// How a policy moves.
pub struct Step<'a> {
    /// Takes the gradients: each layer's by itself, where all lessons of a step fit one packed batch.
    pub gradients: &'a mut Gradients,
    /// The state of AdamW.
    pub optimizer: &'a mut PolicyOptimizer,
    /// Learning rate.
    pub rate: f32,
    /// Asked before anything moves.
    pub refuses: Refuses<'a>,
}

fn check_norm(norm: f64) -> Result<(), String> {
    if norm.is_finite() { Ok(()) } else { Err(format!("the norm of the gradient is {norm}, expected a finite number")) }
}

/// How the loss is put together.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// Weight of the KL divergence.
    pub kl: f64,
    /// The temperature at which the responses were drawn.
    pub temperature: f32,
}

impl Desk {
    /// Adds the gradients of the loss of all lessons to `gradients`, which the caller started. Without any, the policy is
    /// only measured.
    pub fn learn(
        &mut self,
        [policy, start]: [&Decoder; 2],
        lessons: &[Lesson],
        objective: Objective,
        mut gradients: Option<&mut Gradients>,
    ) -> Learnt {
        let total: usize = lessons.iter().map(|lesson| lesson.response.len()).sum();
        let mut learnt = Learnt { tokens: total, ..Learnt::default() };
        for lessons in packs(lessons, PACKED_TOKENS) {
            let mode = if gradients.is_some() { Mode::Train } else { Mode::Score };
            let (result, seed) = self.forward([policy, start], lessons, (objective, mode), &mut learnt);
            if let Some(gradients) = gradients.as_deref_mut() {
                self.tape.backward(result, &seed, policy.weights(), gradients, &self.batch);
            }
        }
        learnt
    }

    /// Learns from lessons: the policy moves, unless `refuses` finds a reason in what it was before. Gives what was learnt, and
    /// the norm of the gradient.
    ///
    /// # Errors
    /// The reason. A gradient that is no number is one too: then the policy is lost.
    pub fn step(
        &mut self,
        (policy, start): (&mut Decoder, &Decoder),
        lessons: &[Lesson],
        objective: Objective,
        step: Step,
    ) -> Result<(Learnt, f64), String> {
        step.gradients.start();
        if step.gradients.is_by_layer() {
            let (learnt, norm) = self.by_layer((policy, start), lessons, objective, step)?;
            return check_norm(norm).map(|()| (learnt, norm));
        }
        let Step { gradients, optimizer, rate, refuses } = step;
        let learnt = self.learn([policy, start], lessons, objective, Some(gradients));
        gradients.finish();
        refuses(&learnt)?;
        let norm = gradients.norm();
        check_norm(norm)?;
        optimizer.begin();
        optimizer.advance(policy, gradients, rate, |_| true);
        Ok((learnt, norm))
    }

    /// One packed batch, whose layers move as soon as their gradients are there.
    fn by_layer(
        &mut self,
        (policy, start): (&mut Decoder, &Decoder),
        lessons: &[Lesson],
        objective: Objective,
        Step { gradients, optimizer, rate, refuses }: Step,
    ) -> Result<(Learnt, f64), String> {
        let tokens = lessons.iter().map(|lesson| lesson.response.len()).sum();
        let mut learnt = Learnt { tokens, ..Learnt::default() };
        let (result, seed) = self.forward([policy, start], lessons, (objective, Mode::Train), &mut learnt);
        refuses(&learnt)?;
        optimizer.begin();
        let mut squares = 0.0;
        self.tape.begin_backward(result, &seed);
        for layer in (0..policy.config.layers).rev() {
            self.tape.backward_to(Some(layer), policy.weights(), gradients, &self.batch);
            squares += gradients.finish_layer();
            optimizer.advance(policy, gradients, rate, |role| role == Role::Layer(layer));
            gradients.next_layer();
        }
        self.tape.backward_to(None, policy.weights(), gradients, &self.batch);
        gradients.finish(); // It leaves no gradient where the layers' was.
        squares += gradients.norm().powi(2);
        optimizer.advance(policy, gradients, rate, |role| !matches!(role, Role::Layer(_)));
        Ok((learnt, squares.sqrt()))
    }

    /// Both models over one batch of lessons; gives the result on the tape, and the weight of each token in the loss.
    fn forward(
        &mut self,
        [policy, start]: [&Decoder; 2],
        lessons: &[Lesson],
        (objective, mode): (Objective, Mode),
        learnt: &mut Learnt,
    ) -> (Var, Vec<f32>) {
        let (next, weights) = pack(lessons, &mut self.batch);
        let before = self.losses(start, &next, objective.temperature);
        self.tape.start(mode, policy.storage());
        let result = policy.word_losses(&mut self.tape, &self.batch, &next, objective.temperature);
        self.tape.forward(result, policy.weights(), &self.batch);
        let losses = self.tape.value(result);
        let seed = learnt.add([losses, &before], &weights, objective.kl);
        (result, seed)
    }

    /// −ln p of the next words of the batch.
    fn losses(&mut self, model: &Decoder, next: &NextWords, temperature: f32) -> Vec<f32> {
        self.tape.start(Mode::Score, model.storage());
        let result = model.word_losses(&mut self.tape, &self.batch, next, temperature);
        self.tape.forward(result, model.weights(), &self.batch);
        self.tape.value(result).to_vec()
    }

    /// Words of memory that learning from these lessons takes, batch by batch.
    pub(super) fn needed(&mut self, policy: &Decoder, lessons: &[Lesson]) -> usize {
        let mut most = 0;
        for lessons in packs(lessons, PACKED_TOKENS) {
            let (next, _) = pack(lessons, &mut self.batch);
            self.tape.start(Mode::Train, policy.storage());
            let result = policy.word_losses(&mut self.tape, &self.batch, &next, 1.0);
            most = most.max(self.tape.needed(result));
        }
        most
    }
}

impl Learnt {
    /// Takes in −ln p of the policy and of the start model; gives the weight of each token's −ln p in the loss.
    fn add(&mut self, [own, start]: [&[f32]; 2], weights: &[f64], kl: f64) -> Vec<f32> {
        let total = self.tokens as f64;
        let mut seed = Vec::with_capacity(own.len());
        for ((own, start), weight) in own.iter().zip(start).zip(weights) {
            let (own, start) = (f64::from(*own), f64::from(*start));
            let log_ratio = own - start; // ln (p_start / p)
            let (slope, k3) = (log_ratio.exp_m1(), log_ratio.exp_m1() - log_ratio);
            self.loss += (weight * own + kl * k3) / total;
            self.kl += k3 / total;
            self.entropy += own / total;
            seed.push(((weight + kl * slope) / total) as f32);
        }
        seed
    }
}

/// Lessons in their order, cut where a batch is full. A prompt that goes on in the next batch is computed there again.
fn packs(lessons: &[Lesson], most: usize) -> Vec<&[Lesson]> {
    let mut packs = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (place, lesson) in lessons.iter().enumerate() {
        let continues = place > start && lessons[place - 1].prompt == lesson.prompt;
        let own = lesson.response.len() + if continues { 0 } else { lesson.prompt.len() };
        if place > start && tokens + own > most {
            packs.push(&lessons[start..place]);
            (start, tokens) = (place, lesson.response.len() + lesson.prompt.len());
        } else {
            tokens += own;
        }
    }
    if start < lessons.len() {
        packs.push(&lessons[start..]);
    }
    packs
}

/// Fills the batch with lessons. Gives their tokens, each at the row of the token before it, and the weight of each.
fn pack(lessons: &[Lesson], batch: &mut Batch) -> (NextWords, Vec<f64>) {
    batch.clear();
    let (mut next, mut weights) = (NextWords::default(), Vec::new());
    let (mut parent, mut last) = (0, 0);
    for (place, Lesson { prompt, response, weight }) in lessons.iter().enumerate() {
        if place == 0 || lessons[place - 1].prompt != *prompt {
            parent = batch.sequences();
            let type_ids = vec![0; prompt.len()];
            batch.push(Sequence { ids: prompt, type_ids: &type_ids }, None).expect("a prompt has tokens");
            last = batch.tokens() - 1;
        }
        let first = batch.tokens();
        if let Some((_, read @ [_, ..])) = response.split_last() {
            batch.push_child(read, parent).expect("the prompt is the last sequence that continues no other");
        }
        next.rows.push(last);
        next.rows.extend(first..batch.tokens());
        next.words.extend(response);
        weights.resize(next.words.len(), *weight);
    }
    (next, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(prompt: &[u32], response: &[u32], weight: f64) -> Lesson {
        Lesson { prompt: prompt.into(), response: response.to_vec(), weight }
    }

    #[test]
    fn each_word_stands_at_the_row_before_it() {
        let lessons = [
            lesson(&[7, 8, 9], &[1, 2, 3], 1.0),
            lesson(&[7, 8, 9], &[4], -1.0),
            lesson(&[7, 8, 9], &[5, 6], 0.5),
            lesson(&[8], &[1, 1], 2.0),
        ];
        let mut batch = Batch::default();
        let (next, weights) = pack(&lessons, &mut batch);
        assert_eq!(batch.ids(), [7, 8, 9, 1, 2, 5, 8, 1], "no last token, and each prompt once");
        assert_eq!(next.words, [1, 2, 3, 4, 5, 6, 1, 1]);
        assert_eq!(next.rows, [2, 3, 4, 2, 2, 5, 6, 7]);
        assert_eq!(weights, [1.0, 1.0, 1.0, -1.0, 0.5, 0.5, 2.0, 2.0]);
    }

    #[test]
    fn a_batch_is_cut_between_responses() {
        let lessons: Vec<Lesson> = (0..5).map(|i| lesson(&[1, 2, 3, 4], &[i, i, i], 1.0)).collect();
        let lens = |most: usize| packs(&lessons, most).iter().map(|pack| pack.len()).collect::<Vec<_>>();
        assert_eq!(lens(10), [2, 2, 1]);
        assert_eq!(lens(1), [1; 5], "one response at least");
        assert_eq!(lens(100), [5]);
        assert!(packs(&[], 10).is_empty());
    }

    #[test]
    fn k3_is_zero_at_the_start_and_its_slope_that_of_the_penalty() {
        let of = |own: f32, kl: f64| {
            let mut learnt = Learnt { tokens: 1, ..Learnt::default() };
            let seed = learnt.add([&[own], &[1.5]], &[0.0], kl);
            (learnt, f64::from(seed[0]))
        };
        assert_eq!(of(1.5, 0.3), (Learnt { entropy: 1.5, tokens: 1, ..Learnt::default() }, 0.0));
        let slope = (of(2.01, 0.3).0.loss - of(1.99, 0.3).0.loss) / f64::from(2.01f32 - 1.99);
        assert!((of(2.0, 0.3).1 - slope).abs() < 1e-4, "{slope}");
        assert!(of(1.0, 0.3).0.kl > 0.0 && of(2.0, 0.3).0.kl > 0.0);
    }
}
