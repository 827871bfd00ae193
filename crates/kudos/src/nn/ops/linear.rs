//! Linear layer with bias and activation: `y = act(x·wᵀ + b)`, in f32 or on packed weights.

use super::{Op, Uses};
use crate::nn::packed::PackedLayer;
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Mode, Storage, Tape, Var, half};
use kernels::activation::{self, Activation};
use kernels::gemm::{
    self, InputGradient, QuantizedRows, Store, WeightGradient, linear_input_gradient, linear_weight_gradient,
};

/// The parameters of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearSpec {
    /// `[outputs, inputs]`.
    pub weight: Span,
    /// `[outputs]`; empty for a decoder's layer without one.
    pub bias: Span,
    /// Columns of x.
    pub inputs: usize,
    /// Columns of y.
    pub outputs: usize,
}

impl LinearSpec {
    /// The layer of the outputs `range` alone.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.end <= self.outputs);
        let (start, outputs) = (range.start, range.len());
        Self {
            weight: Span { start: self.weight.start + start * self.inputs, len: outputs * self.inputs },
            bias: if self.bias.len == 0 { self.bias } else { Span { start: self.bias.start + start, len: outputs } },
            inputs: self.inputs,
            outputs,
        }
    }
}

pub(in crate::nn) struct Linear {
    x: Var,
    /// Whose gradient buffer x's gradient goes to.
    dx: Var,
    y: Var,
    /// The value before the activation, kept for the way back.
    z: Option<Var>,
    act: Option<Activation>,
    spec: LinearSpec,
    rows: usize,
    storage: Storage,
    dx_storage: Storage,
}

impl Tape {
    /// `act(x·wᵀ + b)`: `[rows, inputs]` → `[rows, outputs]`, stored as x is.
    pub fn linear(&mut self, x: Var, spec: LinearSpec, act: Option<Activation>) -> Var {
        let [rows, columns] = self.shape(x);
        assert_eq!(columns, spec.inputs, "a linear layer's input width");
        let (storage, dx) = (self.storage_of(x), self.gradient_of(x));
        let keeps = act.is_some() && self.mode() == Mode::Train;
        let z = keeps.then(|| self.stored(rows, spec.outputs, storage));
        let y = self.stored(rows, spec.outputs, storage);
        let dx_storage = self.storage_of(dx);
        self.push(Op::Linear(Linear { x, dx, y, z, act, spec, rows, storage, dx_storage }));
        y
    }
}

impl Linear {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y]).writes(self.z).saves([self.x]).saves(self.z);
        uses.takes([self.y]).gives([self.dx]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        match self.storage {
            Storage::F32 => self.forward_f32(pass),
            Storage::Bf16 => self.forward_bf16(pass),
        }
    }

    fn forward_f32(&self, pass: &mut Forward) {
        let LinearSpec { weight, bias, inputs, outputs } = self.spec;
        let [x, product] = pass.arena.buffers([self.x, self.z.unwrap_or(self.y)].map(Buffer::Value));
        let bias = &pass.weights.values[bias.range()];
        if let Some(packed) = pass.weights.packed.find(weight) {
            self.forward_packed(packed, [product, x], bias, pass.quantized);
            return self.activate_kept(pass);
        }
        gemm::linear(product, x, &pass.weights.values[weight.range()], self.rows, inputs, outputs);
        match self.z {
            None => self.finish(product, &mut [], bias),
            Some(z) => {
                let [z, y] = pass.arena.buffers([z, self.y].map(Buffer::Value));
                self.finish(z, y, bias);
            }
        }
    }

    /// Adds the bias and activates, where there are such; into y, if it is not empty.
    fn finish(&self, z: &mut [f32], y: &mut [f32], bias: &[f32]) {
        if !bias.is_empty() {
            return activation::add_bias(z, y, bias, self.act);
        }
        let Some(act) = self.act else { return };
        if y.is_empty() {
            activation::activate(act, z, self.spec.outputs);
        } else {
            y.copy_from_slice(z);
            activation::activate(act, y, self.spec.outputs);
        }
    }

    /// y of the z that was kept for the way back.
    fn activate_kept(&self, pass: &mut Forward) {
        let (Some(z), Some(act)) = (self.z, self.act) else { return };
        let [z, y] = pass.arena.buffers([z, self.y].map(Buffer::Value));
        activation::activate_into(act, y, z);
    }

    /// On f32 values: the product, activated where z is not kept.
    fn forward_packed(&self, weight: &PackedLayer, [y, x]: [&mut [f32]; 2], bias: &[f32], rows: &mut QuantizedRows) {
        match weight {
            PackedLayer::Int8(weight) => gemm::Linear { y, z: None, x, bias, act: self.act }.run_int8(weight, rows),
            PackedLayer::Narrow(weight) => {
                weight.run(y, x, bias);
                if let Some(act) = self.act.filter(|_| self.z.is_none()) {
                    activation::activate(act, y, self.spec.outputs);
                }
            }
            PackedLayer::Bf16(_) => unreachable!("bf16 weights multiply bf16 values"),
        }
    }

    fn forward_bf16(&self, pass: &mut Forward) {
        let weight = pass.weights.packed.layer(self.spec.weight);
        let bias = &pass.weights.values[self.spec.bias.range()];
        match self.z {
            None => {
                let [x, y] = pass.arena.buffers([self.x, self.y].map(Buffer::Value)).map(half);
                let layer = gemm::Linear { y, z: None, x, bias, act: self.act };
                match weight {
                    PackedLayer::Bf16(weight) => layer.run(weight),
                    PackedLayer::Int8(weight) => layer.run_int8(weight, pass.quantized),
                    PackedLayer::Narrow(_) => unreachable!("narrow weights multiply f32 values"),
                }
            }
            Some(z) => {
                let [x, y, z] = pass.arena.buffers([self.x, self.y, z].map(Buffer::Value)).map(half);
                gemm::Linear { y, z: Some(z), x, bias, act: self.act }
                    .run(pass.weights.packed.trained(self.spec.weight));
            }
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let store = if pass.adds(self.dx) { Store::Add } else { Store::Replace };
        match self.storage {
            Storage::F32 => self.backward_f32(pass, store),
            Storage::Bf16 => self.backward_bf16(pass, store),
        }
    }

    fn backward_f32(&self, pass: &mut Backward, store: Store) {
        let LinearSpec { weight, bias, inputs, outputs } = self.spec;
        if let (Some(z), Some(act)) = (self.z, self.act) {
            let [dy, z] = pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(z)]);
            activation::backward(act, dy, z);
        }
        let [dz, x, dx] =
            pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(self.x), Buffer::Gradient(self.dx)]);
        if let Some(([dw, db], dw_store)) = pass.gradients.spans([weight, bias]) {
            linear_weight_gradient(dw, dw_store, dz, x, self.rows, inputs, outputs);
            if bias.len > 0 {
                activation::bias_backward(db, dw_store, dz);
            }
        }
        match pass.weights.packed.narrow(weight) {
            Some(weight) => weight.input_gradient(dx, store, dz, pass.scratch),
            None => {
                let weight = &pass.weights.values[weight.range()];
                linear_input_gradient(dx, store, dz, weight, self.rows, inputs, outputs);
            }
        }
    }

    fn backward_bf16(&self, pass: &mut Backward, store: Store) {
        if let (Some(z), Some(act)) = (self.z, self.act) {
            let [dy, z] = pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(z)]).map(half);
            activation::backward(act, dy, z);
        }
        let [dz, x] = pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Value(self.x)]).map(half);
        if let Some(([dw, db], store)) = pass.gradients.spans([self.spec.weight, self.spec.bias]) {
            WeightGradient { dw, db, outputs: self.spec.outputs, store, dy: dz, x }.run(pass.scratch);
        }
        let [dz, dx] = pass.arena.buffers([Buffer::Gradient(self.y), Buffer::Gradient(self.dx)]);
        let into = match (self.dx_storage, store) {
            (Storage::F32, store) => InputGradient::F32(dx, store),
            (Storage::Bf16, Store::Replace) => InputGradient::Bf16(half(dx)),
            (Storage::Bf16, Store::Add) => unreachable!("a bf16 value has one reader"),
        };
        into.run(half(dz), pass.weights.packed.trained(self.spec.weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::{NormKind, NormSpec, check};

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

    #[test]
    fn gradients_without_a_bias_match_finite_differences() {
        let each = |act| {
            check::gradients(36 + 15, |tape, batch| {
                let table = |start, rows: usize| Span { start, len: rows * 3 };
                let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
                let (weight, bias) = (Span { start: 36, len: 15 }, Span { start: 0, len: 0 });
                tape.linear(x, LinearSpec { weight, bias, inputs: 3, outputs: 5 }, act)
            })
        };
        [None, Some(Activation::Gelu)].into_iter().for_each(each);
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
            let [gamma, beta] = [48, 51].map(|start| Span { start, len: 3 });
            let norm = NormSpec { kind: NormKind::Layer, gamma, beta: Some(beta), epsilon: 0.1 };
            tape.post_norm(y, Some(x), norm).full
        });
    }
}
