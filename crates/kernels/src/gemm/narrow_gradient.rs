//! The way back through a weight that is kept narrow: `dx = dy·w` for a frozen layer, on any processor.
//!
//! A panel of the weight holds 32 outputs of each input. Here the reduction runs along the outputs, so blocks of 32×32
//! are widened, scaled and exchanged into panels of 32 inputs, once a call, and all rows pass over these.

use super::Store;
use super::bf16::{Scratch, tiles, write_f32};
use super::floats::F32Products;
use super::narrow::{Narrow, NarrowWeight, Panels};
use super::panels::{COLUMNS, ROWS, panels};
use super::tile::{Left, Out};
use super::transpose::transpose;
use crate::parallel::{Shared, area, for_each};
use std::ops::Range;

/// Words that are widened at a time: a table of words has more than a cache holds.
const WORDS: usize = 1 << 22;

impl NarrowWeight {
    /// `dx = dy·w`, or `+=`: `dy: [rows, outputs]`, `dx: [rows, inputs]`. Memory of the scratch is reused.
    ///
    /// # Panics
    /// When the slices are not as long as that.
    pub fn input_gradient(&self, dx: &mut [f32], store: Store, dy: &[f32], scratch: &mut Scratch) {
        self.outputs_gradient(0..self.outputs(), dx, store, dy, scratch);
    }

    /// As [`Self::input_gradient`], from some outputs alone, the first of which is a multiple of 32:
    /// `dy: [rows, outputs.len()]`.
    pub(crate) fn outputs_gradient(
        &self,
        outputs: Range<usize>,
        dx: &mut [f32],
        store: Store,
        dy: &[f32],
        scratch: &mut Scratch,
    ) {
        assert!(outputs.start.is_multiple_of(COLUMNS) && outputs.end <= self.outputs() && !outputs.is_empty());
        let (inputs, width) = (self.inputs(), outputs.len());
        let rows = dy.len() / width;
        assert!(dy.len() == rows * width && dx.len() == area(rows, inputs), "rows of {width} and {inputs} values");
        if rows == 0 {
            return;
        }
        let block = (WORDS / (panels(inputs) * COLUMNS) / COLUMNS * COLUMNS).max(COLUMNS);
        let (dx, words) = (Shared::new(dx), bytemuck::cast_slice(dy));
        for first in outputs.clone().step_by(block) {
            let own = first..outputs.end.min(first + block);
            let right = scratch.0.words(panels(inputs) * own.len() * COLUMNS);
            self.each(|panels| widen(panels, self, right, own.clone()));
            let left = Left { words, row_stride: width, step_stride: 1 }.from(first - outputs.start);
            let store = if first == outputs.start { store } else { Store::Add };
            product(dx, store, left, right, [rows, inputs, own.len()]);
        }
    }
}

/// `out (+)= left · right` with `[rows, columns, steps]` = shape, where `right: [columns/32][steps][32]`.
fn product(out: Shared<f32>, store: Store, left: Left, right: &[u32], [rows, columns, steps]: [usize; 3]) {
    let products = F32Products::here();
    tiles(ROWS, [rows, columns], 4 * steps, |tile, [row, count], panel| {
        let right = &right[panel * steps * COLUMNS..][..steps * COLUMNS];
        products.store(Store::Replace, Out::tile(tile), left.from(row * left.row_stride), right, count);
        let own = COLUMNS.min(columns - panel * COLUMNS);
        write_f32(out, store, columns, tile, [row, count], [panel * COLUMNS, own]);
    });
}

/// Widens some outputs into `[inputs/32][outputs][32]`.
fn widen(all: Panels, weight: &NarrowWeight, right: &mut [u32], outputs: Range<usize>) {
    match all {
        Panels::Int8(all) => widen_all(all, weight, right, outputs),
        Panels::Bf16(all) => widen_all(all, weight, right, outputs),
        Panels::F32(all) => widen_all(all, weight, right, outputs),
    }
}

fn widen_all<T: Narrow>(all: &[T], weight: &NarrowWeight, right: &mut [u32], outputs: Range<usize>) {
    let inputs = weight.inputs();
    let (words, right) = (outputs.len() * COLUMNS, Shared::new(right));
    for_each(panels(inputs), |task| {
        // SAFETY: each task owns its panel of inputs.
        let right = unsafe { right.slice(task * words, words) };
        let own = task * COLUMNS..inputs.min((task + 1) * COLUMNS);
        for (block, right) in right.chunks_mut(COLUMNS * COLUMNS).enumerate() {
            let panel = outputs.start / COLUMNS + block;
            let narrow = &all[(panel * inputs + own.start) * COLUMNS..][..own.len() * COLUMNS];
            let mut wide = [0u32; COLUMNS * COLUMNS];
            scaled(&mut wide, narrow, weight.scales(panel));
            transpose(right, own.len(), |input| &wide[input * COLUMNS..(input + 1) * COLUMNS]);
        }
    });
}

dispatch! {
    /// Rows of 32 outputs, as they are multiplied.
    fn scaled[T: Narrow](wide: &mut [u32], narrow: &[T], scales: &[f32]) {
        for (wide, narrow) in wide.chunks_exact_mut(COLUMNS).zip(narrow.chunks_exact(COLUMNS)) {
            for ((wide, narrow), scale) in wide.iter_mut().zip(narrow).zip(scales) {
                *wide = (narrow.to_f32() * scale).to_bits();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::narrow::Width;
    use super::*;
    use crate::gemm::linear_reference;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    /// The weight as it is multiplied, transposed: `[inputs, outputs]`.
    fn columns(weight: &NarrowWeight) -> Vec<f32> {
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let mut all = vec![0.0; inputs * outputs];
        for output in 0..outputs {
            let mut row = vec![0.0; inputs];
            weight.row(output, &mut row);
            row.iter().enumerate().for_each(|(input, v)| all[input * outputs + output] = *v);
        }
        all
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(48))]
        #[test]
        fn gradients_match_the_reference(rows in 1usize..40, inputs in 1usize..150, outputs in 1usize..200, add: bool, seed: u64) {
            let (w, dy) = (values(outputs * inputs, seed), values(rows * outputs, seed ^ 1));
            for width in [Width::Int8, Width::Bf16, Width::F32] {
                let weight = NarrowWeight::pack(&w, inputs, outputs, width);
                let (mut dx, mut expected) = (vec![2.0; rows * inputs], vec![0.0; rows * inputs]);
                let store = if add { Store::Add } else { Store::Replace };
                weight.input_gradient(&mut dx, store, &dy, &mut Scratch::default());
                linear_reference(&mut expected, &dy, &columns(&weight), rows, outputs, inputs);
                for (d, e) in dx.iter().zip(&expected) {
                    let e = e + if add { 2.0 } else { 0.0 };
                    prop_assert!((d - e).abs() < 3e-6 * (outputs as f32).sqrt() + 1e-6, "{width:?}: {d} for {e}");
                }
            }
        }
    }

    /// The last shape has more words than are widened at a time; the scratch holds what larger ones left.
    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        let mut scratch = Scratch::default();
        for (inputs, outputs) in [(640, 7000), (192, 100), (33, 31), (576, 960)] {
            let (w, dy) = (values(outputs * inputs, 4), values(70 * outputs, 3));
            for width in [Width::Int8, Width::Bf16] {
                let weight = NarrowWeight::pack(&w, inputs, outputs, width);
                let mut run = |rows: usize, threads| {
                    let mut dx = vec![0.0; rows * inputs];
                    with_threads(threads, || {
                        weight.input_gradient(&mut dx, Store::Replace, &dy[..rows * outputs], &mut scratch);
                    });
                    dx
                };
                let all = run(70, 2);
                for rows in [0, 1, 2, 11, 12, 13, 33] {
                    let some = run(rows, 1 + rows % 3);
                    assert!(all[..rows * inputs] == some[..], "{width:?} {inputs}×{outputs}, {rows} rows");
                }
            }
        }
    }
}
