//! What happens to the heads of queries and keys before they meet: RMS norms over heads, then the rotary turn.

use super::{AttentionSpec, HeadNormSpec, Op, Uses};
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, half};
use kernels::bf16::Element;
use kernels::heads::{HeadNorms, Heads, NormGradients, prepare, prepare_backward};
use kernels::rotary::RotaryTable;
use std::sync::Arc;

pub(in crate::nn) struct PrepareHeads {
    x: Var,
    y: Var,
    /// Heads of queries and of keys in a row.
    heads: [usize; 2],
    head_dim: usize,
    norms: Option<HeadNormSpec>,
    rotary: Option<Arc<RotaryTable>>,
    /// Position of each row.
    positions: Vec<u32>,
    storage: Storage,
}

impl Tape {
    /// Rows of `heads` (of queries, of keys) and what stands behind them, normed and turned; x itself where the spec asks
    /// for neither.
    pub(super) fn prepare_heads(
        &mut self,
        x: Var,
        spec: &AttentionSpec,
        heads: [usize; 2],
        positions: impl FnOnce() -> Vec<u32>,
    ) -> Var {
        if spec.norms.is_none() && spec.rotary.is_none() {
            return x;
        }
        let ([rows, columns], storage) = (self.shape(x), self.storage_of(x));
        let y = self.stored(rows, columns, storage);
        let (head_dim, norms, rotary) = (spec.head_dim, spec.norms, spec.rotary.clone());
        let positions = positions();
        self.push(Op::PrepareHeads(PrepareHeads { x, y, heads, head_dim, norms, rotary, positions, storage }));
        y
    }
}

impl PrepareHeads {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y]).saves([self.x]).takes([self.y]).gives([self.x]);
    }

    fn heads<'a>(&'a self, values: &'a [f32]) -> Heads<'a> {
        let of = |norms: HeadNormSpec| HeadNorms {
            q: &values[norms.q.range()],
            k: &values[norms.k.range()],
            epsilon: norms.epsilon,
            plus_one: false,
        };
        let [heads, key_heads] = self.heads;
        let (norms, rotary) = (self.norms.map(of), self.rotary.as_deref());
        Heads { heads, key_heads, head_dim: self.head_dim, norms, rotary, positions: &self.positions }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let heads = self.heads(pass.weights.values);
        let [x, y] = pass.arena.buffers([self.x, self.y].map(Buffer::Value));
        match self.storage {
            Storage::F32 => prepare(y, x, &heads),
            Storage::Bf16 => prepare(half(y), half(x), &heads),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        assert!(!pass.adds(self.x), "queries, keys and values have one reader");
        match self.storage {
            Storage::F32 => self.backward_of(pass, |words| words),
            Storage::Bf16 => self.backward_of(pass, half),
        }
    }

    fn backward_of<T: Element>(&self, pass: &mut Backward, cast: fn(&mut [f32]) -> &mut [T]) {
        let heads = self.heads(pass.weights.values);
        let names = [Buffer::Value(self.x), Buffer::Gradient(self.y), Buffer::Gradient(self.x)];
        let [x, dy, dx] = pass.arena.buffers(names).map(cast);
        let scales = self.norms.and_then(|norms| pass.gradients.spans([norms.q, norms.k]));
        let scales = scales.map(|([q, k], store)| NormGradients { q, k, store });
        prepare_backward(dx, scales, dy, x, &heads);
    }
}
