//! The ops of decoders: words from a narrow table, norms before each block, gates, sums, attention over the cache, and the
//! choice of rows whose logits are wanted.
//!
//! They run forward only: decoders generate and score here, and are not trained yet. The tape refuses them in
//! [`Mode::Train`].

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::cache::Layer;
use crate::nn::parameters::Span;
use crate::nn::tape::{Buffer, Forward, Mode, Tape, Var};
use kernels::activation::{Activation, gated};
use kernels::attention::cached::{CacheShape, Piece, Preparation, Scores, attend, prepare};
use kernels::bf16::Bf16;
use kernels::norm::{LayerNorm, NormOutputs, layer_norm, rms_norm};
use kernels::rotary::RotaryTable;
use std::sync::Arc;

/// The op of one kind; all are forward only.
pub(in crate::nn) enum DecoderOp {
    Words { y: Var, width: usize, table: Span, scale: f32, positions: Option<Span> },
    PreNorm { x: Var, residual: Option<Var>, sum: Option<Var>, y: Var, spec: PreNormSpec },
    Add { a: Var, b: Var, y: Var },
    Gate { x: Var, y: Var, width: usize, activation: Activation },
    Attend { qkv: Var, q: Var, y: Var, spec: AttendSpec },
    Rows { x: Var, y: Var, rows: Vec<usize> },
}

/// The norm before a block.
#[derive(Clone, Copy, Debug)]
pub struct PreNormSpec {
    /// Scale, `[width]`.
    pub gamma: Span,
    /// Shift, `[width]`: there is one in a layer norm, none in an RMS norm.
    pub beta: Option<Span>,
    /// ε added to the variance, or to the mean square.
    pub epsilon: f32,
}

/// Attention of one layer over the cache.
#[derive(Clone, Debug)]
pub struct AttendSpec {
    /// Which layer of the cache.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// The turn of queries and keys.
    pub rotary: Option<Arc<RotaryTable>>,
    /// RMS norms over each head of queries and keys, with their ε.
    pub norms: Option<([Span; 2], f32)>,
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// Tokens seen, itself included; all, if `None`.
    pub window: Option<usize>,
}

impl Tape {
    fn push_decoder(&mut self, op: DecoderOp) {
        assert!(self.mode() == Mode::Score, "decoders run forward only");
        self.push(Op::Decoder(op));
    }

    /// Rows of the packed table of words times `scale`, plus the row of the position table: `[tokens, width]`.
    pub fn words(&mut self, batch: &Batch, width: usize, table: Span, scale: f32, positions: Option<Span>) -> Var {
        let y = self.var(batch.tokens(), width);
        self.push_decoder(DecoderOp::Words { y, width, table, scale, positions });
        y
    }

    /// `s = x + residual` and its norm, both `[rows, width]`: the residual stream and what the next block reads.
    pub fn pre_norm(&mut self, x: Var, residual: Option<Var>, spec: PreNormSpec) -> (Var, Var) {
        let [rows, width] = self.shape(x);
        let sum = residual.map(|_| self.var(rows, width));
        let y = self.var(rows, width);
        self.push_decoder(DecoderOp::PreNorm { x, residual, sum, y, spec });
        (sum.unwrap_or(x), y)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let [rows, width] = self.shape(a);
        let y = self.var(rows, width);
        self.push_decoder(DecoderOp::Add { a, b, y });
        y
    }

    /// `act(gate) · up` of `[rows, gate and up]`: `[rows, width]`.
    pub fn gate(&mut self, x: Var, activation: Activation) -> Var {
        let [rows, columns] = self.shape(x);
        let y = self.var(rows, columns / 2);
        self.push_decoder(DecoderOp::Gate { x, y, width: columns / 2, activation });
        y
    }

    /// Stores the new tokens' keys and values and lets each token attend to its slot up to itself:
    /// `[tokens, queries, keys and values]` → `[tokens, heads·head_dim]`.
    pub fn attend(&mut self, qkv: Var, spec: AttendSpec) -> Var {
        let [tokens, columns] = self.shape(qkv);
        assert_eq!(columns, (spec.heads + 2 * spec.kv_heads) * spec.head_dim, "queries, keys and values side by side");
        let q = self.var(tokens, spec.heads * spec.head_dim);
        let y = self.var(tokens, spec.heads * spec.head_dim);
        self.push_decoder(DecoderOp::Attend { qkv, q, y, spec });
        y
    }

    /// Some rows of x, in the order given.
    pub fn rows(&mut self, x: Var, rows: Vec<usize>) -> Var {
        let [_, width] = self.shape(x);
        let y = self.var(rows.len(), width);
        self.push_decoder(DecoderOp::Rows { x, y, rows });
        y
    }
}

impl DecoderOp {
    pub(super) fn uses(&self, uses: &mut Uses) {
        match self {
            DecoderOp::Words { y, .. } => uses.writes([*y]),
            DecoderOp::PreNorm { x, residual, sum, y, .. } => {
                uses.reads([*x]).reads(*residual).writes([*y]).writes(*sum)
            }
            DecoderOp::Add { a, b, y } => uses.reads([*a, *b]).writes([*y]),
            DecoderOp::Gate { x, y, .. } | DecoderOp::Rows { x, y, .. } => uses.reads([*x]).writes([*y]),
            DecoderOp::Attend { qkv, q, y, .. } => uses.reads([*qkv]).writes([*q, *y]),
        };
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        match self {
            DecoderOp::Words { y, width, table, scale, positions } => {
                words(*table, *y, *width, *scale, *positions, pass);
            }
            DecoderOp::PreNorm { x, residual, sum, y, spec } => {
                spec.forward([Some(*x), *residual, *sum, Some(*y)], pass)
            }
            DecoderOp::Add { a, b, y } => {
                let [a, b, y] = pass.arena.buffers([*a, *b, *y].map(Buffer::Value));
                y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = *a + *b);
            }
            DecoderOp::Gate { x, y, width, activation } => {
                let [x, y] = pass.arena.buffers([*x, *y].map(Buffer::Value));
                gated(y, x, *width, *activation);
            }
            DecoderOp::Attend { qkv, q, y, spec } => spec.forward([*qkv, *q, *y], pass),
            DecoderOp::Rows { x, y, rows } => {
                let [x, y] = pass.arena.buffers([*x, *y].map(Buffer::Value));
                let width = y.len() / rows.len().max(1);
                y.chunks_exact_mut(width.max(1)).zip(rows).for_each(|(y, row)| {
                    y.copy_from_slice(&x[row * width..(row + 1) * width]);
                });
            }
        }
    }
}

/// Looks up each token's word, times `scale`, plus its position's row.
fn words(table: Span, y: Var, width: usize, scale: f32, positions: Option<Span>, pass: &mut Forward) {
    let [y] = pass.arena.buffers([Buffer::Value(y)]);
    let table = pass.weights.packed.narrow(table).expect("the table of words is packed");
    for (i, y) in y.chunks_exact_mut(width).enumerate() {
        table.row(pass.batch.ids()[i] as usize, y);
        if scale != 1.0 {
            y.iter_mut().for_each(|y| *y *= scale);
        }
        if let Some(positions) = positions {
            let start = positions.start + pass.batch.positions()[i] as usize * width;
            y.iter_mut().zip(&pass.weights.values[start..start + width]).for_each(|(y, p)| *y += p);
        }
    }
}

impl PreNormSpec {
    /// x, residual, their sum and the result.
    fn forward(&self, vars: [Option<Var>; 4], pass: &mut Forward) {
        let [x, residual, sum, y] = pass.arena.optional(vars.map(|var| var.map(Buffer::Value)));
        let gamma = &pass.weights.values[self.gamma.range()];
        match self.beta {
            None => rms_norm(y, sum, x, residual, gamma, self.epsilon),
            Some(beta) => {
                let beta = &pass.weights.values[beta.range()];
                let out = NormOutputs { y, half: &mut [], sum, stats: &mut [] };
                layer_norm(out, x, residual, LayerNorm { gamma, beta, epsilon: self.epsilon });
            }
        }
    }
}

impl AttendSpec {
    fn forward(&self, [qkv, q, y]: [Var; 3], pass: &mut Forward) {
        let [qkv, q, y] = pass.arena.buffers([qkv, q, y].map(Buffer::Value));
        let cache = pass.cache.as_deref_mut().expect("a decoder runs with a cache");
        let (_, cache_shape) = cache.shape();
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let shape = CacheShape { heads, kv_heads, head_dim, capacity: cache_shape.capacity };
        assert_eq!(shape, cache_shape, "the cache is another model's");
        let values = pass.weights.values;
        let preparation = Preparation {
            norms: self.norms.map(|(spans, _)| spans.map(|span| &values[span.range()])),
            epsilon: self.norms.map_or(0.0, |(_, epsilon)| epsilon),
            rotary: self.rotary.as_deref(),
        };
        let pieces: Vec<Piece> = pass.batch.pieces();
        let scores = Scores { scale: self.scale, window: self.window };
        match cache.layer(self.layer) {
            Layer::F32([keys, values]) => {
                prepare(q, [keys, values], qkv, &pieces, shape, preparation);
                attend(y, q, [keys, values], &pieces, shape, scores);
            }
            Layer::Bf16(parts) => {
                let [keys, values] = parts.each_mut().map(|part| bytemuck::cast_slice_mut::<u16, Bf16>(part));
                prepare(q, [keys, values], qkv, &pieces, shape, preparation);
                attend(y, q, [keys, values], &pieces, shape, scores);
            }
        }
    }
}
