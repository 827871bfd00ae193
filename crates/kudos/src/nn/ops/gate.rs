//! The gated half of a feed-forward block: `act(gate) · up`.

use super::{Op, Uses};
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, half};
use kernels::activation::Activation;
use kernels::gated;

pub(in crate::nn) struct Gate {
    x: Var,
    y: Var,
    width: usize,
    activation: Activation,
    storage: Storage,
}

impl Tape {
    /// `act(gate) · up` of `[rows, gate and up]`: `[rows, width]`.
    pub fn gate(&mut self, x: Var, activation: Activation) -> Var {
        let ([rows, columns], storage) = (self.shape(x), self.storage_of(x));
        let width = columns / 2;
        let y = self.stored(rows, width, storage);
        self.push(Op::Gate(Gate { x, y, width, activation, storage }));
        y
    }
}

impl Gate {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y]).saves([self.x]).takes([self.y]).gives([self.x]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [x, y] = pass.arena.buffers([self.x, self.y].map(Buffer::Value));
        match self.storage {
            Storage::F32 => gated::forward(y, x, self.width, self.activation),
            Storage::Bf16 => gated::forward(half(y), half(x), self.width, self.activation),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        assert!(!pass.adds(self.x), "gates and what they let through have one reader");
        let names = [Buffer::Gradient(self.x), Buffer::Gradient(self.y), Buffer::Value(self.x)];
        let [dx, dy, x] = pass.arena.buffers(names);
        match self.storage {
            Storage::F32 => gated::backward(dx, dy, x, self.width, self.activation),
            Storage::Bf16 => gated::backward(half(dx), half(dy), half(x), self.width, self.activation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Span, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        for act in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
            check::gradients(12 * 6, |tape, batch| {
                let table = |start, rows: usize| Span { start, len: rows * 6 };
                let x = tape.embed(batch, 6, table(0, 7), table(42, 5), None);
                tape.gate(x, act)
            });
        }
    }
}
