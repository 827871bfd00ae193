//! Embedding tables: rows added up per token, and gradients scattered back.

use crate::parallel::{ROWS, Shared, area, for_each};
use rayon::prelude::*;

/// One table and the row each token takes from it.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// `[entries, width]`.
    pub table: &'a [f32],
    /// Row of each token.
    pub rows: &'a [u32],
}

/// `out[t] = Σ_lookups table[rows[t]]`, added in the order given; `out: [tokens, width]`.
///
/// # Panics
/// When a row lies outside its table.
pub fn embed(out: &mut [f32], width: usize, lookups: &[Lookup]) {
    let fits = |lookup: &Lookup| area(lookup.rows.len(), width) == out.len();
    assert!(lookups.iter().all(fits), "each table gives each of {} tokens a row", out.len() / width);
    out.par_chunks_mut(ROWS * width).enumerate().for_each(|(block, out)| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            out.fill(0.0);
            for lookup in lookups {
                let row = lookup.rows[block * ROWS + i] as usize;
                let table = &lookup.table[row * width..(row + 1) * width];
                out.iter_mut().zip(table).for_each(|(o, t)| *o += t);
            }
        }
    });
}

const COLUMN_BLOCK: usize = 64;

/// `d_table[rows[t]] += d_out[t]`, tokens in order: a task owns a block of columns.
///
/// # Panics
/// When a row lies outside the table.
pub fn embed_backward(d_table: &mut [f32], rows: &[u32], d_out: &[f32], width: usize) {
    assert_eq!(d_out.len(), area(rows.len(), width), "a gradient for each token");
    assert!(d_table.len().is_multiple_of(width), "rows of {width} values, found {}", d_table.len());
    let shared = Shared::new(d_table);
    for_each(width.div_ceil(COLUMN_BLOCK), |block| {
        let start = block * COLUMN_BLOCK;
        let len = COLUMN_BLOCK.min(width - start);
        for (row, d_out) in rows.iter().zip(d_out.chunks_exact(width)) {
            // SAFETY: each task owns its own columns of every row.
            let out = unsafe { shared.slice(*row as usize * width + start, len) };
            out.iter_mut().zip(&d_out[start..]).for_each(|(o, d)| *o += d);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::with_threads;

    #[test]
    fn rows_are_added_and_scattered_back() {
        let (words, types) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 20.0]);
        let mut out = [0.0; 6];
        embed(&mut out, 2, &[Lookup { table: &words, rows: &[2, 0, 2] }, Lookup { table: &types, rows: &[0, 0, 0] }]);
        assert_eq!(out, [15.0, 26.0, 11.0, 22.0, 15.0, 26.0]);
        let mut d_words = [0.0; 6];
        embed_backward(&mut d_words, &[2, 0, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2);
        assert_eq!(d_words, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
    }

    #[test]
    fn threads_do_not_change_the_gradient() {
        let width = 150;
        let rows: Vec<u32> = (0..300).map(|i| i * 7 % 11).collect();
        let d_out: Vec<f32> = (0..300 * width).map(|i| (i as f32).sin()).collect();
        let run = |threads| {
            let mut d = vec![0.0; 11 * width];
            with_threads(threads, || embed_backward(&mut d, &rows, &d_out, width));
            d
        };
        assert!(run(1) == run(2) && run(1) == run(3));
    }
}
