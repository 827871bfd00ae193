//! Scores, softmax and its gradient over strips of queries: rows of f32 whose columns are keys by position.

use super::Mask;
use crate::bf16::{Bf16, Element};
use crate::math::{exp, tanh};
use crate::reduce::{largest, sum_by};
use std::ops::Range;

/// How the products of a strip of queries become scores.
#[derive(Clone, Copy)]
pub(super) struct Scoring<'a> {
    pub(super) scale: f32,
    pub(super) soft_cap: Option<f32>,
    /// Of this head, by distance; empty is none.
    pub(super) bias: &'a [f32],
    pub(super) mask: Mask,
    /// Tokens of the text.
    pub(super) end: usize,
}

/// The place of a strip: its first row's position, and the position of its first column.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    /// Columns of a row.
    pub(super) width: usize,
}

impl Scoring<'_> {
    /// Positions of keys that any of the queries at these positions sees.
    pub(super) fn seen(&self, queries: Range<usize>) -> Range<usize> {
        self.mask.seen(queries.start, self.end).start..self.mask.seen(queries.end - 1, self.end).end
    }

    /// Whether scores are more than scaled products.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.soft_cap.is_none() && self.bias.is_empty()
    }

    /// The columns of row `i` of the strip that its query sees.
    #[inline(always)]
    pub(super) fn columns(&self, place: Place, i: usize) -> Range<usize> {
        let seen = self.mask.seen(place.row + i, self.end);
        let inside = |position: usize| position.saturating_sub(place.column).min(place.width);
        inside(seen.start)..inside(seen.end)
    }

    /// The bias of some columns of row `i`.
    #[inline(always)]
    fn distances(&self, place: Place, i: usize, columns: Range<usize>) -> Range<usize> {
        let start = self.bias.len() / 2 + place.column + columns.start - (place.row + i);
        start..start + columns.len()
    }

    /// Products → scores, in place; returns what is left to multiply with.
    #[inline(always)]
    fn scores_of(&self, row: &mut [f32], place: Place, i: usize, columns: Range<usize>) -> f32 {
        if self.is_plain() {
            return self.scale;
        }
        match self.soft_cap {
            Some(cap) => row.iter_mut().for_each(|s| *s = cap * tanh(*s * self.scale / cap)),
            None => row.iter_mut().for_each(|s| *s *= self.scale),
        }
        if !self.bias.is_empty() {
            let bias = &self.bias[self.distances(place, i, columns)];
            row.iter_mut().zip(bias).for_each(|(s, bias)| *s += bias);
        }
        1.0
    }
}

dispatch! {
    /// Products of a strip → weights exp(score − largest), zero where nothing is seen, with 1/Σ and the log-sum-exp of
    /// each row. The strip begins at a multiple of 16, so that a position's lane of the sum is always the same. Weights go
    /// to `halves` too, unless it is empty.
    pub(super) fn softmax_strip(strip: &mut [f32], halves: &mut [Bf16], inverses: &mut [f32], log_sums: &mut [f32], scoring: Scoring<'_>, place: Place) {
        for (i, (row, log_sum)) in strip.chunks_exact_mut(place.width).zip(log_sums).enumerate() {
            let columns = scoring.columns(place, i);
            row[..columns.start].fill(0.0);
            row[columns.end..].fill(0.0);
            let own = &mut row[columns.clone()];
            let scale = scoring.scores_of(own, place, i, columns.clone());
            let max = largest(own);
            if halves.is_empty() {
                own.iter_mut().for_each(|v| *v = exp((*v - max) * scale));
            } else {
                let halves = &mut halves[i * place.width..(i + 1) * place.width];
                halves[..columns.start].fill(Bf16::default());
                halves[columns.end..].fill(Bf16::default());
                for (v, half) in own.iter_mut().zip(&mut halves[columns]) {
                    *v = exp((*v - max) * scale);
                    *half = Bf16::narrow(*v);
                }
            }
            let sum = sum_by(row.len(), |j| row[j]);
            inverses[i] = 1.0 / sum;
            *log_sum = max.mul_add(scale, sum.ln());
        }
    }
}

/// What the gradient of a softmax needs of each row.
#[derive(Clone, Copy)]
pub(super) struct RowSums<'a> {
    /// Log-sum-exp.
    pub(super) log_sums: &'a [f32],
    /// Σ dO·O.
    pub(super) corrections: &'a [f32],
}

dispatch! {
    /// Products of a strip → probabilities in `p`; gradients of these → of the products in `ds`. What is not seen
    /// becomes zero. Gradients of the scores are added to `d_bias` by distance, unless it is empty.
    pub(super) fn softmax_gradient(p: &mut [f32], ds: &mut [f32], d_bias: &mut [f32], rows: RowSums<'_>, scoring: Scoring<'_>, place: Place) {
        let strips = p.chunks_exact_mut(place.width).zip(ds.chunks_exact_mut(place.width));
        for (i, (p, ds)) in strips.enumerate() {
            let columns = scoring.columns(place, i);
            for outside in [0..columns.start, columns.end..place.width] {
                p[outside.clone()].fill(0.0);
                ds[outside].fill(0.0);
            }
            let (own, ds) = (&mut p[columns.clone()], &mut ds[columns.clone()]);
            let (log_sum, correction) = (rows.log_sums[i], rows.corrections[i]);
            if scoring.is_plain() {
                for (p, ds) in own.iter_mut().zip(ds) {
                    *p = exp(p.mul_add(scoring.scale, -log_sum));
                    *ds = *p * (*ds - correction) * scoring.scale;
                }
                continue;
            }
            // Where the score was capped, `ds` is multiplied with the cap's slope before its own.
            let distances = if scoring.bias.is_empty() { 0..0 } else { scoring.distances(place, i, columns.clone()) };
            let bias = &scoring.bias[distances.clone()];
            for (j, (p, ds)) in own.iter_mut().zip(ds.iter_mut()).enumerate() {
                let bent = scoring.soft_cap.map_or(0.0, |cap| tanh(*p * scoring.scale / cap));
                let score = scoring.soft_cap.map_or(*p * scoring.scale, |cap| cap * bent);
                let bias = if bias.is_empty() { 0.0 } else { bias[j] };
                *p = exp(score + bias - log_sum);
                let d_score = *p * (*ds - correction);
                if !d_bias.is_empty() {
                    d_bias[distances.start + j] += d_score;
                }
                *ds = d_score * (1.0 - bent * bent) * scoring.scale;
            }
        }
    }
}
