//! Attention of new tokens over a cache of keys and values: how decoders generate.
//!
//! A layer's cache is `[slots][kv_heads][capacity][head_dim]`, for keys and for values. A [`Piece`] is some new tokens
//! of one slot. They are first prepared (normed, turned, and their keys and values stored), then each
//! attends to the cache up to itself. Several query heads share one head of keys and values (Ainslie et al. 2023). What
//! a token gets depends on its own slot alone.

use super::{BLOCK, block_product, softmax, transposed};
use crate::bf16::Element;
use crate::gemm::{Operand, Store};
use crate::parallel::{Shared, area, for_each};
use crate::reduce::sum_by;
use crate::rotary::RotaryTable;
use crate::scratch::with_scratch;

/// Sizes of a layer's cache and of its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Positions of a slot.
    pub capacity: usize,
}

impl CacheShape {
    /// Columns of queries, keys and values side by side.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Elements of one slot.
    pub fn slot_len(&self) -> usize {
        self.kv_heads * self.capacity * self.head_dim
    }

    /// Rows of `q: [rows, heads·head_dim]`, after all that tasks rely on was checked: they write without a lock.
    ///
    /// # Panics
    /// When the heads do not fit together, the cache holds no whole slots, or a piece lies outside of the cache or of
    /// the rows, or begins before its predecessor's end.
    fn check(&self, q: usize, [keys, values]: [usize; 2], pieces: &[Piece]) -> usize {
        let CacheShape { heads, kv_heads, head_dim, capacity } = *self;
        assert!(kv_heads > 0 && head_dim > 0 && heads > 0 && heads.is_multiple_of(kv_heads), "{self:?} has no heads");
        let slot_len = area(area(kv_heads, capacity), head_dim);
        let slots = keys / slot_len.max(1);
        assert!(
            keys == values && keys == slots * slot_len,
            "{keys} keys and {values} values are no slots of {slot_len}"
        );
        let (width, mut end) = (area(heads, head_dim), 0);
        let rows = q / width;
        assert_eq!(q, rows * width, "queries are no whole rows");
        for piece in pieces {
            assert!(piece.row >= end, "{piece:?} begins inside the rows before it, which end at {end}");
            assert!(piece.row <= rows && piece.rows <= rows - piece.row, "{piece:?} lies outside of {rows} rows");
            let fits = piece.position <= capacity && piece.rows <= capacity - piece.position;
            assert!(piece.slot < slots && fits, "{piece:?} lies outside of {slots} slots of {capacity} positions");
            end = piece.row + piece.rows;
        }
        rows
    }

    fn start(&self, slot: usize, kv_head: usize) -> usize {
        slot * self.slot_len() + kv_head * self.capacity * self.head_dim
    }
}

/// New tokens of one slot: rows `row..row + rows` of the batch, at the positions from `position` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Slot of the cache.
    pub slot: usize,
    /// Position of the first token.
    pub position: usize,
    /// Row of the first token.
    pub row: usize,
    /// Number of tokens.
    pub rows: usize,
}

/// What happens to queries and keys before they meet.
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    /// Scales of an RMS norm over each head of the queries and of the keys.
    pub norms: Option<[&'a [f32]; 2]>,
    /// ε of those norms.
    pub epsilon: f32,
    /// The turn.
    pub rotary: Option<&'a RotaryTable>,
}

impl Preparation<'_> {
    fn apply(&self, head: &mut [f32], part: usize, position: usize) {
        if let Some(norms) = self.norms {
            norm_head(head, norms[part], self.epsilon);
        }
        if let Some(rotary) = self.rotary {
            rotary.rotate(head, position);
        }
    }
}

dispatch! {
    fn norm_head(head: &mut [f32], gamma: &[f32], epsilon: f32) {
        let mean = sum_by(head.len(), |j| head[j] * head[j]) / head.len() as f32;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        head.iter_mut().zip(gamma).for_each(|(v, gamma)| *v = *v * inverse * gamma);
    }
}

/// Prepares the rows of `qkv: [rows, qkv_width]`: queries go to `q: [rows, heads·head_dim]`, keys and values into the cache.
pub fn prepare<T: Element>(
    q: &mut [f32],
    [keys, values]: [&mut [T]; 2],
    qkv: &[f32],
    pieces: &[Piece],
    shape: CacheShape,
    preparation: Preparation,
) {
    let (width, dim) = (shape.qkv_width(), shape.head_dim);
    let rows = shape.check(q.len(), [keys.len(), values.len()], pieces);
    assert_eq!(qkv.len(), area(rows, width), "a row of queries, keys and values for each of q");
    assert_disjoint(pieces);
    let norms = preparation.norms.into_iter().flatten();
    norms.for_each(|gamma| assert_eq!(gamma.len(), dim, "a norm has a scale for each column of a head"));
    let (q, keys, values) = (Shared::new(q), Shared::new(keys), Shared::new(values));
    let rows: Vec<(usize, usize, usize)> =
        pieces.iter().flat_map(|p| (0..p.rows).map(|i| (p.row + i, p.slot, p.position + i))).collect();
    for_each(rows.len(), |index| {
        let (row, slot, position) = rows[index];
        let qkv = &qkv[row * width..(row + 1) * width];
        let (own_q, kv) = qkv.split_at(shape.heads * dim);
        let (own_k, own_v) = kv.split_at(shape.kv_heads * dim);
        // SAFETY: a task owns its row of q.
        let out = unsafe { q.slice(row * shape.heads * dim, shape.heads * dim) };
        out.copy_from_slice(own_q);
        out.chunks_exact_mut(dim).for_each(|head| preparation.apply(head, 0, position));
        for kv_head in 0..shape.kv_heads {
            let at = shape.start(slot, kv_head) + position * dim;
            // SAFETY: a task owns its position of its slot: no two pieces share one.
            let (to_key, to_value) = unsafe { (keys.slice(at, dim), values.slice(at, dim)) };
            with_scratch([dim], |[key]| {
                key.copy_from_slice(&own_k[kv_head * dim..(kv_head + 1) * dim]);
                preparation.apply(key, 1, position);
                to_key.iter_mut().zip(key).for_each(|(to, from)| *to = T::narrow(*from));
            });
            let value = &own_v[kv_head * dim..(kv_head + 1) * dim];
            to_value.iter_mut().zip(value).for_each(|(to, from)| *to = T::narrow(*from));
        }
    });
}

/// Refuses pieces that would store into the same positions of a slot.
fn assert_disjoint(pieces: &[Piece]) {
    let mut places: Vec<&Piece> = pieces.iter().filter(|piece| piece.rows > 0).collect();
    places.sort_unstable_by_key(|piece| (piece.slot, piece.position));
    for pair in places.windows(2) {
        let apart = pair[0].slot != pair[1].slot || pair[0].position + pair[0].rows <= pair[1].position;
        assert!(apart, "{:?} and {:?} share positions of a slot", pair[0], pair[1]);
    }
}

/// How scores are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// A token sees itself and the `window − 1` tokens before it; all, if `None`.
    pub window: Option<usize>,
}

/// `out = softmax(scale · q·kᵀ)·v` over the cache, each token up to itself: `out` and `q` are `[rows, heads·head_dim]`.
pub fn attend<T: Element>(
    out: &mut [f32],
    q: &[f32],
    [keys, values]: [&[T]; 2],
    pieces: &[Piece],
    shape: CacheShape,
    scores: Scores,
) {
    assert_eq!(out.len(), q.len(), "an output for each query");
    shape.check(q.len(), [keys.len(), values.len()], pieces);
    assert!(scores.window != Some(0), "a window of no tokens");
    let work = Attend { q, keys, values, shape, scores, out: Shared::new(out) };
    let tasks: Vec<Task> = pieces.iter().flat_map(|piece| work.tasks(*piece)).collect();
    for_each(tasks.len(), |task| match tasks[task] {
        Task::One(piece, kv_head) => work.one(piece, kv_head),
        Task::Block(piece, head, first) => work.block(piece, head, first),
    });
}

/// A piece of one token is done for all heads that share keys; of a longer one, a head at a time and 64 tokens at a time.
#[derive(Clone, Copy)]
enum Task {
    One(Piece, usize),
    Block(Piece, usize, usize),
}

struct Attend<'a, T> {
    q: &'a [f32],
    keys: &'a [T],
    values: &'a [T],
    shape: CacheShape,
    scores: Scores,
    out: Shared<'a, f32>,
}

impl<T: Element> Attend<'_, T> {
    fn tasks(&self, piece: Piece) -> Vec<Task> {
        match piece.rows {
            1 => (0..self.shape.kv_heads).map(|head| Task::One(piece, head)).collect(),
            rows => (0..self.shape.heads)
                .flat_map(|head| (0..rows).step_by(BLOCK).map(move |first| Task::Block(piece, head, first)))
                .collect(),
        }
    }

    /// First position that a token at `position` sees.
    fn low(&self, position: usize) -> usize {
        self.scores.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn one(&self, piece: Piece, kv_head: usize) {
        let CacheShape { heads, kv_heads, head_dim, .. } = self.shape;
        let (low, high, shared) = (self.low(piece.position), piece.position + 1, heads / kv_heads);
        let at = (piece.row * heads + kv_head * shared) * head_dim;
        let start = self.shape.start(piece.slot, kv_head) + low * head_dim;
        let range = start..start + (high - low) * head_dim;
        let q = &self.q[at..at + shared * head_dim];
        // SAFETY: a task owns these heads of its row.
        let out = unsafe { self.out.slice(at, shared * head_dim) };
        with_scratch([shared * (high - low)], |[scores]| {
            attend_one(
                out,
                q,
                &self.keys[range.clone()],
                &self.values[range],
                scores,
                [head_dim, shared],
                self.scores.scale,
            );
        });
    }

    fn block(&self, piece: Piece, head: usize, first: usize) {
        let CacheShape { heads, kv_heads, head_dim, .. } = self.shape;
        let rows = BLOCK.min(piece.rows - first);
        let (low, high) = (self.low(piece.position + first), piece.position + first + rows);
        let seen = high - low;
        let start = self.shape.start(piece.slot, head / (heads / kv_heads)) + low * head_dim;
        let range = start..start + seen * head_dim;
        with_scratch([seen * head_dim, seen * head_dim, rows * seen], |[keys, values, scores]| {
            widen(keys, &self.keys[range.clone()]);
            widen(values, &self.values[range]);
            let at = ((piece.row + first) * heads + head) * head_dim;
            let queries = Operand::rows(&self.q[at..], heads * head_dim);
            let keys = transposed(Operand::rows(keys, head_dim));
            // SAFETY: the operands cover the shape.
            unsafe { block_product(scores.as_mut_ptr(), seen, Store::Replace, queries, keys, [rows, seen, head_dim]) };
            for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
                let position = piece.position + first + i;
                softmax_within(row, self.low(position) - low..position + 1 - low, self.scores.scale);
            }
            let (p, values) = (Operand::rows(scores, seen), Operand::rows(values, head_dim));
            let shape = [rows, head_dim, seen];
            // SAFETY: this task owns its head's columns of its rows; the operands cover the shape.
            unsafe { block_product(self.out.pointer(at), heads * head_dim, Store::Replace, p, values, shape) };
        });
    }
}

dispatch! {
    fn widen[T: Element](wide: &mut [f32], narrow: &[T]) {
        wide.iter_mut().zip(narrow).for_each(|(wide, narrow)| *wide = narrow.widen());
    }
}

dispatch! {
    /// Scores → probabilities inside `range`, zeros outside.
    fn softmax_within(row: &mut [f32], range: std::ops::Range<usize>, scale: f32) {
        row[..range.start].fill(0.0);
        row[range.end..].fill(0.0);
        softmax(&mut row[range], scale);
    }
}

/// One token, all query heads that share these keys and values: `out` and `q` are `[shared, dim]`, `keys` and
/// `values` `[seen, dim]`, `scores` `[shared, seen]`.
fn attend_one<T: Element>(
    out: &mut [f32],
    q: &[f32],
    keys: &[T],
    values: &[T],
    scores: &mut [f32],
    [dim, shared]: [usize; 2],
    scale: f32,
) {
    let seen = keys.len() / dim;
    for first in (0..shared).step_by(HEADS) {
        let heads = HEADS.min(shared - first);
        let q = &q[first * dim..(first + heads) * dim];
        let scores = &mut scores[first * seen..(first + heads) * seen];
        products(scores, q, keys, dim);
        scores.chunks_exact_mut(seen).for_each(|scores| softmax_one(scores, scale));
        mix(&mut out[first * dim..(first + heads) * dim], scores, values, dim);
    }
}

dispatch! {
    fn softmax_one(scores: &mut [f32], scale: f32) {
        softmax(scores, scale);
    }
}

/// Heads whose sums share the registers, so that a key or a value is widened once for all of them.
const HEADS: usize = 3;
/// Columns of a register; a product's sum runs in as many chains.
const LANES: usize = 8;

/// `scores[head, t] = q[head] · keys[t]`.
fn products<T: Element>(scores: &mut [f32], q: &[f32], keys: &[T], dim: usize) {
    #[cfg(target_arch = "x86_64")]
    if crate::isa() != crate::Isa::Baseline && dim.is_multiple_of(LANES) {
        // SAFETY: the processor has AVX2 and FMA; the slices hold whole heads, keys and scores.
        return unsafe {
            match q.len() / dim {
                1 => x86::products::<1, T>(scores, q, keys, dim),
                2 => x86::products::<2, T>(scores, q, keys, dim),
                _ => x86::products::<HEADS, T>(scores, q, keys, dim),
            }
        };
    }
    products_reference(scores, q, keys, dim);
}

dispatch! {
    /// Plain twin of the products in registers, with the same bits; for heads of any size.
    fn products_reference[T: Element](scores: &mut [f32], q: &[f32], keys: &[T], dim: usize) {
        let seen = keys.len() / dim;
        for (head, q) in q.chunks_exact(dim).enumerate() {
            for (t, key) in keys.chunks_exact(dim).enumerate() {
                let mut lanes = [0.0f32; LANES];
                for (i, (q, key)) in q.iter().zip(key).enumerate() {
                    lanes[i % LANES] = q.mul_add(key.widen(), lanes[i % LANES]);
                }
                let fours = [0, 1, 2, 3].map(|l| lanes[l] + lanes[l + 4]);
                scores[head * seen + t] = (fours[0] + fours[2]) + (fours[1] + fours[3]);
            }
        }
    }
}

/// `out[head] = Σ_t scores[head, t] · values[t]`, t in order.
fn mix<T: Element>(out: &mut [f32], scores: &[f32], values: &[T], dim: usize) {
    #[cfg(target_arch = "x86_64")]
    if crate::isa() != crate::Isa::Baseline && dim.is_multiple_of(LANES) {
        // SAFETY: the processor has AVX2 and FMA; the slices hold whole heads, values and scores.
        return unsafe {
            match out.len() / dim {
                1 => x86::mix::<1, T>(out, scores, values, dim),
                2 => x86::mix::<2, T>(out, scores, values, dim),
                _ => x86::mix::<HEADS, T>(out, scores, values, dim),
            }
        };
    }
    mix_reference(out, scores, values, dim);
}

dispatch! {
    /// Plain twin of the mixture in registers, with the same bits; for heads of any size.
    fn mix_reference[T: Element](out: &mut [f32], scores: &[f32], values: &[T], dim: usize) {
        let seen = values.len() / dim;
        for (out, scores) in out.chunks_exact_mut(dim).zip(scores.chunks_exact(seen)) {
            out.fill(0.0);
            for (p, value) in scores.iter().zip(values.chunks_exact(dim)) {
                out.iter_mut().zip(value).for_each(|(out, value)| *out = p.mul_add(value.widen(), *out));
            }
        }
    }
}

/// The same sums in registers, with the same bits.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Eight values of either type.
    ///
    /// # Safety
    /// `at` has eight values.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load<T: Element>(at: *const T) -> __m256 {
        // SAFETY: the caller's promise; a type of two bytes is bf16, the upper half of an f32.
        unsafe {
            match size_of::<T>() {
                2 => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())))),
                _ => _mm256_loadu_ps(at.cast()),
            }
        }
    }

    /// # Safety
    /// AVX2 and FMA; H heads of `dim` (a multiple of 8) columns in `q`, as many rows in `scores` as there are keys.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn products<const H: usize, T: Element>(scores: &mut [f32], q: &[f32], keys: &[T], dim: usize) {
        let seen = keys.len() / dim;
        assert!(q.len() == H * dim && scores.len() == H * seen && dim.is_multiple_of(LANES));
        for t in 0..seen {
            let mut sums = [_mm256_setzero_ps(); H];
            for column in (0..dim).step_by(LANES) {
                // SAFETY: the lengths were checked.
                unsafe {
                    let key = load(keys.as_ptr().add(t * dim + column));
                    for head in 0..H {
                        let q = _mm256_loadu_ps(q.as_ptr().add(head * dim + column));
                        sums[head] = _mm256_fmadd_ps(q, key, sums[head]);
                    }
                }
            }
            for head in 0..H {
                let fours = _mm_add_ps(_mm256_castps256_ps128(sums[head]), _mm256_extractf128_ps::<1>(sums[head]));
                let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
                let one = _mm_add_ss(twos, _mm_shuffle_ps::<1>(twos, twos));
                scores[head * seen + t] = _mm_cvtss_f32(one);
            }
        }
    }

    /// # Safety
    /// As [`products`], with `out` for `q`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn mix<const H: usize, T: Element>(out: &mut [f32], scores: &[f32], values: &[T], dim: usize) {
        let seen = values.len() / dim;
        assert!(out.len() == H * dim && scores.len() == H * seen && dim.is_multiple_of(LANES));
        let mut column = 0;
        while column < dim {
            // Two registers at a time, as long as there are two.
            let wide = column + 2 * LANES <= dim;
            // SAFETY: the lengths were checked.
            unsafe {
                match wide {
                    true => columns::<H, 2, T>(out, scores, values, [dim, seen, column]),
                    false => columns::<H, 1, T>(out, scores, values, [dim, seen, column]),
                }
            }
            column += if wide { 2 * LANES } else { LANES };
        }
    }

    /// V registers of columns from `column` on.
    ///
    /// # Safety
    /// As [`mix`], with `column + 8·V <= dim`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn columns<const H: usize, const V: usize, T: Element>(
        out: &mut [f32],
        scores: &[f32],
        values: &[T],
        [dim, seen, column]: [usize; 3],
    ) {
        let mut sums = [[_mm256_setzero_ps(); V]; H];
        for t in 0..seen {
            // SAFETY: the caller's promise.
            unsafe {
                let mut value = [_mm256_setzero_ps(); V];
                for v in 0..V {
                    value[v] = load(values.as_ptr().add(t * dim + column + v * LANES));
                }
                for head in 0..H {
                    let p = _mm256_set1_ps(*scores.as_ptr().add(head * seen + t));
                    for v in 0..V {
                        sums[head][v] = _mm256_fmadd_ps(p, value[v], sums[head][v]);
                    }
                }
            }
        }
        for head in 0..H {
            for v in 0..V {
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(head * dim + column + v * LANES), sums[head][v]) };
            }
        }
    }
}

/// Plain twin of [`attend`] in f64.
pub fn attend_reference<T: Element>(
    out: &mut [f32],
    q: &[f32],
    [keys, values]: [&[T]; 2],
    pieces: &[Piece],
    shape: CacheShape,
    scores: Scores,
) {
    let CacheShape { heads, kv_heads, head_dim, .. } = shape;
    for (piece, i) in pieces.iter().flat_map(|piece| (0..piece.rows).map(move |i| (piece, i))) {
        let position = piece.position + i;
        let low = scores.window.map_or(0, |window| (position + 1).saturating_sub(window));
        for head in 0..heads {
            let at = ((piece.row + i) * heads + head) * head_dim;
            let start = shape.start(piece.slot, head / (heads / kv_heads));
            let cached = |all: &[T], t: usize, j: usize| f64::from(all[start + t * head_dim + j].widen());
            let score = |t| (0..head_dim).map(|j| f64::from(q[at + j]) * cached(keys, t, j)).sum::<f64>();
            let weights: Vec<f64> = (low..=position).map(|t| (score(t) * f64::from(scores.scale)).exp()).collect();
            let total: f64 = weights.iter().sum();
            for j in 0..head_dim {
                let sum: f64 = weights.iter().enumerate().map(|(t, w)| w * cached(values, low + t, j)).sum();
                out[at + j] = (sum / total) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, values};
    use super::*;
    use crate::bf16::Bf16;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    /// Keys and values of `slots` full slots, narrowed to T.
    fn cache<T: Element>(shape: CacheShape, slots: usize, seed: u64) -> [Vec<T>; 2] {
        [seed, seed ^ 9].map(|s| values(slots * shape.slot_len(), s).into_iter().map(T::narrow).collect())
    }

    fn check<T: Element>(
        shape: CacheShape,
        pieces: &[Piece],
        window: Option<usize>,
        seed: u64,
    ) -> Result<(), TestCaseError> {
        let rows = pieces.iter().map(|p| p.rows).sum::<usize>();
        let q = values(rows * shape.heads * shape.head_dim, seed ^ 3);
        let [keys, values] = cache::<T>(shape, 4, seed);
        let scores = Scores { scale: 0.3, window };
        let (mut out, mut expected) = (vec![9.0; q.len()], vec![0.0; q.len()]);
        attend(&mut out, &q, [&keys, &values], pieces, shape, scores);
        attend_reference(&mut expected, &q, [&keys, &values], pieces, shape, scores);
        for (a, b) in out.iter().zip(&expected) {
            prop_assert!((a - b).abs() < 1e-5, "{a} for {b}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        #[test]
        fn attention_matches_the_reference(kv_heads in 1usize..3, shared in 1usize..4, head_dim in 1usize..70, window in proptest::option::of(1usize..60), long in 2usize..140, at in 0usize..100, seed in any::<u64>()) {
            let shape = CacheShape { heads: kv_heads * shared, kv_heads, head_dim, capacity: 260 };
            let pieces = [
                Piece { slot: 1, position: at, row: 0, rows: 1 },
                Piece { slot: 3, position: 17, row: 1, rows: long },
                Piece { slot: 0, position: 0, row: 1 + long, rows: 1 },
            ];
            check::<f32>(shape, &pieces, window, seed)?;
            check::<Bf16>(shape, &pieces, window, seed)?;
        }
    }

    #[test]
    fn a_token_has_the_same_bits_beside_any_others() {
        let shape = CacheShape { heads: 6, kv_heads: 2, head_dim: 32, capacity: 100 };
        let [keys, cached] = cache::<Bf16>(shape, 3, 5);
        let q = values(72 * 192, 1);
        let all: Vec<Piece> = vec![
            Piece { slot: 0, position: 4, row: 0, rows: 70 },
            Piece { slot: 1, position: 99, row: 70, rows: 1 },
            Piece { slot: 2, position: 50, row: 71, rows: 1 },
        ];
        let run = |pieces: &[Piece], threads| {
            let mut out = vec![0.0; q.len()];
            let scores = Scores { scale: 0.2, window: None };
            with_threads(threads, || attend(&mut out, &q, [&keys, &cached], pieces, shape, scores));
            out
        };
        let together = run(&all, 2);
        for piece in &all {
            let own = piece.row * 192..(piece.row + piece.rows) * 192;
            assert!(run(&[*piece], 1)[own.clone()] == together[own]);
        }
    }

    /// One token over 77 positions has these bits on every processor: the tests run with each `KUDOS_ISA`.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let q = values(3 * 24, 5);
        let cached: Vec<Bf16> = values(77 * 24, 6).into_iter().map(Bf16::narrow).collect();
        let (mut scores, mut out) = (vec![0.0; 3 * 77], vec![0.0; 3 * 24]);
        products(&mut scores, &q, &cached, 24);
        mix(&mut out, &scores, &cached, 24);
        for (head, t) in [(0, 0), (1, 40), (2, 76)] {
            let mut lanes = [0.0f32; LANES];
            for i in 0..24 {
                lanes[i % LANES] = q[head * 24 + i].mul_add(cached[t * 24 + i].widen(), lanes[i % LANES]);
            }
            let fours = [0, 1, 2, 3].map(|l| lanes[l] + lanes[l + 4]);
            assert_eq!(scores[head * 77 + t].to_bits(), ((fours[0] + fours[2]) + (fours[1] + fours[3])).to_bits());
            let sum = (0..77).fold(0.0f32, |sum, t| scores[head * 77 + t].mul_add(cached[t * 24 + 9].widen(), sum));
            assert_eq!(out[head * 24 + 9].to_bits(), sum.to_bits());
        }
    }

    #[test]
    fn preparing_norms_turns_and_stores() {
        let shape = CacheShape { heads: 2, kv_heads: 1, head_dim: 4, capacity: 3 };
        let table = RotaryTable::new(&[1.0, 0.5], 1.0, 3);
        let qkv: Vec<f32> = (0..16).map(|i| i as f32 - 5.0).collect();
        let (mut q, mut keys, mut values) = (vec![0.0; 8], vec![0.0f32; 24], vec![0.0f32; 24]);
        let gamma = [2.0; 4];
        let preparation = Preparation { norms: Some([&gamma, &gamma]), epsilon: 0.0, rotary: Some(&table) };
        let piece = Piece { slot: 1, position: 2, row: 0, rows: 1 };
        prepare(&mut q, [&mut keys, &mut values], &qkv, &[piece], shape, preparation);
        let length = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>();
        // A norm with scale 2 makes every head's mean square 4, and a turn keeps it.
        for head in [&q[..4], &q[4..], &keys[20..24]] {
            assert!((length(head) - 16.0).abs() < 1e-4, "{head:?}");
        }
        assert_eq!(&values[20..24], &qkv[12..16]);
        assert!(keys[..20].iter().chain(&values[..20]).all(|v| *v == 0.0));
    }

    /// A piece with more rows than the queries wrote 64 values beyond its output; pieces on the same rows or positions
    /// were written by two tasks at once.
    #[test]
    fn c3_pieces_outside_of_rows_or_cache_and_overlapping_ones_are_refused() {
        let shape = CacheShape { heads: 2, kv_heads: 1, head_dim: 4, capacity: 5 };
        let piece = |slot, position, row, rows| Piece { slot, position, row, rows };
        let cases: [(&[Piece], &str); 7] = [
            (&[piece(0, 0, 0, 4)], "outside of 3 rows"),
            (&[piece(0, 0, 4, 0)], "outside of 3 rows"),
            (&[piece(0, 0, usize::MAX, 2)], "outside of 3 rows"),
            (&[piece(0, 3, 0, 3)], "5 positions"),
            (&[piece(2, 0, 0, 1)], "2 slots"),
            (&[piece(0, 0, 0, 2), piece(1, 0, 1, 1)], "begins inside"),
            (&[piece(0, 0, 0, 2), piece(0, 1, 2, 1)], "share positions"),
        ];
        let cache = vec![0.5f32; 2 * shape.slot_len()];
        let (q, qkv) = (vec![0.5; 3 * 8], vec![0.5; 3 * shape.qkv_width()]);
        for (pieces, said) in cases {
            if said != "share positions" {
                let scores = Scores { scale: 1.0, window: None };
                let found = refusal(|| attend(&mut vec![0.0; q.len()], &q, [&cache, &cache], pieces, shape, scores));
                assert!(found.contains(said), "{pieces:?}: {found}");
            }
            let found = refusal(|| {
                let preparation = Preparation { norms: None, epsilon: 0.0, rotary: None };
                let (mut q, mut keys, mut values) = (vec![0.0; q.len()], cache.clone(), cache.clone());
                prepare(&mut q, [&mut keys, &mut values], &qkv, pieces, shape, preparation);
            });
            assert!(found.contains(said), "{pieces:?}: {found}");
        }
    }
}
