//! Cross-entropy over the words of a language model's head, without the logits of the whole vocabulary in memory.
//!
//! Logits are made for a slice of words and a block of rows at a time. On the way forward only each row's log-sum-exp is
//! kept; on the way back the logits are made again. Slices lie at fixed words, so a row's bits depend on it alone.

use crate::activation::{soft_cap, soft_cap_backward};
use crate::gemm::{NarrowWeight, Scratch, Store, linear, linear_input_gradient};
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
    /// Columns of a hidden state.
    pub width: usize,
    /// Logits become `cap · tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
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

    /// Logits `[rows, words.len()]` of some words.
    fn logits<'a>(&self, memory: &'a mut Vec<f32>, hidden: &[f32], words: Range<usize>) -> &'a mut [f32] {
        let rows = hidden.len() / self.width;
        memory.resize(rows * words.len(), 0.0);
        match self.weight {
            Weight::Plain(weight) => {
                let own = &weight[words.start * self.width..words.end * self.width];
                linear(memory, hidden, own, rows, self.width, words.len());
            }
            Weight::Narrow(weight) => weight.run_outputs(words, memory, hidden, &[]),
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

/// Gradient of the sum of [`cross_entropy`]'s losses, into the hidden states: `d_hidden: [rows, width]`.
///
/// # Panics
/// As [`cross_entropy`].
pub fn cross_entropy_backward(
    d_hidden: &mut [f32],
    store: Store,
    [hidden, log_sums]: [&[f32]; 2],
    head: &Head,
    labels: Labels,
) {
    head.check(hidden.len(), labels);
    assert!(d_hidden.len() == hidden.len() && log_sums.len() == labels.words.len(), "a gradient of each row");
    if store == Store::Replace {
        d_hidden.fill(0.0);
    }
    let (mut memory, mut capped, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
    let blocks = hidden.chunks(BLOCK * head.width).zip(d_hidden.chunks_mut(BLOCK * head.width));
    for (block, (hidden, d_hidden)) in blocks.enumerate() {
        for words in head.slices() {
            let logits = head.logits(&mut memory, hidden, words.clone());
            capped.clear();
            capped.extend(head.soft_cap.iter().flat_map(|_| logits.iter()));
            let rows = Shared::new(logits);
            for_each(hidden.len() / head.width, |row| {
                // SAFETY: each task owns its row.
                let logits = unsafe { rows.slice(row * words.len(), words.len()) };
                let row = block * BLOCK + row;
                let label = (labels.words[row] as usize).checked_sub(words.start);
                probabilities(logits, label, log_sums[row], labels.weights[row]);
            });
            if let Some(cap) = head.soft_cap {
                soft_cap_backward(&mut memory, &capped, cap);
            }
            head.add_gradient(d_hidden, &memory, words, &mut scratch);
        }
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

/// Plain twin of [`cross_entropy`] and its gradient, of one row in f64: the loss of weight 1, and its gradient.
pub fn reference(hidden: &[f64], weight: &[f64], cap: Option<f64>, label: usize) -> (f64, Vec<f64>) {
    let width = hidden.len();
    let product = |row: &[f64]| row.iter().zip(hidden).map(|(w, h)| w * h).sum::<f64>();
    let raw: Vec<f64> = weight.chunks_exact(width).map(product).collect();
    let bent = |v: f64| cap.map_or(v, |cap| cap * (v / cap).tanh());
    let steepness = |v: f64| cap.map_or(1.0, |cap| 1.0 - (v / cap).tanh().powi(2));
    let total: f64 = raw.iter().map(|v| bent(*v).exp()).sum();
    let mut gradient = vec![0.0; width];
    for (word, value) in raw.iter().enumerate() {
        let d = (bent(*value).exp() / total - f64::from(u8::from(word == label))) * steepness(*value);
        gradient.iter_mut().zip(&weight[word * width..]).for_each(|(g, w)| *g += d * w);
    }
    (total.ln() - bent(raw[label]), gradient)
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

    fn run(hidden: &[f32], head: &Head, labels: Labels) -> (Vec<f32>, Vec<f32>) {
        let rows = labels.words.len();
        let (mut losses, mut log_sums, mut d) = (vec![9.0; rows], vec![9.0; rows], vec![9.0; hidden.len()]);
        cross_entropy(&mut losses, &mut log_sums, hidden, head, labels);
        cross_entropy_backward(&mut d, Store::Replace, [hidden, &log_sums], head, labels);
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
        fn both_ways_match_the_reference(rows in 1usize..9, width in 1usize..40, words in prop_oneof![1usize..100, 2040usize..2060, 4090usize..4200], cap in proptest::option::of(1.0f32..4.0), seed: u64) {
            let hidden: Vec<f32> = values(rows * width, seed).iter().map(|v| 6.0 * v).collect();
            let (weight, weights) = (values(words * width, seed ^ 1), values(rows, seed ^ 2));
            let labels: Vec<u32> = (0..rows).map(|i| (seed.wrapping_mul(i as u64 | 1) % words as u64) as u32).collect();
            let labels = Labels { words: &labels, weights: &weights };
            let narrow = [Width::Bf16, Width::Int8].map(|kept| NarrowWeight::pack(&weight, width, words, kept));
            for weight in [Weight::Plain(&weight), Weight::Narrow(&narrow[0]), Weight::Narrow(&narrow[1])] {
                let head = Head { weight, width, soft_cap: cap };
                let (losses, d) = run(&hidden, &head, labels);
                let all = unpacked(&head);
                for row in 0..rows {
                    let own = row * width..(row + 1) * width;
                    let (loss, gradient) = reference(&wide(&hidden[own.clone()]), &all, cap.map(f64::from), labels.words[row] as usize);
                    let factor = f64::from(weights[row]);
                    prop_assert!((f64::from(losses[row]) - factor * loss).abs() < 1e-5 * (1.0 + loss), "{} for {}", losses[row], factor * loss);
                    for (d, e) in d[own].iter().zip(gradient) {
                        prop_assert!((f64::from(*d) - factor * e).abs() < 1e-5, "{d} for {}", factor * e);
                    }
                }
            }
        }
    }

    #[test]
    fn the_references_gradient_is_its_slope() {
        let (hidden, weight) = (wide(&values(7, 1)), wide(&values(7 * 20, 2)));
        for cap in [None, Some(0.7)] {
            let (_, gradient) = reference(&hidden, &weight, cap, 3);
            for (i, found) in gradient.into_iter().enumerate() {
                let loss = |by: f64| {
                    let mut hidden = hidden.clone();
                    hidden[i] += by;
                    reference(&hidden, &weight, cap, 3).0
                };
                assert!((found - (loss(1e-5) - loss(-1e-5)) / 2e-5).abs() < 1e-8);
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
            let head = Head { weight, width, soft_cap: None };
            let run = |range: Range<usize>, threads| {
                let labels = Labels { words: &labels[range.clone()], weights: &weights[range.clone()] };
                with_threads(threads, || run(&hidden[range.start * width..range.end * width], &head, labels))
            };
            let all = run(0..rows, 2);
            for (range, threads) in [(0..1, 1), (5..18, 3), (500..600, 1), (0..600, 1)] {
                let some = run(range.clone(), threads);
                assert!(some.0 == all.0[range.clone()] && some.1 == all.1[range.start * width..range.end * width]);
            }
        }
    }

    #[test]
    fn large_logits_stay_finite_and_words_beyond_the_vocabulary_are_refused() {
        let weight = [1.0, -1.0, 0.5];
        let head = Head { weight: Weight::Plain(&weight), width: 1, soft_cap: None };
        let (losses, d) = run(&[1e4, -1e4], &head, Labels { words: &[0, 0], weights: &[1.0, 1.0] });
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
