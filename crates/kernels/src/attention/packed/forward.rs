//! Every query, forward: strips of queries, as many as a tile has rows, against the keys that any of them sees.

use super::operand::{KEPT, Packed, Products, TextHead, values};
use super::score::{Place, Scoring, softmax_strip};
use super::sequences::{Portion, Text};
use super::{ColumnsMut, Work};
use crate::bf16::Element;
use crate::gemm::Store;
use crate::gemm::panels::{COLUMNS, Lines, MOST_ROWS, panels};
use crate::gemm::tile::{Left, Out, Tile};
use crate::parallel::{Shared, for_each};
use std::cell::RefCell;

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
    let portions = work.sequences.portions();
    for_each(portions.len() * heads, |task| {
        MEMORY.with_borrow_mut(|memory| forward.head(&portions[task / heads], task % heads, memory));
    });
}

impl<T: Element> Forward<'_, T> {
    fn head(&self, portion: &Portion, head: usize, memory: &mut Memory) {
        let (longest, dim) = (panels(self.work.sequences.longest_of(portion.family)), self.work.spec.head_dim);
        memory.keys.reserve(longest, dim / values::<T>());
        memory.values.reserve(panels(dim), longest * COLUMNS / values::<T>());
        let texts = self.work.sequences.texts_of(portion);
        for (i, text) in texts.filter(|text| text.len > 0).enumerate() {
            // What the last text left there stays: the panels before the fork.
            let from = if i == 0 { 0 } else { text.prefix / COLUMNS * COLUMNS };
            self.pack(text, head / self.work.spec.shared(), from, memory);
            for first in (0..text.len).step_by(self.products.rows()) {
                self.strip(text, head, first, memory);
            }
        }
        if memory.keys.bytes() + memory.values.bytes() > KEPT {
            *memory = Memory::default();
        }
    }

    /// Packs a text's keys and values from a position on, which is a multiple of 32.
    fn pack(&self, text: Text, head: usize, from: usize, memory: &mut Memory) {
        memory.keys.by_column(TextHead { columns: self.work.k, head, text }, from);
        let values = TextHead { columns: self.work.v, head, text };
        memory.values.by_row(values, from..text.end(), from / self::values::<T>());
    }

    /// Own rows of a text from `first` on, as many as a tile has.
    fn strip(&self, text: Text, head: usize, first: usize, memory: &mut Memory) {
        let Memory { keys, values: packed_values, strip, words } = memory;
        let spec = self.work.spec;
        let (rows, row) = (self.products.rows().min(text.len - first), text.prefix + first);
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
        let mut inverses = [0.0; MOST_ROWS];
        // SAFETY: a task owns its head's rows.
        let log_sums = unsafe { self.log_sums.slice(head * self.work.rows + text.start + first, rows) };
        let halves = if values::<T>() == 1 { &mut [][..] } else { words.words(strip.len() / 2) };
        softmax_strip(strip, bytemuck::cast_slice_mut(halves), &mut inverses, log_sums, scoring, place);
        let words = if values::<T>() == 1 { bytemuck::cast_slice(strip) } else { words.as_words() };
        let left = Left { words, row_stride: place.width / values::<T>(), step_stride: 1 };
        let steps = place.column / values::<T>()..seen.end.div_ceil(values::<T>());
        let mut tile: Tile = [[0.0; COLUMNS]; MOST_ROWS];
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
