//! How a text's heads are packed for the tile products, in f32 and in pairs of bf16.
//!
//! A word is 32 bits: one f32, or two bf16 that lie side by side along the reduction. Packed by column, the reduction
//! runs along the head: `[position/32][word of the head][32]`. Packed by row, it runs along the positions:
//! `[column/32][word of positions][32]`.

use super::Columns;
use super::sequences::Text;
use crate::bf16::{Bf16, Element};
use crate::gemm::Store;
use crate::gemm::floats::F32Products;
use crate::gemm::panels::{COLUMNS, Lines, ROWS, panels};
use crate::gemm::tile::{Bf16Products, Left, Out};
use crate::gemm::transpose::transpose;
use std::ops::Range;

/// Values in a word.
pub(super) const fn values<T>() -> usize {
    4 / size_of::<T>()
}

/// What multiplies words of T here.
#[derive(Clone, Copy)]
pub(super) enum Products {
    F32(F32Products),
    Bf16(Bf16Products),
}

impl Products {
    /// # Panics
    /// For bf16, when this processor has no such products.
    pub(super) fn of<T: Element>() -> Self {
        match values::<T>() {
            1 => Self::F32(F32Products::here()),
            _ => Self::Bf16(Bf16Products::required()),
        }
    }

    /// Rows of a tile at most.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::F32(_) => ROWS,
            Self::Bf16(products) => products.rows(),
        }
    }

    #[inline]
    pub(super) fn store(self, store: Store, out: Out, left: Left, right: &[u32], rows: usize) {
        match self {
            Self::F32(products) => products.store(store, out, left, right, rows),
            Self::Bf16(products) => products.store(store, out, left, right, rows),
        }
    }
}

/// The rows of one head of one text, by position.
#[derive(Clone, Copy)]
pub(super) struct TextHead<'a, T> {
    pub(super) columns: Columns<'a, T>,
    pub(super) head: usize,
    pub(super) text: Text,
}

impl<'a, T: Element> TextHead<'a, T> {
    #[inline(always)]
    pub(super) fn at(&self, position: usize) -> &'a [T] {
        self.columns.head(self.text.row(position), self.head)
    }

    /// Own rows from `position` on as the left side of a product along the head.
    pub(super) fn left(&self, position: usize) -> Left<'a> {
        let Columns { data, stride, first, dim } = self.columns;
        let start = self.text.row(position) * stride + first + self.head * dim;
        let words = bytemuck::cast_slice(&data[start..data.len() / values::<T>() * values::<T>()]);
        Left { words, row_stride: stride / values::<T>(), step_stride: 1 }
    }
}

/// Bytes of packed heads that a thread keeps for the next one: a single long text must not hold its memory for ever.
pub(super) const KEPT: usize = 1 << 26;

/// Memory of a head packed for products.
#[derive(Default)]
pub(super) struct Packed {
    lines: Lines,
    /// Words of a panel.
    panel: usize,
}

impl Packed {
    /// Room for `count` panels of `steps` words.
    pub(super) fn reserve(&mut self, count: usize, steps: usize) {
        self.panel = steps * COLUMNS;
        self.lines.words(count * self.panel);
    }

    /// Bytes that are kept from call to call.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_words())
    }

    /// Some steps of a panel.
    #[inline(always)]
    pub(super) fn steps(&self, panel: usize, steps: Range<usize>) -> &[u32] {
        &self.lines.as_words()[panel * self.panel..][steps.start * COLUMNS..steps.end * COLUMNS]
    }

    /// Packs the positions from `from` (a multiple of 32) to the text's end by column. What lies beyond is kept.
    pub(super) fn by_column<T: Element>(&mut self, head: TextHead<T>, from: usize) {
        let words = self.panel;
        let end = head.text.end();
        let all = &mut self.lines.words(panels(end) * words)[from / COLUMNS * words..panels(end) * words];
        pack_by_column(all, words, from, head);
    }

    /// Packs some positions by row, the first of them into the step `step`; a last half word is zero.
    pub(super) fn by_row<T: Element>(&mut self, head: TextHead<T>, positions: Range<usize>, step: usize) {
        let (panel, count) = (self.panel, panels(head.columns.dim));
        let all = &mut self.lines.words(count * panel)[..count * panel];
        pack_by_row(all, [panel, step], positions, head);
    }
}

fn pack_by_column<T: Element>(all: &mut [u32], panel_words: usize, from: usize, head: TextHead<T>) {
    let end = head.text.end();
    for (panel, words) in all.chunks_exact_mut(panel_words).enumerate() {
        let first = from + panel * COLUMNS;
        let rows = COLUMNS.min(end - first);
        transpose(words, rows, |row| bytemuck::cast_slice(head.at(first + row)));
    }
}

dispatch! {
    fn pack_by_row[T: Element](all: &mut [u32], place: [usize; 2], positions: Range<usize>, head: TextHead<'_, T>) {
        let (dim, [panel_words, first]) = (head.columns.dim, place);
        for (step, position) in positions.clone().step_by(values::<T>()).enumerate() {
            let low = head.at(position);
            let high = if values::<T>() == 2 && position + 1 < positions.end { head.at(position + 1) } else { &[] };
            for (panel, words) in all.chunks_exact_mut(panel_words).enumerate() {
                let columns = panel * COLUMNS..dim.min((panel + 1) * COLUMNS);
                let words = &mut words[(first + step) * COLUMNS..][..COLUMNS];
                let high = high.get(columns.clone()).unwrap_or(&[]);
                join(words, &low[columns], high);
            }
        }
    }
}

/// Words of values of two rows, or of one. Words beyond the rows become zero.
#[inline(always)]
fn join<T: Element>(words: &mut [u32], low: &[T], high: &[T]) {
    // Whole panels have lengths that the compiler knows: registers are copied, without a call.
    if let (Ok(words), Ok(low)) = (<&mut [u32; COLUMNS]>::try_from(&mut *words), <&[T; COLUMNS]>::try_from(low)) {
        if let Ok(high) = <&[T; COLUMNS]>::try_from(high) {
            for j in 0..COLUMNS {
                words[j] = bits(low[j]) | bits(high[j]) << 16;
            }
        } else {
            for j in 0..COLUMNS {
                words[j] = bits(low[j]);
            }
        }
        return;
    }
    for (j, word) in words.iter_mut().enumerate() {
        let of = |row: &[T]| row.get(j).map_or(0, |value| bits(*value));
        *word = of(low) | of(high) << 16;
    }
}

#[inline(always)]
fn bits<T: Element>(value: T) -> u32 {
    if values::<T>() == 1 { value.widen().to_bits() } else { value.widen().to_bits() >> 16 }
}

dispatch! {
    /// Rows of f32 as bf16, two values a word.
    pub(super) fn pair_along(words: &mut [u32], rows: &[f32]) {
        let halves: &mut [Bf16] = bytemuck::cast_slice_mut(words);
        halves.iter_mut().zip(rows).for_each(|(half, value)| *half = Bf16::narrow(*value));
    }
}

dispatch! {
    /// Pairs of rows of f32 as bf16: a word holds the same column of both.
    pub(super) fn pair_across(words: &mut [u32], rows: &[f32], width: usize) {
        for (words, rows) in words.chunks_exact_mut(width).zip(rows.chunks_exact(2 * width)) {
            let (low, high) = rows.split_at(width);
            for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
                *word = bits(Bf16::narrow(*low)) | bits(Bf16::narrow(*high)) << 16;
            }
        }
    }
}
