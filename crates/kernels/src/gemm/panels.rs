//! Matrices packed for the tile kernels.
//!
//! A tile kernel multiplies some rows of A with [`COLUMNS`] columns of B, one *step* at a time: a step is
//! as many neighbours along the reduction as share 32 bits (two bf16, four int8). B lies in panels of
//! 32 columns, `[panel][step][column]`, so that a step of a panel is two registers; columns and steps beyond the matrix
//! are zero. A is read in place, or from [`LeftPanels`], when its rows run along the reduction.

use super::tile::Left;
use super::transpose::transpose_into;
use crate::bf16::{Bf16, Element};
use crate::memory::zeroed;

/// Rows of a tile whose sums are in registers.
pub(crate) const ROWS: usize = 12;
/// Rows of the tallest tile: that of AMX.
pub(crate) const MOST_ROWS: usize = 32;
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
        pair_rows(&mut words[..count], src, step, first);
        words[count..].fill(0);
    }
}

/// How panels of A = srcᵀ lie: rows of A are columns of `src`, the reduction runs down its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftPanels {
    /// `[panel][step][12]`, for registers.
    BySteps,
    /// `[panel][32][steps]`, for tiles of AMX. A row has some steps more, so that rows do not fall on the same lines of
    /// the cache.
    ByRows,
}

impl LeftPanels {
    /// Rows of a panel.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::BySteps => ROWS,
            Self::ByRows => MOST_ROWS,
        }
    }

    /// Words of a panel.
    pub(crate) fn words(self, steps: usize) -> usize {
        match self {
            Self::BySteps => ROWS * steps,
            Self::ByRows => MOST_ROWS * row_words(steps),
        }
    }

    /// A packed panel as the left side of products.
    pub(crate) fn left(self, words: &[u32], steps: usize) -> Left<'_> {
        match self {
            Self::BySteps => Left { words, row_stride: 1, step_stride: ROWS },
            Self::ByRows => Left { words, row_stride: row_words(steps), step_stride: 1 },
        }
    }

    /// Packs one panel, whose rows are the columns from `first` on. Rows beyond `src` keep their content.
    #[inline(always)]
    pub(crate) fn pack<T: Element>(self, words: &mut [u32], src: View<T>, first: usize) {
        let (count, steps) = (self.rows().min(src.columns - first), src.rows.div_ceil(2));
        if self == Self::BySteps {
            for (step, words) in words.chunks_exact_mut(ROWS).enumerate() {
                pair_rows(&mut words[..count], src, step, first);
            }
            return;
        }
        let stride = row_words(steps);
        for from in (0..steps).step_by(EXCHANGED) {
            let mut block = [0u32; EXCHANGED * MOST_ROWS];
            let own = EXCHANGED.min(steps - from);
            for (step, words) in block.chunks_exact_mut(MOST_ROWS).enumerate().take(own) {
                pair_rows(&mut words[..count], src, from + step, first);
            }
            transpose_into(&mut words[from..], stride, own, |step| &block[step * MOST_ROWS..][..count]);
        }
    }
}

/// Steps that are exchanged at a time.
const EXCHANGED: usize = 16;

/// Words from one row to the next of [`LeftPanels::ByRows`].
fn row_words(steps: usize) -> usize {
    steps.next_multiple_of(16) + 16
}

/// A step of some columns, from `first` on: words of two neighbours down the rows.
#[inline(always)]
fn pair_rows<T: Element>(words: &mut [u32], src: View<T>, step: usize, first: usize) {
    let low = &src.row(2 * step)[first..first + words.len()];
    match 2 * step + 1 < src.rows {
        true => {
            let high = &src.row(2 * step + 1)[first..first + words.len()];
            words.iter_mut().zip(low).zip(high).for_each(|((word, low), high)| *word = pair(*low, *high));
        }
        false => words.iter_mut().zip(low).for_each(|(word, low)| *word = pair(*low, T::default())),
    }
}
