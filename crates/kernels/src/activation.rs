//! Bias and activation of a linear layer in one pass, and the way back.

use crate::math::{erf, exp};
use crate::parallel::ROWS;
use crate::reduce::add_column_sums;
use rayon::prelude::*;

/// The nonlinearity after a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(0, z).
    Relu,
    /// z·Φ(z), with the exact error function (`gelu` of Hugging Face configs).
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// tanh(z).
    Tanh,
}

/// `z[i, j] += bias[j]` for `z: [rows, bias.len()]`.
pub fn add_bias(z: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    z.par_chunks_mut(ROWS * width).for_each(|rows| bias_rows(rows, bias));
}

dispatch! {
    fn bias_rows(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (z, b) in row.iter_mut().zip(bias) {
                *z += b;
            }
        }
    }
}

/// `y = act(z)`.
pub fn forward(act: Activation, y: &mut [f32], z: &[f32]) {
    assert_eq!(y.len(), z.len());
    let chunk = 1 << 13;
    y.par_chunks_mut(chunk).zip(z.par_chunks(chunk)).for_each(|(y, z)| match act {
        Activation::Relu => relu(y, z),
        Activation::Gelu => gelu(y, z),
        Activation::GeluTanh => map(y, z, gelu_tanh_reference),
        Activation::Tanh => map(y, z, f32::tanh),
    });
}

/// `gradient *= act'(z)`: the gradient of y becomes that of z, in place.
pub fn backward(act: Activation, gradient: &mut [f32], z: &[f32]) {
    assert_eq!(gradient.len(), z.len());
    let chunk = 1 << 13;
    gradient.par_chunks_mut(chunk).zip(z.par_chunks(chunk)).for_each(|(gradient, z)| match act {
        Activation::Relu => relu_backward(gradient, z),
        Activation::Gelu => gelu_backward(gradient, z),
        Activation::GeluTanh => scale_by(gradient, z, gelu_tanh_slope),
        Activation::Tanh => scale_by(gradient, z, |z| 1.0 - z.tanh() * z.tanh()),
    });
}

/// `bias_gradient[j] += Σ_i dz[i, j]`.
pub fn bias_backward(bias_gradient: &mut [f32], dz: &[f32]) {
    add_column_sums(bias_gradient, dz);
}

dispatch! {
    fn relu(y: &mut [f32], z: &[f32]) {
        for (y, z) in y.iter_mut().zip(z) {
            *y = z.max(0.0);
        }
    }
}

dispatch! {
    fn relu_backward(gradient: &mut [f32], z: &[f32]) {
        for (gradient, z) in gradient.iter_mut().zip(z) {
            *gradient = if *z > 0.0 { *gradient } else { 0.0 };
        }
    }
}

dispatch! {
    fn gelu(y: &mut [f32], z: &[f32]) {
        for (y, z) in y.iter_mut().zip(z) {
            *y = 0.5 * z * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

dispatch! {
    fn gelu_backward(gradient: &mut [f32], z: &[f32]) {
        const INV_SQRT_2PI: f32 = 0.398_942_3;
        for (gradient, z) in gradient.iter_mut().zip(z) {
            let cdf = 0.5 * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2));
            let pdf = INV_SQRT_2PI * exp(-0.5 * z * z);
            *gradient *= z.mul_add(pdf, cdf);
        }
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

fn gelu_tanh_reference(z: f32) -> f32 {
    0.5 * z * (1.0 + (SQRT_2_OVER_PI * (z + 0.044_715 * z * z * z)).tanh())
}

fn gelu_tanh_slope(z: f32) -> f32 {
    let tanh = (SQRT_2_OVER_PI * (z + 0.044_715 * z * z * z)).tanh();
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * z * z);
    0.5 * (1.0 + tanh) + 0.5 * z * (1.0 - tanh * tanh) * inner
}

fn map(y: &mut [f32], z: &[f32], f: impl Fn(f32) -> f32) {
    for (y, z) in y.iter_mut().zip(z) {
        *y = f(*z);
    }
}

fn scale_by(gradient: &mut [f32], z: &[f32], slope: impl Fn(f32) -> f32) {
    for (gradient, z) in gradient.iter_mut().zip(z) {
        *gradient *= slope(*z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 4] = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Tanh];

    /// torch.nn.functional at 0.5, −1.5 and 3 (gelu, gelu(approximate="tanh"), tanh).
    #[test]
    fn values_are_pytorchs() {
        let cases = [
            (Activation::Relu, [0.5, 0.0, 3.0]),
            (Activation::Gelu, [0.345_731_2, -0.100_210_8, 2.995_950_2]),
            (Activation::GeluTanh, [0.345_714, -0.100_428_4, 2.996_362_7]),
            (Activation::Tanh, [0.462_117_2, -0.905_148_3, 0.995_054_8]),
        ];
        for (act, expected) in cases {
            let mut y = [0.0; 3];
            forward(act, &mut y, &[0.5, -1.5, 3.0]);
            for (y, e) in y.iter().zip(expected) {
                assert!((y - e).abs() < 2e-6, "{act:?}: {y} instead of {e}");
            }
        }
    }

    #[test]
    fn slopes_match_finite_differences_and_the_edges_are_finite() {
        for act in ALL {
            for z in [-6.0f32, -2.3, -0.7, 0.3, 1.1, 4.0] {
                let h = 1e-2;
                let (mut y, mut dz) = ([0.0; 2], [1.0]);
                forward(act, &mut y, &[z + h, z - h]);
                backward(act, &mut dz, &[z]);
                let difference = (y[0] - y[1]) / (2.0 * h);
                assert!((dz[0] - difference).abs() < 1e-3, "{act:?} at {z}: {} instead of {difference}", dz[0]);
            }
            let (mut y, mut dz) = ([0.0; 2], [1.0; 2]);
            forward(act, &mut y, &[1e4, -1e4]);
            backward(act, &mut dz, &[1e4, -1e4]);
            assert!(y.iter().chain(&dz).all(|v| v.is_finite()), "{act:?} at ±1e4: {y:?} {dz:?}");
        }
    }
}
