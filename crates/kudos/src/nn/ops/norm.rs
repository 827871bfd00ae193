//! Layer norm with the residual added: `y = LN(x + residual)`, in f32.

use super::{Op, Uses};
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Mode, State, Storage, Tape, Var, half};
use kernels::norm::{
    GradientOf, LayerNorm, NormOutputs, NormSaved, layer_norm, layer_norm_backward, layer_norm_parameter_gradients,
};

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

pub(in crate::nn) struct Norm {
    x: Var,
    x_storage: Storage,
    residual: Option<Var>,
    y: State,
    /// x + residual, and mean and 1/σ: kept for the way back.
    kept: Option<[Var; 2]>,
    spec: NormSpec,
}

impl Tape {
    /// `LN(x + residual)`, `[rows, width]`, as the next state of the residual stream.
    pub fn layer_norm(&mut self, x: Var, residual: Option<Var>, spec: NormSpec) -> State {
        let [rows, width] = self.shape(x);
        assert_eq!(width, spec.gamma.len, "a layer norm's width");
        assert_eq!(self.gradient_of(x), x, "a layer norm reads a state's full value");
        let kept = (self.mode() == Mode::Train).then(|| [self.var(rows, width), self.var(rows, 2)]);
        let full = self.var(rows, width);
        let y = self.state(full);
        self.push(Op::Norm(Norm { x, x_storage: self.storage_of(x), residual, y, kept, spec }));
        y
    }
}

impl Norm {
    pub(super) fn uses(&self, uses: &mut Uses) {
        let kept = || self.kept.into_iter().flatten();
        uses.reads([self.x]).reads(self.residual);
        uses.writes([self.y.full]).writes(self.y.copy()).writes(kept()).saves(kept());
        uses.takes([self.y.full]).gives([self.x]).gives(self.residual);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let norm = LayerNorm {
            gamma: &pass.weights.values[self.spec.gamma.range()],
            beta: &pass.weights.values[self.spec.beta.range()],
            epsilon: self.spec.epsilon,
        };
        let [sum, stats] = self.kept.map_or([None; 2], |kept| kept.map(Some));
        let names = [Some(self.x), self.residual, Some(self.y.full), self.y.copy(), sum, stats];
        let [x, residual, y, copy, sum, stats] = pass.arena.optional(names.map(|var| var.map(Buffer::Value)));
        let out = NormOutputs { y, half: half(copy), sum, stats };
        match self.x_storage {
            Storage::F32 => layer_norm(out, x, residual, norm),
            Storage::Bf16 => layer_norm(out, half(x), residual, norm),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let [sum, stats] = self.kept.expect("a training tape keeps the sums").map(Buffer::Value);
        let add = pass.adds(self.x);
        let add_residual = self.residual.is_some_and(|residual| pass.adds(residual));
        let [dx, dy] = [self.x, self.y.full].map(Buffer::Gradient);
        let names = [Some(dx), Some(dy), Some(sum), Some(stats), self.residual.map(Buffer::Gradient)];
        let [dx, dy, sum, stats, d_residual] = pass.arena.optional(names);
        let ([d_gamma, d_beta], store) = pass.gradients.spans([self.spec.gamma, self.spec.beta]);
        layer_norm_parameter_gradients([d_gamma, d_beta], store, dy, sum, stats);
        let saved = NormSaved { sum, stats, gamma: &pass.weights.values[self.spec.gamma.range()] };
        let d_residual = GradientOf { gradient: d_residual, add: add_residual };
        match self.x_storage {
            Storage::F32 => layer_norm_backward(GradientOf { gradient: dx, add }, d_residual, dy, saved),
            Storage::Bf16 => layer_norm_backward(GradientOf { gradient: half(dx), add }, d_residual, dy, saved),
        }
    }
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
            tape.layer_norm(x, None, spec).full
        });
        check::gradients(70, |tape, batch| {
            let x = tape.embed(batch, 5, table(0, 7), table(35, 5), None);
            let residual = tape.embed(batch, 5, table(0, 7), table(35, 5), None);
            tape.layer_norm(x, Some(residual), spec).full
        });
    }
}
