//! The products of low-rank adapters over values of bf16: operands of 16 bits, sums in f32. One side of each product is
//! thin, and either may be some columns of a wider value. Weights are packed at each call, which costs little beside
//! their rows.

use super::Store;
use super::bf16::{pack_all, pack_gradient, straight_panel, tiles, transposed_panel};
use super::panels::{COLUMNS, Lines, MOST_ROWS, View, panels};
use super::tile::{Bf16Products, Left, Tile};
use crate::bf16::{Bf16, Element};
use crate::columns::Columns;
use crate::parallel::{Shared, area, for_each};
use std::cell::RefCell;

/// Some columns of a value of bf16. First column, number and width are even, since a word holds two values.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// `[rows, columns.width]`.
    pub data: &'a [Bf16],
    /// Which.
    pub columns: Columns,
}

/// Some columns of a value that a product is written or added to.
pub struct Target<'a, T> {
    /// `[rows, columns.width]`.
    pub data: &'a mut [T],
    /// Which.
    pub columns: Columns,
    /// Whether they are replaced or added to.
    pub store: Store,
}

impl<'a> Part<'a> {
    fn rows(self) -> usize {
        let Columns { first, count, width } = self.columns;
        let even = [first, count, width].iter().all(|n| n.is_multiple_of(2));
        assert!(even && count > 0 && first + count <= width, "{:?}: even columns of even rows", self.columns);
        assert!(self.data.len().is_multiple_of(width), "{} values are rows of {width}", self.data.len());
        self.data.len() / width
    }

    /// As the left side of a product.
    fn left(self) -> Left<'a> {
        let words: &[u32] = bytemuck::cast_slice(self.data);
        Left { words: &words[self.columns.first / 2..], row_stride: self.columns.width / 2, step_stride: 1 }
    }

    fn view(self) -> View<'a, Bf16> {
        let Columns { first, count, width } = self.columns;
        View { data: &self.data[first..], stride: width, rows: self.rows(), columns: count }
    }
}

/// `out = x·wᵀ`, or `+=`: a row of `w: [outputs, inputs]` for each column of `out`.
///
/// # Panics
/// When the slices do not have the lengths that their columns say, or columns are odd.
pub fn linear<T: Element>(out: Target<T>, x: Part, w: &[f32]) {
    let (outputs, inputs) = (out.columns.count, x.columns.count);
    assert_eq!(w.len(), area(outputs, inputs), "a weight for each input of each output");
    let view = View::new(w, outputs, inputs);
    product(out, x, |right| {
        pack_all(right, panels(outputs), inputs / 2, |words, panel| transposed_panel(words, view, panel));
    });
}

/// `out = dy·w`, or `+=`: a row of `w: [outputs, inputs]` for each column of `dy`.
///
/// # Panics
/// As [`linear`].
pub fn input_gradient<T: Element>(out: Target<T>, dy: Part, w: &[f32]) {
    let (outputs, inputs) = (dy.columns.count, out.columns.count);
    assert_eq!(w.len(), area(outputs, inputs), "a weight for each input of each output");
    let view = View::new(w, outputs, inputs);
    product(out, dy, |right| {
        pack_all(right, panels(inputs), outputs / 2, |words, panel| straight_panel(words, view, panel));
    });
}

/// A product with the right side that `pack` packs, `[columns/32][steps][32]`.
fn product<T: Element>(out: Target<T>, left: Part, pack: impl FnOnce(&mut Lines)) {
    let (rows, steps, Columns { first, count, width }) = (left.rows(), left.columns.count / 2, out.columns);
    assert!(
        out.data.len() == area(rows, width) && count > 0 && first + count <= width,
        "a row for each of the left side"
    );
    let (products, mut right) = (Bf16Products::required(), Lines::default());
    pack(&mut right);
    let (data, store, right, left) = (Shared::new(out.data), out.store, right.as_words(), left.left());
    if rows == 0 {
        return;
    }
    tiles(products.rows(), [rows, count], 4 * left.row_stride, |tile, [row, rows], panel| {
        let right = &right[panel * steps * COLUMNS..][..steps * COLUMNS];
        products.tile(tile, left.from(row * left.row_stride), right, rows);
        let own = COLUMNS.min(count - panel * COLUMNS);
        for (i, values) in tile[..rows].iter().enumerate() {
            // SAFETY: one task owns each tile of the output.
            let out = unsafe { data.slice((row + i) * width + first + panel * COLUMNS, own) };
            store_row(out, &values[..own], store == Store::Add);
        }
    });
}

dispatch! {
    fn store_row[T: Element](out: &mut [T], values: &[f32], add: bool) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = T::narrow(if add { out.widen() + value } else { *value });
        }
    }
}

/// Which way the gradient of a weight lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// A row for each column of the wide side, as B's.
    Wide,
    /// A row for each column of the thin side, as A's.
    Thin,
}

/// Panels of columns of the wide side that one task owns.
const TASK_PANELS: usize = 4;

thread_local! {
    /// Panels of the left side, of one task.
    static LEFT: RefCell<Lines> = RefCell::default();
}

/// `dw = scale · wideᵀ·thin`, or `+=`, the sums over the rows.
///
/// # Panics
/// As [`linear`].
pub fn weight_gradient(dw: &mut [f32], lies: Lies, store: Store, wide: Part, thin: Part, scale: f32) {
    let (rows, count, columns) = (wide.rows(), wide.columns.count, thin.columns.count);
    assert!(thin.rows() == rows && dw.len() == area(count, columns), "rows of both sides, and a place for each sum");
    if rows == 0 {
        return if store == Store::Replace {
            dw.fill(0.0)
        };
    }
    let (products, steps, mut right) = (Bf16Products::required(), rows.div_ceil(2), Lines::default());
    let (thin, wide) = (thin.view(), wide.view());
    pack_all(&mut right, panels(columns), steps, |words, panel| straight_panel(words, thin, panel));
    let (dw, right) = (Shared::new(dw), right.as_words());
    let lefts = products.left_panels();
    let task_columns = TASK_PANELS * lefts.rows();
    for_each(count.div_ceil(task_columns), |task| {
        let own = task * task_columns..count.min((task + 1) * task_columns);
        LEFT.with_borrow_mut(|left| {
            let words = TASK_PANELS * lefts.words(steps);
            let left = &mut left.words(words)[..words];
            pack_gradient(left, lefts, wide, own.clone());
            let mut tile = [[0.0; COLUMNS]; MOST_ROWS];
            for (panel, words) in right.chunks_exact(steps * COLUMNS).enumerate().take(panels(columns)) {
                for (row, left) in own.clone().step_by(lefts.rows()).zip(left.chunks_exact(lefts.words(steps))) {
                    let rows = lefts.rows().min(own.end - row);
                    products.tile(&mut tile, lefts.left(left, steps), words, rows);
                    let place = Place { first: [row, panel * COLUMNS], count: [rows, columns], of: count, lies };
                    place.write(dw, &tile, scale, store);
                }
            }
        });
    });
}

/// Where a tile of a weight's gradient goes.
struct Place {
    /// First column of the wide side, and of the thin one.
    first: [usize; 2],
    /// Columns of the wide side in the tile, and all of the thin one.
    count: [usize; 2],
    /// All columns of the wide side.
    of: usize,
    lies: Lies,
}

impl Place {
    fn write(&self, dw: Shared<f32>, tile: &Tile, scale: f32, store: Store) {
        let [first, from] = self.first;
        let columns = COLUMNS.min(self.count[1] - from);
        for (i, values) in tile[..self.count[0]].iter().enumerate() {
            for (j, value) in values[..columns].iter().enumerate() {
                let at = match self.lies {
                    Lies::Wide => (first + i) * self.count[1] + from + j,
                    Lies::Thin => (from + j) * self.of + first + i,
                };
                // SAFETY: a task owns its columns of the wide side, whichever way they lie.
                let out = unsafe { &mut dw.slice(at, 1)[0] };
                *out = scale * value + if store == Store::Add { *out } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use crate::simd::tests::on_twins_and_instructions;

    /// Rounded to bf16, in words as the tape's buffers are.
    fn words(n: usize, seed: u64) -> Vec<u32> {
        let mut words = vec![0u32; n / 2];
        let halves: &mut [Bf16] = bytemuck::cast_slice_mut(&mut words);
        halves.iter_mut().zip(values(n, seed)).for_each(|(half, value)| *half = Bf16::narrow(value));
        words
    }

    fn part(words: &[u32], columns: Columns) -> Part<'_> {
        Part { data: bytemuck::cast_slice(words), columns }
    }

    fn at(part: Part, row: usize, column: usize) -> f64 {
        f64::from(part.data[row * part.columns.width + part.columns.first + column].widen())
    }

    fn rounded(n: usize, seed: u64) -> Vec<f32> {
        values(n, seed).into_iter().map(|value| Bf16::narrow(value).widen()).collect()
    }

    const CASES: [(usize, Columns, Columns); 4] = [
        (1, Columns { first: 0, count: 2, width: 2 }, Columns { first: 0, count: 4, width: 4 }),
        (13, Columns { first: 4, count: 16, width: 48 }, Columns { first: 30, count: 34, width: 96 }),
        (150, Columns { first: 0, count: 48, width: 48 }, Columns { first: 0, count: 200, width: 200 }),
        (301, Columns { first: 16, count: 8, width: 24 }, Columns { first: 64, count: 130, width: 256 }),
    ];

    fn close(found: f32, expected: f64) {
        assert!((f64::from(found) - expected).abs() < 0.01 * (1.0 + expected.abs()), "{found} instead of {expected}");
    }

    /// `out[row, j]` of a product against `sum(row, j)`, and what lies beside its columns.
    fn check_target(rows: usize, columns: Columns, run: impl Fn(Target<Bf16>), sum: impl Fn(usize, usize) -> f64) {
        let before = words(rows * columns.width, 7);
        for store in [Store::Replace, Store::Add] {
            let mut after = before.clone();
            run(Target { data: bytemuck::cast_slice_mut(&mut after), columns, store });
            let (whole, old) = (Columns { first: 0, count: columns.width, ..columns }, &before);
            for row in 0..rows {
                for column in 0..columns.width {
                    let (found, old) = (at(part(&after, whole), row, column), at(part(old, whole), row, column));
                    match column.checked_sub(columns.first).filter(|j| *j < columns.count) {
                        None => assert_eq!(found.to_bits(), old.to_bits(), "a column beside"),
                        Some(j) => close(found as f32, sum(row, j) + if store == Store::Add { old } else { 0.0 }),
                    }
                }
            }
        }
    }

    #[test]
    fn products_of_some_columns_match_the_reference() {
        let run = || -> Result<(), ()> {
            for (rows, thin, wide) in CASES {
                let (z, y) = (words(rows * thin.width, 1), words(rows * wide.width, 2));
                let (z, y) = (part(&z, thin), part(&y, wide));
                let b = rounded(wide.count * thin.count, 3);
                let weight = |o: usize, i: usize| f64::from(b[o * thin.count + i]);
                let up = |row: usize, o: usize| (0..thin.count).map(|i| at(z, row, i) * weight(o, i)).sum::<f64>();
                check_target(rows, wide, |out| linear(out, z, &b), up);
                let back = |row: usize, i: usize| (0..wide.count).map(|o| at(y, row, o) * weight(o, i)).sum::<f64>();
                check_target(rows, thin, |out| input_gradient(out, y, &b), back);
                let a = rounded(thin.count * wide.count, 4);
                let down = |row: usize, r: usize| {
                    (0..wide.count).map(|i| at(y, row, i) * f64::from(a[r * wide.count + i])).sum::<f64>()
                };
                check_target(rows, thin, |out| linear(out, y, &a), down);
            }
            Ok(())
        };
        on_twins_and_instructions(run).unwrap();
    }

    #[test]
    fn gradients_lie_either_way_and_depend_on_no_threads() {
        let run = || -> Result<(), ()> {
            for (rows, thin, wide) in CASES {
                let (z, y) = (words(rows * thin.width, 1), words(rows * wide.width, 2));
                let (z, y) = (part(&z, thin), part(&y, wide));
                let sum = |o: usize, r: usize| (0..rows).map(|row| at(y, row, o) * at(z, row, r)).sum::<f64>();
                for lies in [Lies::Wide, Lies::Thin] {
                    let of = |threads, store| {
                        let mut dw = vec![1.0; wide.count * thin.count];
                        with_threads(threads, || weight_gradient(&mut dw, lies, store, y, z, 0.5));
                        dw
                    };
                    let found = of(1, Store::Replace);
                    assert_eq!(found, of(3, Store::Replace));
                    for (place, (found, added)) in found.iter().zip(of(2, Store::Add)).enumerate() {
                        let (o, r) = match lies {
                            Lies::Wide => (place / thin.count, place % thin.count),
                            Lies::Thin => (place % wide.count, place / wide.count),
                        };
                        close(*found, 0.5 * sum(o, r));
                        close(added, 1.0 + 0.5 * sum(o, r));
                    }
                }
            }
            Ok(())
        };
        on_twins_and_instructions(run).unwrap();
    }
}
