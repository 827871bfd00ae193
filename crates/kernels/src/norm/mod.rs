//! Layer norm over a residual sum: `s = x + residual`, `y = (s − mean)/σ · γ + β`; [`rms`] is the other norm.
//!
//! x may be bf16; the sum, its statistics and the result are f32. For training the sum is kept, with mean and 1/σ per
//! row; for the products that read the result a bf16 copy can be written in the same pass.

pub mod rms;

pub use rms::{rms_norm, rms_norm_reference};

use crate::bf16::{Bf16, Element};
use crate::gemm::Store;
use crate::parallel::{ROWS, Shared, for_each};
use crate::reduce::sum_by;

/// Learned scale and shift with the ε of the variance.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// γ, `[width]`.
    pub gamma: &'a [f32],
    /// β, `[width]`; empty is none.
    pub beta: &'a [f32],
    /// ε added to the variance.
    pub epsilon: f32,
}

/// What a layer norm writes. All but `y` may be empty slices: not wanted.
pub struct NormOutputs<'a> {
    /// `[rows, width]`.
    pub y: &'a mut [f32],
    /// y again, `[rows, width]`.
    pub half: &'a mut [Bf16],
    /// x + residual, `[rows, width]`.
    pub sum: &'a mut [f32],
    /// Mean and 1/σ, `[rows, 2]`.
    pub stats: &'a mut [f32],
}

/// The part of an optional buffer that belongs to some rows.
///
/// # Safety
/// As [`Shared::slice`].
#[allow(clippy::mut_from_ref)] // Disjointness is the caller's promise.
unsafe fn part<'a, T>(whole: &'a Shared<T>, len: usize, start: usize, count: usize) -> &'a mut [T] {
    match len {
        0 => &mut [],
        // SAFETY: the caller's promise.
        _ => unsafe { whole.slice(start, count) },
    }
}

/// Forward over `x: [rows, width]`; an empty residual is none.
pub fn layer_norm<T: Element>(out: NormOutputs, x: &[T], residual: &[f32], norm: LayerNorm) {
    let width = norm.gamma.len();
    let fits = |len: usize, full: usize| len == 0 || len == full;
    let rows = x.len() / width;
    assert!(x.len() == rows * width && fits(norm.beta.len(), width), "rows, γ and β have one width");
    assert!(out.y.len() == x.len() && fits(residual.len(), x.len()) && fits(out.half.len(), x.len()));
    assert!(fits(out.sum.len(), x.len()) && fits(out.stats.len(), 2 * rows));
    let lens = [out.half.len(), out.sum.len(), out.stats.len()];
    let (y, half) = (Shared::new(out.y), Shared::new(out.half));
    let (sum, stats) = (Shared::new(out.sum), Shared::new(out.stats));
    for_each(rows.div_ceil(ROWS), |block| {
        let first = block * ROWS;
        let count = ROWS.min(rows - first);
        let (start, len) = (first * width, count * width);
        // SAFETY: each task owns its own rows.
        let out = unsafe {
            NormOutputs {
                y: y.slice(start, len),
                half: part(&half, lens[0], start, len),
                sum: part(&sum, lens[1], start, len),
                stats: part(&stats, lens[2], 2 * first, 2 * count),
            }
        };
        let residual = if residual.is_empty() { residual } else { &residual[start..start + len] };
        norm_rows(out, &x[start..start + len], residual, norm);
    });
}

dispatch! {
    fn norm_rows[T: Element](out: NormOutputs<'_>, x: &[T], residual: &[f32], norm: LayerNorm<'_>) {
        let NormOutputs { y, half, sum, stats } = out;
        let width = norm.gamma.len();
        for (i, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
            let own = i * width..(i + 1) * width;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x.widen());
            if !residual.is_empty() {
                y.iter_mut().zip(&residual[own.clone()]).for_each(|(y, r)| *y += r);
            }
            if !sum.is_empty() {
                sum[own.clone()].copy_from_slice(y);
            }
            let mean = sum_by(width, |j| y[j]) / width as f32;
            let variance = sum_by(width, |j| (y[j] - mean) * (y[j] - mean)) / width as f32;
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            if norm.beta.is_empty() {
                y.iter_mut().zip(norm.gamma).for_each(|(y, gamma)| *y = (*y - mean) * inverse * gamma);
            }
            for ((y, gamma), beta) in y.iter_mut().zip(norm.gamma).zip(norm.beta) {
                *y = ((*y - mean) * inverse).mul_add(*gamma, *beta);
            }
            if !half.is_empty() {
                half[own].iter_mut().zip(&*y).for_each(|(half, y)| *half = Bf16::narrow(*y));
            }
            if !stats.is_empty() {
                stats[2 * i..2 * i + 2].copy_from_slice(&[mean, inverse]);
            }
        }
    }
}

/// What the way back reads.
#[derive(Clone, Copy)]
pub struct NormSaved<'a> {
    /// x + residual, `[rows, width]`.
    pub sum: &'a [f32],
    /// Mean and 1/σ, `[rows, 2]`.
    pub stats: &'a [f32],
    /// γ, `[width]`.
    pub gamma: &'a [f32],
}

/// A gradient that is written, or added to.
pub struct GradientOf<'a, T> {
    /// `[rows, width]`; may be empty: not wanted.
    pub gradient: &'a mut [T],
    /// Whether to add.
    pub add: bool,
}

/// The gradients that arrive at a norm.
#[derive(Clone, Copy)]
pub struct Arriving<'a> {
    /// Of the result, `[rows, width]`.
    pub dy: &'a [f32],
    /// Of the sum x + residual, from those who read it beside the norm, `[rows, width]`; may be empty: none.
    pub d_sum: &'a [f32],
}

impl<'a> Arriving<'a> {
    /// Refuses gradients that are not as long as they must be.
    fn check(&self, len: usize) {
        assert!(self.dy.len() == len && (self.d_sum.is_empty() || self.d_sum.len() == len), "a gradient of each value");
    }

    fn rows(&self, range: std::ops::Range<usize>) -> Arriving<'a> {
        let d_sum = if self.d_sum.is_empty() { self.d_sum } else { &self.d_sum[range.clone()] };
        Arriving { dy: &self.dy[range], d_sum }
    }
}

/// The gradient of x + residual from `dy`, into that of x and that of the residual.
pub fn layer_norm_backward<T: Element>(d_x: GradientOf<T>, d_residual: GradientOf<f32>, dy: &[f32], saved: NormSaved) {
    layer_norm_backward_beside(d_x, d_residual, Arriving { dy, d_sum: &[] }, saved);
}

/// As [`layer_norm_backward`], where others read x + residual too, as before the layers of a decoder.
pub fn layer_norm_backward_beside<T: Element>(
    d_x: GradientOf<T>,
    d_residual: GradientOf<f32>,
    arriving: Arriving,
    saved: NormSaved,
) {
    let dy = arriving.dy;
    arriving.check(dy.len());
    let width = saved.gamma.len();
    let rows = dy.len() / width;
    assert!(
        dy.len() == rows * width
            && d_x.gradient.len() == dy.len()
            && saved.sum.len() == dy.len()
            && saved.stats.len() == 2 * rows
    );
    assert!(d_residual.gradient.is_empty() || d_residual.gradient.len() == dy.len());
    let residual_len = d_residual.gradient.len();
    let adds = [d_x.add, d_residual.add];
    let (d_x, d_residual) = (Shared::new(d_x.gradient), Shared::new(d_residual.gradient));
    for_each(rows.div_ceil(ROWS), |block| {
        let first = block * ROWS;
        let count = ROWS.min(rows - first);
        let range = first * width..(first + count) * width;
        // SAFETY: each task owns its own rows.
        let (d_x, d_residual) =
            unsafe { (d_x.slice(range.start, range.len()), part(&d_residual, residual_len, range.start, range.len())) };
        let stats = &saved.stats[2 * first..2 * (first + count)];
        let own = NormSaved { sum: &saved.sum[range.clone()], stats, gamma: saved.gamma };
        backward_rows(d_x, d_residual, adds, arriving.rows(range), own);
    });
}

dispatch! {
    fn backward_rows[T: Element](d_x: &mut [T], d_residual: &mut [f32], adds: [bool; 2], arriving: Arriving<'_>, saved: NormSaved<'_>) {
        let gamma = saved.gamma;
        let width = gamma.len();
        let scale = 1.0 / width as f32;
        let mut values = [0.0f32; COLUMN_BLOCK];
        for (i, d_x) in d_x.chunks_exact_mut(width).enumerate() {
            let own = i * width..(i + 1) * width;
            let (dy, s) = (&arriving.dy[own.clone()], &saved.sum[own.clone()]);
            let d_sum = if arriving.d_sum.is_empty() { &[][..] } else { &arriving.d_sum[own.clone()] };
            let (mean, inverse) = (saved.stats[2 * i], saved.stats[2 * i + 1]);
            let g_mean = sum_by(width, |j| dy[j] * gamma[j]) * scale;
            let gx_mean = sum_by(width, |j| dy[j] * gamma[j] * (s[j] - mean)) * inverse * scale;
            let d_residual = if d_residual.is_empty() { &mut [][..] } else { &mut d_residual[own] };
            for start in (0..width).step_by(COLUMN_BLOCK) {
                let block = start..width.min(start + COLUMN_BLOCK);
                let columns = dy[block.clone()].iter().zip(&s[block.clone()]).zip(&gamma[block.clone()]);
                for (value, ((dy, s), gamma)) in values.iter_mut().zip(columns) {
                    let normed = (s - mean) * inverse;
                    *value = inverse * normed.mul_add(-gx_mean, dy.mul_add(*gamma, -g_mean));
                }
                for (value, d_sum) in values.iter_mut().zip(d_sum.get(block.clone()).unwrap_or(&[])) {
                    *value += d_sum;
                }
                for (d_x, value) in d_x[block.clone()].iter_mut().zip(&values) {
                    *d_x = T::narrow(if adds[0] { d_x.widen() + value } else { *value });
                }
                if !d_residual.is_empty() {
                    for (d, value) in d_residual[block].iter_mut().zip(&values) {
                        *d = if adds[1] { *d + value } else { *value };
                    }
                }
            }
        }
    }
}

const COLUMN_BLOCK: usize = 64;

/// `dγ[j] = Σ_i dy·x̂`, `dβ[j] = Σ_i dy` (or `+=`), rows in order. An empty dβ is not wanted.
pub fn layer_norm_parameter_gradients(
    [d_gamma, d_beta]: [&mut [f32]; 2],
    store: Store,
    dy: &[f32],
    sum: &[f32],
    stats: &[f32],
) {
    if store == Store::Replace {
        d_gamma.fill(0.0);
        d_beta.fill(0.0);
    }
    let width = d_gamma.len();
    let rows = dy.len() / width.max(1);
    assert!(d_beta.is_empty() || d_beta.len() == width, "γ and β have one width");
    assert!(dy.len() == rows * width && sum.len() == dy.len() && stats.len() == 2 * rows);
    let beta_len = d_beta.len();
    let (d_gamma, d_beta) = (Shared::new(d_gamma), Shared::new(d_beta));
    for_each(width.div_ceil(COLUMN_BLOCK), |block| {
        let start = block * COLUMN_BLOCK;
        let len = COLUMN_BLOCK.min(width - start);
        // SAFETY: each task owns its own block of columns.
        let (d_gamma, d_beta) = unsafe { (d_gamma.slice(start, len), part(&d_beta, beta_len, start, len)) };
        parameter_columns(d_gamma, d_beta, dy, sum, stats, [start, width]);
    });
}

dispatch! {
    fn parameter_columns(d_gamma: &mut [f32], d_beta: &mut [f32], dy: &[f32], sum: &[f32], stats: &[f32], columns: [usize; 2]) {
        let [start, width] = columns;
        let range = start..start + d_gamma.len();
        for ((dy, s), stats) in dy.chunks_exact(width).zip(sum.chunks_exact(width)).zip(stats.chunks_exact(2)) {
            let (dy, s) = (&dy[range.clone()], &s[range.clone()]);
            for j in 0..d_gamma.len() {
                d_gamma[j] = dy[j].mul_add((s[j] - stats[0]) * stats[1], d_gamma[j]);
            }
            for (d_beta, dy) in d_beta.iter_mut().zip(dy) {
                *d_beta += dy;
            }
        }
    }
}

/// Plain twin of [`layer_norm`] in f64, without a residual.
pub fn layer_norm_reference(y: &mut [f32], x: &[f32], norm: LayerNorm) {
    let width = norm.gamma.len();
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64;
        let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / width as f64;
        for j in 0..width {
            let normed = (f64::from(x[j]) - mean) / (variance + f64::from(norm.epsilon)).sqrt();
            y[j] = (normed * f64::from(norm.gamma[j]) + f64::from(norm.beta[j])) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-2.0f32..2.0, n)
    }

    /// 1/σ of the row of each value.
    fn inverses(x: &[f32], width: usize, epsilon: f32) -> impl Iterator<Item = f32> {
        x.chunks_exact(width).flat_map(move |row| {
            let mean = row.iter().sum::<f32>() / width as f32;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / width as f32;
            std::iter::repeat_n(1.0 / (variance + epsilon).sqrt(), width)
        })
    }

    fn case() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>, Vec<f32>)> {
        (1usize..40, 1usize..90)
            .prop_flat_map(|(rows, width)| (Just(width), values(rows * width), values(width), values(width)))
    }

    /// Without β the norm is that with zeros, its gradient the same, and what others give to the sum is added.
    #[test]
    fn a_norm_without_beta_is_one_with_zeros() {
        let (rows, width) = (37, 70);
        let [x, dy, d_sum] = [1, 2, 3].map(|seed| crate::gemm::tests::values(rows * width, seed));
        let (gamma, zeros) = (crate::gemm::tests::values(width, 4), vec![0.0; width]);
        let run = |beta: &[f32], d_sum: &[f32]| {
            let norm = LayerNorm { gamma: &gamma, beta, epsilon: 1e-5 };
            let (mut y, mut sum, mut stats) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; 2 * rows]);
            layer_norm(NormOutputs { y: &mut y, half: &mut [], sum: &mut sum, stats: &mut stats }, &x, &[], norm);
            let (mut d_x, mut d_gamma, mut d_beta) = (vec![1.0f32; x.len()], vec![0.0; width], vec![0.0; beta.len()]);
            let saved = NormSaved { sum: &sum, stats: &stats, gamma: &gamma };
            let into = GradientOf { gradient: &mut d_x[..], add: false };
            let none = GradientOf { gradient: &mut [][..], add: false };
            layer_norm_backward_beside(into, none, Arriving { dy: &dy, d_sum }, saved);
            layer_norm_parameter_gradients([&mut d_gamma, &mut d_beta], Store::Replace, &dy, &sum, &stats);
            (y, d_x, d_gamma)
        };
        let (with, without) = (run(&zeros, &[]), run(&[], &[]));
        assert_eq!(with, without);
        for ((found, alone), d_sum) in run(&[], &d_sum).1.iter().zip(&without.1).zip(&d_sum) {
            assert_eq!(*found, alone + d_sum);
        }
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(64))]
        #[test]
        fn forward_matches_the_reference((_, x, gamma, beta) in case()) {
            let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
            let (mut y, mut expected) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            let mut half = vec![Bf16::default(); x.len()];
            let part: Vec<f32> = x.iter().map(|v| v * 0.5).collect();
            let out = NormOutputs { y: &mut y, half: &mut half, sum: &mut [], stats: &mut [] };
            layer_norm(out, &part, &part, norm);
            layer_norm_reference(&mut expected, &x, norm);
            for (y, half) in y.iter().zip(&half) { prop_assert_eq!(Bf16::narrow(*y), *half); }
            for (y, (e, inverse)) in y.iter().zip(expected.iter().zip(inverses(&x, gamma.len(), 1e-5))) {
                // An error of the mean or of σ is as large as roundings of x, and is divided by σ.
                prop_assert!((y - e).abs() < 2e-6 * (1.0 + e.abs()) * (1.0 + inverse), "{} {}", y, e);
            }
        }

        #[test]
        fn backward_matches_finite_differences((width, x, gamma, beta) in case(), pick in any::<prop::sample::Index>()) {
            prop_assume!(width > 2);
            let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 0.1 };
            let dy: Vec<f32> = x.iter().rev().copied().collect();
            let loss = |x: &[f32]| {
                let mut y = vec![0.0; x.len()];
                layer_norm_reference(&mut y, x, norm);
                y.iter().zip(&dy).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum::<f64>()
            };
            let (mut y, mut sum, mut stats) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; 2 * x.len() / width]);
            layer_norm(NormOutputs { y: &mut y, half: &mut [], sum: &mut sum, stats: &mut stats }, &x, &[], norm);
            prop_assert_eq!(&sum, &x);
            let (mut ds, mut d_residual) = (vec![1.0f32; x.len()], vec![5.0; x.len()]);
            let saved = NormSaved { sum: &sum, stats: &stats, gamma: &gamma };
            layer_norm_backward(GradientOf { gradient: &mut ds, add: true }, GradientOf { gradient: &mut d_residual, add: false }, &dy, saved);
            for (a, b) in ds.iter().zip(&d_residual) { prop_assert!((a - 1.0 - b).abs() < 1e-5 * (1.0 + b.abs())); }
            let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
            layer_norm_parameter_gradients([&mut d_gamma, &mut d_beta], Store::Add, &dy, &sum, &stats);
            let i = pick.index(x.len());
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let difference = ((loss(&up) - loss(&down)) / 2e-2) as f32;
            prop_assert!((ds[i] - 1.0 - difference).abs() < 2e-2 * (1.0 + difference.abs()), "{} instead of {difference}", ds[i] - 1.0);
            for j in 0..width {
                let terms = |row: usize| {
                    let (d, normed) = (dy[row * width + j], (sum[row * width + j] - stats[2 * row]) * stats[2 * row + 1]);
                    (f64::from(d), f64::from(d) * f64::from(normed))
                };
                let (betas, gammas): (Vec<f64>, Vec<f64>) = (0..x.len() / width).map(terms).unzip();
                for (found, terms) in [(d_beta[j], betas), (d_gamma[j], gammas)] {
                    let size: f64 = terms.iter().map(|t| t.abs()).sum();
                    prop_assert!((f64::from(found) - terms.iter().sum::<f64>()).abs() < 3e-6 * size + 1e-12, "column {}", j);
                }
            }
        }
    }
}
