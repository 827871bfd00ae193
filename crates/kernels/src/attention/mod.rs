//! Attention over packed sequences of any lengths: no padding, no mask tensor.
//!
//! Queries, keys and values lie side by side in one buffer `qkv: [tokens, 3·width]`; a head is
//! `head_dim` neighbouring columns. One task owns one head of one sequence, so the result of a
//! sequence depends on that sequence alone. Queries are taken 64 at a time, so the score
//! matrix stays in the cache; only the log-sum-exp of each row is kept, and the way back computes
//! the probabilities again (Dao et al. 2022, FlashAttention).

pub mod bf16;
pub mod cached;
pub mod first;
pub mod packed;

use crate::gemm::{Operand, Store, raw};
use crate::math::exp;
use crate::parallel::{Shared, area, for_each};
use crate::reduce::{dot, largest, sum_by};
use crate::scratch::with_scratch;
use gemm_common::Parallelism;

/// Queries handled at a time.
const BLOCK: usize = 64;

/// Where the sequences lie and how the width is cut into heads.
///
/// Tasks write the rows of their own sequence without a lock, so the fields are closed: no two sequences overlap.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    offsets: &'a [usize],
    heads: usize,
    head_dim: usize,
}

impl<'a> Layout<'a> {
    /// Sequence `i` is the tokens `offsets[i]..offsets[i + 1]`; each row has `heads` heads of `head_dim` columns.
    ///
    /// # Panics
    /// Unless the offsets start with 0 and ascend, and there are heads of at least one column.
    pub fn new(offsets: &'a [usize], heads: usize, head_dim: usize) -> Self {
        assert_eq!(offsets.first(), Some(&0), "the offsets of sequences start with 0");
        let falls = offsets.windows(2).find(|pair| pair[1] < pair[0]);
        assert!(falls.is_none(), "the offsets of sequences ascend, found {falls:?}");
        assert!(heads > 0 && head_dim > 0, "{heads} heads of {head_dim} columns");
        Self { offsets, heads, head_dim }
    }

    /// Values of `rows` rows that are `widths` times as wide as all heads.
    fn len(&self, widths: usize, rows: usize) -> usize {
        area(area(self.heads, self.head_dim), area(widths, rows))
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn tokens(&self) -> usize {
        *self.offsets.last().expect("offsets start with 0")
    }

    fn tasks(&self) -> usize {
        (self.offsets.len() - 1) * self.heads
    }

    fn head(&self, task: usize) -> Head {
        let (sequence, head) = (task / self.heads, task % self.heads);
        Head {
            start: self.offsets[sequence],
            len: self.offsets[sequence + 1] - self.offsets[sequence],
            head,
            dim: self.head_dim,
            width: self.width(),
        }
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Head {
    start: usize,
    len: usize,
    head: usize,
    dim: usize,
    width: usize,
}

/// Which third of the `qkv` buffer.
#[derive(Clone, Copy)]
enum Part {
    Query = 0,
    Key = 1,
    Value = 2,
}

impl Head {
    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Element index in `qkv` of this head's columns at `token` of the sequence.
    fn at(&self, part: Part, token: usize) -> usize {
        (self.start + token) * 3 * self.width + part as usize * self.width + self.head * self.dim
    }

    /// Element index in `[tokens, width]`.
    fn out(&self, token: usize) -> usize {
        (self.start + token) * self.width + self.head * self.dim
    }

    fn operand(&self, qkv: &[f32], part: Part, token: usize) -> Operand {
        Operand::rows(&qkv[self.at(part, token)..], 3 * self.width)
    }
}

fn transposed(operand: Operand) -> Operand {
    Operand { row_stride: operand.column_stride, column_stride: operand.row_stride, ..operand }
}

/// `out = softmax(q·kᵀ/√d)·v`, every token seeing all tokens of its sequence.
///
/// `out: [tokens, width]`; `log_sums: [heads, tokens]` receives each row's log-sum-exp.
pub fn bidirectional(out: &mut [f32], log_sums: &mut [f32], qkv: &[f32], layout: Layout) {
    let tokens = layout.tokens();
    assert_eq!([out.len(), qkv.len()], [1, 3].map(|widths| layout.len(widths, tokens)), "buffers and layout disagree");
    assert_eq!(log_sums.len(), tokens * layout.heads, "a log-sum for each head of each token");
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    for_each(layout.tasks(), |task| {
        let head = layout.head(task);
        // SAFETY: a task owns the rows of its own head and sequence.
        let log_sums = unsafe { log_sums.slice(head.head * tokens + head.start, head.len) };
        forward_head(head, qkv, out, log_sums);
    });
}

fn forward_head(head: Head, qkv: &[f32], out: Shared<f32>, log_sums: &mut [f32]) {
    with_scratch([BLOCK * head.len], |[scores]| {
        for first in (0..head.len).step_by(BLOCK) {
            let rows = BLOCK.min(head.len - first);
            let scores = &mut scores[..rows * head.len];
            query_key(head, scores, qkv, first, rows);
            softmax_rows(scores, &mut log_sums[first..first + rows], head.len, head.scale());
            let probabilities = Operand::rows(scores, head.len);
            let values = head.operand(qkv, Part::Value, 0);
            let shape = [rows, head.dim, head.len];
            // SAFETY: this task owns its head's columns of `out`; the operands cover the shape.
            unsafe {
                block_product(out.pointer(head.out(first)), head.width, Store::Replace, probabilities, values, shape)
            };
        }
    });
}

/// `scores = q·kᵀ` for the queries `first..first + rows`.
fn query_key(head: Head, scores: &mut [f32], qkv: &[f32], first: usize, rows: usize) {
    let queries = head.operand(qkv, Part::Query, first);
    let keys = transposed(head.operand(qkv, Part::Key, 0));
    // SAFETY: `scores` is `[rows, len]`; the operands are in bounds of `qkv`, whose length was checked.
    unsafe { block_product(scores.as_mut_ptr(), head.len, Store::Replace, queries, keys, [rows, head.len, head.dim]) };
}

/// One product inside a task, on the task's own thread.
///
/// # Safety
/// As [`raw`].
unsafe fn block_product(out: *mut f32, stride: usize, store: Store, a: Operand, b: Operand, shape: [usize; 3]) {
    // SAFETY: the caller's promise.
    unsafe { raw(out, stride as isize, store, a, b, shape, Parallelism::None) };
}

dispatch! {
    fn softmax_rows(scores: &mut [f32], log_sums: &mut [f32], len: usize, scale: f32) {
        for (row, log_sum) in scores.chunks_exact_mut(len).zip(log_sums) {
            let (max, sum) = softmax(row, scale);
            *log_sum = max.mul_add(scale, sum.ln());
        }
    }
}

/// `row = softmax(scale · row)`; returns the largest score and the sum that the exponentials were divided by.
#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) -> (f32, f32) {
    let max = largest(row);
    for v in row.iter_mut() {
        *v = exp((*v - max) * scale);
    }
    let sum = sum_by(row.len(), |j| row[j]);
    let inverse = 1.0 / sum;
    for v in row.iter_mut() {
        *v *= inverse;
    }
    (max, sum)
}

/// What the way back reads: the forward's inputs and outputs.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// The forward's input, `[tokens, 3·width]`.
    pub qkv: &'a [f32],
    /// The forward's output, `[tokens, width]`.
    pub out: &'a [f32],
    /// The forward's log-sum-exp, `[heads, tokens]`.
    pub log_sums: &'a [f32],
}

/// Gradient of [`bidirectional`]: writes all of `d_qkv: [tokens, 3·width]` from `d_out: [tokens, width]`.
pub fn bidirectional_backward(d_qkv: &mut [f32], d_out: &[f32], saved: Saved, layout: Layout) {
    let tokens = layout.tokens();
    let [one, three] = [1, 3].map(|widths| layout.len(widths, tokens));
    assert_eq!([d_qkv.len(), saved.qkv.len()], [three; 2], "buffers and layout disagree");
    assert_eq!([d_out.len(), saved.out.len()], [one; 2], "buffers and layout disagree");
    assert_eq!(saved.log_sums.len(), tokens * layout.heads, "a log-sum for each head of each token");
    let d_qkv = Shared::new(d_qkv);
    for_each(layout.tasks(), |task| backward_head(layout.head(task), d_qkv, d_out, saved, tokens));
}

fn backward_head(head: Head, d_qkv: Shared<f32>, d_out: &[f32], saved: Saved, tokens: usize) {
    let log_sums = &saved.log_sums[head.head * tokens + head.start..][..head.len];
    with_scratch([BLOCK * head.len; 2], |[probabilities, d_scores]| {
        for first in (0..head.len).step_by(BLOCK) {
            let rows = BLOCK.min(head.len - first);
            let (p, ds) = (&mut probabilities[..rows * head.len], &mut d_scores[..rows * head.len]);
            query_key(head, p, saved.qkv, first, rows);
            let d_rows = Operand::rows(&d_out[head.out(first)..], head.width);
            let values = transposed(head.operand(saved.qkv, Part::Value, 0));
            // SAFETY: `ds` is `[rows, len]`; the operands cover the shape.
            unsafe {
                block_product(ds.as_mut_ptr(), head.len, Store::Replace, d_rows, values, [rows, head.len, head.dim])
            };
            let (mut sums, own) = ([0.0; BLOCK], head.out(first)..);
            row_sums(&mut sums[..rows], &d_out[own.clone()], &saved.out[own], [head.dim, head.width]);
            softmax_gradient(p, ds, &log_sums[first..], &sums, [head.len, rows], head.scale());
            accumulate(head, d_qkv, d_rows, saved.qkv, [p, ds], first);
        }
    });
}

dispatch! {
    /// Σ_j dO·O over the first `dim` columns of each query's row: the softmax's correction term.
    fn row_sums(sums: &mut [f32], d_out: &[f32], out: &[f32], columns: [usize; 2]) {
        let [dim, width] = columns;
        for (i, sum) in sums.iter_mut().enumerate() {
            let own = i * width..i * width + dim;
            *sum = dot(&d_out[own.clone()], &out[own]);
        }
    }
}

dispatch! {
    /// Scores → probabilities in `p`; gradients of the probabilities → of the unscaled scores in `ds`.
    fn softmax_gradient(p: &mut [f32], ds: &mut [f32], log_sums: &[f32], row_sums: &[f32], shape: [usize; 2], scale: f32) {
        let [len, rows] = shape;
        for i in 0..rows {
            let (p, ds) = (&mut p[i * len..(i + 1) * len], &mut ds[i * len..(i + 1) * len]);
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = exp(p.mul_add(scale, -log_sums[i]));
                *ds = *p * (*ds - row_sums[i]) * scale;
            }
        }
    }
}

/// Adds one block of queries to dV, dQ and dK.
fn accumulate(head: Head, d_qkv: Shared<f32>, d_rows: Operand, qkv: &[f32], [p, ds]: [&[f32]; 2], first: usize) {
    let rows = p.len() / head.len;
    let store = if first == 0 { Store::Replace } else { Store::Add };
    let stride = 3 * head.width;
    let into = |part, token| d_qkv.pointer(head.at(part, token));
    let (keys, queries) = (head.operand(qkv, Part::Key, 0), head.operand(qkv, Part::Query, first));
    let (p, ds_rows) = (Operand::columns(p, head.len), Operand::rows(ds, head.len));
    // SAFETY: this task owns its head's columns of `d_qkv` over its sequence; the operands cover the shapes.
    unsafe {
        block_product(into(Part::Value, 0), stride, store, p, d_rows, [head.len, head.dim, rows]);
        block_product(into(Part::Query, first), stride, Store::Replace, ds_rows, keys, [rows, head.dim, head.len]);
        block_product(into(Part::Key, 0), stride, store, transposed(ds_rows), queries, [head.len, head.dim, rows]);
    }
}

/// Plain twin of [`bidirectional`] in f64.
pub fn bidirectional_reference(out: &mut [f32], qkv: &[f32], layout: Layout) {
    for task in 0..layout.tasks() {
        let head = layout.head(task);
        let value = |part, token, j| f64::from(qkv[head.at(part, token) + j]);
        for i in 0..head.len {
            let score = |t| (0..head.dim).map(|j| value(Part::Query, i, j) * value(Part::Key, t, j)).sum::<f64>();
            let weights: Vec<f64> = (0..head.len).map(|t| (score(t) / (head.dim as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            for j in 0..head.dim {
                let sum: f64 = weights.iter().enumerate().map(|(t, w)| w * value(Part::Value, t, j)).sum();
                out[head.out(i) + j] = (sum / total) as f32;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    pub(super) fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn run(qkv: &[f32], layout: Layout) -> (Vec<f32>, Vec<f32>) {
        let tokens = layout.tokens();
        let (mut out, mut sums) = (vec![0.0; tokens * layout.width()], vec![0.0; tokens * layout.heads]);
        bidirectional(&mut out, &mut sums, qkv, layout);
        (out, sums)
    }

    fn gradient(qkv: &[f32], d_out: &[f32], layout: Layout) -> Vec<f32> {
        let (out, log_sums) = run(qkv, layout);
        let mut d_qkv = vec![7.0; qkv.len()];
        bidirectional_backward(&mut d_qkv, d_out, Saved { qkv, out: &out, log_sums: &log_sums }, layout);
        d_qkv
    }

    pub(super) fn offsets(lengths: &[usize]) -> Vec<usize> {
        std::iter::once(0)
            .chain(lengths.iter().scan(0, |sum, l| {
                *sum += l;
                Some(*sum)
            }))
            .collect()
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        #[test]
        fn forward_and_backward_match(lengths in proptest::collection::vec(1usize..150, 1..4), heads in 1usize..4, head_dim in 1usize..40, seed in any::<u64>()) {
            let offsets = offsets(&lengths);
            let layout = Layout::new(&offsets, heads, head_dim);
            let qkv = values(layout.tokens() * 3 * layout.width(), seed);
            let (out, _) = run(&qkv, layout);
            let mut expected = vec![0.0; out.len()];
            bidirectional_reference(&mut expected, &qkv, layout);
            for (a, b) in out.iter().zip(&expected) { prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b); }

            let d_out = values(out.len(), seed ^ 5);
            let d_qkv = gradient(&qkv, &d_out, layout);
            let loss = |qkv: &[f32]| {
                let mut out = vec![0.0; d_out.len()];
                bidirectional_reference(&mut out, qkv, layout);
                out.iter().zip(&d_out).map(|(o, d)| f64::from(*o) * f64::from(*d)).sum::<f64>()
            };
            let i = seed as usize % qkv.len();
            let (mut up, mut down) = (qkv.clone(), qkv.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let difference = ((loss(&up) - loss(&down)) / f64::from(up[i] - down[i])) as f32;
            prop_assert!((d_qkv[i] - difference).abs() < 2e-3, "{} instead of {}", d_qkv[i], difference);
        }
    }

    #[test]
    fn a_sequence_has_the_same_bits_alone_and_in_a_batch() {
        let lengths = [5, 130, 1, 64, 65];
        let offsets = offsets(&lengths);
        let layout = Layout::new(&offsets, 3, 16);
        let qkv = values(layout.tokens() * 3 * layout.width(), 1);
        let d_out = values(layout.tokens() * layout.width(), 2);
        let (out, _) = with_threads(2, || run(&qkv, layout));
        let d_qkv = with_threads(3, || gradient(&qkv, &d_out, layout));
        for (i, len) in lengths.into_iter().enumerate() {
            let (start, end, width) = (offsets[i], offsets[i + 1], layout.width());
            let ends = [0, len];
            let alone = Layout::new(&ends, layout.heads, layout.head_dim);
            let part = &qkv[start * 3 * width..end * 3 * width];
            let (out_alone, _) = with_threads(1, || run(part, alone));
            assert!(out_alone == out[start * width..end * width]);
            let d_alone = with_threads(1, || gradient(part, &d_out[start * width..end * width], alone));
            assert!(d_alone == d_qkv[start * 3 * width..end * 3 * width]);
        }
    }

    fn message(refused: Box<dyn std::any::Any + Send>) -> String {
        refused.downcast_ref::<String>().cloned().or(refused.downcast_ref().map(|m: &&str| (*m).into())).unwrap()
    }

    /// What `work` panics with.
    pub(crate) fn refusal(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
        message(std::panic::catch_unwind(work).expect_err("inconsistent slices were accepted"))
    }

    /// The second of these wrote 128 values beyond its output.
    #[test]
    fn c3_offsets_that_do_not_ascend_from_zero_are_refused() {
        for (offsets, said) in [(&[][..], "start with 0"), (&[0, 5, 1], "ascend"), (&[1, 2], "start with 0")] {
            let found = refusal(|| _ = Layout::new(offsets, 2, 64));
            assert!(found.contains(said), "{offsets:?}: {found}");
        }
        assert!(refusal(|| _ = Layout::new(&[0, 1], 0, 64)).contains("0 heads"));
    }

    #[test]
    fn c3_buffers_that_do_not_have_the_layouts_tokens_are_refused() {
        let layout = Layout::new(&[0, 2, 3], 2, 4);
        for (out, sums, qkv) in [(16, 6, 72), (24, 5, 72), (24, 6, 71), (32, 8, 96)] {
            let found = refusal(|| bidirectional(&mut vec![0.0; out], &mut vec![0.0; sums], &vec![0.0; qkv], layout));
            assert!(found.contains("disagree") || found.contains("log-sum"), "{found}");
        }
        for [d_qkv, d_out, qkv, out, sums] in
            [[24, 8, 24, 8, 2], [72, 8, 72, 8, 6], [72, 24, 72, 24, 4], [96, 32, 96, 32, 8]]
        {
            let (qkv, out, log_sums) = (vec![0.0; qkv], vec![0.0; out], vec![0.0; sums]);
            let saved = Saved { qkv: &qkv, out: &out, log_sums: &log_sums };
            let found = refusal(|| bidirectional_backward(&mut vec![0.0; d_qkv], &vec![0.0; d_out], saved, layout));
            assert!(found.contains("disagree") || found.contains("log-sum"), "{found}");
        }
    }

    #[test]
    fn a_sequence_without_tokens_leaves_its_neighbours_alone() {
        let (with, without) = (Layout::new(&[0, 0, 3, 3], 2, 4), Layout::new(&[0, 3], 2, 4));
        let (qkv, d_out) = (values(72, 3), values(24, 4));
        assert_eq!(run(&qkv, with), run(&qkv, without));
        assert_eq!(gradient(&qkv, &d_out, with), gradient(&qkv, &d_out, without));
    }

    #[test]
    fn large_scores_stay_finite() {
        let layout = Layout::new(&[0, 3], 1, 2);
        let qkv: Vec<f32> = values(18, 4).iter().map(|v| v * 1e4).collect();
        let (out, sums) = run(&qkv, layout);
        assert!(out.iter().chain(&sums).chain(&gradient(&qkv, &out, layout)).all(|v| v.is_finite()));
    }
}
