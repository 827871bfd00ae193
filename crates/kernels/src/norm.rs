//! Layer norm over a residual sum: `s = x + residual`, `y = (s − mean)/σ · γ + β`.
//!
//! x may be bf16; the sum, its statistics and the result are f32. For training the sum is kept, with mean and 1/σ per
//! row; for the products that read the result a bf16 copy can be written in the same pass.

use crate::bf16::{Bf16, Element};
use crate::gemm::Store;
use crate::parallel::{ROWS, Shared, for_each};
use crate::reduce::sum_by;

/// Learned scale and shift with the ε of the variance.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// γ, `[width]`.
    pub gamma: &'a [f32],
    /// β, `[width]`.
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
    assert!(x.len() == rows * width && norm.beta.len() == width, "rows, γ and β have one width");
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

/// `s = x + residual`, `y = s / √(mean s² + ε) · γ` (Zhang and Sennrich 2019, RMSNorm); empty slices are not wanted.
pub fn rms_norm(y: &mut [f32], sum: &mut [f32], x: &[f32], residual: &[f32], gamma: &[f32], epsilon: f32) {
    let width = gamma.len();
    let fits = |len: usize| len == 0 || len == x.len();
    let rows = x.len() / width;
    assert!(x.len() == rows * width && y.len() == x.len() && fits(sum.len()) && fits(residual.len()));
    let (sum_len, y, sum) = (sum.len(), Shared::new(y), Shared::new(sum));
    for_each(rows.div_ceil(ROWS), |block| {
        let range = block * ROWS * width..((block + 1) * ROWS).min(rows) * width;
        // SAFETY: each task owns its own rows.
        let (y, sum) = unsafe { (y.slice(range.start, range.len()), part(&sum, sum_len, range.start, range.len())) };
        let residual = if residual.is_empty() { residual } else { &residual[range.clone()] };
        rms_rows(y, sum, &x[range], residual, gamma, epsilon);
    });
}

dispatch! {
    fn rms_rows(y: &mut [f32], sum: &mut [f32], x: &[f32], residual: &[f32], gamma: &[f32], epsilon: f32) {
        let width = gamma.len();
        y.copy_from_slice(x);
        if !residual.is_empty() {
            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        if !sum.is_empty() {
            sum.copy_from_slice(y);
        }
        for y in y.chunks_exact_mut(width) {
            let mean = sum_by(width, |j| y[j] * y[j]) / width as f32;
            let inverse = 1.0 / (mean + epsilon).sqrt();
            y.iter_mut().zip(gamma).for_each(|(y, gamma)| *y *= inverse * gamma);
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

/// The gradient of x + residual from `dy`, into that of x and that of the residual.
pub fn layer_norm_backward<T: Element>(d_x: GradientOf<T>, d_residual: GradientOf<f32>, dy: &[f32], saved: NormSaved) {
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
        backward_rows(d_x, d_residual, adds, &dy[range], own);
    });
}

dispatch! {
    fn backward_rows[T: Element](d_x: &mut [T], d_residual: &mut [f32], adds: [bool; 2], dy: &[f32], saved: NormSaved<'_>) {
        let gamma = saved.gamma;
        let width = gamma.len();
        let scale = 1.0 / width as f32;
        let mut values = [0.0f32; COLUMN_BLOCK];
        for (i, d_x) in d_x.chunks_exact_mut(width).enumerate() {
            let own = i * width..(i + 1) * width;
            let (dy, s) = (&dy[own.clone()], &saved.sum[own.clone()]);
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

/// `dγ[j] = Σ_i dy·x̂`, `dβ[j] = Σ_i dy` (or `+=`), rows in order.
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
    assert!(d_beta.len() == width && dy.len() == rows * width && sum.len() == dy.len() && stats.len() == 2 * rows);
    let (d_gamma, d_beta) = (Shared::new(d_gamma), Shared::new(d_beta));
    for_each(width.div_ceil(COLUMN_BLOCK), |block| {
        let start = block * COLUMN_BLOCK;
        let len = COLUMN_BLOCK.min(width - start);
        // SAFETY: each task owns its own block of columns.
        let (d_gamma, d_beta) = unsafe { (d_gamma.slice(start, len), d_beta.slice(start, len)) };
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
                d_beta[j] += dy[j];
            }
        }
    }
}

/// Plain twin of [`rms_norm`] in f64.
pub fn rms_norm_reference(y: &mut [f32], x: &[f32], residual: &[f32], gamma: &[f32], epsilon: f32) {
    let width = gamma.len();
    let sum = |i: usize| f64::from(x[i]) + residual.get(i).map_or(0.0, |r| f64::from(*r));
    for i in 0..x.len() {
        let row = i / width * width..(i / width + 1) * width;
        let mean = row.map(|j| sum(j).powi(2)).sum::<f64>() / width as f64;
        y[i] = (sum(i) / (mean + f64::from(epsilon)).sqrt() * f64::from(gamma[i % width])) as f32;
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

        #[test]
        fn rms_norm_matches_the_reference((_, x, gamma, _) in case(), residual: bool, keep: bool) {
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
}
