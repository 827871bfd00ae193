//! Attention of one query per sequence: what the last layer of a judge needs that reads one token's state.
//!
//! Keys and values lie side by side in `kv: [tokens, 2·width]`; `q: [sequences, width]` holds the pooled tokens' queries.

use super::Layout;
use crate::bf16::Element;
use crate::math::exp;
use crate::parallel::{Shared, for_each};
use crate::reduce::sum_by;
use crate::scratch::with_scratch;

/// `out = softmax(q·kᵀ/√d)·v`, a row a sequence; `weights: [heads, tokens]` receives the probabilities.
pub fn attend<T: Element>(out: &mut [T], weights: &mut [f32], q: &[T], kv: &[T], layout: Layout) {
    let width = check(q, kv, weights.len(), layout);
    assert_eq!(out.len(), q.len());
    let (out, weights) = (Shared::new(out), Shared::new(weights));
    for_each(layout.tasks(), |task| {
        let (sequence, head) = (task / layout.heads, layout.head(task));
        let at = sequence * width + head.head * head.dim;
        // SAFETY: a task owns its head of its sequence in both outputs.
        let (out, weights) =
            unsafe { (out.slice(at, head.dim), weights.slice(head.head * layout.tokens() + head.start, head.len)) };
        let kv = &kv[head.start * 2 * width..(head.start + head.len) * 2 * width];
        attend_head(out, weights, &q[at..at + head.dim], kv, [width, head.head * head.dim]);
    });
}

fn check<T>(q: &[T], kv: &[T], weights: usize, layout: Layout) -> usize {
    let tokens = layout.tokens();
    assert!(layout.head_dim <= MAX_HEAD, "a head has at most {MAX_HEAD} columns, not {}", layout.head_dim);
    assert_eq!(q.len(), layout.len(1, layout.offsets.len() - 1), "a query for each sequence");
    assert_eq!((kv.len(), weights), (layout.len(2, tokens), layout.heads * tokens), "buffers and layout disagree");
    layout.width()
}

dispatch! {
    fn attend_head[T: Element](out: &mut [T], weights: &mut [f32], q: &[T], kv: &[T], columns: [usize; 2]) {
        let [width, at] = columns;
        let scale = 1.0 / (q.len() as f32).sqrt();
        let mut max = f32::NEG_INFINITY;
        for (weight, token) in weights.iter_mut().zip(kv.chunks_exact(2 * width)) {
            let key = &token[at..at + q.len()];
            *weight = sum_by(q.len(), |j| q[j].widen() * key[j].widen()) * scale;
            max = if *weight > max { *weight } else { max };
        }
        for weight in weights.iter_mut() {
            *weight = exp(*weight - max);
        }
        let inverse = 1.0 / sum_by(weights.len(), |i| weights[i]);
        let mut sums = [0.0f32; MAX_HEAD];
        let sums = &mut sums[..q.len()];
        for (weight, token) in weights.iter_mut().zip(kv.chunks_exact(2 * width)) {
            *weight *= inverse;
            for (sum, value) in sums.iter_mut().zip(&token[width + at..]) {
                *sum = weight.mul_add(value.widen(), *sum);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = T::narrow(*sum);
        }
    }
}

/// Plain twin of [`attend`] in f64.
pub fn attend_reference(out: &mut [f32], weights: &mut [f32], q: &[f32], kv: &[f32], layout: Layout) {
    let (width, tokens) = (layout.width(), layout.tokens());
    for task in 0..layout.tasks() {
        let (head, at) = (layout.head(task), task / layout.heads * width + task % layout.heads * layout.head_dim);
        let value = |part: usize, t: usize, j: usize| {
            f64::from(kv[(head.start + t) * 2 * width + part * width + head.head * head.dim + j])
        };
        let score = |t| (0..head.dim).map(|j| f64::from(q[at + j]) * value(0, t, j)).sum::<f64>();
        let exponentials: Vec<f64> = (0..head.len).map(|t| (score(t) / (head.dim as f64).sqrt()).exp()).collect();
        let total: f64 = exponentials.iter().sum();
        for (t, e) in exponentials.iter().enumerate() {
            weights[head.head * tokens + head.start + t] = (e / total) as f32;
        }
        for j in 0..head.dim {
            out[at + j] =
                (exponentials.iter().enumerate().map(|(t, e)| e * value(1, t, j)).sum::<f64>() / total) as f32;
        }
    }
}

/// Most columns of a head.
pub const MAX_HEAD: usize = 512;

/// What the way back reads: the forward's inputs and the probabilities.
#[derive(Clone, Copy)]
pub struct Saved<'a, T> {
    /// `[sequences, width]`.
    pub q: &'a [T],
    /// `[tokens, 2·width]`.
    pub kv: &'a [T],
    /// `[heads, tokens]`.
    pub weights: &'a [f32],
}

/// Gradient of [`attend`]: writes all of `d_q: [sequences, width]` and `d_kv: [tokens, 2·width]`.
pub fn attend_backward<T: Element>(d_q: &mut [T], d_kv: &mut [T], d_out: &[T], saved: Saved<T>, layout: Layout) {
    let width = check(saved.q, saved.kv, saved.weights.len(), layout);
    assert!(d_q.len() == saved.q.len() && d_out.len() == d_q.len() && d_kv.len() == saved.kv.len());
    let (d_q, d_kv) = (Shared::new(d_q), Shared::new(d_kv));
    for_each(layout.tasks(), |task| {
        let (sequence, head) = (task / layout.heads, layout.head(task));
        let column = head.head * head.dim;
        let at = sequence * width + column;
        let own = at..at + head.dim;
        let tokens = head.start * 2 * width..(head.start + head.len) * 2 * width;
        let weights = &saved.weights[head.head * layout.tokens() + head.start..][..head.len];
        // SAFETY: a task owns its head's row of d_q.
        let d_q = unsafe { d_q.slice(at, head.dim) };
        let vectors = [&saved.q[own.clone()], &d_out[own]];
        with_scratch([head.len], |[gradients]| {
            score_gradients(gradients, d_q, vectors, weights, &saved.kv[tokens], [width, column]);
            for (i, (weight, gradient)) in weights.iter().zip(gradients).enumerate() {
                let row = (head.start + i) * 2 * width + column;
                // SAFETY: a task owns its head's columns of its sequence's rows of d_kv.
                let (d_key, d_value) = unsafe { (d_kv.slice(row, head.dim), d_kv.slice(row + width, head.dim)) };
                scaled(d_key, vectors[0], *gradient);
                scaled(d_value, vectors[1], *weight);
            }
        });
    });
}

dispatch! {
    /// Gradients of the unscaled scores; `d_q` is the keys, weighted with them.
    fn score_gradients[T: Element](gradients: &mut [f32], d_q: &mut [T], vectors: [&[T]; 2], weights: &[f32], kv: &[T], columns: [usize; 2]) {
        let ([q, d_out], [width, at]) = (vectors, columns);
        let scale = 1.0 / (q.len() as f32).sqrt();
        for (gradient, token) in gradients.iter_mut().zip(kv.chunks_exact(2 * width)) {
            let value = &token[width + at..][..q.len()];
            *gradient = sum_by(q.len(), |j| d_out[j].widen() * value[j].widen());
        }
        let mean = sum_by(weights.len(), |i| weights[i] * gradients[i]);
        let mut sums = [0.0f32; MAX_HEAD];
        let sums = &mut sums[..q.len()];
        for ((gradient, weight), token) in gradients.iter_mut().zip(weights).zip(kv.chunks_exact(2 * width)) {
            *gradient = weight * (*gradient - mean) * scale;
            for (sum, key) in sums.iter_mut().zip(&token[at..]) {
                *sum = gradient.mul_add(key.widen(), *sum);
            }
        }
        for (d_q, sum) in d_q.iter_mut().zip(sums) {
            *d_q = T::narrow(*sum);
        }
    }
}

dispatch! {
    fn scaled[T: Element](out: &mut [T], vector: &[T], factor: f32) {
        for (out, value) in out.iter_mut().zip(vector) {
            *out = T::narrow(value.widen() * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::{offsets, refusal, values};
    use crate::attention::{bidirectional, bidirectional_backward};
    use crate::bf16::Bf16;
    use proptest::prelude::*;

    /// The rows of the full attention's input: queries of the first tokens, and all keys and values.
    fn split(qkv: &[f32], layout: Layout) -> (Vec<f32>, Vec<f32>) {
        let width = layout.width();
        let starts = &layout.offsets[..layout.offsets.len() - 1];
        let q = starts.iter().flat_map(|t| qkv[t * 3 * width..][..width].to_vec()).collect();
        (q, qkv.chunks_exact(3 * width).flat_map(|row| row[width..].to_vec()).collect())
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        #[test]
        fn the_first_rows_of_full_attention(lengths in proptest::collection::vec(1usize..60, 1..4), heads in 1usize..4, head_dim in 1usize..40, seed in any::<u64>()) {
            let offsets = offsets(&lengths);
            let layout = Layout::new(&offsets, heads, head_dim);
            let (tokens, width) = (layout.tokens(), layout.width());
            let qkv = values(tokens * 3 * width, seed);
            let (mut full, mut log_sums) = (vec![0.0; tokens * width], vec![0.0; tokens * heads]);
            bidirectional(&mut full, &mut log_sums, &qkv, layout);
            let (q, kv) = split(&qkv, layout);
            let (mut out, mut weights) = (vec![0.0f32; q.len()], vec![0.0; heads * tokens]);
            attend(&mut out, &mut weights, &q, &kv, layout);
            let (mut expected, mut probabilities) = (out.clone(), weights.clone());
            attend_reference(&mut expected, &mut probabilities, &q, &kv, layout);
            for (a, b) in out.iter().zip(&expected).chain(weights.iter().zip(&probabilities)) {
                prop_assert!((a - b).abs() < 2e-6 * (1.0 + b.abs()), "{} instead of {}", a, b);
            }
            let d_out = values(q.len(), seed ^ 5);
            let mut d_full_out = vec![0.0; tokens * width];
            for (i, start) in offsets[..lengths.len()].iter().enumerate() {
                for j in 0..width {
                    prop_assert!((out[i * width + j] - full[start * width + j]).abs() < 1e-5);
                    d_full_out[start * width + j] = d_out[i * width + j];
                }
            }
            let mut d_full = vec![0.0; qkv.len()];
            let saved = crate::attention::Saved { qkv: &qkv, out: &full, log_sums: &log_sums };
            bidirectional_backward(&mut d_full, &d_full_out, saved, layout);
            let (d_q_expected, d_kv_expected) = split(&d_full, layout);
            let (mut d_q, mut d_kv) = (vec![7.0f32; q.len()], vec![7.0f32; kv.len()]);
            attend_backward(&mut d_q, &mut d_kv, &d_out, Saved { q: &q, kv: &kv, weights: &weights }, layout);
            for (a, b) in d_q.iter().zip(&d_q_expected).chain(d_kv.iter().zip(&d_kv_expected)) {
                prop_assert!((a - b).abs() < 1e-4, "{} instead of {}", a, b);
            }
        }
    }

    #[test]
    fn bf16_is_close_to_f32() {
        let layout = Layout::new(&[0, 9, 40], 2, 32);
        let narrow = |v: &[f32]| v.iter().map(|v| Bf16::narrow(*v)).collect::<Vec<_>>();
        let wide = |v: &[Bf16]| v.iter().map(|v| v.widen()).collect::<Vec<_>>();
        let (q, kv) = (narrow(&values(2 * 64, 1)), narrow(&values(40 * 128, 2)));
        let (mut out, mut expected) = (vec![Bf16(0); q.len()], vec![0.0f32; q.len()]);
        let mut weights = vec![0.0; 80];
        attend(&mut out, &mut weights, &q, &kv, layout);
        attend(&mut expected, &mut weights, &wide(&q), &wide(&kv), layout);
        assert!(wide(&out).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.01 * (b.abs() + 0.1)));
    }

    #[test]
    fn c3_buffers_that_do_not_have_the_layouts_tokens_are_refused() {
        let layout = Layout::new(&[0, 2, 3], 2, 4);
        for (out, weights, q, kv) in [(8, 6, 16, 48), (16, 5, 16, 48), (16, 6, 8, 48), (16, 6, 16, 47)] {
            let (q, kv) = (vec![0.0f32; q], vec![0.0; kv]);
            refusal(|| attend(&mut vec![0.0; out], &mut vec![0.0; weights], &q, &kv, layout));
        }
        let wide = Layout::new(&[0, 1], 1, MAX_HEAD + 1);
        let (q, kv) = (vec![0.0f32; MAX_HEAD + 1], vec![0.0; 2 * MAX_HEAD + 2]);
        let found = refusal(|| attend(&mut vec![0.0; MAX_HEAD + 1], &mut [0.0], &q, &kv, wide));
        assert!(found.contains("at most 512 columns"), "{found}");
    }
}
