//! Pooling: the state of each sequence's first token.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::tape::{Backward, Buffer, Forward, State, Tape, Var, half};
use kernels::bf16::{Bf16, Element};

pub(in crate::nn) struct Pool {
    x: Var,
    y: State,
    width: usize,
}

impl Tape {
    /// First row of each sequence: `[tokens, width]` → `[sequences, width]`.
    pub fn pool_first(&mut self, x: State, batch: &Batch) -> State {
        let [_, width] = self.shape(x.full);
        let full = self.var(batch.sequences(), width);
        let y = self.state(full);
        self.push(Op::Pool(Pool { x: x.full, y, width }));
        y
    }
}

impl Pool {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y.full]).writes(self.y.copy());
        uses.takes([self.y.full]).gives([self.x]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let names = [Some(self.x), Some(self.y.full), self.y.copy()].map(|var| var.map(Buffer::Value));
        let [x, y, copy] = pass.arena.optional(names);
        for (y, token) in y.chunks_exact_mut(self.width).zip(pass.batch.offsets()) {
            y.copy_from_slice(&x[token * self.width..(token + 1) * self.width]);
        }
        half(copy).iter_mut().zip(y).for_each(|(copy, y)| *copy = Bf16::narrow(*y));
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let add = pass.adds(self.x);
        let [dx, dy] = pass.arena.buffers([Buffer::Gradient(self.x), Buffer::Gradient(self.y.full)]);
        if !add {
            dx.fill(0.0);
        }
        for (dy, token) in dy.chunks_exact(self.width).zip(pass.batch.offsets()) {
            let row = &mut dx[token * self.width..(token + 1) * self.width];
            row.iter_mut().zip(dy).for_each(|(x, y)| *x += y);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Span, State, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(36, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 3 };
            let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            tape.pool_first(State { full: x, operand: x }, batch).full
        });
    }
}
