//! Products with a thin weight: at most 128 columns of the result or 16 of the reduction, as the two factors of a
//! low-rank adapter have (Hu et al. 2021, LoRA). The weight is packed at each call, which costs little beside its rows.
//!
//! An element's sum is a chain over the reduction in order, so a row's bits do not depend on the others.

use super::bf16::{tiles, write_f32};
use super::floats::F32Products;
use super::panels::{COLUMNS, Lines, ROWS, panels};
use super::tile::{Left, Out};
use super::transpose::transpose;
use super::{Matrix, Store};
use crate::parallel::Shared;

/// Fewest steps, or columns, that a tile pays for.
pub(super) const LEAST: usize = 16;

/// `y = x·wᵀ`: `x: [rows, w.columns]`, `y: [rows, w.rows]`.
pub(super) fn linear(y: &mut [f32], x: &[f32], w: Matrix) {
    let mut lines = Lines::default();
    let right = lines.words(panels(w.rows) * w.columns * COLUMNS);
    for (panel, words) in right.chunks_exact_mut(w.columns * COLUMNS).enumerate().take(panels(w.rows)) {
        let first = panel * COLUMNS;
        let row = |row: usize| bytemuck::cast_slice(&w.data[(first + row) * w.columns..][..w.columns]);
        transpose(words, COLUMNS.min(w.rows - first), row);
    }
    product(y, Store::Replace, x, right, [w.columns, w.rows]);
}

/// `dx = dy·w`, or `+=`: `dy: [rows, w.rows]`, `dx: [rows, w.columns]`.
pub(super) fn input_gradient(dx: &mut [f32], store: Store, dy: &[f32], w: Matrix) {
    let mut lines = Lines::default();
    let right = lines.words(panels(w.columns) * w.rows * COLUMNS);
    for (panel, words) in right.chunks_exact_mut(w.rows * COLUMNS).enumerate().take(panels(w.columns)) {
        let columns = panel * COLUMNS..w.columns.min((panel + 1) * COLUMNS);
        for (words, row) in words.chunks_exact_mut(COLUMNS).zip(w.data.chunks_exact(w.columns)) {
            words[..columns.len()].copy_from_slice(bytemuck::cast_slice(&row[columns.clone()]));
        }
    }
    product(dx, store, dy, right, [w.rows, w.columns]);
}

/// `out (+)= left · right`: `left: [rows, steps]`, `right: [columns/32][steps][32]`.
fn product(out: &mut [f32], store: Store, left: &[f32], right: &[u32], [steps, columns]: [usize; 2]) {
    let (rows, words) = (out.len() / columns, bytemuck::cast_slice::<f32, u32>(left));
    let (out, products) = (Shared::new(out), F32Products::here());
    tiles(ROWS, [rows, columns], 4 * steps, |tile, [row, count], panel| {
        let left = Left { words: &words[row * steps..], row_stride: steps, step_stride: 1 };
        let right = &right[panel * steps * COLUMNS..][..steps * COLUMNS];
        products.store(Store::Replace, Out::tile(tile), left, right, count);
        let own = COLUMNS.min(columns - panel * COLUMNS);
        write_f32(out, store, columns, tile, [row, count], [panel * COLUMNS, own]);
    });
}

/// `dw = dyᵀ·x` (or `+=`) where x has few columns: the transpose of `xᵀ·dy`, whose rows are long.
pub(super) fn weight_gradient(dw: &mut [f32], dy: &[f32], x: &[f32], inputs: usize, outputs: usize) {
    let mut long: Vec<f32> = (0..dw.len()).map(|i| dw[i % outputs * inputs + i / outputs]).collect();
    super::small_weight_gradient(&mut long, x, dy, outputs, inputs);
    for (i, value) in long.into_iter().enumerate() {
        dw[i % outputs * inputs + i / outputs] = value;
    }
}
