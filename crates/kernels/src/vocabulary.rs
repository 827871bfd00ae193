//! Cross-entropy over the words of a language model's head, without the logits of the whole vocabulary in memory.
//!
//! Logits are made for a slice of words and a block of rows at a time. On the way forward only each row's log-sum-exp is
//! kept; on the way back the logits are made again. Slices lie at fixed words, so a row's bits depend on it alone.

use crate::activation::{add_bias, bias_backward, soft_cap, soft_cap_backward};
use crate::gemm::{NarrowWeight, Scratch, Store, linear, linear_input_gradient, linear_weight_gradient};
use crate::math::exp;
use crate::parallel::{Shared, for_each};
use crate::reduce::{largest, sum_by};
use std::ops::Range;

/// Words of a slice.
const SLICE: usize = 2048;
/// Rows whose logits are in memory at a time.
const BLOCK: usize = 512;

/// The weight of a language model's head, `[words, width]`.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// In f32, as it lies.
    Plain(&'a [f32]),
    /// Kept narrow: 8 bits, bf16 or f32.
    Narrow(&'a NarrowWeight),
}

/// A head, and what its logits are.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The weight.
    pub weight: Weight<'a>,
    /// Added to the logits, `[words]`; empty for a head without.
    pub bias: &'a [f32],
    /// Columns of a hidden state.
    pub width: usize,
    /// Logits become `cap · tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
    /// Multiplies the logits after that: 1 / temperature.
    pub factor: f32,
}

/// The word that each row should give, and how much that counts.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    /// `[rows]`.
    pub words: &'a [u32],
    /// `[rows]`. Leave rows that do not count out: they cost as much.
    pub weights: &'a [f32],
}

impl Head<'_> {
    /// Words of the vocabulary.
    pub fn words(&self) -> usize {
        match self.weight {
            Weight::Plain(weight) => weight.len() / self.width,
            Weight::Narrow(weight) => weight.outputs(),
        }
    }

    fn check(&self, hidden: usize, labels: Labels) {
        let fits = match self.weight {
            Weight::Plain(weight) => weight.len().is_multiple_of(self.width),
            Weight::Narrow(weight) => weight.inputs() == self.width,
        };
        assert!(self.bias.is_empty() || self.bias.len() == self.words(), "a bias for each word, or none");
        assert!(fits && self.words() > 0, "a head of rows of {} values", self.width);
        let rows = labels.words.len();
        assert!(hidden == rows * self.width && labels.weights.len() == rows, "a label and a weight for each row");
        let beyond = labels.words.iter().find(|word| **word as usize >= self.words());
        assert!(beyond.is_none(), "word {beyond:?} of a vocabulary of {}", self.words());
    }

    fn slices(&self) -> impl Iterator<Item = Range<usize>> {
        let words = self.words();
        (0..words).step_by(SLICE).map(move |first| first..words.min(first + SLICE))
    }

    /// Logits `[rows, words.len()]` of some words, not yet multiplied by the factor.
    fn logits<'a>(&self, memory: &'a mut Vec<f32>, hidden: &[f32], words: Range<usize>) -> &'a mut [f32] {
        let rows = hidden.len() / self.width;
        memory.resize(rows * words.len(), 0.0);
        match self.weight {
            Weight::Plain(weight) => {
                let own = &weight[words.start * self.width..words.end * self.width];
                linear(memory, hidden, own, rows, self.width, words.len());
                if !self.bias.is_empty() {
                    add_bias(memory, &mut [], &self.bias[words], None);
                }
            }
            Weight::Narrow(weight) => weight.run_outputs(words, memory, hidden, self.bias),
        }
        if let Some(cap) = self.soft_cap {
            soft_cap(memory, cap);
        }
        memory
    }

    /// Adds to the gradient of the hidden states, from that of some words' logits.
    fn add_gradient(&self, d_hidden: &mut [f32], d_logits: &[f32], words: Range<usize>, scratch: &mut Scratch) {
        let rows = d_hidden.len() / self.width;
        match self.weight {
            Weight::Plain(weight) => {
                let own = &weight[words.start * self.width..words.end * self.width];
                linear_input_gradient(d_hidden, Store::Add, d_logits, own, rows, self.width, words.len());
            }
            Weight::Narrow(weight) => weight.outputs_gradient(words, d_hidden, Store::Add, d_logits, scratch),
        }
    }
}

/// What is known of a row's logits: the largest, Σ exp(logit − largest) of those seen, and the label's.
#[derive(Clone, Copy)]
struct Seen {
    largest: f32,
    sum: f32,
    label: f32,
}

impl Seen {
    const NOTHING: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0, label: 0.0 };
}

/// `losses[row] = −weight · ln p(word)` for `hidden: [rows, width]`; `log_sums: [rows]` is for the way back.
///
/// # Panics
/// When the slices are not as long as that, or a word lies outside the vocabulary.
pub fn cross_entropy(losses: &mut [f32], log_sums: &mut [f32], hidden: &[f32], head: &Head, labels: Labels) {
    head.check(hidden.len(), labels);
    assert!(losses.len() == labels.words.len() && log_sums.len() == losses.len(), "a loss and a log-sum for each row");
    let mut memory = Vec::new();
    for (block, hidden) in hidden.chunks(BLOCK * head.width).enumerate() {
        let first = block * BLOCK;
        let mut seen = vec![Seen::NOTHING; hidden.len() / head.width];
        for words in head.slices() {
            let logits = head.logits(&mut memory, hidden, words.clone());
            multiply(logits, head.factor);
            let (own, shared) = (&*logits, Shared::new(&mut seen));
            for_each(own.len() / words.len(), |row| {
                // SAFETY: each task owns its row.
                let seen = unsafe { shared.slice(row, 1) };
                let label = (labels.words[first + row] as usize).checked_sub(words.start);
                see(&mut seen[0], &own[row * words.len()..(row + 1) * words.len()], label);
            });
        }
        for (row, seen) in seen.iter().enumerate() {
            log_sums[first + row] = seen.largest + seen.sum.ln();
            losses[first + row] = labels.weights[first + row] * (log_sums[first + row] - seen.label);
        }
    }
}

dispatch! {
    fn see(seen: &mut Seen, logits: &[f32], label: Option<usize>) {
        let own = largest(logits);
        let largest = if own > seen.largest { own } else { seen.largest };
        let sum = sum_by(logits.len(), |j| exp(logits[j] - largest));
        // Before the first slice nothing was seen, and −∞ − −∞ is not 0.
        let before = if seen.sum == 0.0 { 0.0 } else { seen.sum * exp(seen.largest - largest) };
        let found = label.and_then(|label| logits.get(label)).copied();
        *seen = Seen { largest, sum: before + sum, label: found.unwrap_or(seen.label) };
    }
}

/// Where the gradients of a head go.
pub struct HeadGradients<'a> {
    /// Of the hidden states, `[rows, width]`.
    pub hidden: &'a mut [f32],
    /// Whether these replace what is there.
    pub hidden_store: Store,
    /// Of the weight, `[words, width]`, and of the bias; `None` for a head that is not trained.
    pub own: Option<([&'a mut [f32]; 2], Store)>,
}

/// Gradients of the sum of [`cross_entropy`]'s losses: of the hidden states, and of the head where it is trained.
///
/// # Panics
/// As [`cross_entropy`], and for a narrow head that is to be trained.
pub fn cross_entropy_backward(into: HeadGradients, [hidden, log_sums]: [&[f32]; 2], head: &Head, labels: Labels) {
    let HeadGradients { hidden: d_hidden, hidden_store, mut own } = into;
    head.check(hidden.len(), labels);
    assert!(d_hidden.len() == hidden.len() && log_sums.len() == labels.words.len(), "a gradient of each row");
    if let Some(([weight, bias], _)) = &own {
        let fits = weight.len() == head.words() * head.width && bias.len() == head.bias.len();
        assert!(fits && matches!(head.weight, Weight::Plain(_)), "a gradient for each value of a head that is trained");
    }
    if hidden_store == Store::Replace {
        d_hidden.fill(0.0);
    }
    let mut way = Back { capped: Vec::new(), memory: Vec::new(), scratch: Scratch::default() };
    for (block, (hidden, d_hidden)) in
        hidden.chunks(BLOCK * head.width).zip(d_hidden.chunks_mut(BLOCK * head.width)).enumerate()
    {
        let rows = block * BLOCK..block * BLOCK + hidden.len() / head.width;
        let labels = Labels { words: &labels.words[rows.clone()], weights: &labels.weights[rows.clone()] };
        for words in head.slices() {
            way.slice(head, [hidden, &log_sums[rows.clone()]], labels, words.clone());
            if let Some(([weight, bias], store)) = &mut own {
                let store = if block > 0 { Store::Add } else { *store };
                way.add_own([weight, bias], store, hidden, (words.clone(), head.width));
            }
            head.add_gradient(d_hidden, &way.memory, words, &mut way.scratch);
        }
    }
}

/// The memory of the way back.
struct Back {
    capped: Vec<f32>,
    /// Logits of a slice, then their gradients.
    memory: Vec<f32>,
    scratch: Scratch,
}

impl Back {
    /// Makes the logits of a slice again, and their gradients of them.
    fn slice(&mut self, head: &Head, [hidden, log_sums]: [&[f32]; 2], labels: Labels, words: Range<usize>) {
        let logits = head.logits(&mut self.memory, hidden, words.clone());
        self.capped.clear();
        self.capped.extend(head.soft_cap.iter().flat_map(|_| logits.iter()));
        multiply(logits, head.factor);
        let rows = Shared::new(logits);
        for_each(labels.words.len(), |row| {
            // SAFETY: each task owns its row.
            let logits = unsafe { rows.slice(row * words.len(), words.len()) };
            let label = (labels.words[row] as usize).checked_sub(words.start);
            probabilities(logits, label, log_sums[row], labels.weights[row] * head.factor);
        });
        if let Some(cap) = head.soft_cap {
            soft_cap_backward(&mut self.memory, &self.capped, cap);
        }
    }

    /// The gradients of a slice of the head itself.
    fn add_own(
        &self,
        [weight, bias]: [&mut [f32]; 2],
        store: Store,
        hidden: &[f32],
        (words, width): (Range<usize>, usize),
    ) {
        let own = &mut weight[words.start * width..words.end * width];
        linear_weight_gradient(own, store, &self.memory, hidden, hidden.len() / width, width, words.len());
        if !bias.is_empty() {
            bias_backward(&mut bias[words], store, &self.memory);
        }
    }
}

fn multiply(logits: &mut [f32], factor: f32) {
    if factor != 1.0 {
        logits.iter_mut().for_each(|logit| *logit *= factor);
    }
}

dispatch! {
    /// Logits → gradients of the loss.
    fn probabilities(logits: &mut [f32], label: Option<usize>, log_sum: f32, weight: f32) {
        for logit in logits.iter_mut() {
            *logit = weight * exp(*logit - log_sum);
        }
        if let Some(own) = label.and_then(|label| logits.get_mut(label)) {
            *own -= weight;
        }
    }
}

/// What [`reference()`] is about: one row, and a head in f64.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// `[width]`.
    pub hidden: &'a [f64],
    /// `[words, width]`.
    pub weight: &'a [f64],
    /// `[words]`, or empty.
    pub bias: &'a [f64],
    /// As in [`Head`].
    pub soft_cap: Option<f64>,
    /// As in [`Head`].
    pub factor: f64,
}

/// Plain twin of [`cross_entropy`] and its gradient, of one row in f64: the loss of weight 1, and its gradients in the
/// hidden state and in the products with the words, to which the gradients of bias and weight are proportional.
pub fn reference(of: Reference, label: usize) -> (f64, [Vec<f64>; 2]) {
    let Reference { hidden, weight, bias, soft_cap: cap, factor } = of;
    let product = |(word, row): (usize, &[f64])| {
        row.iter().zip(hidden).map(|(w, h)| w * h).sum::<f64>() + bias.get(word).copied().unwrap_or(0.0)
    };
    let raw: Vec<f64> = weight.chunks_exact(hidden.len()).enumerate().map(product).collect();
    let bent = |v: f64| factor * cap.map_or(v, |cap| cap * (v / cap).tanh());
    let steepness = |v: f64| factor * cap.map_or(1.0, |cap| 1.0 - (v / cap).tanh().powi(2));
    let total: f64 = raw.iter().map(|v| bent(*v).exp()).sum();
    let change =
        |(word, v): (usize, &f64)| (bent(*v).exp() / total - f64::from(u8::from(word == label))) * steepness(*v);
    let products: Vec<f64> = raw.iter().enumerate().map(change).collect();
    let mut gradient = vec![0.0; hidden.len()];
    for (d, row) in products.iter().zip(weight.chunks_exact(hidden.len())) {
        gradient.iter_mut().zip(row).for_each(|(g, w)| *g += d * w);
    }
    (total.ln() - bent(raw[label]), [gradient, products])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Width;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|v| f64::from(*v)).collect()
    }

    /// Losses, and the gradients of hidden states, weight and bias.
    fn run(hidden: &[f32], head: &Head, labels: Labels) -> (Vec<f32>, [Vec<f32>; 3]) {
        let rows = labels.words.len();
        let (mut losses, mut log_sums) = (vec![9.0; rows], vec![9.0; rows]);
        let mut d = [hidden.len(), head.words() * head.width, head.bias.len()].map(|len| vec![9.0; len]);
        cross_entropy(&mut losses, &mut log_sums, hidden, head, labels);
        let [d_hidden, weight, bias] = d.each_mut().map(Vec::as_mut_slice);
        let own = matches!(head.weight, Weight::Plain(_)).then_some(([weight, bias], Store::Replace));
        let into = HeadGradients { hidden: d_hidden, hidden_store: Store::Replace, own };
        cross_entropy_backward(into, [hidden, &log_sums], head, labels);
        (losses, d)
    }

    /// What a head multiplies with, row by row.
    fn unpacked(head: &Head) -> Vec<f64> {
        match head.weight {
            Weight::Plain(weight) => wide(weight),
            Weight::Narrow(weight) => {
                let mut all = vec![0.0; head.words() * head.width];
                all.chunks_exact_mut(head.width).enumerate().for_each(|(word, row)| weight.row(word, row));
                wide(&all)
            }
        }
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(24))]
        #[test]
        fn both_ways_match_the_reference(rows in 1usize..9, width in 1usize..40, words in prop_oneof![1usize..100, 2040usize..2060, 4090usize..4200], cap in proptest::option::of(1.0f32..4.0), factor in prop_oneof![Just(1.0f32), 0.5f32..2.0], biased: bool, seed: u64) {
            let hidden: Vec<f32> = values(rows * width, seed).iter().map(|v| 6.0 * v).collect();
            let (weight, weights) = (values(words * width, seed ^ 1), values(rows, seed ^ 2));
            let bias = if biased { values(words, seed ^ 3) } else { Vec::new() };
            let labels: Vec<u32> = (0..rows).map(|i| (seed.wrapping_mul(i as u64 | 1) % words as u64) as u32).collect();
            let labels = Labels { words: &labels, weights: &weights };
            let narrow = [Width::Bf16, Width::Int8].map(|kept| NarrowWeight::pack(&weight, width, words, kept));
            for weight in [Weight::Plain(&weight), Weight::Narrow(&narrow[0]), Weight::Narrow(&narrow[1])] {
                let head = Head { weight, bias: &bias, width, soft_cap: cap, factor };
                let (losses, [d, d_weight, d_bias]) = run(&hidden, &head, labels);
                let (all, wide_bias) = (unpacked(&head), wide(&bias));
                let (mut e_weight, mut e_bias) = (vec![0.0; words * width], vec![0.0; words]);
                for row in 0..rows {
                    let own = row * width..(row + 1) * width;
                    let state = wide(&hidden[own.clone()]);
                    let of = Reference { hidden: &state, weight: &all, bias: &wide_bias, soft_cap: cap.map(f64::from), factor: f64::from(factor) };
                    let (loss, [gradient, products]) = reference(of, labels.words[row] as usize);
                    let weight = f64::from(weights[row]);
                    prop_assert!((f64::from(losses[row]) - weight * loss).abs() < 1e-5 * (1.0 + loss), "{} for {}", losses[row], weight * loss);
                    for (d, e) in d[own].iter().zip(gradient) {
                        prop_assert!((f64::from(*d) - weight * e).abs() < 2e-5, "{d} for {}", weight * e);
                    }
                    for (word, product) in products.iter().enumerate() {
                        e_bias[word] += weight * product;
                        (0..width).for_each(|i| e_weight[word * width + i] += weight * product * state[i]);
                    }
                }
                if let Weight::Plain(_) = head.weight {
                    let close = |(d, e): (&f32, &f64)| (f64::from(*d) - e).abs() < 1e-4;
                    prop_assert!(d_weight.iter().zip(&e_weight).all(close), "the gradient of the weight");
                    prop_assert!(d_bias.iter().zip(&e_bias).all(close), "the gradient of the bias");
                }
            }
        }
    }

    #[test]
    fn the_references_gradient_is_its_slope() {
        let (hidden, weight, bias) = (wide(&values(7, 1)), wide(&values(7 * 20, 2)), wide(&values(20, 3)));
        for (cap, factor) in [(None, 1.0), (Some(0.7), 1.0), (Some(0.7), 1.6)] {
            let loss = |hidden: &[f64], bias: &[f64]| {
                reference(Reference { hidden, weight: &weight, bias, soft_cap: cap, factor }, 3)
            };
            let (_, gradients) = loss(&hidden, &bias);
            let slope = |which: usize, i: usize| {
                let moved = |by: f64| {
                    let mut both = [hidden.clone(), bias.clone()];
                    both[which][i] += by;
                    loss(&both[0], &both[1]).0
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            };
            for (which, gradient) in gradients.iter().enumerate() {
                gradient.iter().enumerate().for_each(|(i, found)| assert!((found - slope(which, i)).abs() < 1e-8));
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        let (width, words, rows) = (32, 5000, 600);
        let (hidden, weight, weights) = (values(rows * width, 1), values(words * width, 2), values(rows, 3));
        let labels: Vec<u32> = (0..rows as u32).map(|i| i * 8).collect();
        let narrow = NarrowWeight::pack(&weight, width, words, Width::Bf16);
        for weight in [Weight::Plain(&weight), Weight::Narrow(&narrow)] {
            let head = Head { weight, bias: &[], width, soft_cap: None, factor: 1.0 };
            let run = |range: Range<usize>, threads| {
                let labels = Labels { words: &labels[range.clone()], weights: &weights[range.clone()] };
                with_threads(threads, || run(&hidden[range.start * width..range.end * width], &head, labels))
            };
            let all = run(0..rows, 2);
            assert_eq!(run(0..rows, 1), all, "the gradient of the head, too");
            for (range, threads) in [(0..1, 1), (5..18, 3), (500..600, 1)] {
                let (losses, [d, ..]) = run(range.clone(), threads);
                assert!(losses == all.0[range.clone()] && d == all.1[0][range.start * width..range.end * width]);
            }
        }
    }

    #[test]
    fn large_logits_stay_finite_and_words_beyond_the_vocabulary_are_refused() {
        let weight = [1.0, -1.0, 0.5];
        let head = Head { weight: Weight::Plain(&weight), bias: &[], width: 1, soft_cap: None, factor: 1.0 };
        let (losses, [d, ..]) = run(&[1e4, -1e4], &head, Labels { words: &[0, 0], weights: &[1.0, 1.0] });
        assert_eq!(losses, [0.0, 2e4]);
        assert!(d[0].abs() < 1e-6 && (d[1] + 2.0).abs() < 1e-6, "{d:?}");
        let refused = |words: &[u32], weights: &[f32]| {
            crate::attention::tests::refusal(|| {
                cross_entropy(&mut [0.0], &mut [0.0], &[1.0], &head, Labels { words, weights });
            })
        };
        assert!(refused(&[3], &[1.0]).contains("a vocabulary of 3"));
        assert!(refused(&[0], &[]).contains("a label and a weight"));
    }
}
