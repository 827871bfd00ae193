//! Bias and activation of a linear layer in one pass, and the way back.

use crate::bf16::Element;
use crate::gemm::Store;
use crate::math::{erf, erf_reference, exp, tanh};
use crate::parallel::{Shared, for_row_blocks};
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
    /// z·σ(z) (`silu`, also called swish).
    Silu,
}

/// `z[i, j] += bias[j]` for `z: [rows, bias.len()]`, then `y = act(z)`; with an empty y, z itself is activated.
pub fn add_bias(z: &mut [f32], y: &mut [f32], bias: &[f32], act: Option<Activation>) {
    assert!(y.is_empty() || y.len() == z.len());
    assert!(z.len().is_multiple_of(bias.len()), "rows of {} values, found {}", bias.len(), z.len());
    let (width, y_len, y) = (bias.len(), y.len(), Shared::new(y));
    for_row_blocks(z, width, |row, z| {
        bias_rows(z, bias);
        match (act, y_len) {
            (None, _) => {}
            (Some(act), 0) => apply(act, z),
            (Some(act), _) => {
                // SAFETY: each task owns its own rows.
                let y = unsafe { y.slice(row * width, z.len()) };
                y.copy_from_slice(z);
                apply(act, y);
            }
        }
    });
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

/// `v = act(v)` on the calling thread.
pub(crate) fn apply(act: Activation, values: &mut [f32]) {
    match act {
        Activation::Relu => relu(values),
        Activation::Gelu => gelu(values),
        Activation::GeluTanh => gelu_tanh(values),
        Activation::Tanh => values.iter_mut().for_each(|v| *v = v.tanh()),
        Activation::Silu => silu(values),
    }
}

/// `v = act(v)` over rows of `width` values.
pub fn activate(act: Activation, values: &mut [f32], width: usize) {
    for_row_blocks(values, width, |_, rows| apply(act, rows));
}

/// `y = act(z)`, stored alike.
///
/// # Panics
/// When the slices differ in length.
pub fn activate_into<T: Element>(act: Activation, y: &mut [T], z: &[T]) {
    assert_eq!(y.len(), z.len());
    y.par_chunks_mut(CHUNK).zip(z.par_chunks(CHUNK)).for_each(|(y, z)| {
        let mut values = [0.0; LINE];
        for (y, z) in y.chunks_mut(LINE).zip(z.chunks(LINE)) {
            let values = &mut values[..z.len()];
            widen(values, z);
            apply(act, values);
            narrow(y, values);
        }
    });
}

/// Values that are widened at a time.
const LINE: usize = 256;

dispatch! {
    fn widen[T: Element](values: &mut [f32], z: &[T]) {
        values.iter_mut().zip(z).for_each(|(value, z)| *value = z.widen());
    }
}

dispatch! {
    fn narrow[T: Element](y: &mut [T], values: &[f32]) {
        y.iter_mut().zip(values).for_each(|(y, value)| *y = T::narrow(*value));
    }
}

pub use crate::gated::forward as gated;

/// Plain twin of [`activate`], of one value in f64.
pub fn activate_reference(act: Activation, z: f64) -> f64 {
    match act {
        Activation::Relu => z.max(0.0),
        Activation::Gelu => 0.5 * z * (1.0 + erf_reference(z * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => 0.5 * z * (1.0 + (f64::from(SQRT_2_OVER_PI) * (z + 0.044_715 * z.powi(3))).tanh()),
        Activation::Tanh => z.tanh(),
        Activation::Silu => z / (1.0 + (-z).exp()),
    }
}

dispatch! {
    fn silu(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = silu_of(*v));
    }
}

dispatch! {
    fn gelu_tanh(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = gelu_tanh_of(*v));
    }
}

#[inline(always)]
pub(crate) fn silu_of(z: f32) -> f32 {
    z / (1.0 + exp(-z))
}

/// tanh by the exponential: 0.5·(1 + tanh u) is σ(2u).
#[inline(always)]
pub(crate) fn gelu_tanh_of(z: f32) -> f32 {
    let u = SQRT_2_OVER_PI * (z + 0.044_715 * z * z * z);
    z / (1.0 + exp(-2.0 * u))
}

#[inline(always)]
pub(crate) fn gelu_of(z: f32) -> f32 {
    0.5 * z * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
pub(crate) fn silu_slope(z: f32) -> f32 {
    let sigmoid = 1.0 / (1.0 + exp(-z));
    sigmoid * (1.0 + z * (1.0 - sigmoid))
}

/// With σ(2u) for 0.5·(1 + tanh u), as on the way forward: 1 − tanh² u is 4·σ(2u)·σ(−2u).
#[inline(always)]
pub(crate) fn gelu_tanh_slope(z: f32) -> f32 {
    let sigmoid = 1.0 / (1.0 + exp(-2.0 * SQRT_2_OVER_PI * (z + 0.044_715 * z * z * z)));
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * z * z);
    sigmoid * (1.0 + 2.0 * z * (1.0 - sigmoid) * inner)
}

#[inline(always)]
pub(crate) fn gelu_slope(z: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let cdf = 0.5 * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2));
    z.mul_add(INV_SQRT_2PI * exp(-0.5 * z * z), cdf)
}

/// 1 − tanh² z by the exponential of −2·|z|, which neither overflows nor cancels.
#[inline(always)]
pub(crate) fn tanh_slope(z: f32) -> f32 {
    let small = exp(-2.0 * z.abs());
    4.0 * small / ((1.0 + small) * (1.0 + small))
}

/// Values handed to one task at a time.
const CHUNK: usize = 1 << 13;

/// `gradient *= act'(z)`: the gradient of y becomes that of z, in place.
pub fn backward<T: Element>(act: Activation, gradient: &mut [T], z: &[T]) {
    assert_eq!(gradient.len(), z.len());
    gradient.par_chunks_mut(CHUNK).zip(z.par_chunks(CHUNK)).for_each(|(gradient, z)| match act {
        Activation::Relu => relu_backward(gradient, z),
        Activation::Gelu => gelu_backward(gradient, z),
        Activation::GeluTanh => gelu_tanh_backward(gradient, z),
        Activation::Tanh => tanh_backward(gradient, z),
        Activation::Silu => silu_backward(gradient, z),
    });
}

/// `bias_gradient[j] = Σ_i dz[i, j]` (or `+=`).
pub fn bias_backward(bias_gradient: &mut [f32], store: Store, dz: &[f32]) {
    if store == Store::Replace {
        bias_gradient.fill(0.0);
    }
    add_column_sums(bias_gradient, dz);
}

dispatch! {
    fn relu(values: &mut [f32]) {
        for v in values {
            // Not `max`, which hides a NaN.
            *v = if *v < 0.0 { 0.0 } else { *v };
        }
    }
}

dispatch! {
    fn relu_backward[T: Element](gradient: &mut [T], z: &[T]) {
        for (gradient, z) in gradient.iter_mut().zip(z) {
            *gradient = if z.widen() > 0.0 { *gradient } else { T::default() };
        }
    }
}

dispatch! {
    fn gelu(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = gelu_of(*v));
    }
}

dispatch! {
    fn gelu_backward[T: Element](gradient: &mut [T], z: &[T]) {
        scale_by(gradient, z, gelu_slope);
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Multiplies each gradient by the slope at its z. Inlined into what `dispatch!` compiles: a fused multiply-add in a
/// slope would else be a call.
#[inline(always)]
fn scale_by<T: Element>(gradient: &mut [T], z: &[T], slope: impl Fn(f32) -> f32) {
    for (gradient, z) in gradient.iter_mut().zip(z) {
        *gradient = T::narrow(gradient.widen() * slope(z.widen()));
    }
}

dispatch! {
    fn silu_backward[T: Element](gradient: &mut [T], z: &[T]) {
        scale_by(gradient, z, silu_slope);
    }
}

dispatch! {
    fn gelu_tanh_backward[T: Element](gradient: &mut [T], z: &[T]) {
        scale_by(gradient, z, gelu_tanh_slope);
    }
}

dispatch! {
    fn tanh_backward[T: Element](gradient: &mut [T], z: &[T]) {
        scale_by(gradient, z, tanh_slope);
    }
}

/// `v = cap · tanh(v / cap)`: no logit leaves ±cap (Gemma 2).
///
/// # Panics
/// Unless the cap is positive.
pub fn soft_cap(values: &mut [f32], cap: f32) {
    assert!(cap > 0.0, "a cap of {cap}");
    values.par_chunks_mut(CHUNK).for_each(|values| cap_values(values, cap));
}

/// Gradient of [`soft_cap`]: that of the capped values becomes that of the values, in place. `capped` is the result.
///
/// # Panics
/// When there are not as many gradients as values.
pub fn soft_cap_backward(gradient: &mut [f32], capped: &[f32], cap: f32) {
    assert!(cap > 0.0 && gradient.len() == capped.len(), "a gradient of each value, and a positive cap");
    let both = gradient.par_chunks_mut(CHUNK).zip(capped.par_chunks(CHUNK));
    both.for_each(|(gradient, capped)| cap_slopes(gradient, capped, cap));
}

dispatch! {
    fn cap_values(values: &mut [f32], cap: f32) {
        values.iter_mut().for_each(|v| *v = cap * tanh(*v / cap));
    }
}

dispatch! {
    fn cap_slopes(gradient: &mut [f32], capped: &[f32], cap: f32) {
        for (gradient, capped) in gradient.iter_mut().zip(capped) {
            let bent = capped / cap;
            *gradient *= 1.0 - bent * bent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Silu];

    /// torch.nn.functional at 0.5, −1.5 and 3 (gelu, gelu(approximate="tanh"), tanh).
    #[test]
    fn values_are_pytorchs() {
        let cases = [
            (Activation::Relu, [0.5, 0.0, 3.0]),
            (Activation::Gelu, [0.345_731_2, -0.100_210_8, 2.995_950_2]),
            (Activation::GeluTanh, [0.345_714, -0.100_428_4, 2.996_362_7]),
            (Activation::Tanh, [0.462_117_2, -0.905_148_3, 0.995_054_8]),
            (Activation::Silu, [0.311_229_7, -0.273_638_2, 2.857_722_3]),
        ];
        for (act, expected) in cases {
            let mut y = [0.0; 3];
            y.copy_from_slice(&[0.5, -1.5, 3.0]);
            apply(act, &mut y);
            for (y, e) in y.iter().zip(expected) {
                assert!((y - e).abs() < 2e-6, "{act:?}: {y} instead of {e}");
            }
        }
    }

    #[test]
    fn what_is_activated_into_another_value_is_what_is_activated_in_place() {
        fn check<T: Element>() {
            let z: Vec<T> = (0..3 * LINE + 7).map(|i| T::narrow(i as f32 / 99.0 - 4.0)).collect();
            for act in ALL {
                let (mut y, mut expected) = (vec![T::narrow(9.0); z.len()], [0.0; 3 * LINE + 7]);
                expected.iter_mut().zip(&z).for_each(|(value, z)| *value = z.widen());
                apply(act, &mut expected);
                activate_into(act, &mut y, &z);
                assert_eq!(y, expected.map(T::narrow), "{act:?}");
            }
        }
        check::<f32>();
        check::<crate::bf16::Bf16>();
    }

    #[test]
    fn slopes_match_finite_differences_and_the_edges_are_finite() {
        for act in ALL {
            for z in [-6.0f32, -2.3, -0.7, 0.3, 1.1, 4.0] {
                let h = 1e-2;
                let (mut y, mut dz) = ([0.0; 2], [1.0f32]);
                y.copy_from_slice(&[z + h, z - h]);
                apply(act, &mut y);
                backward(act, &mut dz, &[z]);
                let difference = (y[0] - y[1]) / (2.0 * h);
                assert!((dz[0] - difference).abs() < 1e-3, "{act:?} at {z}: {} instead of {difference}", dz[0]);
            }
            let (mut y, mut dz) = ([0.0; 2], [1.0f32; 2]);
            y.copy_from_slice(&[1e4, -1e4]);
            apply(act, &mut y);
            backward(act, &mut dz, &[1e4, -1e4]);
            assert!(y.iter().chain(&dz).all(|v| v.is_finite()), "{act:?} at ±1e4: {y:?} {dz:?}");
        }
    }

    #[test]
    fn a_soft_cap_bends_and_its_slope_is_the_difference() {
        let z: Vec<f32> = (-400..400).map(|i| i as f32 * 0.5).collect();
        let (mut y, mut slopes) = (z.clone(), vec![2.0; z.len()]);
        soft_cap(&mut y, 30.0);
        soft_cap_backward(&mut slopes, &y, 30.0);
        for ((z, y), slope) in z.iter().zip(&y).zip(&slopes) {
            let cap = |z: f64| 30.0 * (z / 30.0).tanh();
            let z = f64::from(*z);
            assert!((f64::from(*y) - cap(z)).abs() < 2e-5, "{y} at {z}");
            let difference = (cap(z + 1e-4) - cap(z - 1e-4)) / 1e-4;
            assert!((f64::from(*slope) - difference).abs() < 1e-5, "{slope} at {z} instead of {difference}");
        }
        let mut edges = [f32::INFINITY, -1e30, f32::NAN];
        soft_cap(&mut edges, 50.0);
        assert!(edges[..2] == [50.0, -50.0] && edges[2].is_nan());
    }

    #[test]
    fn a_nan_stays_one() {
        for act in ALL {
            let (mut y, mut dz) = ([f32::NAN], [1.0f32]);
            apply(act, &mut y);
            assert!(y[0].is_nan(), "{act:?}");
            backward(act, &mut dz, &[f32::NAN]);
            assert!(dz[0].is_nan() || act == Activation::Relu, "{act:?}");
        }
    }

    /// Each slope beside its definition in f64, over all z that occur.
    #[test]
    fn slopes_are_their_definitions() {
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let tanh_slope = |z: f64| 1.0 / z.cosh().powi(2);
        let definition = |act: Activation, z: f64| match act {
            Activation::Silu => sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z))),
            Activation::Tanh => tanh_slope(z),
            _ => {
                let c = f64::from(SQRT_2_OVER_PI);
                let u = c * (z + 0.044_715 * z.powi(3));
                0.5 * (1.0 + u.tanh()) + 0.5 * z * tanh_slope(u) * c * (1.0 + 3.0 * 0.044_715 * z * z)
            }
        };
        let z: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).collect();
        for act in [Activation::Silu, Activation::GeluTanh, Activation::Tanh] {
            let mut slopes = vec![1.0f32; z.len()];
            backward(act, &mut slopes, &z);
            for (slope, z) in slopes.iter().zip(&z) {
                let expected = definition(act, f64::from(*z));
                assert!((f64::from(*slope) - expected).abs() < 2e-6, "{act:?} at {z}: {slope} for {expected}");
            }
        }
    }
}
