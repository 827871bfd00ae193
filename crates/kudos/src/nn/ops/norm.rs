//! Layer norm with the residual added: `y = LN(x + residual)`.

use super::{Op, Uses};
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Tape, Var};
use kernels::norm::{LayerNorm, layer_norm, layer_norm_backward, layer_norm_parameter_gradients};

/// The parameters of a layer norm.
#[derive(Clone, Copy, Debug)]
pub struct NormSpec {
    /// Scale, `[width]`.
    pub gamma: Span,
    /// Shift, `[width]`.
    pub beta: Span,
    /// ε added to the variance.
    pub epsilon: f32,
}

/// The buffer of `x` holds x + residual after the forward.
pub(in crate::nn) struct Norm {
    x: Var,
    residual: Option<Var>,
    y: Var,
    stats: Var,
    spec: NormSpec,
}

impl Tape {
    /// `LN(x + residual)`, `[rows, width]`. With a residual, no other op may read `x`: its buffer takes the sum.
    pub fn layer_norm(&mut self, x: Var, residual: Option<Var>, spec: NormSpec) -> Var {
        let [rows, width] = self.shape(x);
        assert_eq!(width, spec.gamma.len, "a layer norm's width");
        let stats = self.var(rows, 2);
        let y = self.var(rows, width);
        self.push(Op::Norm(Norm { x, residual, y, stats, spec }));
        y
    }
}

impl Norm {
    pub(super) fn uses(&self) -> Uses {
        Uses {
            reads: [Some(self.x), self.residual],
            writes: [Some(self.y), Some(self.stats), None],
            saved: [Some(self.x), Some(self.stats), None, None],
            output: self.y,
            inputs: [Some(self.x), self.residual],
        }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let norm = LayerNorm {
            gamma: &pass.weights[self.spec.gamma.range()],
            beta: &pass.weights[self.spec.beta.range()],
            epsilon: self.spec.epsilon,
        };
        let [x, y, stats] = [self.x, self.y, self.stats].map(Buffer::Value);
        match self.residual {
            Some(residual) => {
                let [x, y, stats, residual] = pass.arena.buffers([x, y, stats, Buffer::Value(residual)]);
                layer_norm(y, x, stats, Some(residual), norm);
            }
            None => {
                let [x, y, stats] = pass.arena.buffers([x, y, stats]);
                layer_norm(y, x, stats, None, norm);
            }
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let gamma = &pass.weights[self.spec.gamma.range()];
        let add = pass.adds(self.x);
        let names =
            [Buffer::Gradient(self.x), Buffer::Gradient(self.y), Buffer::Value(self.x), Buffer::Value(self.stats)];
        let [dx, dy, sum, stats] = pass.arena.buffers(names);
        let (d_gamma, d_beta) = two_spans(pass.gradients, self.spec.gamma, self.spec.beta);
        layer_norm_parameter_gradients(d_gamma, d_beta, dy, sum, stats);
        layer_norm_backward(dx, add, dy, sum, stats, gamma);
        let Some(residual) = self.residual else { return };
        assert!(!add, "the summand of a residual norm has one reader");
        let add = pass.adds(residual);
        let [dx, d_residual] = pass.arena.buffers([Buffer::Gradient(self.x), Buffer::Gradient(residual)]);
        match add {
            true => kernels::reduce::add(d_residual, dx),
            false => d_residual.copy_from_slice(dx),
        }
    }
}

fn two_spans(gradients: &mut [f32], a: Span, b: Span) -> (&mut [f32], &mut [f32]) {
    let [a, b] = gradients.get_disjoint_mut([a.range(), b.range()]).expect("two parameters do not overlap");
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;

    #[test]
    fn gradients_match_finite_differences() {
        let spec = NormSpec { gamma: Span { start: 60, len: 5 }, beta: Span { start: 65, len: 5 }, epsilon: 0.1 };
        let table = |start, rows: usize| Span { start, len: rows * 5 };
        check::gradients(70, |tape, batch| {
            let x = tape.embed(batch, 5, table(0, 7), table(35, 5), None);
            tape.layer_norm(x, None, spec)
        });
        check::gradients(70, |tape, batch| {
            let x = tape.embed(batch, 5, table(0, 7), table(35, 5), None);
            let residual = tape.embed(batch, 5, table(0, 7), table(35, 5), None);
            tape.layer_norm(x, Some(residual), spec)
        });
    }
}
