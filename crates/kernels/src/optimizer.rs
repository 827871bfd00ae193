//! AdamW in one pass over a tensor (Loshchilov and Hutter 2019; the update of `torch.optim.AdamW`).

use crate::parallel::{ROWS, Shared, for_each};
use rayon::prelude::*;

/// What one step of one tensor needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on every gradient: the clip.
    pub gradient_scale: f32,
    /// Number of this step, from 1: the bias correction.
    pub step: u64,
}

/// The four arrays of a tensor, of equal length.
pub struct Tensor<'a> {
    /// Weights, updated.
    pub values: &'a mut [f32],
    /// First moment, updated.
    pub first: &'a mut [f32],
    /// Second moment, updated.
    pub second: &'a mut [f32],
    /// Gradient.
    pub gradient: &'a [f32],
}

const CHUNK: usize = 1 << 13;

/// One step over one tensor.
pub fn adamw(tensor: Tensor, adam: AdamW) {
    let chunks = tensor.values.par_chunks_mut(CHUNK).zip(tensor.first.par_chunks_mut(CHUNK));
    let chunks = chunks.zip(tensor.second.par_chunks_mut(CHUNK).zip(tensor.gradient.par_chunks(CHUNK)));
    chunks.for_each(|((values, first), (second, gradient))| update(values, first, second, gradient, adam));
}

/// One step over the given distinct rows of a tensor `[.., width]`.
pub fn adamw_rows(tensor: Tensor, adam: AdamW, width: usize, rows: &[u32]) {
    let Tensor { values, first, second, gradient } = tensor;
    let (values, first, second) = (Shared::new(values), Shared::new(first), Shared::new(second));
    for_each(rows.len().div_ceil(ROWS), |block| {
        for row in &rows[block * ROWS..rows.len().min((block + 1) * ROWS)] {
            let start = *row as usize * width;
            // SAFETY: the rows are distinct, and a task owns its own.
            let [values, first, second] = unsafe { [&values, &first, &second].map(|all| all.slice(start, width)) };
            update(values, first, second, &gradient[start..start + width], adam);
        }
    });
}

/// What a step does to the rows of `[.., width]` whose gradient and moments are zero: weight decay alone. `lives`
/// names the others, which stay as they are.
pub fn decay_rows(values: &mut [f32], adam: AdamW, width: usize, lives: &[bool]) {
    let keep = 1.0 - adam.learning_rate * adam.weight_decay;
    values.par_chunks_mut(width).zip(lives).for_each(|(row, lives)| {
        if !lives {
            row.iter_mut().for_each(|v| *v *= keep);
        }
    });
}

dispatch! {
    fn update(values: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], adam: AdamW) {
        let AdamW { beta1, beta2, epsilon, gradient_scale, .. } = adam;
        let power = adam.step.min(i32::MAX as u64) as i32;
        let correction1 = 1.0 - f64::from(beta1).powi(power);
        let correction2 = (1.0 - f64::from(beta2).powi(power)).sqrt() as f32;
        let size = (f64::from(adam.learning_rate) / correction1) as f32;
        let keep = 1.0 - adam.learning_rate * adam.weight_decay;
        for (((p, m), v), g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
            let g = g * gradient_scale;
            *m = (1.0 - beta1).mul_add(g - *m, *m);
            *v = (1.0 - beta2).mul_add(g * g, beta2 * *v);
            let denominator = v.sqrt() / correction2 + epsilon;
            *p = keep.mul_add(*p, -size * (*m / denominator));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.optim.AdamW([1., -2.], lr=.1, betas=(.9, .999), eps=1e-8, weight_decay=.01), gradients (p², 1) for three steps.
    #[test]
    fn three_steps_are_pytorchs() {
        let (mut p, mut m, mut v) = ([1.0f32, -2.0], [0.0; 2], [0.0; 2]);
        let adam = AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            gradient_scale: 1.0,
            step: 0,
        };
        for step in 1..=3 {
            let gradient = [p[0] * p[0], 1.0];
            adamw(
                Tensor { values: &mut p, first: &mut m, second: &mut v, gradient: &gradient },
                AdamW { step, ..adam },
            );
        }
        // In f64 by the definition.
        let (mut x, mut mx, mut vx) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for step in 1..=3 {
            for i in 0..2 {
                let g = if i == 0 { x[0] * x[0] } else { 1.0 };
                mx[i] = 0.9 * mx[i] + 0.1 * g;
                vx[i] = 0.999 * vx[i] + 0.001 * g * g;
                x[i] *= 1.0 - 0.1 * 0.01;
                x[i] -=
                    0.1 * (mx[i] / (1.0 - 0.9f64.powi(step))) / ((vx[i] / (1.0 - 0.999f64.powi(step))).sqrt() + 1e-8);
            }
        }
        for i in 0..2 {
            assert!((f64::from(p[i]) - x[i]).abs() < 1e-6, "{p:?} instead of {x:?}");
        }
    }
}
