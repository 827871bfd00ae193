//! Some rows of a state, such as each sequence's first or last token, and the mean of each sequence's rows.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::tape::{Backward, Buffer, Forward, State, Tape, Var, half};
use kernels::bf16::{Bf16, Element};

pub(in crate::nn) struct Rows {
    x: Var,
    y: State,
    rows: Vec<usize>,
    width: usize,
}

pub(in crate::nn) struct Mean {
    x: Var,
    y: State,
    width: usize,
}

impl Tape {
    /// Some rows of x, in the order given: `[tokens, width]` → `[rows, width]`.
    pub fn rows(&mut self, x: State, rows: Vec<usize>) -> State {
        let [_, width] = self.shape(x.full);
        let full = self.var(rows.len(), width);
        let y = self.state(full);
        self.push(Op::Rows(Rows { x: x.full, y, rows, width }));
        y
    }

    /// The mean of each sequence's rows: `[tokens, width]` → `[sequences, width]`.
    ///
    /// # Panics
    /// When a sequence has a parent, whose rows belong to its mean.
    pub fn mean(&mut self, x: State, batch: &Batch) -> State {
        assert!(!batch.shares(), "the mean of a text needs all of its rows side by side");
        let [_, width] = self.shape(x.full);
        let full = self.var(batch.sequences(), width);
        let y = self.state(full);
        self.push(Op::Mean(Mean { x: x.full, y, width }));
        y
    }
}

/// x, y and the copy of y, if there is one.
fn values<'a>(pass: &'a mut Forward, x: Var, y: State) -> [&'a mut [f32]; 3] {
    pass.arena.optional([Some(x), Some(y.full), y.copy()].map(|var| var.map(Buffer::Value)))
}

fn narrow(copy: &mut [f32], y: &[f32]) {
    half(copy).iter_mut().zip(y).for_each(|(copy, y)| *copy = Bf16::narrow(*y));
}

/// The gradient of x, which is zero before the first contribution, and that of y.
fn gradients<'a>(pass: &'a mut Backward, x: Var, y: State) -> [&'a mut [f32]; 2] {
    let add = pass.adds(x);
    let [dx, dy] = pass.arena.buffers([Buffer::Gradient(x), Buffer::Gradient(y.full)]);
    if !add {
        dx.fill(0.0);
    }
    [dx, dy]
}

impl Rows {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y.full]).writes(self.y.copy());
        uses.takes([self.y.full]).gives([self.x]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [x, y, copy] = values(pass, self.x, self.y);
        for (y, row) in y.chunks_exact_mut(self.width).zip(&self.rows) {
            y.copy_from_slice(&x[row * self.width..(row + 1) * self.width]);
        }
        narrow(copy, y);
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let [dx, dy] = gradients(pass, self.x, self.y);
        for (dy, row) in dy.chunks_exact(self.width).zip(&self.rows) {
            let row = &mut dx[row * self.width..(row + 1) * self.width];
            row.iter_mut().zip(dy).for_each(|(x, y)| *x += y);
        }
    }
}

impl Mean {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y.full]).writes(self.y.copy());
        uses.takes([self.y.full]).gives([self.x]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let offsets = pass.batch.offsets();
        let [x, y, copy] = values(pass, self.x, self.y);
        for (y, bounds) in y.chunks_exact_mut(self.width).zip(offsets.windows(2)) {
            y.fill(0.0);
            for row in x[bounds[0] * self.width..bounds[1] * self.width].chunks_exact(self.width) {
                y.iter_mut().zip(row).for_each(|(y, x)| *y += x);
            }
            let count = (bounds[1] - bounds[0]) as f32;
            y.iter_mut().for_each(|y| *y /= count);
        }
        narrow(copy, y);
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let offsets = pass.batch.offsets();
        let [dx, dy] = gradients(pass, self.x, self.y);
        for (dy, bounds) in dy.chunks_exact(self.width).zip(offsets.windows(2)) {
            let count = (bounds[1] - bounds[0]) as f32;
            for row in dx[bounds[0] * self.width..bounds[1] * self.width].chunks_exact_mut(self.width) {
                row.iter_mut().zip(dy).for_each(|(x, y)| *x += y / count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Asker, Span, State, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        let table = |start, rows: usize| Span { start, len: rows * 3 };
        for asker in [Asker::First, Asker::Last] {
            check::gradients(36, |tape, batch| {
                let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
                tape.rows(State { full: x, operand: x }, asker.rows(batch)).full
            });
        }
        check::gradients(36, |tape, batch| {
            let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            tape.mean(State { full: x, operand: x }, batch).full
        });
    }
}
