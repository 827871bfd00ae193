//! Attention with bf16 operands: scores, softmax and sums in f32, a strip of rows at a time.
//!
//! One task owns one head of one sequence: it packs that head's keys and values once, and keeps a strip of
//! scores in the cache, as many rows as a tile has. The way back works on the transposed scores (rows are keys), because then
//! the gradients of keys and values are plain products, and only the queries' one reads transposed.

use super::{Head, Layout, Part};
use crate::bf16::{Bf16, Element};
use crate::gemm::Store;
use crate::gemm::panels::{COLUMNS, LeftPanels, Lines, MOST_ROWS, View, pack_straight, pack_transposed, panels};
use crate::gemm::tile::{Bf16Products, Left, Out, Tile};
use crate::math::exp;
use crate::parallel::{Shared, for_each};
use crate::reduce::sum_by;
use std::cell::RefCell;

/// Memory of one task.
#[derive(Default)]
struct Scratch {
    by_column: [Lines; 2],
    by_row: [Lines; 3],
    strips: [Lines; 2],
    halves: [Lines; 2],
    left: Lines,
    sums: Vec<f32>,
}

/// Bytes of gradients of scores that a thread keeps for the next head: those of 4096 tokens.
const KEPT: usize = 1 << 25;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Whether a head of this size can be computed in bf16: words hold two neighbours.
pub fn fits(head_dim: usize) -> bool {
    head_dim.is_multiple_of(2)
}

/// `out = softmax(q·kᵀ/√d)·v` as [`super::bidirectional`], on bf16.
pub fn bidirectional(out: &mut [Bf16], log_sums: &mut [f32], qkv: &[Bf16], layout: Layout) {
    let tokens = layout.tokens();
    let products = Bf16Products::required();
    check(layout, &[(out.len(), 1), (qkv.len(), 3)]);
    assert_eq!(log_sums.len(), tokens * layout.heads, "a log-sum for each head of each token");
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    for_each(layout.tasks(), |task| {
        let head = layout.head(task);
        // SAFETY: a task owns the rows of its own head and sequence.
        let log_sums = unsafe { log_sums.slice(head.head * tokens + head.start, head.len) };
        SCRATCH.with_borrow_mut(|scratch| forward_head(products, head, qkv, (out, log_sums), scratch));
    });
}

fn check(layout: Layout, buffers: &[(usize, usize)]) {
    assert!(fits(layout.head_dim), "a head of {} columns is odd", layout.head_dim);
    for (len, widths) in buffers {
        assert_eq!(*len, layout.len(*widths, layout.tokens()), "buffers and layout disagree");
    }
}

/// The columns of one head in `[tokens, stride]`.
fn columns<'a>(data: &'a [Bf16], at: usize, stride: usize, head: Head) -> View<'a, Bf16> {
    View { data: &data[at..], stride, rows: head.len, columns: head.dim }
}

fn part<'a>(qkv: &'a [Bf16], part: Part, head: Head) -> View<'a, Bf16> {
    columns(qkv, head.at(part, 0), 3 * head.width, head)
}

dispatch! {
    /// Packs a head for products whose reduction runs along the head: `[len/32][dim/2][32]`.
    fn by_column(lines: &mut Lines, view: View<'_, Bf16>) {
        let steps = view.columns / 2;
        let words = &mut lines.words(panels(view.rows) * steps * COLUMNS)[..panels(view.rows) * steps * COLUMNS];
        for (panel, words) in words.chunks_exact_mut(steps * COLUMNS).enumerate() {
            pack_transposed(words, view, panel);
        }
    }
}

dispatch! {
    /// Packs a head for products whose reduction runs along the tokens: `[dim/32][len/2][32]`.
    fn by_row(lines: &mut Lines, view: View<'_, Bf16>) {
        let steps = view.rows.div_ceil(2);
        let words = &mut lines.words(panels(view.columns) * steps * COLUMNS)[..panels(view.columns) * steps * COLUMNS];
        for (panel, words) in words.chunks_exact_mut(steps * COLUMNS).enumerate() {
            pack_straight(words, view, panel);
        }
    }
}

/// Rows `first..first + rows` of a head's columns as the left side.
fn rows_of(view: View<'_, Bf16>, first: usize) -> Left<'_> {
    Left { words: bytemuck::cast_slice(&view.data[first * view.stride..]), row_stride: view.stride / 2, step_stride: 1 }
}

/// A row of scores: padded to whole panels.
fn padded(len: usize) -> usize {
    panels(len) * COLUMNS
}

/// The right side of products: panels of `steps` steps.
#[derive(Clone, Copy)]
struct Right<'a> {
    products: Bf16Products,
    panels: &'a [u32],
    steps: usize,
}

impl Right<'_> {
    /// Computes `left · right` for `rows` rows of a tile and the first `panels` panels, and hands each tile's rows to
    /// `write(first column, rows)`.
    fn times(&self, left: Left, rows: usize, panels: usize, mut write: impl FnMut(usize, &[[f32; COLUMNS]])) {
        let (words, mut tile): (_, Tile) = (self.steps * COLUMNS, [[0.0; COLUMNS]; MOST_ROWS]);
        for panel in 0..panels {
            self.products.tile(&mut tile, left, &self.panels[panel * words..][..words], rows);
            write(panel * COLUMNS, &tile[..rows]);
        }
    }
}

/// `strip[..rows] = left · right`, `strip: [rows of a tile, width]`.
fn strip_product(strip: &mut [f32], width: usize, left: Left, right: Right, rows: usize) {
    let words = right.steps * COLUMNS;
    for panel in 0..width / COLUMNS {
        let out = Out { values: &mut strip[panel * COLUMNS..], stride: width };
        right.products.store(Store::Replace, out, left, &right.panels[panel * words..][..words], rows);
    }
}

fn floats(lines: &mut Lines, len: usize) -> &mut [f32] {
    &mut bytemuck::cast_slice_mut(lines.words(len))[..len]
}

fn halves(lines: &mut Lines, len: usize) -> &mut [Bf16] {
    &mut bytemuck::cast_slice_mut(lines.words(len / 2))[..len]
}

/// Rows of bf16 scores as the left side, the reduction along them.
fn score_rows(halves: &[Bf16], width: usize) -> Left<'_> {
    Left { words: bytemuck::cast_slice(halves), row_stride: width / 2, step_stride: 1 }
}

fn forward_head(
    products: Bf16Products,
    head: Head,
    qkv: &[Bf16],
    (out, log_sums): (Shared<Bf16>, &mut [f32]),
    scratch: &mut Scratch,
) {
    if head.len == 0 {
        return;
    }
    let (width, tall) = (padded(head.len), products.rows());
    by_column(&mut scratch.by_column[0], part(qkv, Part::Key, head));
    by_row(&mut scratch.by_row[0], part(qkv, Part::Value, head));
    let keys = Right { products, panels: scratch.by_column[0].as_words(), steps: head.dim / 2 };
    let values = Right { products, panels: scratch.by_row[0].as_words(), steps: head.len.div_ceil(2) };
    let queries = part(qkv, Part::Query, head);
    let strip = floats(&mut scratch.strips[0], tall * width);
    let weights = halves(&mut scratch.halves[0], tall * width);
    for first in (0..head.len).step_by(tall) {
        let rows = tall.min(head.len - first);
        strip_product(strip, width, rows_of(queries, first), keys, rows);
        let mut scales = [0.0; MOST_ROWS];
        softmax_rows(weights, strip, &mut scales, &mut log_sums[first..first + rows], head.len, head.scale());
        values.times(score_rows(weights, width), rows, panels(head.dim), |column, tile| {
            for (row, (values, scale)) in tile.iter().zip(scales).enumerate() {
                // SAFETY: a task owns the columns of its head over its sequence.
                let out = unsafe { out.slice(head.out(first + row) + column, COLUMNS.min(head.dim - column)) };
                scale_row(out, values, scale);
            }
        });
    }
}

dispatch! {
    fn scale_row(out: &mut [Bf16], values: &[f32], scale: f32) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = Bf16::narrow(value * scale);
        }
    }
}

dispatch! {
    /// Scores → unnormalised weights exp(s − max) in bf16, with 1/Σ and the log-sum-exp of each row.
    fn softmax_rows(weights: &mut [Bf16], strip: &mut [f32], scales: &mut [f32], log_sums: &mut [f32], len: usize, scale: f32) {
        let width = padded(len);
        for (i, log_sum) in log_sums.iter_mut().enumerate() {
            let row = &mut strip[i * width..(i + 1) * width];
            row[len..].fill(f32::NEG_INFINITY);
            let mut lanes = [f32::NEG_INFINITY; 16];
            for chunk in row.chunks_exact(16) {
                for l in 0..16 {
                    lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
                }
            }
            let max = lanes.iter().fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m });
            let weights = &mut weights[i * width..(i + 1) * width];
            for (weight, v) in weights.iter_mut().zip(row.iter_mut()) {
                *v = exp((*v - max) * scale);
                *weight = Bf16::narrow(*v);
            }
            let sum = sum_by(width, |j| row[j]);
            scales[i] = 1.0 / sum;
            *log_sum = max.mul_add(scale, sum.ln());
        }
    }
}

/// What the way back reads: the forward's inputs and outputs.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// The forward's input, `[tokens, 3·width]`.
    pub qkv: &'a [Bf16],
    /// The forward's output, `[tokens, width]`.
    pub out: &'a [Bf16],
    /// The forward's log-sum-exp, `[heads, tokens]`.
    pub log_sums: &'a [f32],
}

/// Gradient of [`bidirectional`]: writes all of `d_qkv: [tokens, 3·width]` from `d_out: [tokens, width]`.
pub fn bidirectional_backward(d_qkv: &mut [Bf16], d_out: &[Bf16], saved: Saved, layout: Layout) {
    let products = Bf16Products::required();
    check(layout, &[(d_qkv.len(), 3), (saved.qkv.len(), 3), (d_out.len(), 1), (saved.out.len(), 1)]);
    let (d_qkv, tokens) = (Shared::new(d_qkv), layout.tokens());
    assert_eq!(saved.log_sums.len(), tokens * layout.heads, "a log-sum for each head of each token");
    for_each(layout.tasks(), |task| {
        let head = layout.head(task);
        let log_sums = &saved.log_sums[head.head * tokens + head.start..][..head.len];
        SCRATCH.with_borrow_mut(|scratch| backward_head(products, head, (d_qkv, d_out), (saved, log_sums), scratch));
    });
}

fn backward_head(
    products: Bf16Products,
    head: Head,
    (d_qkv, d_out): (Shared<Bf16>, &[Bf16]),
    (saved, log_sums): (Saved, &[f32]),
    scratch: &mut Scratch,
) {
    if head.len == 0 {
        return;
    }
    let (width, steps, tall) = (padded(head.len), head.len.div_ceil(2), products.rows());
    let d_rows = columns(d_out, head.out(0), head.width, head);
    let [queries, keys, values] = [Part::Query, Part::Key, Part::Value].map(|p| part(saved.qkv, p, head));
    let Scratch { by_column: columns_of, by_row: rows_of_all, strips, halves: strip_halves, left, sums } = scratch;
    [queries, d_rows].into_iter().zip(columns_of.iter_mut()).for_each(|(view, lines)| by_column(lines, view));
    [d_rows, queries, keys].into_iter().zip(rows_of_all.iter_mut()).for_each(|(view, lines)| by_row(lines, view));
    let right = |panels, steps| Right { products, panels, steps };
    let [queries_by_column, d_by_column] = columns_of.each_ref().map(|lines| right(lines.as_words(), head.dim / 2));
    let [d_by_row, queries_by_row, keys_by_row] = rows_of_all.each_ref().map(|lines| right(lines.as_words(), steps));

    let [scores, d_scores] = strips;
    // The softmax's correction term of each query.
    sums.clear();
    sums.resize(width, 0.0);
    fill_row_sums(sums, d_rows, columns(saved.out, head.out(0), head.width, head));
    let (scores, d_weights) = (floats(scores, tall * width), floats(d_scores, tall * width));
    let [weights, gradients] = strip_halves;
    let weights = halves(weights, tall * width);
    let gradients = halves(gradients, head.len * width);
    for first in (0..head.len).step_by(tall) {
        let count = tall.min(head.len - first);
        strip_product(scores, width, rows_of(keys, first), queries_by_column, count);
        strip_product(d_weights, width, rows_of(values, first), d_by_column, count);
        let own = &mut gradients[first * width..(first + count) * width];
        softmax_gradient(weights, own, scores, d_weights, [log_sums, sums], head.scale());
        let into = |part| (d_qkv, head.at(part, first));
        store_rows(head, into(Part::Value), score_rows(weights, width), d_by_row, count);
        store_rows(head, into(Part::Key), score_rows(own, width), queries_by_row, count);
    }
    let transposed = View { data: gradients, stride: width, rows: head.len, columns: head.len };
    let own = products.left_panels();
    for first in (0..head.len).step_by(tall) {
        let words = &mut left.words(own.words(steps))[..own.words(steps)];
        left_panel(words, own, transposed, first);
        let left = own.left(words, steps);
        store_rows(head, (d_qkv, head.at(Part::Query, first)), left, keys_by_row, tall.min(head.len - first));
    }
    // They are len² values: a single long sequence must not hold this memory for ever.
    if size_of_val(gradients) > KEPT {
        strip_halves[1] = Lines::default();
    }
}

dispatch! {
    fn left_panel(words: &mut [u32], panels: LeftPanels, view: View<'_, Bf16>, first: usize) {
        panels.pack(words, view, first);
    }
}

/// `d_qkv[at..] = left · right`, `rows` rows of a head's columns.
fn store_rows(head: Head, (d_qkv, at): (Shared<Bf16>, usize), left: Left, right: Right, rows: usize) {
    right.times(left, rows, panels(head.dim), |column, tile| {
        for (row, values) in tile.iter().enumerate() {
            let start = at + row * 3 * head.width + column;
            // SAFETY: a task owns its head's columns of `d_qkv` over its sequence.
            let out = unsafe { d_qkv.slice(start, COLUMNS.min(head.dim - column)) };
            scale_row(out, values, 1.0);
        }
    });
}

dispatch! {
    /// Σ_j dO·O of each query.
    fn fill_row_sums(sums: &mut [f32], d_out: View<'_, Bf16>, out: View<'_, Bf16>) {
        for (i, sum) in sums.iter_mut().enumerate().take(out.rows) {
            let (d, o) = (&d_out.data[i * d_out.stride..][..out.columns], &out.data[i * out.stride..][..out.columns]);
            *sum = sum_by(out.columns, |j| d[j].widen() * o[j].widen());
        }
    }
}

dispatch! {
    /// Rows are keys, columns queries: scores → probabilities, gradients of these → of the unscaled scores. Columns
    /// beyond the sequence become 0.
    fn softmax_gradient(weights: &mut [Bf16], gradients: &mut [Bf16], scores: &[f32], d_weights: &[f32], columns: [&[f32]; 2], scale: f32) {
        let [log_sums, row_sums] = columns;
        let (len, width) = (log_sums.len(), row_sums.len());
        for (i, gradients) in gradients.chunks_exact_mut(width).enumerate() {
            let (scores, d_weights) = (&scores[i * width..][..len], &d_weights[i * width..][..len]);
            let weights = &mut weights[i * width..][..width];
            for j in 0..len {
                let p = exp(scores[j].mul_add(scale, -log_sums[j]));
                weights[j] = Bf16::narrow(p);
                gradients[j] = Bf16::narrow(p * (d_weights[j] - row_sums[j]) * scale);
            }
            weights[len..].fill(Bf16::default());
            gradients[len..].fill(Bf16::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::{offsets, refusal, values};
    use crate::parallel::with_threads;
    use crate::simd::tests::{on_both, on_twins_and_instructions};
    use proptest::prelude::*;

    fn aligned(len: usize, seed: u64) -> (Vec<u32>, Vec<f32>) {
        let mut words = vec![0u32; len.div_ceil(2)];
        let halves: &mut [Bf16] = &mut bytemuck::cast_slice_mut(&mut words)[..len];
        halves.iter_mut().zip(values(len, seed)).for_each(|(h, v)| *h = Bf16::narrow(v));
        let wide = halves.iter().map(|v| v.widen()).collect();
        (words, wide)
    }

    fn run(qkv: &[u32], d_out: &[u32], layout: Layout) -> (Vec<Bf16>, Vec<Bf16>) {
        let len = layout.tokens() * layout.width();
        let (qkv, d_out) = (&bytemuck::cast_slice(qkv)[..3 * len], &bytemuck::cast_slice(d_out)[..len]);
        let (mut out, mut log_sums) = (vec![Bf16(0); len], vec![0.0; layout.tokens() * layout.heads]);
        bidirectional(&mut out, &mut log_sums, qkv, layout);
        let mut d_qkv = vec![Bf16(9); 3 * len];
        bidirectional_backward(&mut d_qkv, d_out, Saved { qkv, out: &out, log_sums: &log_sums }, layout);
        (out, d_qkv)
    }

    /// Mean of |found − expected| over the mean of |expected|.
    fn relative_error(found: &[Bf16], expected: &[f32]) -> f32 {
        let error: f32 = found.iter().zip(expected).map(|(f, e)| (f.widen() - e).abs()).sum();
        error / expected.iter().map(|e| e.abs()).sum::<f32>().max(1e-3 * expected.len() as f32)
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        #[test]
        fn forward_and_backward_match_f32(lengths in proptest::collection::vec(1usize..100, 1..4), heads in 1usize..4, half_dim in 1usize..36, seed in any::<u64>()) {
            on_twins_and_instructions(|| {
                let offsets = offsets(&lengths);
                let layout = Layout::new(&offsets, heads, 2 * half_dim);
                let len = layout.tokens() * layout.width();
                let ((qkv, wide), (d_out, d_wide)) = (aligned(3 * len, seed), aligned(len, seed ^ 5));
                let (out, d_qkv) = run(&qkv, &d_out, layout);
                let (mut expected, mut log_sums) = (vec![0.0; len], vec![0.0; layout.tokens() * heads]);
                super::super::bidirectional(&mut expected, &mut log_sums, &wide, layout);
                prop_assert!(relative_error(&out, &expected) < 0.01);
                let mut d_expected = vec![0.0; 3 * len];
                let saved = super::super::Saved { qkv: &wide, out: &expected, log_sums: &log_sums };
                super::super::bidirectional_backward(&mut d_expected, &d_wide, saved, layout);
                prop_assert!(relative_error(&d_qkv, &d_expected) < 0.02, "{}", relative_error(&d_qkv, &d_expected));
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_sequence_has_the_same_bits_alone_and_in_a_batch() {
        on_both(|| {
            let lengths = [6, 130, 1, 64, 65];
            let offsets = offsets(&lengths);
            let layout = Layout::new(&offsets, 3, 16);
            let width = layout.width();
            let (qkv, d_out) = (aligned(3 * width * layout.tokens(), 1).0, aligned(width * layout.tokens(), 2).0);
            let (out, d_qkv) = with_threads(2, || run(&qkv, &d_out, layout));
            for (i, len) in lengths.into_iter().enumerate() {
                let (start, end) = (offsets[i] * width, offsets[i + 1] * width);
                let ends = [0, len];
                let alone = Layout::new(&ends, layout.heads, layout.head_dim);
                let (own, d_own) =
                    with_threads(3, || run(&qkv[3 * start / 2..3 * end / 2], &d_out[start / 2..end / 2], alone));
                assert!(own == out[start..end] && d_own == d_qkv[3 * start..3 * end], "sequence {i}");
            }
        });
    }

    #[test]
    fn c3_buffers_that_do_not_have_the_layouts_tokens_are_refused() {
        let layout = Layout::new(&[0, 2, 3], 2, 4);
        on_both(|| {
            for (out, sums, qkv) in [(16, 6, 72), (24, 5, 72), (24, 6, 70), (32, 8, 96)] {
                let (mut out, mut sums, qkv) = (vec![Bf16(0); out], vec![0.0; sums], vec![Bf16(0); qkv]);
                let work = std::panic::AssertUnwindSafe(|| bidirectional(&mut out, &mut sums, &qkv, layout));
                let found = refusal(work);
                assert!(found.contains("disagree") || found.contains("log-sum"), "{found}");
            }
        });
    }

    #[test]
    fn a_sequence_without_tokens_leaves_its_neighbours_alone() {
        on_both(|| {
            let (with, without) = (Layout::new(&[0, 0, 3, 3], 2, 4), Layout::new(&[0, 3], 2, 4));
            let (qkv, d_out) = (aligned(72, 3).0, aligned(24, 4).0);
            assert!(run(&qkv, &d_out, with) == run(&qkv, &d_out, without));
        });
    }
}
