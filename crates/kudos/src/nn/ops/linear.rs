//! Linear layer with bias and activation: `y = act(x·wᵀ + b)`.

use super::{Op, Uses};
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Tape, Var};
use kernels::activation::{self, Activation};
use kernels::gemm::{Store, linear, linear_input_gradient, linear_weight_gradient};

/// The parameters of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearSpec {
    /// `[outputs, inputs]`.
    pub weight: Span,
    /// `[outputs]`.
    pub bias: Span,
    /// Columns of x.
    pub inputs: usize,
    /// Columns of y.
    pub outputs: usize,
}

pub(in crate::nn) struct Linear {
    x: Var,
    y: Var,
    /// The value before the activation and the activation, when there is one.
    activated: Option<(Var, Activation)>,
    spec: LinearSpec,
    rows: usize,
}

impl Tape {
    /// `act(x·wᵀ + b)`: `[rows, inputs]` → `[rows, outputs]`.
    pub fn linear(&mut self, x: Var, spec: LinearSpec, act: Option<Activation>) -> Var {
        let [rows, columns] = self.shape(x);
        assert_eq!(columns, spec.inputs, "a linear layer's input width");
        let activated = act.map(|act| (self.var(rows, spec.outputs), act));
        let y = self.var(rows, spec.outputs);
        self.push(Op::Linear(Linear { x, y, activated, spec, rows }));
        y
    }
}

impl Linear {
    fn z(&self) -> Option<Var> {
        self.activated.map(|(z, _)| z)
    }

    pub(super) fn uses(&self) -> Uses {
        Uses {
            reads: [Some(self.x), None],
            writes: [Some(self.y), self.z(), None],
            saved: [Some(self.x), self.z(), None, None],
            output: self.y,
            inputs: [Some(self.x), None],
        }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let LinearSpec { weight, bias, inputs, outputs } = self.spec;
        let product = self.z().unwrap_or(self.y);
        let [x, z] = pass.arena.buffers([Buffer::Value(self.x), Buffer::Value(product)]);
        linear(z, x, &pass.weights[weight.range()], self.rows, inputs, outputs);
        activation::add_bias(z, &pass.weights[bias.range()]);
        if let Some((z, act)) = self.activated {
            let [z, y] = pass.arena.buffers([Buffer::Value(z), Buffer::Value(self.y)]);
            activation::forward(act, y, z);
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let LinearSpec { weight, bias, inputs, outputs } = self.spec;
        if let Some((z, act)) = self.activated {
            let [dy, z] = pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(z)]);
            activation::backward(act, dy, z);
        }
        let store = if pass.adds(self.x) { Store::Add } else { Store::Replace };
        let [dz, x, dx] =
            pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(self.x), Buffer::Gradient(self.x)]);
        linear_weight_gradient(&mut pass.gradients[weight.range()], dz, x, self.rows, inputs, outputs);
        activation::bias_backward(&mut pass.gradients[bias.range()], dz);
        linear_input_gradient(dx, store, dz, &pass.weights[weight.range()], self.rows, inputs, outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;

    #[test]
    fn gradients_match_finite_differences() {
        for act in [None, Some(Activation::Gelu), Some(Activation::Tanh), Some(Activation::GeluTanh)] {
            check::gradients(36 + 20, |tape, batch| {
                let table = |start, rows: usize| Span { start, len: rows * 3 };
                let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
                let spec = LinearSpec {
                    weight: Span { start: 36, len: 15 },
                    bias: Span { start: 51, len: 5 },
                    inputs: 3,
                    outputs: 5,
                };
                tape.linear(x, spec, act)
            });
        }
    }

    /// A value read twice gets both gradients.
    #[test]
    fn gradients_of_two_readers_add_up() {
        check::gradients(36 + 12 + 6, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 3 };
            let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
            let square = LinearSpec {
                weight: Span { start: 36, len: 9 },
                bias: Span { start: 45, len: 3 },
                inputs: 3,
                outputs: 3,
            };
            let y = tape.linear(x, square, None);
            let norm = super::super::NormSpec {
                gamma: Span { start: 48, len: 3 },
                beta: Span { start: 51, len: 3 },
                epsilon: 0.1,
            };
            tape.layer_norm(y, Some(x), norm)
        });
    }
}
