//! An activation of its own: behind a linear layer whose adapters add to the product before it.

use super::{Op, Uses};
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, half};
use kernels::activation::{self, Activation};

pub(in crate::nn) struct Activate {
    z: Var,
    y: Var,
    act: Activation,
    storage: Storage,
}

impl Tape {
    /// `act(z)`, stored as z is.
    pub fn activate(&mut self, z: Var, act: Activation) -> Var {
        let ([rows, columns], storage) = (self.shape(z), self.storage_of(z));
        let y = self.stored(rows, columns, storage);
        self.push(Op::Activate(Activate { z, y, act, storage }));
        y
    }
}

impl Activate {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.z]).writes([self.y]).saves([self.z]).takes([self.y]).gives([self.z]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [z, y] = pass.arena.buffers([self.z, self.y].map(Buffer::Value));
        match self.storage {
            Storage::F32 => activation::activate_into(self.act, y, z),
            Storage::Bf16 => activation::activate_into(self.act, half(y), half(z)),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        assert!(!pass.adds(self.z), "what is activated has one reader");
        let names = [Buffer::Gradient(self.z), Buffer::Gradient(self.y), Buffer::Value(self.z)];
        let [dz, dy, z] = pass.arena.buffers(names);
        dz.copy_from_slice(dy);
        match self.storage {
            Storage::F32 => activation::backward(self.act, dz, z),
            Storage::Bf16 => activation::backward(self.act, half(dz), half(z)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Span, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Silu] {
            check::gradients(36, |tape, batch| {
                let table = |start, rows: usize| Span { start, len: rows * 3 };
                let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
                tape.activate(x, act)
            });
        }
    }
}
