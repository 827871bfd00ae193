//! Some columns of the rows of a value: taken out in f32, and added to. A low-rank adapter of one of several joined
//! products reads and changes a range of columns alone.

use crate::bf16::Element;
use crate::parallel::{area, for_row_blocks};

/// Columns of rows that are `width` values long.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The first of them.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Values of a whole row.
    pub width: usize,
}

impl Columns {
    /// Rows of `len` values, after it was checked that these are whole rows and that the columns lie in them.
    fn rows(self, len: usize) -> usize {
        assert!(self.count > 0 && self.first + self.count <= self.width, "{self:?} are columns of a row");
        assert!(len.is_multiple_of(self.width), "{len} values are rows of {}", self.width);
        len / self.width
    }
}

/// `out = scale · values[.., columns]`: `values: [rows, width]`, `out: [rows, count]`.
///
/// # Panics
/// When the slices are not as long as that.
pub fn take<T: Element>(out: &mut [f32], values: &[T], columns: Columns, scale: f32) {
    assert_eq!(out.len(), area(columns.rows(values.len()), columns.count), "a row of each");
    for_row_blocks(out, columns.count, |row, block| {
        let from = values[row * columns.width..].chunks_exact(columns.width);
        for (out, from) in block.chunks_exact_mut(columns.count).zip(from) {
            take_row(out, &from[columns.first..][..columns.count], scale);
        }
    });
}

/// `values[.., columns] += scale · added`: `values: [rows, width]`, `added: [rows, count]`.
///
/// # Panics
/// As [`take`].
pub fn add<T: Element>(values: &mut [T], added: &[f32], columns: Columns, scale: f32) {
    assert_eq!(added.len(), area(columns.rows(values.len()), columns.count), "a row of each");
    for_row_blocks(values, columns.width, |row, block| {
        let added = added[row * columns.count..].chunks_exact(columns.count);
        for (row, added) in block.chunks_exact_mut(columns.width).zip(added) {
            add_row(&mut row[columns.first..][..columns.count], added, scale);
        }
    });
}

dispatch! {
    fn take_row[T: Element](out: &mut [f32], from: &[T], scale: f32) {
        for (out, from) in out.iter_mut().zip(from) {
            *out = scale * from.widen();
        }
    }
}

dispatch! {
    fn add_row[T: Element](row: &mut [T], added: &[f32], scale: f32) {
        for (value, added) in row.iter_mut().zip(added) {
            *value = T::narrow(added.mul_add(scale, value.widen()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Bf16;
    use crate::gemm::tests::values;

    /// The plain twins, of one value.
    fn check<T: Element>(tolerance: f32) {
        for (rows, columns) in [
            (1, Columns { first: 0, count: 1, width: 1 }),
            (3, Columns { first: 2, count: 5, width: 9 }),
            (70, Columns { first: 16, count: 40, width: 64 }),
        ] {
            let before: Vec<T> = values(rows * columns.width, 1).into_iter().map(T::narrow).collect();
            let added = values(rows * columns.count, 2);
            let (mut taken, mut after) = (vec![9.0; added.len()], before.clone());
            take(&mut taken, &before, columns, 0.5);
            add(&mut after, &added, columns, 3.0);
            for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                let (row, column) = (i / columns.width, i % columns.width);
                let Some(at) = column.checked_sub(columns.first).filter(|at| *at < columns.count) else {
                    assert_eq!(before, after, "outside of the columns nothing changes");
                    continue;
                };
                let at = row * columns.count + at;
                assert_eq!(taken[at], 0.5 * before.widen());
                let expected = before.widen() + 3.0 * added[at];
                assert!((after.widen() - expected).abs() <= tolerance * (1.0 + expected.abs()), "{after:?}");
            }
        }
    }

    #[test]
    fn columns_are_taken_and_added_to() {
        check::<f32>(1e-6);
        check::<Bf16>(0.004);
    }
}
