//! The sum of two values: what attention and the feed-forward part of a parallel block give together.

use super::{Op, Uses};
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var};

pub(in crate::nn) struct Add {
    terms: [Var; 2],
    y: Var,
}

impl Tape {
    /// `a + b`, in f32.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        assert_eq!([a, b].map(|var| self.storage_of(var)), [Storage::F32; 2], "sums are of f32 values");
        assert!(a != b, "two values");
        let [rows, width] = self.shape(a);
        let y = self.var(rows, width);
        self.push(Op::Add(Add { terms: [a, b], y }));
        y
    }
}

impl Add {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads(self.terms).writes([self.y]).takes([self.y]).gives(self.terms);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [a, b] = self.terms;
        let [a, b, y] = pass.arena.buffers([a, b, self.y].map(Buffer::Value));
        y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = *a + *b);
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        for term in self.terms {
            let adds = pass.adds(term);
            let [into, dy] = pass.arena.buffers([Buffer::Gradient(term), Buffer::Gradient(self.y)]);
            if adds {
                into.iter_mut().zip(dy).for_each(|(into, dy)| *into += *dy);
            } else {
                into.copy_from_slice(dy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Span, ops::check};

    /// The second reader of a term adds to its gradient.
    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(36, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 3 };
            let a = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            let b = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            let sum = tape.add(a, b);
            tape.add(sum, a)
        });
    }
}
