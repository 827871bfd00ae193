//! The gated half of a feed-forward block: `y = act(gate) · up` (Shazeer 2020, GLU variants), forward and backward.
//!
//! Gate and up lie side by side, as one product makes them: rows `[gate, up]` of twice the width.

use crate::activation::{self, Activation};
use crate::bf16::Element;
use crate::parallel::{ROWS, Shared, area, for_each, for_row_blocks};

/// `y = act(gate) · up`: `y: [rows, width]`, `gate_up: [rows, 2·width]`.
///
/// # Panics
/// When the slices are not as long as that.
pub fn forward<T: Element>(y: &mut [T], gate_up: &[T], width: usize, act: Activation) {
    assert!(gate_up.len() == area(2, y.len()) && y.len().is_multiple_of(width), "rows of {width} gates");
    for_row_blocks(y, width, |first, y| {
        for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up[2 * first * width..].chunks_exact(2 * width)) {
            let (gate, up) = gate_up.split_at(width);
            row(y, gate, up, act);
        }
    });
}

dispatch! {
    fn row[T: Element](y: &mut [T], gate: &[T], up: &[T], act: Activation) {
        match act {
            Activation::Relu => gated(y, gate, up, |z| if z < 0.0 { 0.0 } else { z }),
            Activation::Gelu => gated(y, gate, up, activation::gelu_of),
            Activation::GeluTanh => gated(y, gate, up, activation::gelu_tanh_of),
            Activation::Tanh => gated(y, gate, up, f32::tanh),
            Activation::Silu => gated(y, gate, up, activation::silu_of),
        }
    }
}

#[inline(always)]
fn gated<T: Element>(y: &mut [T], gate: &[T], up: &[T], act: impl Fn(f32) -> f32) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = T::narrow(act(gate.widen()) * up.widen());
    }
}

/// Gradient of [`forward`]: writes all of `d_gate_up: [rows, 2·width]` from `dy: [rows, width]`.
///
/// # Panics
/// When the slices are not as long as that.
pub fn backward<T: Element>(d_gate_up: &mut [T], dy: &[T], gate_up: &[T], width: usize, act: Activation) {
    assert!(gate_up.len() == area(2, dy.len()) && dy.len().is_multiple_of(width), "rows of {width} gates");
    assert_eq!(d_gate_up.len(), gate_up.len(), "a gradient of each gate and of what it lets through");
    let d_gate_up = Shared::new(d_gate_up);
    let rows = dy.len() / width;
    for_each(rows.div_ceil(ROWS), |block| {
        for i in block * ROWS..rows.min((block + 1) * ROWS) {
            // SAFETY: each task owns its own rows.
            let own = unsafe { d_gate_up.slice(2 * i * width, 2 * width) };
            let (d_gate, d_up) = own.split_at_mut(width);
            let (gate, up) = gate_up[2 * i * width..2 * (i + 1) * width].split_at(width);
            row_backward([d_gate, d_up], &dy[i * width..(i + 1) * width], [gate, up], act);
        }
    });
}

dispatch! {
    fn row_backward[T: Element](into: [&mut [T]; 2], dy: &[T], inputs: [&[T]; 2], act: Activation) {
        match act {
            Activation::Relu => {
                let value = |z: f32| if z < 0.0 { 0.0 } else { z };
                gated_backward(into, dy, inputs, value, |z| if z > 0.0 { 1.0 } else { 0.0 });
            }
            Activation::Gelu => {
                gated_backward(into, dy, inputs, activation::gelu_of, activation::gelu_slope);
            }
            Activation::GeluTanh => {
                gated_backward(into, dy, inputs, activation::gelu_tanh_of, activation::gelu_tanh_slope);
            }
            Activation::Tanh => gated_backward(into, dy, inputs, f32::tanh, activation::tanh_slope),
            Activation::Silu => {
                gated_backward(into, dy, inputs, activation::silu_of, activation::silu_slope);
            }
        }
    }
}

#[inline(always)]
fn gated_backward<T: Element>(
    [d_gate, d_up]: [&mut [T]; 2],
    dy: &[T],
    [gate, up]: [&[T]; 2],
    act: impl Fn(f32) -> f32,
    slope: impl Fn(f32) -> f32,
) {
    for (((d_gate, d_up), dy), (gate, up)) in d_gate.iter_mut().zip(d_up).zip(dy).zip(gate.iter().zip(up)) {
        let (dy, gate) = (dy.widen(), gate.widen());
        *d_gate = T::narrow(dy * up.widen() * slope(gate));
        *d_up = T::narrow(dy * act(gate));
    }
}

/// Plain twin of [`forward`].
pub fn reference(y: &mut [f32], gate_up: &[f32], width: usize, act: Activation) {
    for (i, y) in y.iter_mut().enumerate() {
        let gate = i / width * 2 * width + i % width;
        let value = activation::activate_reference(act, f64::from(gate_up[gate]));
        *y = (value * f64::from(gate_up[gate + width])) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::activate_reference;
    use crate::bf16::Bf16;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Silu];

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        #[test]
        fn both_ways_match_the_reference(rows in 1usize..40, width in 1usize..60, act in prop::sample::select(ALL.to_vec()), seed: u64) {
            let gate_up: Vec<f32> = crate::gemm::tests::values(2 * rows * width, seed).iter().map(|v| 10.0 * v).collect();
            let (mut y, mut expected) = (vec![7.0; rows * width], vec![0.0; rows * width]);
            forward(&mut y, &gate_up, width, act);
            reference(&mut expected, &gate_up, width, act);
            for (y, e) in y.iter().zip(&expected) { prop_assert!((y - e).abs() < 4e-6 * (1.0 + e.abs()), "{:?}: {} for {}", act, y, e); }
            let dy = crate::gemm::tests::values(rows * width, seed ^ 1);
            let mut d = vec![7.0; gate_up.len()];
            backward(&mut d, &dy, &gate_up, width, act);
            for (i, dy) in dy.iter().enumerate() {
                let gate = i / width * 2 * width + i % width;
                let [z, up, dy] = [gate_up[gate], gate_up[gate + width], *dy].map(f64::from);
                let slope = (activate_reference(act, z + 1e-5) - activate_reference(act, z - 1e-5)) / 2e-5;
                // Where relu bends, the difference is of both sides.
                let bends = act == Activation::Relu && z.abs() < 1e-4;
                for (found, expected) in [(d[gate], dy * up * slope), (d[gate + width], dy * activate_reference(act, z))] {
                    prop_assert!(bends || (f64::from(found) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{act:?}: {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn a_gate_multiplies_its_own_row() {
        let mut y = [0.0f32; 4];
        forward(&mut y, &[1.0, -2.0, 3.0, 4.0, -0.5, 6.0, 7.0, 8.0], 2, Activation::Relu);
        assert_eq!(y, [3.0, 0.0, 0.0, 48.0]);
    }

    #[test]
    fn bits_do_not_depend_on_threads_and_bf16_is_close() {
        let gate_up: Vec<Bf16> = crate::gemm::tests::values(2 * 50 * 24, 3).into_iter().map(Bf16::narrow).collect();
        let wide: Vec<f32> = gate_up.iter().map(|v| v.widen()).collect();
        let run = |threads| {
            let (mut y, mut d) = (vec![Bf16(0); 50 * 24], gate_up.clone());
            with_threads(threads, || {
                forward(&mut y, &gate_up, 24, Activation::Silu);
                backward(&mut d, &y, &gate_up, 24, Activation::Silu);
            });
            (y, d)
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
        let (mut y, mut d) = (vec![0.0; 50 * 24], wide.clone());
        forward(&mut y, &wide, 24, Activation::Silu);
        let dy: Vec<f32> = one.0.iter().map(|v| v.widen()).collect();
        backward(&mut d, &dy, &wide, 24, Activation::Silu);
        let close =
            |a: &[Bf16], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a.widen() - b).abs() <= b.abs() / 256.0 + 1e-30);
        assert!(close(&one.0, &y) && close(&one.1, &d));
    }

    #[test]
    fn c3_slices_of_other_rows_are_refused() {
        for (d, dy, gate_up) in [(8, 4, 7), (8, 3, 6), (6, 4, 8)] {
            let found = crate::attention::tests::refusal(|| {
                backward(&mut vec![0.0f32; d], &vec![0.0; dy], &vec![0.0; gate_up], 2, Activation::Silu);
            });
            assert!(found.contains("gate"), "{found}");
        }
    }
}
