//! Pooling: the state of each sequence's first token.

use super::{Op, Uses};
use crate::nn::tape::{Backward, Batch, Buffer, Forward, Tape, Var};

pub(in crate::nn) struct Pool {
    x: Var,
    y: Var,
    width: usize,
}

impl Tape {
    /// First row of each sequence: `[tokens, width]` → `[sequences, width]`.
    pub fn pool_first(&mut self, x: Var, batch: &Batch) -> Var {
        let [_, width] = self.shape(x);
        let y = self.var(batch.sequences(), width);
        self.push(Op::Pool(Pool { x, y, width }));
        y
    }
}

impl Pool {
    pub(super) fn uses(&self) -> Uses {
        Uses {
            reads: [Some(self.x), None],
            writes: [Some(self.y), None, None],
            saved: [None; 4],
            output: self.y,
            inputs: [Some(self.x), None],
        }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [x, y] = pass.arena.buffers([self.x, self.y].map(Buffer::Value));
        for (y, token) in y.chunks_exact_mut(self.width).zip(&pass.batch.offsets) {
            y.copy_from_slice(&x[token * self.width..(token + 1) * self.width]);
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let add = pass.adds(self.x);
        let [dx, dy] = pass.arena.buffers([Buffer::Gradient(self.x), Buffer::Gradient(self.y)]);
        if !add {
            dx.fill(0.0);
        }
        for (dy, token) in dy.chunks_exact(self.width).zip(&pass.batch.offsets) {
            let row = &mut dx[token * self.width..(token + 1) * self.width];
            row.iter_mut().zip(dy).for_each(|(x, y)| *x += y);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Span, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(36, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 3 };
            let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            tape.pool_first(x, batch)
        });
    }
}
