//! Layer norm over a residual sum: `s = x + residual`, `y = (s − mean)/σ · γ + β`.
//!
//! The sum is kept for the way back; mean and 1/σ are kept per row.

use crate::parallel::{ROWS, Shared, for_each};
use crate::reduce::sum_by;
use rayon::prelude::*;

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

/// Forward over `[rows, width]`. `sum` holds x on entry when there is a residual, and x + residual on return.
///
/// `stats: [rows, 2]` receives mean and 1/σ.
pub fn layer_norm(y: &mut [f32], sum: &mut [f32], stats: &mut [f32], residual: Option<&[f32]>, norm: LayerNorm) {
    let width = norm.gamma.len();
    assert!(y.len() == sum.len() && stats.len() * width == 2 * sum.len());
    let block = ROWS * width;
    let tasks = y.par_chunks_mut(block).zip(sum.par_chunks_mut(block)).zip(stats.par_chunks_mut(2 * ROWS));
    tasks.enumerate().for_each(|(i, ((y, sum), stats))| {
        let residual = residual.map(|r| &r[i * block..i * block + sum.len()]);
        norm_rows(y, sum, stats, residual, norm);
    });
}

dispatch! {
    fn norm_rows(y: &mut [f32], sum: &mut [f32], stats: &mut [f32], residual: Option<&[f32]>, norm: LayerNorm<'_>) {
        let width = norm.gamma.len();
        if let Some(residual) = residual {
            for (s, r) in sum.iter_mut().zip(residual) {
                *s += r;
            }
        }
        for ((y, s), stats) in y.chunks_exact_mut(width).zip(sum.chunks_exact(width)).zip(stats.chunks_exact_mut(2)) {
            let mean = sum_by(width, |j| s[j]) / width as f32;
            let variance = sum_by(width, |j| (s[j] - mean) * (s[j] - mean)) / width as f32;
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            for j in 0..width {
                y[j] = ((s[j] - mean) * inverse).mul_add(norm.gamma[j], norm.beta[j]);
            }
            stats.copy_from_slice(&[mean, inverse]);
        }
    }
}

/// `ds` (written or added to) from `dy`; both x and the residual have this gradient.
pub fn layer_norm_backward(ds: &mut [f32], add: bool, dy: &[f32], sum: &[f32], stats: &[f32], gamma: &[f32]) {
    let block = ROWS * gamma.len();
    ds.par_chunks_mut(block).enumerate().for_each(|(i, ds)| {
        let range = i * block..i * block + ds.len();
        backward_rows(ds, add, &dy[range.clone()], &sum[range], &stats[2 * i * ROWS..], gamma);
    });
}

dispatch! {
    fn backward_rows(ds: &mut [f32], add: bool, dy: &[f32], sum: &[f32], stats: &[f32], gamma: &[f32]) {
        let width = gamma.len();
        let scale = 1.0 / width as f32;
        for (i, ds) in ds.chunks_exact_mut(width).enumerate() {
            let (dy, s) = (&dy[i * width..(i + 1) * width], &sum[i * width..(i + 1) * width]);
            let (mean, inverse) = (stats[2 * i], stats[2 * i + 1]);
            let g_mean = sum_by(width, |j| dy[j] * gamma[j]) * scale;
            let gx_mean = sum_by(width, |j| dy[j] * gamma[j] * (s[j] - mean)) * inverse * scale;
            for j in 0..width {
                let normed = (s[j] - mean) * inverse;
                let value = inverse * normed.mul_add(-gx_mean, dy[j].mul_add(gamma[j], -g_mean));
                ds[j] = if add { ds[j] + value } else { value };
            }
        }
    }
}

const COLUMN_BLOCK: usize = 64;

/// `dγ[j] += Σ_i dy·x̂`, `dβ[j] += Σ_i dy`, rows in order.
pub fn layer_norm_parameter_gradients(d_gamma: &mut [f32], d_beta: &mut [f32], dy: &[f32], sum: &[f32], stats: &[f32]) {
    let width = d_gamma.len();
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

    fn case() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>, Vec<f32>)> {
        (1usize..40, 1usize..90)
            .prop_flat_map(|(rows, width)| (Just(width), values(rows * width), values(width), values(width)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn forward_matches_the_reference((width, x, gamma, beta) in case()) {
            let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
            let (mut y, mut expected, mut sum) = (vec![0.0; x.len()], vec![0.0; x.len()], x.clone());
            let mut stats = vec![0.0; 2 * x.len() / width];
            let half: Vec<f32> = x.iter().map(|v| v * 0.5).collect();
            sum.iter_mut().for_each(|v| *v *= 0.5);
            layer_norm(&mut y, &mut sum, &mut stats, Some(&half), norm);
            layer_norm_reference(&mut expected, &x, norm);
            for (y, e) in y.iter().zip(&expected) { prop_assert!((y - e).abs() < 1e-3 * (1.0 + e.abs()), "{} {}", y, e); }
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
            let (mut y, mut sum, mut stats) = (vec![0.0; x.len()], x.clone(), vec![0.0; 2 * x.len() / width]);
            layer_norm(&mut y, &mut sum, &mut stats, None, norm);
            let mut ds = vec![1.0; x.len()];
            layer_norm_backward(&mut ds, true, &dy, &sum, &stats, &gamma);
            let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
            layer_norm_parameter_gradients(&mut d_gamma, &mut d_beta, &dy, &sum, &stats);
            let i = pick.index(x.len());
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let difference = ((loss(&up) - loss(&down)) / 2e-2) as f32;
            prop_assert!((ds[i] - 1.0 - difference).abs() < 2e-2 * (1.0 + difference.abs()), "{} instead of {difference}", ds[i] - 1.0);
            let column: f32 = dy.iter().skip(i % width).step_by(width).sum();
            prop_assert!((d_beta[i % width] - column).abs() < 1e-3);
        }
    }
}
