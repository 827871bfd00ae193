//! Matrix products for linear layers, in f32.
//!
//! Large products go to the `gemm` crate; thin ones to tiles of our own, and the smallest to plain loops. Which of these
//! runs depends on the weight's shape alone, never on the number of rows: `gemm` takes other paths
//! for one row, for at most 256 outputs, for outputs of at most 64×64 and for an inner dimension of at
//! most 2, and each would give a row other bits in another batch. A lone row is computed as two for the same reason.

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))] // Tiles exist there alone.
pub(crate) mod amx;
mod bf16;
pub(crate) mod floats;
mod int8;
pub mod low_rank;
mod narrow;
mod narrow_gradient;
pub(crate) mod panels;
mod quads;
mod thin;
pub(crate) mod tile;
pub(crate) mod transpose;

pub use bf16::{InputGradient, Linear, PackedWeight, Scratch, WeightGradient};
pub use int8::{Int8Weight, QuantizedRows, quantize_rows, quantize_weights};
pub use narrow::{NarrowWeight, Width};

use crate::parallel::{area, for_row_blocks, threads};
use crate::reduce::dot;
use gemm_common::Parallelism;

/// What happens to the destination's old content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// It is overwritten.
    Replace,
    /// The product is added to it.
    Add,
}

/// True when a `[.., inner] × [inner, outer]` product goes to the `gemm` crate whatever its rows.
fn is_large(outer: usize, inner: usize) -> bool {
    outer > 128 && inner >= 16
}

/// `y = x · wᵀ`: `x: [rows, inputs]`, `w: [outputs, inputs]`, `y: [rows, outputs]`.
pub fn linear(y: &mut [f32], x: &[f32], w: &[f32], rows: usize, inputs: usize, outputs: usize) {
    check([y.len(), x.len(), w.len()], [[rows, outputs], [rows, inputs], [outputs, inputs]]);
    let w = Matrix { data: w, rows: outputs, columns: inputs };
    if !is_large(outputs, inputs) {
        return if outputs >= thin::LEAST { thin::linear(y, x, w) } else { small_linear(y, x, w) };
    }
    product(y, Store::Replace, Operand::rows(x, inputs), Operand::columns(w.data, inputs), [rows, outputs, inputs]);
}

/// `dx = dy · w` (or `+=`): `dy: [rows, outputs]`, `w: [outputs, inputs]`, `dx: [rows, inputs]`.
pub fn linear_input_gradient(
    dx: &mut [f32],
    store: Store,
    dy: &[f32],
    w: &[f32],
    rows: usize,
    inputs: usize,
    outputs: usize,
) {
    check([dx.len(), dy.len(), w.len()], [[rows, inputs], [rows, outputs], [outputs, inputs]]);
    if !is_large(inputs, outputs) {
        let w = Matrix { data: w, rows: outputs, columns: inputs };
        let thin = outputs >= thin::LEAST;
        return if thin { thin::input_gradient(dx, store, dy, w) } else { small_input_gradient(dx, store, dy, w) };
    }
    product(dx, store, Operand::rows(dy, outputs), Operand::rows(w, inputs), [rows, inputs, outputs]);
}

/// `dw = dyᵀ · x` (or `+=`): `dy: [rows, outputs]`, `x: [rows, inputs]`, `dw: [outputs, inputs]`.
pub fn linear_weight_gradient(
    dw: &mut [f32],
    store: Store,
    dy: &[f32],
    x: &[f32],
    rows: usize,
    inputs: usize,
    outputs: usize,
) {
    check([dw.len(), dy.len(), x.len()], [[outputs, inputs], [rows, outputs], [rows, inputs]]);
    if outputs < 16 || inputs < 16 {
        if store == Store::Replace {
            dw.fill(0.0);
        }
        let thin = inputs < outputs;
        let gradient = if thin { thin::weight_gradient } else { small_weight_gradient };
        return gradient(dw, dy, x, inputs, outputs);
    }
    product(dw, store, Operand::columns(dy, outputs), Operand::rows(x, inputs), [outputs, inputs, rows]);
}

fn check(lens: [usize; 3], shapes: [[usize; 2]; 3]) {
    let expected = shapes.map(|[rows, columns]| area(rows, columns));
    assert_eq!(lens, expected, "slices do not have the shape's lengths");
}

#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
}

/// A matrix as `gemm` sees it: a pointer and two strides.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) data: *const f32,
    pub(crate) row_stride: isize,
    pub(crate) column_stride: isize,
}

impl Operand {
    /// `data` as it lies, `width` values a row.
    pub(crate) fn rows(data: &[f32], width: usize) -> Self {
        Self { data: data.as_ptr(), row_stride: width as isize, column_stride: 1 }
    }

    /// `data` transposed.
    pub(crate) fn columns(data: &[f32], width: usize) -> Self {
        Self { data: data.as_ptr(), row_stride: 1, column_stride: width as isize }
    }
}

/// `out (+)= a · b` with `[m, n, k]` = shape, over all threads.
fn product(out: &mut [f32], store: Store, a: Operand, b: Operand, [m, n, k]: [usize; 3]) {
    if m == 1 {
        return single_row(out, store, a, b, n, k);
    }
    let parallelism = match threads() {
        1 => Parallelism::None,
        n => Parallelism::Rayon(n),
    };
    // SAFETY: the public functions checked the slices against the shape, and `out` is borrowed mutably.
    unsafe { raw(out.as_mut_ptr(), n as isize, store, a, b, [m, n, k], parallelism) };
}

/// One row, computed as two equal ones so that it takes the same path as in a larger batch.
fn single_row(out: &mut [f32], store: Store, a: Operand, b: Operand, n: usize, k: usize) {
    let mut two = vec![0.0; 2 * n];
    product(&mut two, Store::Replace, Operand { row_stride: 0, ..a }, b, [2, n, k]);
    match store {
        Store::Replace => out.copy_from_slice(&two[..n]),
        Store::Add => out.iter_mut().zip(&two).for_each(|(o, v)| *o += v),
    }
}

/// The product of the `gemm` crate's f32 half, `out` row-major with `stride` values a row.
///
/// # Safety
/// The pointers and strides must address valid, non-overlapping memory for the shape; no stride is negative.
pub(crate) unsafe fn raw(
    out: *mut f32,
    stride: isize,
    store: Store,
    a: Operand,
    b: Operand,
    [m, n, k]: [usize; 3],
    parallelism: Parallelism,
) {
    // The kernel wants columns that lie apart, so it computes outᵀ = bᵀ · aᵀ; a single column already lies so.
    let a = (a.data, a.column_stride, a.row_stride);
    let b = (b.data, b.column_stride, b.row_stride);
    let transposed = |(data, column_stride, row_stride)| (data, row_stride, column_stride);
    let ((m, n), (out_columns, out_rows), left, right) =
        if stride > 1 { ((n, m), (stride, 1), transposed(b), transposed(a)) } else { ((m, n), (1, stride), a, b) };
    let (keep, conjugate) = (store == Store::Add, false);
    // SAFETY: the caller's promise.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            m,
            n,
            k,
            out,
            out_columns,
            out_rows,
            keep,
            left.0,
            left.1,
            left.2,
            right.0,
            right.1,
            right.2,
            1.0,
            1.0,
            conjugate,
            conjugate,
            conjugate,
            parallelism,
        );
    }
}

fn small_linear(y: &mut [f32], x: &[f32], w: Matrix) {
    for_row_blocks(y, w.rows, |first, block| linear_rows(block, &x[first * w.columns..], w));
}

dispatch! {
    fn linear_rows(y: &mut [f32], x: &[f32], w: Matrix<'_>) {
        for (y, x) in y.chunks_exact_mut(w.rows).zip(x.chunks_exact(w.columns)) {
            for (y, w) in y.iter_mut().zip(w.data.chunks_exact(w.columns)) {
                *y = dot(x, w);
            }
        }
    }
}

fn small_input_gradient(dx: &mut [f32], store: Store, dy: &[f32], w: Matrix) {
    for_row_blocks(dx, w.columns, |first, block| {
        if store == Store::Replace {
            block.fill(0.0);
        }
        add_weighted_rows(block, &dy[first * w.rows..], w);
    });
}

dispatch! {
    /// `dx[i] += Σ_j dy[i, j] · w[j]`, j in order.
    fn add_weighted_rows(dx: &mut [f32], dy: &[f32], w: Matrix<'_>) {
        for (dx, dy) in dx.chunks_exact_mut(w.columns).zip(dy.chunks_exact(w.rows)) {
            for (dy, w) in dy.iter().zip(w.data.chunks_exact(w.columns)) {
                for (dx, w) in dx.iter_mut().zip(w) {
                    *dx = dy.mul_add(*w, *dx);
                }
            }
        }
    }
}

fn small_weight_gradient(dw: &mut [f32], dy: &[f32], x: &[f32], inputs: usize, outputs: usize) {
    for_row_blocks(dw, inputs, |first, block| add_outer_products(block, first, dy, x, inputs, outputs));
}

dispatch! {
    /// `dw[j] += Σ_i dy[i, j] · x[i]` for the output rows of this block, i in order.
    fn add_outer_products(dw: &mut [f32], first: usize, dy: &[f32], x: &[f32], inputs: usize, outputs: usize) {
        for (j, dw) in dw.chunks_exact_mut(inputs).enumerate() {
            for (dy, x) in dy.chunks_exact(outputs).zip(x.chunks_exact(inputs)) {
                for (dw, x) in dw.iter_mut().zip(x) {
                    *dw = dy[first + j].mul_add(*x, *dw);
                }
            }
        }
    }
}

/// Plain twin of [`linear`]: the sum in f64.
pub fn linear_reference(y: &mut [f32], x: &[f32], w: &[f32], rows: usize, inputs: usize, outputs: usize) {
    for i in 0..rows {
        for j in 0..outputs {
            let sum: f64 = (0..inputs).map(|k| f64::from(x[i * inputs + k]) * f64::from(w[j * inputs + k])).sum();
            y[i * outputs + j] = sum as f32;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    /// n values in [−0.5, 0.5) that the seed decides.
    pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    fn transpose(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
    }

    fn close(a: &[f32], b: &[f32], inner: usize) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6 * (inner as f32).sqrt() + 1e-6)
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(48))]
        #[test]
        fn all_three_products_match_the_reference(rows in 1usize..70, inputs in 1usize..300, outputs in 1usize..200, seed in any::<u64>()) {
            let (x, w) = (values(rows * inputs, seed), values(outputs * inputs, seed ^ 1));
            let dy = values(rows * outputs, seed ^ 2);
            let (mut y, mut expected) = (vec![9.0; rows * outputs], vec![0.0; rows * outputs]);
            linear(&mut y, &x, &w, rows, inputs, outputs);
            linear_reference(&mut expected, &x, &w, rows, inputs, outputs);
            prop_assert!(close(&y, &expected, inputs));

            let (mut dx, mut expected) = (vec![9.0; rows * inputs], vec![0.0; rows * inputs]);
            linear_input_gradient(&mut dx, Store::Replace, &dy, &w, rows, inputs, outputs);
            linear_reference(&mut expected, &dy, &transpose(&w, outputs, inputs), rows, outputs, inputs);
            prop_assert!(close(&dx, &expected, outputs));

            let (mut dw, mut expected) = (vec![7.0; outputs * inputs], vec![0.0; outputs * inputs]);
            linear_weight_gradient(&mut dw, Store::Replace, &dy, &x, rows, inputs, outputs);
            linear_reference(&mut expected, &transpose(&dy, rows, outputs), &transpose(&x, rows, inputs), outputs, rows, inputs);
            prop_assert!(close(&dw, &expected, rows));
        }
    }

    /// The promise the whole design stands on: a row has the same bits alone, in any batch, on any threads.
    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        let shapes = [
            (768, 768),
            (3072, 768),
            (768, 3072),
            (384, 1536),
            (129, 16),
            (128, 700),
            (66, 600),
            (64, 700),
            (12, 700),
            (768, 2),
            (1, 768),
            (33, 50),
            (576, 4),
            (576, 8),
            (8, 576),
            (16, 576),
            (576, 64),
        ];
        for (outputs, inputs) in shapes {
            let (x, w) = (values(300 * inputs, 7), values(outputs * inputs, 8));
            let mut all = vec![0.0; 300 * outputs];
            linear(&mut all, &x, &w, 300, inputs, outputs);
            let dy = values(300 * outputs, 9);
            let mut all_dx = vec![0.0; 300 * inputs];
            linear_input_gradient(&mut all_dx, Store::Replace, &dy, &w, 300, inputs, outputs);
            for (rows, threads) in
                [1, 2, 3, 5, 16, 63, 64, 65, 130, 257].into_iter().flat_map(|r| [1, 2, 3].map(|t| (r, t)))
            {
                let (mut y, mut dx) = (vec![0.0; rows * outputs], vec![0.0; rows * inputs]);
                with_threads(threads, || {
                    linear(&mut y, &x[..rows * inputs], &w, rows, inputs, outputs);
                    linear_input_gradient(&mut dx, Store::Replace, &dy[..rows * outputs], &w, rows, inputs, outputs);
                });
                assert!(y == all[..y.len()], "forward {outputs}×{inputs}, {rows} rows, {threads} threads");
                assert!(dx == all_dx[..dx.len()], "backward {outputs}×{inputs}, {rows} rows, {threads} threads");
            }
        }
    }

    #[test]
    fn weight_gradients_do_not_depend_on_threads() {
        for (outputs, inputs, rows) in [(768, 768, 513), (96, 130, 700), (64, 64, 600), (1, 768, 9)] {
            let (x, dy) = (values(rows * inputs, 3), values(rows * outputs, 4));
            let run = |threads| {
                let mut dw = vec![0.0; outputs * inputs];
                with_threads(threads, || linear_weight_gradient(&mut dw, Store::Add, &dy, &x, rows, inputs, outputs));
                dw
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{outputs}×{inputs}, {rows} rows");
        }
    }
}
