//! Matrices packed for the tile kernels.
//!
//! A tile kernel multiplies [`ROWS`] rows of A with [`COLUMNS`] columns of B, one *step* at a time: a step is
//! as many neighbours along the reduction as share 32 bits (two bf16, four int8). B lies in panels of
//! 32 columns, `[panel][step][column]`, so that a step of a panel is two registers; columns and steps beyond the matrix
//! are zero. A is read in place, or from panels of 12 rows, `[panel][step][row]`, when its rows run along the reduction.

use crate::bf16::{Bf16, Element};
use crate::memory::zeroed;

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;
/// Columns of a tile.
pub(crate) const COLUMNS: usize = 32;

/// One cache line: panels start on one, so that no load crosses two.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

// SAFETY: 16 plain words without padding.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// Memory for panels that grows and is never given back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// At least `words` words of unspecified content.
    pub(crate) fn words(&mut self, words: usize) -> &mut [u32] {
        let lines = words.div_ceil(16);
        if self.0.is_empty() {
            self.0 = zeroed(lines);
        } else if self.0.len() < lines {
            self.0.resize(lines, Line::default());
        }
        // SAFETY: a line is 16 plain words without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), lines * 16) }
    }

    /// All words.
    pub(crate) fn as_words(&self) -> &[u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }
}

/// Number of column panels.
pub(crate) fn panels(columns: usize) -> usize {
    columns.div_ceil(COLUMNS)
}

#[inline(always)]
fn pair<T: Element>(low: T, high: T) -> u32 {
    u32::from(Bf16::narrow(low.widen()).0) | u32::from(Bf16::narrow(high.widen()).0) << 16
}

/// A row-major matrix inside a larger one.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    /// Starts with the first element.
    pub(crate) data: &'a [T],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
}

impl<'a, T: Element> View<'a, T> {
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert!(data.len() >= rows * columns);
        Self { data, stride: columns, rows, columns }
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        &self.data[row * self.stride..][..self.columns]
    }
}

/// Packs one panel of B = srcᵀ: columns of B are the rows `32·panel..` of `src`, the reduction runs along them.
/// `panel_words: [steps][32]` with `src.columns.div_ceil(2)` steps.
#[inline(always)]
pub(crate) fn pack_transposed<T: Element>(panel_words: &mut [u32], src: View<T>, panel: usize) {
    let first = panel * COLUMNS;
    let count = COLUMNS.min(src.rows - first);
    if count < COLUMNS {
        panel_words.fill(0);
    }
    // Blocks of steps stay in the first-level cache while the rows are written across them.
    for (block, words) in panel_words.chunks_mut(BLOCK * COLUMNS).enumerate() {
        for j in 0..count {
            let row = &src.row(first + j)[block * 2 * BLOCK..];
            let row = &row[..row.len().min(2 * BLOCK)];
            let pairs = row.chunks_exact(2);
            if let [last] = pairs.remainder() {
                words[row.len() / 2 * COLUMNS + j] = pair(*last, T::default());
            }
            for (word, values) in words[j..].iter_mut().step_by(COLUMNS).zip(pairs) {
                *word = pair(values[0], values[1]);
            }
        }
    }
}

/// Steps transposed at a time.
const BLOCK: usize = 32;

/// Packs one panel of B = src: columns `32·panel..` of `src`, the reduction runs down its rows.
/// `panel_words: [steps][32]` with `src.rows.div_ceil(2)` steps.
#[inline(always)]
pub(crate) fn pack_straight<T: Element>(panel_words: &mut [u32], src: View<T>, panel: usize) {
    let first = panel * COLUMNS;
    let count = COLUMNS.min(src.columns - first);
    for (step, words) in panel_words.chunks_exact_mut(COLUMNS).enumerate() {
        let low = &src.row(2 * step)[first..first + count];
        match 2 * step + 1 < src.rows {
            true => {
                let high = &src.row(2 * step + 1)[first..first + count];
                words.iter_mut().zip(low).zip(high).for_each(|((word, low), high)| *word = pair(*low, *high));
            }
            false => words.iter_mut().zip(low).for_each(|(word, low)| *word = pair(*low, T::default())),
        }
        words[count..].fill(0);
    }
}

/// Packs one panel of A = srcᵀ: rows of A are the columns `12·panel..` of `src`, the reduction runs down its rows.
/// `panel_words: [steps][12]`.
#[inline(always)]
pub(crate) fn pack_left<T: Element>(panel_words: &mut [u32], src: View<T>, first: usize) {
    let count = ROWS.min(src.columns - first);
    for (step, words) in panel_words.chunks_exact_mut(ROWS).enumerate() {
        let low = &src.row(2 * step)[first..first + count];
        match 2 * step + 1 < src.rows {
            true => {
                let high = &src.row(2 * step + 1)[first..first + count];
                words.iter_mut().zip(low).zip(high).for_each(|((word, low), high)| *word = pair(*low, *high));
            }
            false => words.iter_mut().zip(low).for_each(|(word, low)| *word = pair(*low, T::default())),
        }
    }
}
