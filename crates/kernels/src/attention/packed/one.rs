//! One query of each sequence, forward and backward: what the last layer of a judge needs that reads one token's state.
//!
//! There is no tile to fill, so keys and values are read where they lie.

use super::forward::scaled_row;
use super::operand::TextHead;
use super::score::{Place, RowSums, Scoring, softmax_gradient, softmax_strip};
use super::sequences::Text;
use super::{ColumnsMut, Saved, Targets, Work};
use crate::bf16::Element;
use crate::gemm::panels::COLUMNS;
use crate::parallel::{Shared, for_each};
use crate::reduce::sum_by;
use crate::scratch::with_scratch;
use std::ops::Range;

/// The one query of a text that a head computes.
#[derive(Clone, Copy)]
struct Query<'a, T> {
    vector: &'a [T],
    keys: TextHead<'a, T>,
    values: TextHead<'a, T>,
    scoring: Scoring<'a>,
    position: usize,
}

impl<'a, T: Element> Query<'a, T> {
    /// Head `head` of a text, if the text has a token.
    fn of(work: &Work<'a, T>, text: Text, head: usize) -> Option<Self> {
        let position = work.position(text)?;
        let of = |columns| TextHead { columns, head: head / work.spec.shared(), text };
        let (keys, values) = (of(work.k), of(work.v));
        let scoring = Scoring::new(work, head, text);
        Some(Self { vector: work.q.head(text.sequence, head), keys, values, scoring, position })
    }

    /// Positions of the keys that it sees.
    fn seen(&self) -> Range<usize> {
        self.scoring.seen(self.position..self.position + 1)
    }

    /// The strip of its scores begins and ends at whole panels.
    fn place(&self) -> Place {
        let column = self.seen().start / COLUMNS * COLUMNS;
        Place { row: self.position, column, width: self.seen().end.next_multiple_of(COLUMNS) - column }
    }
}

pub(super) fn forward<T: Element>(work: &Work<T>, out: Shared<T>, log_sums: Shared<f32>) {
    let (heads, dim) = (work.spec.heads, work.spec.head_dim);
    let out = ColumnsMut { data: out, stride: heads * dim, first: 0, dim };
    for_each(work.sequences.families().len() * heads, |task| {
        let (family, head) = work.task(task, heads);
        for text in work.sequences.texts(family) {
            // SAFETY: a task owns its head of its family's rows.
            let (out, log_sum) =
                unsafe { (out.head(text.sequence, head), log_sums.slice(head * work.rows + text.sequence, 1)) };
            if let Some(query) = Query::of(work, text, head) {
                attend(&query, out, log_sum);
            } else {
                out.fill(T::default());
                log_sum.fill(0.0);
            }
        }
    });
}

fn attend<T: Element>(query: &Query<T>, out: &mut [T], log_sum: &mut [f32]) {
    let place = query.place();
    with_scratch([place.width, out.len()], |[weights, sums]| {
        let mut inverse = [0.0];
        dots(weights, query.vector, query.keys, query.seen(), place.column);
        softmax_strip(weights, &mut [], &mut inverse, log_sum, query.scoring, place);
        sums.fill(0.0);
        mix(sums, weights, query.values, query.seen(), place.column);
        scaled_row(out, sums, inverse[0]);
    });
}

pub(super) fn backward<T: Element>(
    work: &Work<T>,
    into: Targets<T>,
    d_out: &[T],
    saved: Saved<T>,
    d_bias: Option<Shared<f32>>,
) {
    let (key_heads, dim) = (work.spec.key_heads, work.spec.head_dim);
    let one = Backward { work, into, d_out, saved, d_bias };
    for_each(work.sequences.families().len() * key_heads, |task| {
        let (family, key_head) = (task / key_heads, task % key_heads);
        let longest = work.sequences.longest_of(work.sequences.families()[family]);
        let width = longest.next_multiple_of(COLUMNS);
        with_scratch([longest * dim, longest * dim, width, width, dim], |memory| {
            one.key_head(family, key_head, memory)
        });
    });
}

struct Backward<'a, T> {
    work: &'a Work<'a, T>,
    into: Targets<'a, T>,
    d_out: &'a [T],
    saved: Saved<'a, T>,
    d_bias: Option<Shared<'a, f32>>,
}

/// A query whose gradient was written, and what it gives to the keys and values that it sees.
struct Given<'a, T> {
    seen: Range<usize>,
    /// Position that `p` and `ds` begin with.
    column: usize,
    vector: &'a [T],
    d_out: &'a [T],
}

impl<'a, T: Element> Backward<'a, T> {
    /// One head of keys and values of a family.
    fn key_head(&self, number: usize, key_head: usize, memory: [&mut [f32]; 5]) {
        let [d_keys, d_values, p, ds, sums] = memory;
        let (family, dim) = (self.work.sequences.families()[number], self.work.spec.head_dim);
        let shared = self.work.spec.shared();
        for text in self.work.sequences.texts(family) {
            let own = text.prefix * dim..text.end() * dim;
            d_keys[own.clone()].fill(0.0);
            d_values[own].fill(0.0);
            for head in key_head * shared..(key_head + 1) * shared {
                let Some(given) = self.query(text, number, head, [&mut *p, &mut *ds, &mut *sums]) else { continue };
                if family.count == 1 && shared == 1 {
                    return self.write(text, key_head, given, [p, ds]);
                }
                let own = given.seen.start - given.column..given.seen.end - given.column;
                let rows = given.seen.start * dim..given.seen.end * dim;
                add_outer(&mut d_keys[rows.clone()], &ds[own.clone()], given.vector);
                add_outer(&mut d_values[rows], &p[own], given.d_out);
            }
            if text.sequence != family.first {
                self.write_keys(text, key_head, [&*d_keys, &*d_values]);
            }
        }
        let parent = self.work.sequences.texts(family).next().expect("a family has a first sequence");
        self.write_keys(parent, key_head, [&*d_keys, &*d_values]);
    }

    /// One query's gradient, if its text has a token; `p` and `ds` receive what it gives to values and keys.
    fn query(&self, text: Text, family: usize, head: usize, [p, ds, sums]: [&mut [f32]; 3]) -> Option<Given<'a, T>> {
        // SAFETY: a task owns its heads of its family's rows.
        let d_q = unsafe { self.into.q.head(text.sequence, head) };
        let Some(query) = Query::of(self.work, text, head) else {
            d_q.fill(T::default());
            return None;
        };
        let (dim, place, seen) = (self.work.spec.head_dim, query.place(), query.seen());
        let at = text.sequence * self.work.spec.heads * dim + head * dim;
        let (d_out, out) = (&self.d_out[at..at + dim], &self.saved.out[at..at + dim]);
        let (p, ds) = (&mut p[..place.width], &mut ds[..place.width]);
        dots(p, query.vector, query.keys, seen.clone(), place.column);
        dots(ds, d_out, query.values, seen.clone(), place.column);
        let rows = RowSums {
            log_sums: &self.saved.log_sums[head * self.work.rows + text.sequence..][..1],
            corrections: &[product(d_out, out)],
        };
        // SAFETY: a task owns its family's sums of its heads.
        softmax_gradient(p, ds, unsafe { self.work.sums_of(&self.d_bias, family, head) }, rows, query.scoring, place);
        sums.fill(0.0);
        mix(sums, ds, query.keys, seen.clone(), place.column);
        scaled_row(d_q, sums, 1.0);
        Some(Given { seen, column: place.column, vector: query.vector, d_out })
    }

    /// Writes the gradients of keys and values that one query alone reads.
    fn write(&self, text: Text, key_head: usize, given: Given<T>, [p, ds]: [&[f32]; 2]) {
        for position in 0..text.end() {
            for (into, factors, vector) in [(self.into.k, ds, given.vector), (self.into.v, p, given.d_out)] {
                // SAFETY: a task owns its heads' columns of its family's rows.
                let out = unsafe { into.head(text.row(position), key_head) };
                let seen = given.seen.contains(&position);
                scaled_vector(out, vector, if seen { factors[position - given.column] } else { 0.0 });
            }
        }
    }

    /// Writes the gradients of a text's own keys and values.
    fn write_keys(&self, text: Text, key_head: usize, [d_keys, d_values]: [&[f32]; 2]) {
        let dim = self.work.spec.head_dim;
        for position in text.prefix..text.end() {
            for (into, from) in [(self.into.k, d_keys), (self.into.v, d_values)] {
                // SAFETY: a task owns its heads' columns of its family's rows.
                let out = unsafe { into.head(text.row(position), key_head) };
                scaled_row(out, &from[position * dim..], 1.0);
            }
        }
    }
}

dispatch! {
    /// `products[position − first] = vector · row` for some positions.
    fn dots[T: Element](products: &mut [f32], vector: &[T], rows: TextHead<'_, T>, positions: Range<usize>, first: usize) {
        for position in positions {
            let row = rows.at(position);
            products[position - first] = sum_by(vector.len(), |j| vector[j].widen() * row[j].widen());
        }
    }
}

dispatch! {
    fn product[T: Element](a: &[T], b: &[T]) -> f32 {
        sum_by(a.len(), |j| a[j].widen() * b[j].widen())
    }
}

dispatch! {
    /// `sums += Σ weights[position − first] · row`, positions in order.
    fn mix[T: Element](sums: &mut [f32], weights: &[f32], rows: TextHead<'_, T>, positions: Range<usize>, first: usize) {
        for position in positions {
            let weight = weights[position - first];
            for (sum, value) in sums.iter_mut().zip(rows.at(position)) {
                *sum = weight.mul_add(value.widen(), *sum);
            }
        }
    }
}

dispatch! {
    fn scaled_vector[T: Element](out: &mut [T], vector: &[T], factor: f32) {
        for (out, value) in out.iter_mut().zip(vector) {
            *out = T::narrow(value.widen() * factor);
        }
    }
}

dispatch! {
    /// `rows[i] += factors[i] · vector`.
    fn add_outer[T: Element](rows: &mut [f32], factors: &[f32], vector: &[T]) {
        for (row, factor) in rows.chunks_exact_mut(vector.len()).zip(factors) {
            for (row, value) in row.iter_mut().zip(vector) {
                *row = factor.mul_add(value.widen(), *row);
            }
        }
    }
}
