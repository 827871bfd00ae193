//! Embedding: the sum of a word's vector and, in some families, of those of its segment and its position.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Tape, Var};
use kernels::bf16::Element;
use kernels::embed::{Lookup, embed, embed_backward};

/// The tables of an embedding.
#[derive(Clone, Copy, Debug)]
pub struct EmbedSpec {
    /// `[vocabulary, width]`: in the flat buffer, or packed.
    pub words: Span,
    /// Multiplies the words' vectors.
    pub scale: f32,
    /// `[segments, width]`.
    pub types: Option<Span>,
    /// `[positions, width]`.
    pub positions: Option<Span>,
    /// A word whose vectors training leaves alone, that of its position too: PyTorch's `padding_idx`.
    pub padding: Option<u32>,
}

pub(in crate::nn) struct Embed {
    y: Var,
    width: usize,
    spec: EmbedSpec,
}

impl Tape {
    /// `[tokens, width]`: tables of words `[vocabulary, width]`, positions and segments, added up.
    pub fn embed(&mut self, batch: &Batch, width: usize, words: Span, positions: Span, types: Option<Span>) -> Var {
        self.embed_by(batch, width, EmbedSpec { words, scale: 1.0, types, positions: Some(positions), padding: None })
    }

    /// `[tokens, width]`: what the tables of the spec give, added up.
    pub fn embed_by(&mut self, batch: &Batch, width: usize, spec: EmbedSpec) -> Var {
        let y = self.var(batch.tokens(), width);
        self.push(Op::Embed(Embed { y, width, spec }));
        y
    }
}

impl Embed {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.writes([self.y]).takes([self.y]);
    }

    /// The tables that are added to the words, in the order of transformers' additions, for equal rounding.
    fn others<'a>(&self, batch: &'a Batch) -> impl Iterator<Item = (Span, &'a [u32])> {
        let types = self.spec.types.map(|span| (span, batch.type_ids()));
        let positions = self.spec.positions.map(|span| (span, batch.positions()));
        types.into_iter().chain(positions)
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [y] = pass.arena.buffers([Buffer::Value(self.y)]);
        let values = pass.weights.values;
        let packed = pass.weights.packed;
        if let Some(table) = packed.narrow(self.spec.words) {
            return self.forward_rows(y, pass.batch, values, |id, y| table.row(id, y));
        }
        if let Some(table) = packed.words(self.spec.words) {
            return self.forward_rows(y, pass.batch, values, |id, y| {
                // Added to zero, as in a sum over tables of f32: of a negative zero too the bits are the same.
                y.iter_mut().zip(&table[id * self.width..]).for_each(|(y, bits)| *y = 0.0 + bits.widen());
            });
        }
        let words = (self.spec.words, pass.batch.ids());
        let lookup = |(span, rows): (Span, _)| Lookup { table: &values[span.range()], rows };
        if self.spec.scale == 1.0 {
            let lookups: Vec<Lookup> = std::iter::once(words).chain(self.others(pass.batch)).map(lookup).collect();
            return embed(y, self.width, &lookups);
        }
        embed(y, self.width, &[lookup(words)]);
        self.scale_and_add(y, pass.batch, values);
    }

    /// From a table that is not in the flat buffer: `row` reads the vector of an id.
    fn forward_rows(&self, y: &mut [f32], batch: &Batch, values: &[f32], row: impl Fn(usize, &mut [f32])) {
        y.chunks_exact_mut(self.width).zip(batch.ids()).for_each(|(y, id)| row(*id as usize, y));
        self.scale_and_add(y, batch, values);
    }

    fn scale_and_add(&self, y: &mut [f32], batch: &Batch, values: &[f32]) {
        if self.spec.scale != 1.0 {
            y.iter_mut().for_each(|y| *y *= self.spec.scale);
        }
        for (span, rows) in self.others(batch) {
            for (y, row) in y.chunks_exact_mut(self.width).zip(rows) {
                let start = span.start + *row as usize * self.width;
                y.iter_mut().zip(&values[start..start + self.width]).for_each(|(y, v)| *y += v);
            }
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let [dy] = pass.arena.buffers([Buffer::Gradient(self.y)]);
        let (words, ids) = (self.spec.words, pass.batch.ids());
        let rows = dy.chunks_exact_mut(self.width).zip(ids);
        rows.filter(|(_, id)| self.spec.padding == Some(**id)).for_each(|(dy, _)| dy.fill(0.0));
        for (span, rows) in self.others(pass.batch) {
            if let Some(table) = pass.gradients.table(span, rows) {
                embed_backward(table, rows, dy, self.width);
            }
        }
        if self.spec.scale != 1.0 {
            dy.iter_mut().for_each(|dy| *dy *= self.spec.scale); // Nobody reads this gradient after the words.
        }
        if let Some(table) = pass.gradients.table(words, ids) {
            embed_backward(table, ids, dy, self.width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;

    #[test]
    fn gradients_match_finite_differences() {
        let span = |start, rows: usize| Span { start, len: rows * 3 };
        check::gradients(45, |tape, batch| tape.embed(batch, 3, span(0, 7), span(21, 5), Some(span(36, 2))));
        check::gradients(36, |tape, batch| tape.embed(batch, 3, span(0, 7), span(21, 5), None));
        for positions in [None, Some(span(21, 5))] {
            let spec = EmbedSpec { words: span(0, 7), scale: 1.7, types: None, positions, padding: None };
            check::gradients(36, |tape, batch| tape.embed_by(batch, 3, spec));
        }
    }
}
