//! Every query, backward: blocks of queries against blocks of keys, so that a block's probabilities and their gradients
//! stay in the cache for the five products that make or read them.
//!
//! Gradients of keys and values are summed a tile of positions at a time over all queries of a family, in order: the
//! parent's own, then each child's. The parent's rows stay while its children pass. Several tasks may have portions
//! of a large family. Then the parent's rows are summed over each portion, and these sums in order.

use super::forward::{floats, scaled_row};
use super::operand::{KEPT, Packed, Products, TextHead, pair_across, pair_along, values};
use super::score::{Place, RowSums, Scoring, softmax_gradient};
use super::sequences::{Family, Portion, Text};
use super::{Columns, ColumnsMut, Saved, Targets, Work};
use crate::bf16::Element;
use crate::gemm::Store;
use crate::gemm::panels::{COLUMNS, Lines, panels};
use crate::gemm::tile::{Left, Out};
use crate::parallel::{Shared, area, for_each};
use crate::reduce::sum_by;
use std::cell::RefCell;
use std::ops::Range;

/// Queries of a block: whole strips, of 12 or of 32.
const QUERIES: usize = 96;
/// Keys of a block: whole strips and whole panels.
const KEYS: usize = 192;

/// Memory of one task.
#[derive(Default)]
struct Memory {
    keys_by_column: Packed,
    keys_by_row: Packed,
    values: Packed,
    queries: Packed,
    d_out: Packed,
    /// `[positions][whole panels of columns]`.
    d_keys: Lines,
    /// As `d_keys`.
    d_values: Lines,
    /// `[queries of a block][whole panels of columns]`.
    d_queries: Lines,
    corrections: Vec<f32>,
    weights: Block,
    gradients: Block,
    /// A strip's gradients of scores along the keys.
    along: Lines,
}

/// Values of a block of queries and keys, `[query][key]` in f32 and as the words of products down the queries.
#[derive(Default)]
struct Block {
    wide: Lines,
    across: Lines,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

struct Backward<'a, T> {
    work: &'a Work<'a, T>,
    into: Targets<'a, T>,
    products: Products,
    d_out: Columns<'a, T>,
    out: Columns<'a, T>,
    log_sums: &'a [f32],
    /// `[families][heads][distances]`.
    d_bias: Option<Shared<'a, f32>>,
}

pub(super) fn all<T: Element>(
    work: &Work<T>,
    into: Targets<T>,
    d_out: &[T],
    saved: Saved<T>,
    d_bias: Option<Shared<f32>>,
) {
    let (heads, dim) = (work.spec.heads, work.spec.head_dim);
    let of = |data| Columns { data, stride: heads * dim, first: 0, dim };
    let (products, log_sums) = (Products::of::<T>(), saved.log_sums);
    let backward = Backward { work, into, products, d_out: of(d_out), out: of(saved.out), log_sums, d_bias };
    let key_heads = work.spec.key_heads;
    // A family's sums of the bias's gradient have one owner, whether they are wanted or not: one sum, one value.
    let portions = if work.spec.bias.is_some() { work.sequences.wholes() } else { work.sequences.portions() };
    let partial = Partial::new(&portions, work);
    let mut sums = vec![0.0; partial.starts[portions.len()]];
    let shared = Shared::new(&mut sums);
    for_each(portions.len() * key_heads, |task| {
        let (portion, key_head) = (task / key_heads, task % key_heads);
        // SAFETY: a task owns the sums of its portion and head.
        let sums = unsafe { partial.of(&shared, portion, key_head) };
        MEMORY.with_borrow_mut(|memory| backward.key_head(portion, key_head, sums, memory, &portions[portion]));
    });
    backward.add_up(&partial, &shared);
}

/// Where the sums of portions lie, for gradients of parents whose family is cut.
struct Partial {
    /// Of each portion, and the end: `[key_heads][keys, values][rows of the parent][columns]`; nothing for a whole family.
    starts: Vec<usize>,
    key_heads: usize,
    /// Families that are cut, as runs of portions.
    cut: Vec<(Family, Range<usize>)>,
}

impl Partial {
    fn new<T: Element>(portions: &[Portion], work: &Work<T>) -> Self {
        let (key_heads, dim) = (work.spec.key_heads, work.spec.head_dim);
        let mut starts = vec![0];
        let mut cut: Vec<(Family, Range<usize>)> = Vec::new();
        for (i, portion) in portions.iter().enumerate() {
            let rows = if portion.is_whole() { 0 } else { work.sequences.parent(portion.family).len };
            starts.push(starts[i] + area(2 * key_heads, area(rows, dim)));
            match cut.last_mut() {
                Some((family, run)) if *family == portion.family => run.end = i + 1,
                _ if !portion.is_whole() => cut.push((portion.family, i..i + 1)),
                _ => {}
            }
        }
        Self { starts, key_heads, cut }
    }

    /// The sums of one head of keys of a portion.
    ///
    /// # Safety
    /// As [`Shared::slice`].
    #[allow(clippy::mut_from_ref)] // Disjointness is the caller's promise.
    unsafe fn of<'a>(&self, sums: &'a Shared<f32>, portion: usize, key_head: usize) -> &'a mut [f32] {
        let len = (self.starts[portion + 1] - self.starts[portion]) / self.key_heads;
        // SAFETY: the caller's promise.
        unsafe { sums.slice(self.starts[portion] + key_head * len, len) }
    }
}

/// A query head of a text.
#[derive(Clone, Copy)]
struct Head<'a> {
    text: Text,
    head: usize,
    scoring: Scoring<'a>,
}

/// The queries and the keys of a block, by position.
#[derive(Clone)]
struct Part {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl<T: Element> Backward<'_, T> {
    /// One head of keys and values of a portion of a family. `sums` receives the gradients of the parent's rows if the family
    /// has other portions. `number` is the family's where there is a bias, whose families are whole.
    fn key_head(&self, number: usize, key_head: usize, sums: &mut [f32], memory: &mut Memory, portion: &Portion) {
        self.reserve(portion.family, memory);
        for (i, text) in self.work.sequences.texts_of(portion).enumerate() {
            // From text to text, the panels before the fork and the parent's rows of the tiles stay.
            let (packed, cleared) = if i == 0 { (0, 0) } else { (text.prefix / COLUMNS * COLUMNS, text.prefix) };
            self.pack(text, key_head, packed, memory);
            for rows in [&mut memory.d_keys, &mut memory.d_values] {
                let width = self.width();
                floats(rows, text.end() * width)[cleared * width..text.end() * width].fill(0.0);
            }
            for shared in 0..self.work.spec.shared() {
                let head = key_head * self.work.spec.shared() + shared;
                let scoring = Scoring::new(self.work, head, text);
                let own = Head { text, head, scoring };
                // SAFETY: a task owns its family's sums of its heads.
                let d_bias = unsafe { self.work.sums_of(&self.d_bias, number, head) };
                for first in (text.prefix..text.end()).step_by(QUERIES) {
                    self.block(own, first..text.end().min(first + QUERIES), d_bias, memory);
                }
            }
            if text.sequence != portion.family.first {
                self.write_keys(text, key_head, memory);
            }
        }
        if portion.is_whole() {
            self.write_keys(self.work.sequences.parent(portion.family), key_head, memory);
        } else {
            let (d_keys, d_values) = sums.split_at_mut(sums.len() / 2);
            copy_rows(d_keys, rows_of(&memory.d_keys), self.work.spec.head_dim);
            copy_rows(d_values, rows_of(&memory.d_values), self.work.spec.head_dim);
        }
        if memory.keys_by_column.bytes() + memory.keys_by_row.bytes() + memory.values.bytes() > KEPT {
            *memory = Memory::default();
        }
    }

    /// Writes the gradients of the parents whose family was cut: the sums of its portions, in order.
    fn add_up(&self, partial: &Partial, sums: &Shared<f32>) {
        let (key_heads, dim) = (partial.key_heads, self.work.spec.head_dim);
        for_each(partial.cut.len() * key_heads, |task| {
            let ((family, run), key_head) = (&partial.cut[task / key_heads], task % key_heads);
            // SAFETY: a task owns the sums of its family and head.
            let mut portions = run.clone().map(|portion| unsafe { partial.of(sums, portion, key_head) });
            let all = portions.next().expect("a family has portions");
            for own in portions {
                all.iter_mut().zip(own).for_each(|(all, own)| *all += *own);
            }
            let parent = self.work.sequences.parent(*family);
            let (d_keys, d_values) = all.split_at(all.len() / 2);
            for (into, rows) in [(self.into.k, d_keys), (self.into.v, d_values)] {
                for (position, row) in rows.chunks_exact(dim).enumerate() {
                    // SAFETY: a task owns its heads' columns of its family's rows.
                    scaled_row(unsafe { into.head(parent.row(position), key_head) }, row, 1.0);
                }
            }
        });
    }

    fn reserve(&self, family: Family, memory: &mut Memory) {
        let (longest, dim) = (self.work.sequences.longest_of(family), self.work.spec.head_dim);
        let (words, columns) = (dim / values::<T>(), panels(dim));
        let along_keys = panels(longest) * COLUMNS / values::<T>();
        memory.keys_by_column.reserve(panels(longest), words);
        memory.values.reserve(panels(longest), words);
        memory.keys_by_row.reserve(columns, along_keys);
        memory.queries.reserve(columns, QUERIES / values::<T>());
        memory.d_out.reserve(columns, QUERIES / values::<T>());
        memory.corrections.resize(QUERIES, 0.0);
    }

    /// Packs a text's keys and values from a position on, which is a multiple of 32.
    fn pack(&self, text: Text, head: usize, from: usize, memory: &mut Memory) {
        let keys = TextHead { columns: self.work.k, head, text };
        memory.keys_by_column.by_column(keys, from);
        memory.keys_by_row.by_row(keys, from..text.end(), from / values::<T>());
        memory.values.by_column(TextHead { columns: self.work.v, head, text }, from);
    }

    /// Adds what a block of queries gives to the gradients of keys and values, and writes their own.
    fn block(&self, own: Head, queries: Range<usize>, d_bias: &mut [f32], memory: &mut Memory) {
        let scoring = own.scoring;
        memory.queries.by_row(own.of(self.work.q), queries.clone(), 0);
        memory.d_out.by_row(own.of(self.d_out), queries.clone(), 0);
        fill_corrections(&mut memory.corrections, own.of(self.d_out), own.of(self.out), queries.clone());
        floats(&mut memory.d_queries, queries.len() * self.width())[..queries.len() * self.width()].fill(0.0);
        let seen = scoring.seen(queries.clone());
        for first in (seen.start / KEYS * KEYS..seen.end).step_by(KEYS) {
            let part = Part { queries: queries.clone(), keys: first..seen.end.min(first + KEYS) };
            for strip in queries.clone().step_by(self.products.rows()) {
                self.strip(own, &part, strip, d_bias, memory);
            }
            self.add_to_keys(own, &part, memory);
        }
        write_rows(self.into.q, own.of(self.work.q), queries.start, queries, rows_of(&memory.d_queries));
    }

    /// Probabilities and gradients of a tile of queries, from `first` on, against the keys of a block, and what they give to
    /// the queries.
    fn strip(&self, own: Head, part: &Part, first: usize, d_bias: &mut [f32], memory: &mut Memory) {
        let queries = first..part.queries.end.min(first + self.products.rows());
        let (row, width) = (first - part.queries.start, self.width());
        let place = Place { row: first, column: part.keys.start, width: part.width() };
        let Memory { weights, gradients, along: words, d_queries, corrections, .. } = memory;
        let [p, ds] = [&mut *weights, &mut *gradients].map(|block| block.strip::<T>(row, queries.len(), place.width));
        let keys = part.intersect(own.scoring.seen(queries.clone()));
        for panel in keys.start / COLUMNS..panels(keys.end) {
            let column = panel * COLUMNS - part.keys.start;
            let [q, d] = [self.work.q, self.d_out].map(|columns| own.of(columns).left(first));
            let steps = 0..self.work.spec.head_dim / values::<T>();
            for (left, right, into) in [(q, &memory.keys_by_column, &mut *p), (d, &memory.values, &mut *ds)] {
                let out = Out { values: &mut into[column..], stride: place.width };
                self.products.store(Store::Replace, out, left, right.steps(panel, steps.clone()), queries.len());
            }
        }
        let at = own.head * self.work.rows + own.text.start + first - own.text.prefix;
        let rows = RowSums { log_sums: &self.log_sums[at..], corrections: &corrections[row..] };
        softmax_gradient(p, ds, d_bias, rows, own.scoring, place);
        if !keys.is_empty() {
            let left = left_words::<T>(words, ds, place.width).from((keys.start - part.keys.start) / values::<T>());
            let d_queries = floats(d_queries, (row + queries.len()) * width);
            for panel in 0..width / COLUMNS {
                let steps = keys.start / values::<T>()..keys.end.div_ceil(values::<T>());
                let right = memory.keys_by_row.steps(panel, steps);
                let out = Out { values: &mut d_queries[row * width + panel * COLUMNS..], stride: width };
                self.products.store(Store::Add, out, left, right, queries.len());
            }
        }
        weights.pair::<T>(row, queries.len(), place.width);
        gradients.pair::<T>(row, queries.len(), place.width);
    }

    /// Columns of a head, to whole panels.
    fn width(&self) -> usize {
        panels(self.work.spec.head_dim) * COLUMNS
    }

    /// Adds what a block gives to its keys and values, a tile of them at a time.
    fn add_to_keys(&self, own: Head, part: &Part, memory: &mut Memory) {
        let (width, tall) = (self.width(), self.products.rows());
        let Memory { weights, gradients, d_keys, d_values, queries, d_out, .. } = memory;
        let sides = [(&*weights, d_values, &*d_out), (&*gradients, d_keys, &*queries)];
        for (block, sums, right) in sides {
            let sums = floats(sums, part.keys.end * width);
            for first in part.keys.clone().step_by(tall) {
                let rows = tall.min(part.keys.end - first);
                let seeing = own.seeing(first..first + rows);
                let start = seeing.start.max(part.queries.start) - part.queries.start;
                let end = seeing.end.min(part.queries.end).saturating_sub(part.queries.start);
                if end <= start {
                    continue;
                }
                let steps = start / values::<T>()..end.div_ceil(values::<T>());
                let left = block.across::<T>(part.width()).from(steps.start * part.width() + first - part.keys.start);
                for panel in 0..width / COLUMNS {
                    let out = Out { values: &mut sums[first * width + panel * COLUMNS..], stride: width };
                    self.products.store(Store::Add, out, left, right.steps(panel, steps.clone()), rows);
                }
            }
        }
    }

    /// Writes the gradients of a text's own keys and values.
    fn write_keys(&self, text: Text, key_head: usize, memory: &Memory) {
        for (into, columns, sums) in
            [(self.into.k, self.work.k, &memory.d_keys), (self.into.v, self.work.v, &memory.d_values)]
        {
            let own = TextHead { columns, head: key_head, text };
            write_rows(into, own, 0, text.prefix..text.end(), rows_of(sums));
        }
    }
}

impl<'a> Head<'a> {
    fn of<'b, T: Element>(&self, columns: Columns<'b, T>) -> TextHead<'b, T> {
        TextHead { columns, head: self.head, text: self.text }
    }

    /// Positions of queries that see any of these keys.
    fn seeing(&self, keys: Range<usize>) -> Range<usize> {
        let Scoring { mask, end, .. } = self.scoring;
        mask.seeing(keys.start, end).start..mask.seeing(keys.end - 1, end).end
    }
}

impl Part {
    /// Columns of a row of the block.
    fn width(&self) -> usize {
        panels(self.keys.len()) * COLUMNS
    }

    /// The keys of the block that lie among these.
    fn intersect(&self, seen: Range<usize>) -> Range<usize> {
        let start = seen.start.max(self.keys.start).min(self.keys.end);
        // From whole panels on: what is not seen is zero.
        start / COLUMNS * COLUMNS..seen.end.min(self.keys.end).max(start / COLUMNS * COLUMNS)
    }
}

impl Block {
    /// A strip's rows in f32, from `first` on. The rows of bf16 leave as words, so all strips take the same place.
    fn strip<T: Element>(&mut self, first: usize, rows: usize, width: usize) -> &mut [f32] {
        let start = if values::<T>() == 1 { first * width } else { 0 };
        &mut floats(&mut self.wide, start + rows * width)[start..start + rows * width]
    }

    /// Makes the words of products down the queries; a last odd row's other half is zero.
    fn pair<T: Element>(&mut self, first: usize, rows: usize, width: usize) {
        if values::<T>() == 1 {
            return;
        }
        let wide = floats(&mut self.wide, rows.next_multiple_of(2) * width);
        if rows % 2 == 1 {
            wide[rows * width..(rows + 1) * width].fill(0.0);
        }
        let words = &mut self.across.words(QUERIES / 2 * width)[first / 2 * width..];
        pair_across(words, &wide[..rows.next_multiple_of(2) * width], width);
    }

    /// The block transposed, as the left side of a product down the queries.
    fn across<T: Element>(&self, width: usize) -> Left<'_> {
        let words = if values::<T>() == 1 { self.wide.as_words() } else { self.across.as_words() };
        Left { words, row_stride: 1, step_stride: width }
    }
}

/// Rows of f32 as the left side of a product along them.
fn left_words<'a, T: Element>(words: &'a mut Lines, strip: &'a [f32], width: usize) -> Left<'a> {
    if values::<T>() == 1 {
        return Left { words: bytemuck::cast_slice(strip), row_stride: width, step_stride: 1 };
    }
    let words = words.words(strip.len() / 2);
    pair_along(words, strip);
    Left { words, row_stride: width / 2, step_stride: 1 }
}

dispatch! {
    /// Σ dO·O of each query: the softmax's correction term.
    fn fill_corrections[T: Element](sums: &mut [f32], d_out: TextHead<'_, T>, out: TextHead<'_, T>, queries: Range<usize>) {
        for (sum, position) in sums.iter_mut().zip(queries) {
            let (d, o) = (d_out.at(position), out.at(position));
            *sum = sum_by(d.len(), |j| d[j].widen() * o[j].widen());
        }
    }
}

/// Sums as they were written.
fn rows_of(sums: &Lines) -> &[f32] {
    bytemuck::cast_slice(sums.as_words())
}

/// The rows of the first positions, from sums of whole panels.
fn copy_rows(out: &mut [f32], sums: &[f32], dim: usize) {
    for (out, sums) in out.chunks_exact_mut(dim).zip(sums.chunks_exact(panels(dim) * COLUMNS)) {
        out.copy_from_slice(&sums[..dim]);
    }
}

dispatch! {
    /// Writes some positions of a head from sums of whole panels, the first row of which is that of position `base`.
    fn write_rows[T: Element](into: ColumnsMut<'_, T>, own: TextHead<'_, T>, base: usize, positions: Range<usize>, sums: &[f32]) {
        let width = panels(into.dim) * COLUMNS;
        for position in positions {
            // SAFETY: a task owns its heads' columns of its family's rows.
            let out = unsafe { into.head(own.text.row(position), own.head) };
            let sums = &sums[(position - base) * width..][..width];
            out.iter_mut().zip(sums).for_each(|(out, value)| *out = T::narrow(*value));
        }
    }
}
