//! Every query, forward: strips of 12 queries against the keys that any of them sees.

use super::operand::{KEPT, Packed, Products, TextHead, values};
use super::score::{Place, Scoring, softmax_strip};
use super::sequences::{Family, Sequences, Text};
use super::{ColumnsMut, Work};
use crate::bf16::Element;
use crate::gemm::Store;
use crate::gemm::panels::{COLUMNS, Lines, ROWS, panels};
use crate::gemm::tile::{Left, Out, Tile};
use crate::parallel::{Shared, for_each};
use std::cell::RefCell;
use std::ops::Range;

/// Own rows of a task, where a family has as many: few large families must occupy all threads.
const PART_ROWS: usize = 256;

/// Texts of a family that one task computes.
struct Part {
    family: Family,
    /// Places among the family's texts.
    texts: Range<usize>,
}

/// Memory of one task.
#[derive(Default)]
struct Memory {
    keys: Packed,
    values: Packed,
    strip: Lines,
    words: Lines,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

struct Forward<'a, T> {
    work: &'a Work<'a, T>,
    products: Products,
    out: ColumnsMut<'a, T>,
    log_sums: Shared<'a, f32>,
}

pub(super) fn all<T: Element>(work: &Work<T>, out: Shared<T>, log_sums: Shared<f32>) {
    let (heads, dim) = (work.spec.heads, work.spec.head_dim);
    let out = ColumnsMut { data: out, stride: heads * dim, first: 0, dim };
    let forward = Forward { work, products: Products::of::<T>(), out, log_sums };
    let parts = parts(work.sequences);
    for_each(parts.len() * heads, |task| {
        MEMORY.with_borrow_mut(|memory| forward.head(&parts[task / heads], task % heads, memory));
    });
}

/// The families, large ones cut. Each part packs its parent's rows anew, so it has at least as many of its own.
fn parts(sequences: &Sequences) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for family in sequences.families() {
        let (mut start, mut rows) = (0, 0);
        for (i, text) in sequences.texts(*family).enumerate() {
            rows += text.len;
            if rows >= PART_ROWS.max(text.prefix) {
                parts.push(Part { family: *family, texts: start..i + 1 });
                (start, rows) = (i + 1, 0);
            }
        }
        match parts.last_mut().filter(|_| 0 < start && start < family.count) {
            Some(last) => last.texts.end = family.count,
            None if start == 0 => parts.push(Part { family: *family, texts: 0..family.count }),
            None => {}
        }
    }
    parts
}

impl<T: Element> Forward<'_, T> {
    fn head(&self, part: &Part, head: usize, memory: &mut Memory) {
        let (longest, dim) = (panels(self.work.sequences.longest_of(part.family)), self.work.spec.head_dim);
        memory.keys.reserve(longest, dim / values::<T>());
        memory.values.reserve(panels(dim), longest * COLUMNS / values::<T>());
        let texts = self.work.sequences.texts(part.family).take(part.texts.end).skip(part.texts.start);
        for (i, text) in texts.filter(|text| text.len > 0).enumerate() {
            // What the last text left there stays: the panels before the fork.
            let from = if i == 0 { 0 } else { text.prefix / COLUMNS * COLUMNS };
            self.pack(text, head / self.work.spec.shared(), from, memory);
            for first in (0..text.len).step_by(ROWS) {
                self.strip(text, head, first, memory);
            }
        }
        if memory.keys.bytes() + memory.values.bytes() > KEPT {
            *memory = Memory::default();
        }
    }

    /// Packs a text's keys and values from a position on.
    fn pack(&self, text: Text, head: usize, from: usize, memory: &mut Memory) {
        memory.keys.by_column(TextHead { columns: self.work.k, head, text }, from);
        let values = TextHead { columns: self.work.v, head, text };
        memory.values.by_row(values, from..text.end(), from / self::values::<T>());
    }

    /// Up to 12 own rows of a text from `first` on.
    fn strip(&self, text: Text, head: usize, first: usize, memory: &mut Memory) {
        let Memory { keys, values: packed_values, strip, words } = memory;
        let spec = self.work.spec;
        let (rows, row) = (ROWS.min(text.len - first), text.prefix + first);
        let scoring = Scoring::new(self.work, head, text);
        let seen = scoring.seen(row..row + rows);
        let panel_range = seen.start / COLUMNS..panels(seen.end);
        let place = Place { row, column: panel_range.start * COLUMNS, width: panel_range.len() * COLUMNS };
        let strip = &mut floats(strip, rows * place.width)[..rows * place.width];
        let queries = TextHead { columns: self.work.q, head, text }.left(row);
        for (i, panel) in panel_range.enumerate() {
            let right = keys.steps(panel, 0..spec.head_dim / values::<T>());
            let out = Out { values: &mut strip[i * COLUMNS..], stride: place.width };
            self.products.store(Store::Replace, out, queries, right, rows);
        }
        let mut inverses = [0.0; ROWS];
        // SAFETY: a task owns its head's rows.
        let log_sums = unsafe { self.log_sums.slice(head * self.work.rows + text.start + first, rows) };
        let halves = if values::<T>() == 1 { &mut [][..] } else { words.words(strip.len() / 2) };
        softmax_strip(strip, bytemuck::cast_slice_mut(halves), &mut inverses, log_sums, scoring, place);
        let words = if values::<T>() == 1 { bytemuck::cast_slice(strip) } else { words.as_words() };
        let left = Left { words, row_stride: place.width / values::<T>(), step_stride: 1 };
        let steps = place.column / values::<T>()..seen.end.div_ceil(values::<T>());
        let mut tile: Tile = [[0.0; COLUMNS]; ROWS];
        for panel in 0..panels(spec.head_dim) {
            let right = packed_values.steps(panel, steps.clone());
            self.products.store(Store::Replace, Out::tile(&mut tile), left, right, rows);
            write_tile(self.out, [text.start + first, head, panel * COLUMNS], &tile[..rows], &inverses);
        }
    }
}

impl<'a> Scoring<'a> {
    /// Of a head of a text.
    pub(super) fn new<T: Element>(work: &Work<'a, T>, head: usize, text: Text) -> Self {
        let spec = work.spec;
        let (scale, soft_cap, mask) = (spec.scale, spec.soft_cap, spec.mask);
        Self { scale, soft_cap, bias: work.bias(head), mask, end: text.end() }
    }
}

pub(super) fn floats(lines: &mut Lines, len: usize) -> &mut [f32] {
    bytemuck::cast_slice_mut(lines.words(len))
}

dispatch! {
    /// Rows of a tile, scaled, into a head's columns. The place is the first row, the head, and the first of its columns.
    fn write_tile[T: Element](out: ColumnsMut<'_, T>, place: [usize; 3], tile: &[[f32; COLUMNS]], scales: &[f32]) {
        let [first, head, column] = place;
        for (i, (values, scale)) in tile.iter().zip(scales).enumerate() {
            // SAFETY: a task owns its head's columns of its family's rows.
            let out = unsafe { out.head(first + i, head) };
            for (out, value) in out[column..].iter_mut().zip(values) {
                *out = T::narrow(value * scale);
            }
        }
    }
}

dispatch! {
    /// The first values of a tile's row, as many as `out` has at most.
    pub(super) fn scaled_row[T: Element](out: &mut [T], values: &[f32], scale: f32) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = T::narrow(value * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts_of_parts(offsets: &[usize], parents: &[Option<usize>]) -> Vec<Range<usize>> {
        let parts = parts(&Sequences::with_parents(offsets, parents));
        parts.into_iter().map(|part| part.family.first + part.texts.start..part.family.first + part.texts.end).collect()
    }

    /// A text in no part would be left as it was; one in two would be written by two tasks.
    #[test]
    fn large_families_are_cut_into_parts_that_hold_each_text_once() {
        let of = |lengths: &[usize], parents: &[Option<usize>]| {
            let offsets: Vec<usize> = (0..=lengths.len()).map(|i| lengths[..i].iter().sum()).collect();
            texts_of_parts(&offsets, parents)
        };
        assert_eq!(of(&[900, 5], &[None, None]), [0..1, 1..2], "texts alone are not cut");
        assert_eq!(of(&[100, 60, 60, 9], &[None, Some(0), Some(0), Some(0)]), [0..4], "a small family");
        let family = [None, Some(0), Some(0), Some(0), Some(0), Some(0), None];
        assert_eq!(of(&[400, 200, 200, 300, 100, 90, 7], &family), [0..1, 1..3, 3..6, 6..7], "as large as the parent");
        assert_eq!(of(&[0, 0, 256, 0], &[None, Some(0), Some(0), Some(0)]), [0..4], "a remainder joins the last part");
        assert_eq!(of(&[], &[]), []);
    }
}
