//! AdamW in one pass over a tensor (Loshchilov and Hutter 2019; the update of `torch.optim.AdamW`).

use crate::bf16::Bf16;
use crate::parallel::{ROWS, area};
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

impl Tensor<'_> {
    fn check(&self) {
        let lens = [self.values.len(), self.first.len(), self.second.len(), self.gradient.len()];
        assert!(lens.iter().all(|len| *len == lens[0]), "the arrays of a tensor have the lengths {lens:?}");
    }
}

/// One step over one tensor.
pub fn adamw(tensor: Tensor, adam: AdamW) {
    tensor.check();
    let chunks = tensor.values.par_chunks_mut(CHUNK).zip(tensor.first.par_chunks_mut(CHUNK));
    let chunks = chunks.zip(tensor.second.par_chunks_mut(CHUNK).zip(tensor.gradient.par_chunks(CHUNK)));
    chunks.for_each(|((values, first), (second, gradient))| update(values, first, second, gradient, adam));
}

/// One step over a table `[lives.len(), width]` of which most rows never had a gradient. The rows that `lives` names
/// take it as in [`adamw`]. The others have no gradient and no moments: weight decay alone moves them.
pub fn adamw_rows(tensor: Tensor, adam: AdamW, width: usize, lives: &[bool]) {
    tensor.check();
    assert_eq!(tensor.values.len(), area(lives.len(), width), "{} rows of {width} values", lives.len());
    let chunk = ROWS * width;
    let chunks = tensor.values.par_chunks_mut(chunk).zip(tensor.first.par_chunks_mut(chunk));
    let chunks = chunks.zip(tensor.second.par_chunks_mut(chunk).zip(tensor.gradient.par_chunks(chunk)));
    chunks.zip(lives.par_chunks(ROWS)).for_each(|(((values, first), (second, gradient)), lives)| {
        let rows = values.chunks_exact_mut(width).zip(first.chunks_exact_mut(width));
        let rows = rows.zip(second.chunks_exact_mut(width).zip(gradient.chunks_exact(width)));
        for (((values, first), (second, gradient)), lives) in rows.zip(lives) {
            if *lives {
                update(values, first, second, gradient, adam);
            } else {
                decay(values, adam);
            }
        }
    });
}

/// What [`update`] does to weights without a gradient and moments.
fn decay(values: &mut [f32], adam: AdamW) {
    if adam.weight_decay > 0.0 {
        let keep = 1.0 - adam.learning_rate * adam.weight_decay;
        values.iter_mut().for_each(|value| *value *= keep);
    }
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

/// The arrays of a tensor whose moments are kept in bf16, of equal length.
pub struct HalfTensor<'a> {
    /// Weights, updated.
    pub values: &'a mut [f32],
    /// First moment, updated.
    pub first: &'a mut [Bf16],
    /// Second moment, updated.
    pub second: &'a mut [Bf16],
    /// Gradient.
    pub gradient: &'a [f32],
}

/// As [`adamw`], with moments that are rounded to bf16 at random, up or down by how near they are: a second moment moves by a
/// thousandth a step, which rounding to the nearest would lose. `noise` tells one tensor and step from another; nothing else
/// decides the bits, so a step has the same with any threads.
///
/// # Panics
/// When the arrays are not of equal length.
pub fn adamw_half(tensor: HalfTensor, adam: AdamW, noise: u32) {
    let HalfTensor { values, first, second, gradient } = tensor;
    let lens = [values.len(), first.len(), second.len(), gradient.len()];
    assert!(lens.iter().all(|len| *len == lens[0]), "the arrays of a tensor have the lengths {lens:?}");
    let chunks = values.par_chunks_mut(CHUNK).zip(first.par_chunks_mut(CHUNK));
    let chunks = chunks.zip(second.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK))).enumerate();
    chunks.for_each(|(chunk, ((values, first), (second, gradient)))| {
        let [first, second] = [first, second].map(bytemuck::cast_slice_mut::<Bf16, u16>);
        update_half(values, first, second, gradient, adam, noise ^ (chunk as u32).wrapping_mul(0x9e37_79b1));
    });
}

dispatch! {
    fn update_half(values: &mut [f32], first: &mut [u16], second: &mut [u16], gradient: &[f32], adam: AdamW, noise: u32) {
        let AdamW { beta1, beta2, epsilon, gradient_scale, .. } = adam;
        let power = adam.step.min(i32::MAX as u64) as i32;
        let correction1 = 1.0 - f64::from(beta1).powi(power);
        let correction2 = (1.0 - f64::from(beta2).powi(power)).sqrt() as f32;
        let size = (f64::from(adam.learning_rate) / correction1) as f32;
        let keep = 1.0 - adam.learning_rate * adam.weight_decay;
        for (i, (((p, first), second), g)) in values.iter_mut().zip(first).zip(second).zip(gradient).enumerate() {
            let g = g * gradient_scale;
            let [m, v] = [*first, *second].map(|bits| f32::from_bits(u32::from(bits) << 16));
            let m = (1.0 - beta1).mul_add(g - m, m);
            let v = (1.0 - beta2).mul_add(g * g, beta2 * v);
            let denominator = v.sqrt() / correction2 + epsilon;
            *p = keep.mul_add(*p, -size * (m / denominator));
            let bits = scramble((i as u32) ^ noise);
            *first = (m.to_bits().wrapping_add(bits & 0xffff) >> 16) as u16;
            *second = (v.to_bits().wrapping_add(bits >> 16) >> 16) as u16;
        }
    }
}

/// 32 bits that look random (Wellons' `lowbias32`).
#[inline(always)]
fn scramble(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Plain twin of [`adamw`] in f64, as the paper has it.
pub fn adamw_reference(tensor: Tensor, adam: AdamW) {
    tensor.check();
    let [beta1, beta2, rate] = [adam.beta1, adam.beta2, adam.learning_rate].map(f64::from);
    for i in 0..tensor.values.len() {
        let gradient = f64::from(tensor.gradient[i]) * f64::from(adam.gradient_scale);
        let first = beta1 * f64::from(tensor.first[i]) + (1.0 - beta1) * gradient;
        let second = beta2 * f64::from(tensor.second[i]) + (1.0 - beta2) * gradient * gradient;
        let [mean, square] = [(first, beta1), (second, beta2)].map(|(m, beta)| m / (1.0 - beta.powf(adam.step as f64)));
        let decayed = f64::from(tensor.values[i]) * (1.0 - rate * f64::from(adam.weight_decay));
        tensor.values[i] = (decayed - rate * mean / (square.sqrt() + f64::from(adam.epsilon))) as f32;
        (tensor.first[i], tensor.second[i]) = (first as f32, second as f32);
    }
}

/// Plain twin of [`adamw_rows`]: it knows no rows.
pub fn adamw_rows_reference(tensor: Tensor, adam: AdamW) {
    adamw_reference(tensor, adam);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    /// The arrays of a tensor.
    #[derive(Clone)]
    struct State {
        values: Vec<f32>,
        first: Vec<f32>,
        second: Vec<f32>,
        gradient: Vec<f32>,
    }

    impl State {
        fn tensor(&mut self) -> Tensor<'_> {
            let State { values, first, second, gradient } = self;
            Tensor { values, first, second, gradient }
        }

        fn close(&self, other: &Self) -> bool {
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * (0.2 + b.abs()));
            near(&self.values, &other.values) && near(&self.first, &other.first) && near(&self.second, &other.second)
        }
    }

    /// A tensor of `rows` rows; those that do not live have neither gradient nor moments.
    fn state(lives: &[bool], width: usize, seed: u64) -> State {
        let random = |seed, row: &dyn Fn(f32) -> f32| {
            let all = crate::gemm::tests::values(lives.len() * width, seed);
            all.iter().enumerate().map(|(i, v)| if lives[i / width] { row(*v) } else { 0.0 }).collect::<Vec<_>>()
        };
        State {
            values: crate::gemm::tests::values(lives.len() * width, seed),
            first: random(seed ^ 1, &|v| v),
            second: random(seed ^ 2, &|v| v * v + 1e-3),
            gradient: random(seed ^ 3, &|v| v),
        }
    }

    fn adam(step: u64, weight_decay: f32) -> AdamW {
        let (learning_rate, beta1, beta2, epsilon, gradient_scale) = (1e-2, 0.9, 0.999, 1e-8, 0.7);
        AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, gradient_scale, step }
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(48))]
        #[test]
        fn steps_match_the_reference(len in 1usize..20_000, step in 1u64..5000, decay in prop::sample::select(vec![0.0f32, 0.01, 0.5]), seed: u64) {
            let mut found = state(&[true], len, seed);
            let mut expected = found.clone();
            adamw(found.tensor(), adam(step, decay));
            adamw_reference(expected.tensor(), adam(step, decay));
            prop_assert!(found.close(&expected));
        }

        /// Rows that live have the bits of a step over the whole tensor; the others only decay, and keep their moments.
        #[test]
        fn steps_of_rows_match_the_reference(lives in proptest::collection::vec(any::<bool>(), 1..70), width in 1usize..40, decay in prop::sample::select(vec![0.0f32, 0.01]), seed: u64) {
            let start = state(&lives, width, seed);
            let [mut found, mut expected, mut whole] = [start.clone(), start.clone(), start.clone()];
            with_threads(1 + lives.len() % 3, || adamw_rows(found.tensor(), adam(7, decay), width, &lives));
            adamw_rows_reference(expected.tensor(), adam(7, decay));
            adamw(whole.tensor(), adam(7, decay));
            prop_assert!(found.close(&expected));
            for (row, lives) in lives.iter().enumerate() {
                let own = row * width..(row + 1) * width;
                if *lives {
                    prop_assert_eq!(&found.values[own.clone()], &whole.values[own.clone()]);
                    prop_assert!(found.first[own.clone()] != start.first[own]);
                } else {
                    let decayed = start.values[own.clone()].iter().map(|v| v * (1.0 - 1e-2 * decay));
                    prop_assert!(found.values[own.clone()].iter().copied().eq(decayed), "row {}", row);
                    prop_assert!(found.first[own.clone()].iter().chain(&found.second[own]).all(|m| *m == 0.0));
                }
            }
        }
    }

    #[test]
    fn c3_arrays_of_different_lengths_are_refused() {
        let mut state = state(&[true, false], 3, 1);
        state.second.pop();
        let mut other = state.clone();
        let refused = |work: &mut dyn FnMut()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
        assert!(refused(&mut || adamw(state.tensor(), adam(1, 0.0))));
        assert!(refused(&mut || adamw_rows(other.tensor(), adam(1, 0.0), 3, &[true, false])));
        let mut whole = super::tests::state(&[true, false], 3, 1);
        assert!(refused(&mut || adamw_rows(whole.tensor(), adam(1, 0.0), 3, &[true; 3])));
    }

    /// Moments in bf16 are those of f32 on average, and the weights that they move stay near.
    #[test]
    fn moments_in_bf16_are_right_on_average() {
        const LEN: usize = 20_000;
        let (mut values, mut exact) = (vec![1.0; LEN], vec![1.0; LEN]);
        let (mut first, mut second) = (vec![Bf16(0); LEN], vec![Bf16(0); LEN]);
        let (mut m, mut v) = (vec![0.0; LEN], vec![0.0; LEN]);
        let gradient: Vec<f32> = crate::gemm::tests::values(LEN, 5).iter().map(|g| g + 0.5).collect();
        for step in 1..=400 {
            let adam = AdamW { learning_rate: 1e-3, ..adam(step, 0.0) };
            let half = |values, first, second| HalfTensor { values, first, second, gradient: &gradient };
            let noise = (step as u32).wrapping_mul(0xc2b2_ae3d);
            if step == 7 {
                let mut again = (values.clone(), first.clone(), second.clone());
                with_threads(1, || adamw_half(half(&mut again.0, &mut again.1, &mut again.2), adam, noise));
                with_threads(3, || adamw_half(half(&mut values, &mut first, &mut second), adam, noise));
                assert!(again == (values.clone(), first.clone(), second.clone()), "the same bits with any threads");
            } else {
                adamw_half(half(&mut values, &mut first, &mut second), adam, noise);
            }
            adamw(Tensor { values: &mut exact, first: &mut m, second: &mut v, gradient: &gradient }, adam);
        }
        let mean = |halves: &[Bf16]| {
            halves.iter().map(|half| f64::from(f32::from_bits(u32::from(half.0) << 16))).sum::<f64>() / LEN as f64
        };
        let of = |exact: &[f32]| exact.iter().map(|v| f64::from(*v)).sum::<f64>() / LEN as f64;
        assert!((mean(&first) / of(&m) - 1.0).abs() < 1e-3, "{} for {}", mean(&first), of(&m));
        assert!((mean(&second) / of(&v) - 1.0).abs() < 1e-3, "{} for {}", mean(&second), of(&v));
        let far = values.iter().zip(&exact).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far < 0.05, "weights that moved by 0.4 are {far} apart");
    }

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
