//! Norms over the residual sum: after a block, `y = norm(x + residual)`, or before one, where the sum itself goes on, too.

use super::{Op, Uses};
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Mode, State, Storage, Tape, Var, half};
use kernels::bf16::Element;
use kernels::norm::rms::{self, RmsNorm, RmsOutputs, RmsSaved};
use kernels::norm::{
    Arriving, GradientOf, LayerNorm, NormOutputs, NormSaved, layer_norm, layer_norm_backward_beside,
    layer_norm_parameter_gradients,
};

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The standard deviation, after the mean is taken away.
    Layer,
    /// The root of the mean square.
    Rms,
}

/// The parameters of a norm.
#[derive(Clone, Copy, Debug)]
pub struct NormSpec {
    /// Which norm.
    pub kind: NormKind,
    /// Scale, `[width]`.
    pub gamma: Span,
    /// Shift, `[width]`; an RMS norm has none.
    pub beta: Option<Span>,
    /// ε added to the variance, or to the mean square.
    pub epsilon: f32,
}

impl NormSpec {
    fn shift<'a>(&self, values: &'a [f32]) -> &'a [f32] {
        self.beta.map_or(&[], |beta| &values[beta.range()])
    }

    fn rms<'a>(&self, values: &'a [f32]) -> RmsNorm<'a> {
        RmsNorm { gamma: &values[self.gamma.range()], epsilon: self.epsilon, plus_one: false }
    }
}

pub(in crate::nn) struct Norm {
    x: Var,
    x_storage: Storage,
    residual: Option<Var>,
    y: State,
    /// x + residual.
    sum: Option<Var>,
    /// Whether others read the sum.
    goes_on: bool,
    /// Mean and 1/σ, or 1/√(mean square): kept for the way back.
    stats: Option<Var>,
    spec: NormSpec,
}

impl Tape {
    /// `norm(x + residual)`, `[rows, width]`, as the next state of the residual stream.
    pub fn post_norm(&mut self, x: Var, residual: Option<Var>, spec: NormSpec) -> State {
        let [rows, width] = self.shape(x);
        let sum = (self.mode() == Mode::Train).then(|| self.var(rows, width));
        self.norm(x, residual, sum, false, spec)
    }

    /// `s = x + residual` and its norm, both `[rows, width]`: the residual stream and what the next block reads.
    pub fn pre_norm(&mut self, x: Var, residual: Option<Var>, spec: NormSpec) -> (Var, State) {
        let [rows, width] = self.shape(x);
        let sum = (residual.is_some() || self.mode() == Mode::Train).then(|| self.var(rows, width));
        let y = self.norm(x, residual, sum, residual.is_some(), spec);
        (sum.filter(|_| residual.is_some()).unwrap_or(x), y)
    }

    fn norm(&mut self, x: Var, residual: Option<Var>, sum: Option<Var>, goes_on: bool, spec: NormSpec) -> State {
        let [rows, width] = self.shape(x);
        assert_eq!(width, spec.gamma.len, "a norm's width");
        assert_eq!(self.gradient_of(x), x, "a norm reads a state's full value");
        let columns = if spec.kind == NormKind::Layer { 2 } else { 1 };
        let stats = (self.mode() == Mode::Train).then(|| self.var(rows, columns));
        let full = self.var(rows, width);
        let y = self.state(full);
        let x_storage = self.storage_of(x);
        self.push(Op::Norm(Norm { x, x_storage, residual, y, sum, goes_on, stats, spec }));
        y
    }
}

impl Norm {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).reads(self.residual);
        uses.writes([self.y.full]).writes(self.y.copy()).writes(self.sum).writes(self.stats);
        uses.saves(self.sum).saves(self.stats);
        uses.takes([self.y.full]).takes(self.sum.filter(|_| self.goes_on));
        uses.gives([self.x]).gives(self.residual);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        match self.x_storage {
            Storage::F32 => self.forward_of(pass, |x| x),
            Storage::Bf16 => self.forward_of(pass, half),
        }
    }

    fn forward_of<T: Element>(&self, pass: &mut Forward, cast: fn(&mut [f32]) -> &mut [T]) {
        let names = [Some(self.x), self.residual, Some(self.y.full), self.y.copy(), self.sum, self.stats];
        let [x, residual, y, copy, sum, stats] = pass.arena.optional(names.map(|var| var.map(Buffer::Value)));
        let (values, half) = (pass.weights.values, half(copy));
        match self.spec.kind {
            NormKind::Layer => {
                let (gamma, beta) = (&values[self.spec.gamma.range()], self.spec.shift(values));
                let norm = LayerNorm { gamma, beta, epsilon: self.spec.epsilon };
                layer_norm(NormOutputs { y, half, sum, stats }, cast(x), residual, norm);
            }
            NormKind::Rms => {
                let out = RmsOutputs { y, half, sum, inverses: stats };
                rms::forward(out, cast(x), residual, self.spec.rms(values));
            }
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        match self.x_storage {
            Storage::F32 => self.backward_of(pass, |x| x),
            Storage::Bf16 => self.backward_of(pass, half),
        }
    }

    fn backward_of<T: Element>(&self, pass: &mut Backward, cast: fn(&mut [f32]) -> &mut [T]) {
        let add = pass.adds(self.x);
        let add_residual = self.residual.is_some_and(|residual| pass.adds(residual));
        let d_sum = self.sum.filter(|_| self.goes_on).map(Buffer::Gradient);
        let [sum, stats] = [self.sum, self.stats].map(|var| var.map(Buffer::Value));
        let [dx, dy, d_residual] =
            [Some(self.x), Some(self.y.full), self.residual].map(|var| var.map(Buffer::Gradient));
        let [dx, dy, d_sum, sum, stats, d_residual] = pass.arena.optional([dx, dy, d_sum, sum, stats, d_residual]);
        let d_x = GradientOf { gradient: cast(dx), add };
        let d_residual = GradientOf { gradient: d_residual, add: add_residual };
        let (arriving, values) = (Arriving { dy, d_sum }, pass.weights.values);
        let gamma = &values[self.spec.gamma.range()];
        match self.spec.kind {
            NormKind::Layer => {
                let beta = self.spec.beta.unwrap_or(Span { start: 0, len: 0 });
                if let Some((into, store)) = pass.gradients.spans([self.spec.gamma, beta]) {
                    layer_norm_parameter_gradients(into, store, dy, sum, stats);
                }
                layer_norm_backward_beside(d_x, d_residual, arriving, NormSaved { sum, stats, gamma });
            }
            NormKind::Rms => {
                let saved = RmsSaved { sum, inverses: stats };
                if let Some(([d_gamma], store)) = pass.gradients.spans([self.spec.gamma]) {
                    rms::parameter_gradient(d_gamma, store, dy, saved);
                }
                rms::backward(d_x, d_residual, arriving, saved, self.spec.rms(values));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;

    const LAYER: NormSpec = NormSpec {
        kind: NormKind::Layer,
        gamma: Span { start: 60, len: 5 },
        beta: Some(Span { start: 65, len: 5 }),
        epsilon: 0.1,
    };
    const RMS: NormSpec = NormSpec { kind: NormKind::Rms, beta: None, ..LAYER };
    const SHIFTLESS: NormSpec = NormSpec { beta: None, ..LAYER };

    fn states(tape: &mut Tape, batch: &crate::nn::Batch) -> Var {
        let table = |start, rows: usize| Span { start, len: rows * 5 };
        tape.embed(batch, 5, table(0, 7), table(35, 5), None)
    }

    #[test]
    fn gradients_match_finite_differences() {
        for spec in [LAYER, RMS, SHIFTLESS] {
            check::gradients(70, |tape, batch| {
                let x = states(tape, batch);
                tape.post_norm(x, None, spec).full
            });
            check::gradients(70, |tape, batch| {
                let (x, residual) = (states(tape, batch), states(tape, batch));
                tape.post_norm(x, Some(residual), spec).full
            });
        }
    }

    /// The sum has readers of its own: its gradient is theirs and the norm's.
    #[test]
    fn gradients_of_both_outputs_match_finite_differences() {
        for spec in [LAYER, RMS, SHIFTLESS] {
            for residual in [false, true] {
                check::gradients(70, |tape, batch| {
                    let x = states(tape, batch);
                    let residual = residual.then(|| states(tape, batch));
                    let (stream, normed) = tape.pre_norm(x, residual, spec);
                    let (stream, again) = tape.pre_norm(normed.full, Some(stream), spec);
                    tape.add(stream, again.full)
                });
            }
        }
    }

    /// A norm after the last block: nobody reads the sum, whose gradient is zero.
    #[test]
    fn a_sum_that_nobody_reads_has_no_gradient() {
        check::gradients(70, |tape, batch| {
            let (x, residual) = (states(tape, batch), states(tape, batch));
            tape.pre_norm(x, Some(residual), RMS).1.full
        });
    }
}
