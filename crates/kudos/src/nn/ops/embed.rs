//! Embedding: the sum of a word, a position and (in some families) a segment vector per token.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Tape, Var};
use kernels::embed::{Lookup, embed, embed_backward};

pub(in crate::nn) struct Embed {
    y: Var,
    width: usize,
    words: Span,
    positions: Span,
    types: Option<Span>,
}

impl Tape {
    /// `[tokens, width]`: tables of words `[vocabulary, width]`, positions and segments, added up.
    pub fn embed(&mut self, batch: &Batch, width: usize, words: Span, positions: Span, types: Option<Span>) -> Var {
        let y = self.var(batch.tokens(), width);
        self.push(Op::Embed(Embed { y, width, words, positions, types }));
        y
    }
}

impl Embed {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.writes([self.y]).takes([self.y]);
    }

    fn rows<'a>(&self, batch: &'a Batch) -> [(Option<Span>, &'a [u32]); 3] {
        // The order of transformers' additions, for equal rounding.
        [(Some(self.words), batch.ids()), (self.types, batch.type_ids()), (Some(self.positions), batch.positions())]
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [y] = pass.arena.buffers([Buffer::Value(self.y)]);
        let lookups = self.rows(pass.batch).map(|(span, rows)| match span {
            Some(span) => Some(Lookup { table: &pass.weights.values[span.range()], rows }),
            None => None,
        });
        match lookups {
            [Some(words), Some(types), Some(positions)] => embed(y, self.width, &[words, types, positions]),
            [Some(words), None, Some(positions)] => embed(y, self.width, &[words, positions]),
            _ => unreachable!("words and positions are not optional"),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let [dy] = pass.arena.buffers([Buffer::Gradient(self.y)]);
        for (span, rows) in self.rows(pass.batch) {
            if let Some(span) = span {
                embed_backward(pass.gradients.table(span, rows), rows, dy, self.width);
            }
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
    }
}
