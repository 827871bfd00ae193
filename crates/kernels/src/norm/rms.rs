//! RMS norm over a residual sum: `s = x + residual`, `y = s / √(mean s² + ε) · γ` (Zhang and Sennrich 2019), forward and
//! backward. Gemma multiplies with 1 + γ.

use super::{Arriving, GradientOf, part};
use crate::bf16::{Bf16, Element};
use crate::gemm::Store;
use crate::parallel::{ROWS, Shared, for_each};
use crate::reduce::sum_by;

/// Learned scale with the ε of the mean square.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// γ, `[width]`.
    pub gamma: &'a [f32],
    /// ε added to the mean square.
    pub epsilon: f32,
    /// Whether values are multiplied with 1 + γ instead of γ.
    pub plus_one: bool,
}

impl RmsNorm<'_> {
    /// What the columns are multiplied with.
    #[inline(always)]
    fn scales(&self) -> impl Iterator<Item = f32> {
        let plus = if self.plus_one { 1.0 } else { 0.0 };
        self.gamma.iter().map(move |gamma| plus + gamma)
    }

    /// What column `j` is multiplied with.
    #[inline(always)]
    fn scale(&self, j: usize) -> f32 {
        if self.plus_one { 1.0 + self.gamma[j] } else { self.gamma[j] }
    }
}

/// What an RMS norm writes. All but `y` may be empty slices: not wanted.
pub struct RmsOutputs<'a> {
    /// `[rows, width]`.
    pub y: &'a mut [f32],
    /// y again, `[rows, width]`.
    pub half: &'a mut [Bf16],
    /// x + residual, `[rows, width]`.
    pub sum: &'a mut [f32],
    /// 1/√(mean + ε), `[rows]`.
    pub inverses: &'a mut [f32],
}

/// `s = x + residual`, `y = s / √(mean s² + ε) · γ` in f32; empty slices are not wanted.
pub fn rms_norm(y: &mut [f32], sum: &mut [f32], x: &[f32], residual: &[f32], gamma: &[f32], epsilon: f32) {
    let norm = RmsNorm { gamma, epsilon, plus_one: false };
    forward(RmsOutputs { y, half: &mut [], sum, inverses: &mut [] }, x, residual, norm);
}

/// Forward over `x: [rows, width]`; an empty residual is none.
///
/// # Panics
/// When the slices are not as long as that.
pub fn forward<T: Element>(out: RmsOutputs, x: &[T], residual: &[f32], norm: RmsNorm) {
    let width = norm.gamma.len();
    let fits = |len: usize, full: usize| len == 0 || len == full;
    let rows = x.len() / width;
    assert!(x.len() == rows * width && out.y.len() == x.len(), "rows of {width} values");
    assert!(fits(residual.len(), x.len()) && fits(out.half.len(), x.len()), "rows of {width} values");
    assert!(fits(out.sum.len(), x.len()) && fits(out.inverses.len(), rows), "rows of {width} values");
    let lens = [out.half.len(), out.sum.len(), out.inverses.len()];
    let (y, half) = (Shared::new(out.y), Shared::new(out.half));
    let (sum, inverses) = (Shared::new(out.sum), Shared::new(out.inverses));
    for_each(rows.div_ceil(ROWS), |block| {
        let first = block * ROWS;
        let count = ROWS.min(rows - first);
        let (start, len) = (first * width, count * width);
        // SAFETY: each task owns its own rows.
        let out = unsafe {
            RmsOutputs {
                y: y.slice(start, len),
                half: part(&half, lens[0], start, len),
                sum: part(&sum, lens[1], start, len),
                inverses: part(&inverses, lens[2], first, count),
            }
        };
        let residual = if residual.is_empty() { residual } else { &residual[start..start + len] };
        forward_rows(out, &x[start..start + len], residual, norm);
    });
}

dispatch! {
    fn forward_rows[T: Element](out: RmsOutputs<'_>, x: &[T], residual: &[f32], norm: RmsNorm<'_>) {
        let RmsOutputs { y, half, sum, inverses } = out;
        let width = norm.gamma.len();
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x.widen());
        if !residual.is_empty() {
            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        if !sum.is_empty() {
            sum.copy_from_slice(y);
        }
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            let inverse = inverse_of(y, norm.epsilon);
            if !inverses.is_empty() {
                inverses[i] = inverse;
            }
            y.iter_mut().zip(norm.scales()).for_each(|(y, scale)| *y *= inverse * scale);
        }
        half.iter_mut().zip(y).for_each(|(half, y)| *half = Bf16::narrow(*y));
    }
}

/// 1/√(mean + ε) of a row.
#[inline(always)]
fn inverse_of(row: &[f32], epsilon: f32) -> f32 {
    let mean = sum_by(row.len(), |j| row[j] * row[j]) / row.len() as f32;
    1.0 / (mean + epsilon).sqrt()
}

/// What the way back reads.
#[derive(Clone, Copy)]
pub struct RmsSaved<'a> {
    /// x + residual, `[rows, width]`.
    pub sum: &'a [f32],
    /// 1/√(mean + ε), `[rows]`.
    pub inverses: &'a [f32],
}

/// The gradient of x + residual, into that of x and that of the residual.
///
/// # Panics
/// When the slices are not `[rows, width]`.
pub fn backward<T: Element>(
    d_x: GradientOf<T>,
    d_residual: GradientOf<f32>,
    arriving: Arriving,
    saved: RmsSaved,
    norm: RmsNorm,
) {
    let (width, len) = (norm.gamma.len(), saved.sum.len());
    let rows = len / width;
    assert!(len == rows * width && saved.inverses.len() == rows && d_x.gradient.len() == len, "rows of {width} values");
    assert!(d_residual.gradient.is_empty() || d_residual.gradient.len() == len, "rows of {width} values");
    arriving.check(len);
    let (residual_len, adds) = (d_residual.gradient.len(), [d_x.add, d_residual.add]);
    let (d_x, d_residual) = (Shared::new(d_x.gradient), Shared::new(d_residual.gradient));
    for_each(rows.div_ceil(ROWS), |block| {
        let own = block * ROWS..rows.min((block + 1) * ROWS);
        let range = own.start * width..own.end * width;
        // SAFETY: each task owns its own rows.
        let (d_x, d_residual) =
            unsafe { (d_x.slice(range.start, range.len()), part(&d_residual, residual_len, range.start, range.len())) };
        let saved = RmsSaved { sum: &saved.sum[range.clone()], inverses: &saved.inverses[own] };
        backward_rows(d_x, d_residual, adds, arriving.rows(range), saved, norm);
    });
}

dispatch! {
    fn backward_rows[T: Element](d_x: &mut [T], d_residual: &mut [f32], adds: [bool; 2], arriving: Arriving<'_>, saved: RmsSaved<'_>, norm: RmsNorm<'_>) {
        let width = norm.gamma.len();
        for (i, d_x) in d_x.chunks_exact_mut(width).enumerate() {
            let own = i * width..(i + 1) * width;
            let (dy, s, inverse) = (&arriving.dy[own.clone()], &saved.sum[own.clone()], saved.inverses[i]);
            let along = slope_along(dy, s, inverse, norm);
            let mut values = [0.0f32; COLUMN_BLOCK];
            for start in (0..width).step_by(COLUMN_BLOCK) {
                let block = start..width.min(start + COLUMN_BLOCK);
                let whole = own.start + block.start..own.start + block.end;
                let columns = dy[block.clone()].iter().zip(&s[block.clone()]).zip(norm.scales().skip(start));
                for (value, ((dy, s), scale)) in values.iter_mut().zip(columns) {
                    *value = slope(dy * scale, *s, inverse, along);
                }
                for (value, d_sum) in values.iter_mut().zip(arriving.d_sum.get(whole.clone()).unwrap_or(&[])) {
                    *value += d_sum;
                }
                for (d_x, value) in d_x[block].iter_mut().zip(&values) {
                    *d_x = T::narrow(if adds[0] { d_x.widen() + value } else { *value });
                }
                for (d, value) in d_residual.get_mut(whole).unwrap_or(&mut []).iter_mut().zip(&values) {
                    *d = if adds[1] { *d + value } else { *value };
                }
            }
        }
    }
}

/// The part of the gradient that lies along the row: mean of dy·γ·s, over the mean square.
#[inline(always)]
fn slope_along(dy: &[f32], s: &[f32], inverse: f32, norm: RmsNorm) -> f32 {
    let mean = sum_by(s.len(), |j| dy[j] * norm.scale(j) * s[j]) / s.len() as f32;
    mean * inverse * inverse
}

/// The gradient of one value of the row, from that of its scaled result.
#[inline(always)]
fn slope(d_normed: f32, s: f32, inverse: f32, along: f32) -> f32 {
    inverse * s.mul_add(-along, d_normed)
}

const COLUMN_BLOCK: usize = 64;

/// `dγ[j] = Σ_i dy·s/√(mean + ε)` (or `+=`), rows in order; the same for 1 + γ.
///
/// # Panics
/// When the slices are not `[rows, width]`.
pub fn parameter_gradient(d_gamma: &mut [f32], store: Store, dy: &[f32], saved: RmsSaved) {
    if store == Store::Replace {
        d_gamma.fill(0.0);
    }
    let width = d_gamma.len();
    let rows = saved.inverses.len();
    assert!(dy.len() == rows * width && saved.sum.len() == dy.len(), "rows of {width} values");
    let d_gamma = Shared::new(d_gamma);
    for_each(width.div_ceil(COLUMN_BLOCK), |block| {
        let start = block * COLUMN_BLOCK;
        // SAFETY: each task owns its own block of columns.
        let d_gamma = unsafe { d_gamma.slice(start, COLUMN_BLOCK.min(width - start)) };
        parameter_columns(d_gamma, dy, saved, [start, width]);
    });
}

dispatch! {
    fn parameter_columns(d_gamma: &mut [f32], dy: &[f32], saved: RmsSaved<'_>, columns: [usize; 2]) {
        let [start, width] = columns;
        let rows = dy.chunks_exact(width).zip(saved.sum.chunks_exact(width)).zip(saved.inverses);
        for ((dy, s), inverse) in rows {
            for ((d_gamma, dy), s) in d_gamma.iter_mut().zip(&dy[start..]).zip(&s[start..]) {
                *d_gamma = dy.mul_add(s * inverse, *d_gamma);
            }
        }
    }
}

/// One row, in place: how heads are normed.
#[inline(always)]
pub(crate) fn norm_row(row: &mut [f32], norm: RmsNorm) {
    let inverse = inverse_of(row, norm.epsilon);
    row.iter_mut().zip(norm.scales()).for_each(|(v, scale)| *v = *v * inverse * scale);
}

/// One row's gradient: `d` is that of the result and becomes that of `row`; `d_gamma` is added to, unless it is empty.
#[inline(always)]
pub(crate) fn norm_row_backward(d: &mut [f32], d_gamma: &mut [f32], row: &[f32], norm: RmsNorm) {
    let inverse = inverse_of(row, norm.epsilon);
    for ((d_gamma, d), s) in d_gamma.iter_mut().zip(&*d).zip(row) {
        *d_gamma = d.mul_add(s * inverse, *d_gamma);
    }
    let along = slope_along(d, row, inverse, norm);
    for ((d, s), scale) in d.iter_mut().zip(row).zip(norm.scales()) {
        *d = slope(*d * scale, *s, inverse, along);
    }
}

/// Plain twin of [`rms_norm`] in f64.
pub fn rms_norm_reference(y: &mut [f32], x: &[f32], residual: &[f32], gamma: &[f32], epsilon: f32) {
    let sum: Vec<f64> =
        (0..x.len()).map(|i| f64::from(x[i]) + residual.get(i).map_or(0.0, |r| f64::from(*r))).collect();
    let gamma: Vec<f64> = gamma.iter().map(|v| f64::from(*v)).collect();
    for (y, value) in y.iter_mut().zip(reference(&sum, &gamma, f64::from(epsilon))) {
        *y = value as f32;
    }
}

/// Plain twin of [`forward`] without a residual, in f64, for what values are multiplied with.
pub fn reference(x: &[f64], scale: &[f64], epsilon: f64) -> Vec<f64> {
    let normed = |row: &[f64]| {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        row.iter().zip(scale).map(|(v, scale)| v / (mean + epsilon).sqrt() * scale).collect::<Vec<_>>()
    };
    x.chunks_exact(scale.len()).flat_map(normed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|v| f64::from(*v)).collect()
    }

    /// What a run with everything asked for gives.
    #[derive(Debug, PartialEq)]
    struct Found {
        y: Vec<f32>,
        sum: Vec<f32>,
        d_x: Vec<f32>,
        d_residual: Vec<f32>,
        d_gamma: Vec<f32>,
    }

    fn run<T: Element>(x: &[T], residual: &[f32], arriving: Arriving, norm: RmsNorm) -> Found {
        let (len, rows) = (x.len(), x.len() / norm.gamma.len());
        let (mut y, mut half, mut sum, mut inverses) =
            (vec![7.0; len], vec![Bf16(7); len], vec![7.0; len], vec![7.0; rows]);
        let out = RmsOutputs { y: &mut y, half: &mut half, sum: &mut sum, inverses: &mut inverses };
        forward(out, x, residual, norm);
        assert!(half.iter().zip(&y).all(|(half, y)| *half == Bf16::narrow(*y)));
        let saved = RmsSaved { sum: &sum, inverses: &inverses };
        let (mut d_x, mut d_residual, mut d_gamma) =
            (vec![T::narrow(1.0); len], vec![5.0; len], vec![2.0; y.len() / rows]);
        let into = GradientOf { gradient: &mut d_x[..], add: true };
        backward(into, GradientOf { gradient: &mut d_residual, add: false }, arriving, saved, norm);
        parameter_gradient(&mut d_gamma, Store::Add, arriving.dy, saved);
        let d_x = d_x.iter().map(|v| v.widen() - 1.0).collect();
        let d_gamma = d_gamma.iter().map(|v| v - 2.0).collect();
        Found { y, sum, d_x, d_residual, d_gamma }
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(64))]
        #[test]
        fn both_ways_match_the_reference(rows in 1usize..40, width in 1usize..90, plus_one: bool, beside: bool, seed: u64, at in any::<prop::sample::Index>()) {
            let [x, residual, dy, d_sum] = [0, 1, 2, 3].map(|i| values(rows * width, seed ^ i));
            let gamma = values(width, seed ^ 4);
            let norm = RmsNorm { gamma: &gamma, epsilon: 0.01, plus_one };
            let d_sum = if beside { &d_sum[..] } else { &[] };
            let found = run(&x, &residual, Arriving { dy: &dy, d_sum }, norm);
            let scale: Vec<f64> = wide(&gamma).iter().map(|g| if plus_one { 1.0 + g } else { *g }).collect();
            let sum = wide(&found.sum);
            for (s, (x, r)) in found.sum.iter().zip(x.iter().zip(&residual)) { prop_assert_eq!(*s, x + r); }
            for (y, e) in found.y.iter().zip(reference(&sum, &scale, f64::from(norm.epsilon))) {
                prop_assert!((f64::from(*y) - e).abs() < 2e-6 * (1e-3 + e.abs()), "{y} instead of {e}");
            }
            let loss = |sum: &[f64], scale: &[f64]| -> f64 {
                let y = reference(sum, scale, f64::from(norm.epsilon));
                let beside: f64 = sum.iter().zip(d_sum).map(|(s, d)| s * f64::from(*d)).sum();
                y.iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum::<f64>() + beside
            };
            let slope = |change: &dyn Fn(f64) -> f64| (change(1e-5) - change(-1e-5)) / 2e-5;
            let place = at.index(sum.len());
            let changed = |values: &[f64], place: usize, by: f64| {
                let mut values = values.to_vec();
                values[place] += by;
                values
            };
            let expected = slope(&|by| loss(&changed(&sum, place, by), &scale));
            for found in [found.d_x[place], found.d_residual[place]] {
                prop_assert!((f64::from(found) - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{found} instead of {expected}");
            }
            let column = place % width;
            let expected = slope(&|by| loss(&sum, &changed(&scale, column, by)));
            prop_assert!((f64::from(found.d_gamma[column]) - expected).abs() < 1e-4 * (1.0 + expected.abs()));
        }

        #[test]
        fn rms_norm_matches_the_reference(rows in 1usize..40, width in 1usize..90, residual: bool, keep: bool, seed: u64) {
            let (x, gamma) = (values(rows * width, seed), values(width, seed ^ 1));
            let half: Vec<f32> = x.iter().map(|v| v * 0.5).collect();
            let (x, other) = if residual { (&half, &half[..]) } else { (&x, &[][..]) };
            let (mut y, mut expected) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            let mut sum = vec![0.0; if keep { x.len() } else { 0 }];
            rms_norm(&mut y, &mut sum, x, other, &gamma, 1e-5);
            rms_norm_reference(&mut expected, x, other, &gamma, 1e-5);
            for (y, e) in y.iter().zip(&expected) { prop_assert!((y - e).abs() < 2e-6 * (1e-6 + e.abs()), "{} {}", y, e); }
            let whole = x.iter().enumerate().map(|(i, v)| v + other.get(i).unwrap_or(&0.0));
            prop_assert!(!keep || sum.iter().copied().eq(whole));
        }
    }

    #[test]
    fn rows_have_the_same_bits_in_any_batch_and_with_any_threads() {
        let (x, dy, gamma) = (values(70 * 64, 1), values(70 * 64, 2), values(64, 3));
        let norm = RmsNorm { gamma: &gamma, epsilon: 1e-6, plus_one: true };
        let run = |rows: usize, threads| {
            let arriving = Arriving { dy: &dy[..rows * 64], d_sum: &[] };
            with_threads(threads, || run(&x[..rows * 64], &[], arriving, norm))
        };
        let all = run(70, 1);
        assert_eq!(all, run(70, 3));
        for rows in [1, 15, 17, 33] {
            let some = run(rows, 2);
            assert!(some.y == all.y[..rows * 64] && some.d_x == all.d_x[..rows * 64], "{rows} rows");
        }
    }

    #[test]
    fn bf16_inputs_are_their_values() {
        let (x, dy, gamma) = (values(5 * 40, 1), values(5 * 40, 2), values(40, 3));
        let halves: Vec<Bf16> = x.iter().map(|v| Bf16::narrow(*v)).collect();
        let x: Vec<f32> = halves.iter().map(|v| v.widen()).collect();
        let (norm, arriving) =
            (RmsNorm { gamma: &gamma, epsilon: 1e-6, plus_one: false }, Arriving { dy: &dy, d_sum: &[] });
        let (half, full) = (run(&halves, &[], arriving, norm), run(&x, &[], arriving, norm));
        assert!(half.y == full.y && half.d_residual == full.d_residual && half.d_gamma == full.d_gamma);
        assert!(half.d_x.iter().zip(&full.d_x).all(|(a, b)| (a - b).abs() < 0.01 * (1.0 + b.abs())));
    }

    #[test]
    fn c3_slices_that_are_no_whole_rows_are_refused() {
        let norm = RmsNorm { gamma: &[1.0; 4], epsilon: 1e-6, plus_one: false };
        for (y, residual, inverses) in [(12, 0, 0), (8, 4, 0), (8, 0, 3)] {
            let found = crate::attention::tests::refusal(|| {
                let (mut y, mut inverses) = (vec![0.0; y], vec![0.0; inverses]);
                let out = RmsOutputs { y: &mut y, half: &mut [], sum: &mut [], inverses: &mut inverses };
                forward(out, &[0.5f32; 8], &vec![0.0; residual], norm);
            });
            assert!(found.contains("rows of 4 values"), "{found}");
        }
    }
}
