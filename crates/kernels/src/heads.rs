//! What happens to the heads of queries and keys before they meet: an RMS norm over each head (Qwen 3, Gemma 3) and the
//! rotary turn, forward and backward, on packed sequences.

use crate::bf16::Element;
use crate::gemm::Store;
use crate::norm::rms::{RmsNorm, norm_row, norm_row_backward};
use crate::parallel::{ROWS, Shared, area, for_each};
use crate::rotary::RotaryTable;
use crate::scratch::with_scratch;

/// The norms over heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms<'a> {
    /// Scale of the queries' heads, `[head_dim]`.
    pub q: &'a [f32],
    /// Scale of the keys' heads, `[head_dim]`.
    pub k: &'a [f32],
    /// ε added to the mean square.
    pub epsilon: f32,
    /// Whether values are multiplied with 1 + scale.
    pub plus_one: bool,
}

/// Rows of `heads` heads of queries, then `key_heads` heads of keys, then columns that stay as they are (the values).
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// Heads of queries; none in a buffer of keys and values.
    pub heads: usize,
    /// Heads of keys; none in a buffer of queries.
    pub key_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Comes first.
    pub norms: Option<HeadNorms<'a>>,
    /// Comes second.
    pub rotary: Option<&'a RotaryTable>,
    /// Position of each row.
    pub positions: &'a [u32],
}

impl Heads<'_> {
    /// Columns of a row of `len` values in all.
    ///
    /// # Panics
    /// When the rows have no room for the heads, or norms and turns do not fit to them.
    fn check(&self, len: usize) -> usize {
        let rows = self.positions.len();
        let width = len / rows.max(1);
        assert_eq!(len, area(rows, width), "a row for each of {rows} positions");
        let least = area(self.heads + self.key_heads, self.head_dim);
        assert!(self.head_dim > 0 && (rows == 0 || width >= least), "rows of {width} values for {least} of heads");
        if let Some(norms) = self.norms {
            assert_eq!([norms.q.len(), norms.k.len()], [self.head_dim; 2], "a scale for each column of a head");
        }
        if let Some(rotary) = self.rotary {
            assert!(rotary.width() <= self.head_dim, "{} turned columns of {}", rotary.width(), self.head_dim);
            let last = self.positions.iter().max().map_or(0, |last| *last as usize + 1);
            assert!(last <= rotary.positions(), "{last} positions and a table of {}", rotary.positions());
        }
        width
    }

    /// The norm of a head, by its number among queries and keys.
    fn norm(&self, head: usize) -> Option<RmsNorm<'_>> {
        let HeadNorms { q, k, epsilon, plus_one } = self.norms?;
        Some(RmsNorm { gamma: if head < self.heads { q } else { k }, epsilon, plus_one })
    }
}

/// `out` receives the rows of `x`, heads normed and turned: both are `[rows, width]`.
///
/// # Panics
/// When the rows have no room for the heads, norms and turns do not fit to them, or a position lies beyond the table.
pub fn prepare<T: Element>(out: &mut [T], x: &[T], heads: &Heads) {
    let width = heads.check(x.len());
    assert_eq!(out.len(), x.len(), "as many rows as x");
    let (out, rows) = (Shared::new(out), heads.positions.len());
    for_each(rows.div_ceil(ROWS), |block| {
        for row in block * ROWS..rows.min((block + 1) * ROWS) {
            // SAFETY: each task owns its own rows.
            let out = unsafe { out.slice(row * width, width) };
            prepare_row(out, &x[row * width..(row + 1) * width], heads, heads.positions[row] as usize);
        }
    });
}

fn prepare_row<T: Element>(out: &mut [T], x: &[T], heads: &Heads, position: usize) {
    let own = (heads.heads + heads.key_heads) * heads.head_dim;
    out[own..].copy_from_slice(&x[own..]);
    with_scratch([heads.head_dim], |[wide]| {
        let both = out[..own].chunks_exact_mut(heads.head_dim).zip(x.chunks_exact(heads.head_dim));
        for (head, (out, x)) in both.enumerate() {
            prepare_head(out, x, wide, heads.norm(head), heads.rotary, position);
        }
    });
}

dispatch! {
    fn prepare_head[T: Element](out: &mut [T], x: &[T], wide: &mut [f32], norm: Option<RmsNorm<'_>>, rotary: Option<&RotaryTable>, position: usize) {
        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
        if let Some(norm) = norm {
            norm_row(wide, norm);
        }
        if let Some(rotary) = rotary {
            rotary.turn(wide, position, 1.0);
        }
        out.iter_mut().zip(wide).for_each(|(out, wide)| *out = T::narrow(*wide));
    }
}

/// Where the gradients of the norms' scales go, `[head_dim]` each.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// Of the queries' scale.
    pub q: &'a mut [f32],
    /// Of the keys' scale.
    pub k: &'a mut [f32],
    /// Whether both are replaced or added to.
    pub store: Store,
}

/// Rows whose part of a scale's gradient is summed by one task; parts are added in order.
const PART: usize = 64;

/// Gradient of [`prepare`]: `d_x` from `d_out`, both `[rows, width]`, where `x` is the forward's input. Gradients of the
/// scales are not wanted, if `None`.
///
/// # Panics
/// As [`prepare`], and when gradients of scales are wanted that the heads do not have.
pub fn prepare_backward<T: Element>(d_x: &mut [T], scales: Option<NormGradients>, d_out: &[T], x: &[T], heads: &Heads) {
    let (width, rows, dim) = (heads.check(x.len()), heads.positions.len(), heads.head_dim);
    assert_eq!([d_x.len(), d_out.len()], [x.len(); 2], "as many rows as x");
    assert!(scales.is_none() || heads.norms.is_some(), "gradients of norms that the heads do not have");
    let parts = rows.div_ceil(PART);
    let mut sums = vec![0.0f32; if scales.is_some() { parts * 2 * dim } else { 0 }];
    let (sums_len, d_x, shared) = (sums.len(), Shared::new(d_x), Shared::new(&mut sums));
    for_each(parts, |part| {
        // SAFETY: each task owns its own part.
        let sums = if sums_len == 0 { &mut [][..] } else { unsafe { shared.slice(part * 2 * dim, 2 * dim) } };
        for row in part * PART..rows.min((part + 1) * PART) {
            // SAFETY: each task owns its own rows.
            let d_x = unsafe { d_x.slice(row * width, width) };
            let own = row * width..(row + 1) * width;
            row_backward(d_x, sums, [&d_out[own.clone()], &x[own]], heads, heads.positions[row] as usize);
        }
    });
    if let Some(NormGradients { q, k, store }) = scales {
        for (first, into) in [(0, q), (dim, k)] {
            add_parts(into, store, &sums, first);
        }
    }
}

fn row_backward<T: Element>(d_x: &mut [T], sums: &mut [f32], [d_out, x]: [&[T]; 2], heads: &Heads, position: usize) {
    let (dim, own) = (heads.head_dim, (heads.heads + heads.key_heads) * heads.head_dim);
    d_x[own..].copy_from_slice(&d_out[own..]);
    with_scratch([dim, dim], |memory| {
        let [wide, d_wide] = memory;
        for (head, d_x) in d_x[..own].chunks_exact_mut(dim).enumerate() {
            let columns = head * dim..(head + 1) * dim;
            let first = if head < heads.heads { 0 } else { dim };
            let sums = sums.get_mut(first..first + dim).unwrap_or(&mut []);
            let vectors = [&d_out[columns.clone()], &x[columns]];
            head_backward(d_x, sums, vectors, [wide, d_wide], heads.norm(head), heads.rotary, position);
        }
    });
}

dispatch! {
    fn head_backward[T: Element](d_x: &mut [T], d_scale: &mut [f32], vectors: [&[T]; 2], memory: [&mut [f32]; 2], norm: Option<RmsNorm<'_>>, rotary: Option<&RotaryTable>, position: usize) {
        let ([d_out, x], [wide, d_wide]) = (vectors, memory);
        d_wide.iter_mut().zip(d_out).for_each(|(wide, d)| *wide = d.widen());
        if let Some(rotary) = rotary {
            rotary.turn(d_wide, position, -1.0);
        }
        if let Some(norm) = norm {
            wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
            norm_row_backward(d_wide, d_scale, wide, norm);
        }
        d_x.iter_mut().zip(d_wide).for_each(|(d_x, wide)| *d_x = T::narrow(*wide));
    }
}

/// Adds every part's `into.len()` values from `first` on, in order.
fn add_parts(into: &mut [f32], store: Store, sums: &[f32], first: usize) {
    let dim = into.len();
    if store == Store::Replace {
        into.fill(0.0);
    }
    for part in sums.chunks_exact(2 * dim) {
        into.iter_mut().zip(&part[first..]).for_each(|(into, sum)| *into += sum);
    }
}

/// Plain twin of [`prepare`], in f64, without the columns that stay.
pub fn prepare_reference(x: &[f64], heads: &Heads, turn: impl Fn(&mut [f64], usize)) -> Vec<f64> {
    let width = x.len() / heads.positions.len();
    let mut out = x.to_vec();
    for (row, position) in out.chunks_exact_mut(width).zip(heads.positions) {
        let own = &mut row[..(heads.heads + heads.key_heads) * heads.head_dim];
        for (number, head) in own.chunks_exact_mut(heads.head_dim).enumerate() {
            if let Some(norm) = heads.norm(number) {
                let plus = if norm.plus_one { 1.0 } else { 0.0 };
                let scale: Vec<f64> = norm.gamma.iter().map(|gamma| plus + f64::from(*gamma)).collect();
                head.copy_from_slice(&crate::norm::rms::reference(head, &scale, f64::from(norm.epsilon)));
            }
            turn(head, *position as usize);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Bf16;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use crate::rotary::Pairs;
    use proptest::prelude::*;

    const FREQUENCIES: [f32; 3] = [1.0, 0.3, 0.01];

    /// The turn as its definition says, in complex numbers of two columns.
    fn turn(head: &mut [f64], position: usize, pairs: Pairs) {
        for (i, frequency) in FREQUENCIES.iter().enumerate() {
            let (a, b) = if pairs == Pairs::Halves { (i, i + FREQUENCIES.len()) } else { (2 * i, 2 * i + 1) };
            let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
        }
    }

    /// Positions of three sequences, the second of which continues a parent of five tokens.
    fn positions() -> Vec<u32> {
        (0..40).chain(5..60).chain(0..30).collect()
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(48))]
        #[test]
        fn both_ways_match_the_reference(heads in 0usize..4, key_heads in 0usize..3, rest in 0usize..9, normed: bool, plus_one: bool, halves: bool, seed: u64, at in any::<prop::sample::Index>()) {
            prop_assume!(heads + key_heads > 0);
            let pairs = if halves { Pairs::Halves } else { Pairs::Interleaved };
            let (head_dim, positions) = (6 + seed as usize % 5, positions());
            let table = RotaryTable::new(&FREQUENCIES, 1.0, 60).of_pairs(pairs);
            let [q, k] = [1, 2].map(|i| values(head_dim, seed ^ i));
            let norms = normed.then_some(HeadNorms { q: &q, k: &k, epsilon: 0.01, plus_one });
            let shape = Heads { heads, key_heads, head_dim, norms, rotary: Some(&table), positions: &positions };
            let width = (heads + key_heads) * head_dim + rest;
            let [x, d_out] = [3, 4].map(|i| values(positions.len() * width, seed ^ i));
            let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let twin = |x: &[f64], shape: &Heads| prepare_reference(x, shape, |head, position| turn(head, position, pairs));
            let mut out = vec![9.0; x.len()];
            prepare(&mut out, &x, &shape);
            for (o, e) in out.iter().zip(twin(&wide, &shape)) { prop_assert!((f64::from(*o) - e).abs() < 1e-5 * (1.0 + e.abs())); }
            let (mut d_x, mut d_q, mut d_k) = (vec![9.0; x.len()], vec![2.0; head_dim], vec![9.0; head_dim]);
            let scales = normed.then_some(NormGradients { q: &mut d_q, k: &mut d_k, store: Store::Replace });
            prepare_backward(&mut d_x, scales, &d_out, &x, &shape);
            let loss = |x: &[f64], shape: &Heads| -> f64 {
                twin(x, shape).iter().zip(&d_out).map(|(o, d)| o * f64::from(*d)).sum()
            };
            let place = at.index(x.len());
            let changed = |by: f64| { let mut x = wide.clone(); x[place] += by; loss(&x, &shape) };
            let expected = (changed(1e-5) - changed(-1e-5)) / 2e-5;
            prop_assert!((f64::from(d_x[place]) - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{} instead of {expected}", d_x[place]);
            if normed {
                // A scale is f32: its step must be one, too.
                let changed = |by: f32| {
                    let (mut q, mut k) = (q.clone(), k.clone());
                    (q[place % head_dim], k[place % head_dim]) = (q[place % head_dim] + by, k[place % head_dim] + by);
                    let norms = Some(HeadNorms { q: &q, k: &k, epsilon: 0.01, plus_one });
                    (loss(&wide, &Heads { norms, ..shape }), f64::from(q[place % head_dim]), f64::from(k[place % head_dim]))
                };
                let (up, down) = (changed(0.01), changed(-0.01));
                let found = f64::from(d_q[place % head_dim]) * (up.1 - down.1) + f64::from(d_k[place % head_dim]) * (up.2 - down.2);
                prop_assert!((found - (up.0 - down.0)).abs() < 1e-4 * (0.1 + (up.0 - down.0).abs()), "{found} instead of {}", up.0 - down.0);
            }
        }
    }

    #[test]
    fn rows_have_the_same_bits_in_any_batch_and_with_any_threads() {
        let (positions, gamma) = (positions(), values(16, 3));
        let table = RotaryTable::new(&[1.0; 8], 1.0, 60);
        let norms = HeadNorms { q: &gamma, k: &gamma, epsilon: 1e-6, plus_one: false };
        let (x, d_out) = (values(positions.len() * 80, 1), values(positions.len() * 80, 2));
        let run = |rows: std::ops::Range<usize>, threads| {
            let (x, d_out) = (&x[rows.start * 80..rows.end * 80], &d_out[rows.start * 80..rows.end * 80]);
            let positions = &positions[rows];
            let heads =
                Heads { heads: 2, key_heads: 1, head_dim: 16, norms: Some(norms), rotary: Some(&table), positions };
            let (mut out, mut d_x, mut d_q, mut d_k) = (x.to_vec(), x.to_vec(), vec![0.0; 16], vec![0.0; 16]);
            with_threads(threads, || {
                prepare(&mut out, x, &heads);
                let scales = NormGradients { q: &mut d_q, k: &mut d_k, store: Store::Add };
                prepare_backward(&mut d_x, Some(scales), d_out, x, &heads);
            });
            (out, d_x, d_q, d_k)
        };
        let all = run(0..125, 1);
        assert_eq!(all, run(0..125, 3));
        for rows in [0..1, 3..66, 100..125] {
            let own = rows.start * 80..rows.end * 80;
            let some = run(rows, 2);
            assert!(some.0 == all.0[own.clone()] && some.1 == all.1[own]);
        }
    }

    #[test]
    fn bf16_is_close_to_f32() {
        let table = RotaryTable::new(&[1.0; 4], 1.0, 9);
        let gamma = [1.0; 8];
        let norms = Some(HeadNorms { q: &gamma, k: &gamma, epsilon: 1e-6, plus_one: true });
        let heads = Heads { heads: 1, key_heads: 1, head_dim: 8, norms, rotary: Some(&table), positions: &[3, 8] };
        let halves: Vec<Bf16> = values(48, 1).into_iter().map(Bf16::narrow).collect();
        let wide: Vec<f32> = halves.iter().map(|v| v.widen()).collect();
        let (mut out, mut expected) = (halves.clone(), wide.clone());
        prepare(&mut out, &halves, &heads);
        prepare(&mut expected, &wide, &heads);
        assert!(out.iter().zip(&expected).all(|(a, b)| (a.widen() - b).abs() <= b.abs() / 256.0));
        let (mut d, mut d_expected) = (halves.clone(), wide.clone());
        prepare_backward(&mut d, None, &halves, &halves, &heads);
        prepare_backward(&mut d_expected, None, &wide, &wide, &heads);
        assert!(d.iter().zip(&d_expected).all(|(a, b)| (a.widen() - b).abs() <= b.abs() / 256.0));
    }

    #[test]
    fn c3_rows_without_room_for_the_heads_are_refused() {
        let table = RotaryTable::new(&[1.0; 4], 1.0, 9);
        let shape =
            Heads { heads: 1, key_heads: 1, head_dim: 8, norms: None, rotary: Some(&table), positions: &[3, 8] };
        let cases = [
            (Heads { positions: &[3, 9], ..shape }, 32, "10 positions and a table of 9"),
            (shape, 30, "rows of 15 values for 16"),
            (shape, 33, "a row for each"),
            (Heads { head_dim: 6, ..shape }, 32, "8 turned columns of 6"),
        ];
        for (heads, len, said) in cases {
            let x = vec![0.5f32; len];
            let found =
                crate::attention::tests::refusal(std::panic::AssertUnwindSafe(|| prepare(&mut x.clone(), &x, &heads)));
            assert!(found.contains(said), "{found}");
        }
    }
}
