//! Attention of every kind: over the packed sequences of the batch, forward and backward, or over a cache, forward.
//!
//! What differs between models is the [`AttentionSpec`]. Which kernel computes it is decided here alone.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::cache::Layer;
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Mode, Storage, Tape, Var, half};
use kernels::attention::cached::{CacheShape, Piece, Preparation, Scores, attend, prepare};
use kernels::attention::packed::{self, InputGradients, Inputs, Queries, Sequences};
use kernels::attention::{Layout, Saved, bf16, bidirectional, bidirectional_backward, first};
use kernels::bf16::{Bf16, Element};
use kernels::gemm::Store;
use kernels::rotary::RotaryTable;
use std::sync::Arc;

pub use kernels::attention::packed::Mask;

/// What kind of attention a layer has.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, each shared by as many heads of queries.
    pub key_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Scores become `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// RMS norms over each head of queries and of keys.
    pub norms: Option<HeadNormSpec>,
    /// The turn of queries and keys.
    pub rotary: Option<Arc<RotaryTable>>,
    /// Added to the scores by distance: what [`Tape::distances`] gives.
    pub bias: Option<Var>,
}

impl AttentionSpec {
    /// That of an encoder: every token sees all tokens of its sequence.
    pub fn bidirectional(heads: usize, head_dim: usize) -> Self {
        let scale = standard_scale(head_dim);
        let (norms, rotary, soft_cap, bias) = (None, None, None, None);
        Self { heads, key_heads: heads, head_dim, scale, mask: Mask::Bidirectional, soft_cap, norms, rotary, bias }
    }

    /// Whether it is that of an encoder, without more.
    pub(crate) fn is_bidirectional(&self) -> bool {
        self.mask == Mask::Bidirectional
            && self.key_heads == self.heads
            && self.soft_cap.is_none()
            && self.bias.is_none()
            && self.scale.to_bits() == standard_scale(self.head_dim).to_bits()
    }

    /// Columns of the queries and of the keys.
    fn widths(&self) -> [usize; 2] {
        [self.heads * self.head_dim, self.key_heads * self.head_dim]
    }

    /// With the scores by distance, which are empty where there are none.
    fn packed<'a>(&self, queries: Queries<'static>, bias: &'a [f32]) -> packed::Spec<'a> {
        let Self { heads, key_heads, head_dim, scale, mask, soft_cap, .. } = *self;
        let bias = self.bias.map(|_| bias);
        packed::Spec { heads, key_heads, head_dim, scale, mask, soft_cap, bias, queries }
    }

    /// Tokens that a query sees over a cache, itself included; all, if `None`.
    fn window(&self) -> Option<usize> {
        match self.mask {
            Mask::Causal => None,
            Mask::Window { before, after: 0 } => Some(before + 1),
            other => unreachable!("a cache knows no later tokens: {other:?}"),
        }
    }
}

fn standard_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// The RMS norms over heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadNormSpec {
    /// Scale of the queries' heads, `[head_dim]`.
    pub q: Span,
    /// Scale of the keys' heads, `[head_dim]`.
    pub k: Span,
    /// ε added to the mean square.
    pub epsilon: f32,
}

/// Which token of each sequence asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The first.
    First,
    /// The last.
    Last,
}

impl Asker {
    /// Its row, of each sequence. The first token of a text that continues another is its parent's.
    pub fn rows(self, batch: &Batch) -> Vec<usize> {
        let first = |(own, parent): (usize, &Option<usize>)| batch.offsets()[parent.unwrap_or(own)];
        match self {
            Asker::First => batch.parents().iter().enumerate().map(first).collect(),
            Asker::Last => batch.offsets()[1..].iter().map(|end| end - 1).collect(),
        }
    }
}

/// Which kernel computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// All tokens of an encoder.
    Bidirectional,
    /// The first tokens of an encoder.
    First,
    /// Any kind over the packed batch.
    Packed(Queries<'static>),
    /// Over a layer of the cache.
    Cached(usize),
}

#[derive(Clone, Copy)]
enum Read {
    Together(Var),
    Apart { q: Var, kv: Var },
}

impl Read {
    fn vars(self) -> impl Iterator<Item = Var> {
        let [a, b] = match self {
            Read::Together(qkv) => [Some(qkv), None],
            Read::Apart { q, kv } => [Some(q), Some(kv)],
        };
        a.into_iter().chain(b)
    }

    /// Queries, keys and values in one; queries; keys and values: those that there are.
    fn buffers(self, of: fn(Var) -> Buffer) -> [Option<Buffer>; 3] {
        match self {
            Read::Together(qkv) => [Some(of(qkv)), None, None],
            Read::Apart { q, kv } => [None, Some(of(q)), Some(of(kv))],
        }
    }
}

pub(in crate::nn) struct Attention {
    read: Read,
    y: Var,
    /// What the kernel keeps for the way back: a log-sum of each row, or the weights of the first tokens. Over a cache, the
    /// queries as they were prepared.
    kept: Var,
    spec: AttentionSpec,
    kernel: Kernel,
    storage: Storage,
}

impl Tape {
    /// Every token asks: `[tokens, queries, keys and values]` → `[tokens, heads·head_dim]`, over the packed batch.
    pub fn attention(&mut self, qkv: Var, spec: &AttentionSpec, batch: &Batch) -> Var {
        let [q, k] = self.check_heads(qkv, spec, 1);
        let qkv = self.prepare_heads(qkv, spec, [spec.heads, spec.key_heads], || batch.positions().to_vec());
        let kernel = if spec.is_bidirectional() { Kernel::Bidirectional } else { Kernel::Packed(Queries::All) };
        let [tokens, columns] = self.shape(qkv);
        debug_assert_eq!(columns, q + 2 * k);
        let kept = self.var(spec.heads, tokens);
        self.push_attention(Read::Together(qkv), tokens, kept, spec, kernel)
    }

    /// One token of each sequence asks: queries `[sequences, heads·head_dim]`, keys and values `[tokens, …]` →
    /// `[sequences, heads·head_dim]`.
    pub fn attention_of_one(&mut self, q: Var, kv: Var, spec: &AttentionSpec, asker: Asker, batch: &Batch) -> Var {
        self.check_heads(kv, spec, 0);
        let of_askers = || asker.rows(batch).iter().map(|row| batch.positions()[*row]).collect();
        let q = self.prepare_heads(q, spec, [spec.heads, 0], of_askers);
        let kv = self.prepare_heads(kv, spec, [0, spec.key_heads], || batch.positions().to_vec());
        let ([sequences, _], [tokens, _]) = (self.shape(q), self.shape(kv));
        let kernel = match asker {
            Asker::First if spec.is_bidirectional() => Kernel::First,
            Asker::First => Kernel::Packed(Queries::First),
            Asker::Last => Kernel::Packed(Queries::Last),
        };
        let kept = self.var(spec.heads, if kernel == Kernel::First { tokens } else { sequences });
        self.push_attention(Read::Apart { q, kv }, sequences, kept, spec, kernel)
    }

    /// Stores the new tokens' keys and values in layer `layer` of the cache, and lets each token attend to its slot up to
    /// itself: `[tokens, queries, keys and values]` → `[tokens, heads·head_dim]`.
    pub fn attention_cached(&mut self, qkv: Var, spec: &AttentionSpec, layer: usize) -> Var {
        assert!(self.mode() == Mode::Score, "a cache has no way back");
        assert!(spec.soft_cap.is_none() && spec.bias.is_none(), "no kernel caps or shifts scores over a cache");
        let [q, _] = self.check_heads(qkv, spec, 1);
        let [tokens, _] = self.shape(qkv);
        let kept = self.var(tokens, q);
        self.push_attention(Read::Together(qkv), tokens, kept, spec, Kernel::Cached(layer))
    }

    /// Columns of queries and of keys, after those of `x` were counted: `queries` times the former and twice the latter.
    fn check_heads(&self, x: Var, spec: &AttentionSpec, queries: usize) -> [usize; 2] {
        let [q, k] = spec.widths();
        assert_eq!(self.shape(x)[1], queries * q + 2 * k, "heads of queries, keys and values side by side");
        [q, k]
    }

    fn push_attention(&mut self, read: Read, rows: usize, kept: Var, spec: &AttentionSpec, kernel: Kernel) -> Var {
        let storage = self.storage_of(read.vars().next().expect("it reads something"));
        let y = self.stored(rows, spec.widths()[0], storage);
        self.push(Op::Attention(Attention { read, y, kept, spec: spec.clone(), kernel, storage }));
        y
    }
}

impl Attention {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads(self.read.vars()).reads(self.spec.bias).writes([self.y, self.kept]);
        uses.saves(self.read.vars()).saves(self.spec.bias).saves([self.kept]);
        if self.kernel != Kernel::First {
            uses.saves([self.y]);
        }
        uses.takes([self.y]).gives(self.read.vars()).gives(self.spec.bias);
    }

    /// The sequences of kernels that know no parents.
    fn layout<'a>(&self, batch: &'a Batch) -> Layout<'a> {
        assert!(!batch.shares(), "a token of an encoder sees those after it: its texts cannot share their beginning");
        Layout::new(batch.offsets(), self.spec.heads, self.spec.head_dim)
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        if let Kernel::Cached(layer) = self.kernel {
            return self.forward_cached(layer, pass);
        }
        let [qkv, q, kv] = self.read.buffers(Buffer::Value);
        let names = [qkv, q, kv, Some(Buffer::Value(self.y)), Some(Buffer::Value(self.kept)), self.bias(Buffer::Value)];
        let [qkv, q, kv, y, kept, bias] = pass.arena.optional(names);
        let layout = || self.layout(pass.batch);
        match (self.kernel, self.storage) {
            (Kernel::Bidirectional, Storage::F32) => bidirectional(y, kept, qkv, layout()),
            (Kernel::Bidirectional, Storage::Bf16) => bf16::bidirectional(half(y), kept, half(qkv), layout()),
            (Kernel::First, Storage::F32) => first::attend(y, kept, q, kv, layout()),
            (Kernel::First, Storage::Bf16) => first::attend(half(y), kept, half(q), half(kv), layout()),
            (Kernel::Packed(queries), Storage::F32) => {
                let inputs = self.inputs([qkv, q, kv]);
                packed::forward(y, kept, inputs, &sequences(pass.batch), &self.spec.packed(queries, bias));
            }
            (Kernel::Packed(queries), Storage::Bf16) => {
                let inputs = self.inputs([half(qkv), half(q), half(kv)]);
                packed::forward(half(y), kept, inputs, &sequences(pass.batch), &self.spec.packed(queries, bias));
            }
            (Kernel::Cached(_), _) => unreachable!("it has run"),
        }
    }

    fn bias(&self, of: fn(Var) -> Buffer) -> Option<Buffer> {
        self.spec.bias.map(of)
    }

    fn inputs<'a, T>(&self, [qkv, q, kv]: [&'a mut [T]; 3]) -> Inputs<'a, T> {
        match self.read {
            Read::Together(_) => Inputs::Together(qkv),
            Read::Apart { .. } => Inputs::Apart { q, kv },
        }
    }

    fn forward_cached(&self, layer: usize, pass: &mut Forward) {
        let [qkv, _, _] = self.read.buffers(Buffer::Value);
        let [qkv, q, y] = pass.arena.optional([qkv, Some(Buffer::Value(self.kept)), Some(Buffer::Value(self.y))]);
        let cache = pass.cache.as_deref_mut().expect("a decoder runs with a cache");
        let (_, shape) = cache.shape();
        let AttentionSpec { heads, key_heads, head_dim, norms, ref rotary, scale, .. } = self.spec;
        let own = CacheShape { heads, kv_heads: key_heads, head_dim, capacity: shape.capacity };
        assert_eq!(own, shape, "the cache is another model's");
        let values = pass.weights.values;
        let preparation = Preparation {
            norms: norms.map(|norms| [norms.q, norms.k].map(|span| &values[span.range()])),
            epsilon: norms.map_or(0.0, |norms| norms.epsilon),
            rotary: rotary.as_deref(),
        };
        let pieces: Vec<Piece> = pass.batch.pieces();
        let scores = Scores { scale, window: self.spec.window() };
        match cache.layer(layer) {
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

    pub(super) fn backward(&self, pass: &mut Backward) {
        for var in self.read.vars() {
            assert!(!pass.adds(var), "queries, keys and values have one reader");
        }
        let [qkv, q, kv] = self.read.buffers(Buffer::Value);
        let [d_qkv, d_q, d_kv] = self.read.buffers(Buffer::Gradient);
        let y = (self.kernel != Kernel::First).then_some(Buffer::Value(self.y));
        let [kept, dy] = [Buffer::Value(self.kept), Buffer::Gradient(self.y)].map(Some);
        let store = self.spec.bias.map(|bias| if pass.adds(bias) { Store::Add } else { Store::Replace });
        let [bias, d_bias] = [Buffer::Value, Buffer::Gradient].map(|of| self.bias(of));
        let buffers = pass.arena.optional([qkv, q, kv, y, kept, dy, d_qkv, d_q, d_kv, bias, d_bias]);
        let [qkv, q, kv, y, kept, dy, d_qkv, d_q, d_kv, bias, d_bias] = buffers;
        let buffers = [qkv, q, kv, y, kept, dy, d_qkv, d_q, d_kv];
        let bias = Bias { values: bias, gradient: store.map(|store| (d_bias, store)) };
        match self.storage {
            Storage::F32 => self.backward_f32(buffers, bias, pass.batch),
            Storage::Bf16 => self.backward_bf16(buffers, bias, pass.batch),
        }
    }

    fn backward_f32(&self, buffers: [&mut [f32]; 9], bias: Bias, batch: &Batch) {
        let [qkv, q, kv, out, kept, dy, d_qkv, d_q, d_kv] = buffers;
        let layout = || self.layout(batch);
        match self.kernel {
            Kernel::Bidirectional => bidirectional_backward(d_qkv, dy, Saved { qkv, out, log_sums: kept }, layout()),
            Kernel::First => first::attend_backward(d_q, d_kv, dy, first::Saved { q, kv, weights: kept }, layout()),
            Kernel::Packed(queries) => {
                let saved = packed::Saved { inputs: self.inputs([qkv, q, kv]), out, log_sums: kept };
                self.backward_packed([d_qkv, d_q, d_kv], dy, (saved, bias), queries, batch);
            }
            Kernel::Cached(_) => unreachable!("a cache has no way back"),
        }
    }

    fn backward_bf16(&self, buffers: [&mut [f32]; 9], bias: Bias, batch: &Batch) {
        let [qkv, q, kv, out, kept, dy, d_qkv, d_q, d_kv] = buffers;
        let ([qkv, q, kv, out, dy], [d_qkv, d_q, d_kv]) =
            ([qkv, q, kv, out, dy].map(half), [d_qkv, d_q, d_kv].map(half));
        let layout = || self.layout(batch);
        match self.kernel {
            Kernel::Bidirectional => {
                bf16::bidirectional_backward(d_qkv, dy, bf16::Saved { qkv, out, log_sums: kept }, layout());
            }
            Kernel::First => first::attend_backward(d_q, d_kv, dy, first::Saved { q, kv, weights: kept }, layout()),
            Kernel::Packed(queries) => {
                let saved = packed::Saved { inputs: self.inputs([qkv, q, kv]), out, log_sums: kept };
                self.backward_packed([d_qkv, d_q, d_kv], dy, (saved, bias), queries, batch);
            }
            Kernel::Cached(_) => unreachable!("a cache has no way back"),
        }
    }

    fn backward_packed<T: Element>(
        &self,
        [d_qkv, d_q, d_kv]: [&mut [T]; 3],
        dy: &[T],
        (saved, bias): (packed::Saved<T>, Bias),
        queries: Queries<'static>,
        batch: &Batch,
    ) {
        let inputs = match self.read {
            Read::Together(_) => InputGradients::Together(d_qkv),
            Read::Apart { .. } => InputGradients::Apart { q: d_q, kv: d_kv },
        };
        let into = packed::Gradients { inputs, bias: bias.gradient };
        packed::backward(into, dy, saved, &sequences(batch), &self.spec.packed(queries, bias.values));
    }
}

/// The scores by distance, and where their gradient goes, if there are such.
struct Bias<'a> {
    values: &'a [f32],
    gradient: Option<(&'a mut [f32], Store)>,
}

/// The sequences as the packed kernels want them.
fn sequences(batch: &Batch) -> Sequences<'_> {
    Sequences::with_parents(batch.offsets(), batch.parents())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{DistancesSpec, LinearSpec, State, ops::check};

    fn plain(start: usize, inputs: usize, outputs: usize) -> LinearSpec {
        let weight = Span { start, len: inputs * outputs };
        LinearSpec { weight, bias: Span { start: start + weight.len, len: outputs }, inputs, outputs }
    }

    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(12 * 12, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 12 };
            let qkv = tape.embed(batch, 12, table(0, 7), table(84, 5), None);
            tape.attention(qkv, &AttentionSpec::bidirectional(2, 2), batch)
        });
    }

    /// What decoders have: causal masks and windows, heads of keys that are shared, caps, norms over heads, turns.
    #[test]
    fn gradients_of_each_kind_match_finite_differences() {
        let rotary = Arc::new(RotaryTable::new(&[1.0, 0.3], 1.0, 8));
        let norms = HeadNormSpec { q: Span { start: 224, len: 4 }, k: Span { start: 228, len: 4 }, epsilon: 0.1 };
        let causal = AttentionSpec {
            heads: 2,
            key_heads: 1,
            scale: 0.4,
            mask: Mask::Causal,
            ..AttentionSpec::bidirectional(2, 4)
        };
        let window = AttentionSpec { mask: Mask::Window { before: 1, after: 1 }, ..causal.clone() };
        let behind = AttentionSpec { mask: Mask::Window { before: 2, after: 0 }, ..causal.clone() };
        let capped = AttentionSpec { soft_cap: Some(0.8), ..causal.clone() };
        let turned = AttentionSpec { rotary: Some(rotary), norms: Some(norms), ..causal.clone() };
        for spec in [causal, window, behind, capped, turned] {
            let table = |start, rows: usize| Span { start, len: rows * 16 };
            let all = |tape: &mut Tape, batch: &Batch| {
                let qkv = tape.embed(batch, 16, table(0, 7), table(112, 7), None);
                tape.attention(qkv, &spec, batch)
            };
            check::gradients(232, all);
            if !matches!(spec.mask, Mask::Window { after: 1, .. }) {
                check::gradients_over(&check::shared_batch(), 232, all);
            }
        }
    }

    /// Two layers add the same scores by distance, whose gradient is the sum of theirs.
    #[test]
    fn gradients_of_scores_by_distance_match_finite_differences() {
        let table = |start, rows: usize, width: usize| Span { start, len: rows * width };
        let distances = DistancesSpec { table: table(168, DistancesSpec::BUCKETS, 2), heads: 2 };
        check::gradients(168 + 64 + 40 + 20, |tape, batch| {
            let bias = Some(tape.distances(distances, batch));
            let spec = AttentionSpec { bias, ..AttentionSpec::bidirectional(2, 2) };
            let qkv = tape.embed(batch, 12, table(0, 7, 12), table(84, 7, 12), None);
            let x = tape.attention(qkv, &spec, batch);
            let one = tape.rows(State { full: x, operand: x }, Asker::First.rows(batch));
            let kv = tape.linear(x, plain(232, 4, 8), None);
            let q = tape.linear(one.operand, plain(272, 4, 4), None);
            tape.attention_of_one(q, kv, &spec, Asker::First, batch)
        });
    }

    #[test]
    fn gradients_of_one_tokens_attention_match_finite_differences() {
        let turned = AttentionSpec {
            key_heads: 1,
            mask: Mask::Causal,
            rotary: Some(Arc::new(RotaryTable::new(&[1.0], 1.0, 8))),
            ..AttentionSpec::bidirectional(2, 2)
        };
        let cases =
            [(AttentionSpec::bidirectional(2, 2), Asker::First), (turned.clone(), Asker::First), (turned, Asker::Last)];
        for (spec, asker) in cases {
            let keys = 2 * spec.key_heads * spec.head_dim;
            let parameters = 14 * 4 + keys * 4 + keys + 16 + 4;
            let one = |tape: &mut Tape, batch: &Batch| {
                let table = |start, rows: usize| Span { start, len: rows * 4 };
                let x = tape.embed(batch, 4, table(0, 7), table(28, 7), None);
                let one = tape.rows(State { full: x, operand: x }, asker.rows(batch));
                let kv = tape.linear(x, plain(56, 4, keys), None);
                let q = tape.linear(one.operand, plain(56 + 5 * keys, 4, 4), None);
                tape.attention_of_one(q, kv, &spec, asker, batch)
            };
            check::gradients(parameters, one);
            if spec.mask == Mask::Causal {
                check::gradients_over(&check::shared_batch(), parameters, one);
            }
        }
    }

    /// An encoder's tokens see those of their own sequence alone, so a child would be computed without its beginning.
    #[test]
    #[should_panic(expected = "cannot share their beginning")]
    fn an_encoder_refuses_a_batch_that_shares() {
        check::gradients_over(&check::shared_batch(), 14 * 12, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 12 };
            let qkv = tape.embed(batch, 12, table(0, 7), table(84, 7), None);
            tape.attention(qkv, &AttentionSpec::bidirectional(2, 2), batch)
        });
    }

    /// The last layer computes the last token alone: its row must be that of the whole layer.
    #[test]
    fn the_last_tokens_row_is_that_of_all() {
        let spec = AttentionSpec { key_heads: 1, mask: Mask::Causal, ..AttentionSpec::bidirectional(2, 2) };
        let (batch, weights) = (check::batch(), check::weights(96));
        let run = |build: &dyn Fn(&mut Tape) -> Var| {
            let mut tape = Tape::default();
            tape.start(Mode::Score, Storage::F32);
            let y = build(&mut tape);
            let packed = crate::nn::Packed::default();
            tape.forward(y, crate::nn::Weights { values: &weights, packed: &packed }, &batch);
            tape.value(y).to_vec()
        };
        let table = |start, rows: usize, width: usize| Span { start, len: rows * width };
        let all = run(&|tape| {
            let qkv = tape.embed(&batch, 8, table(0, 7, 8), table(56, 5, 8), None);
            tape.attention(qkv, &spec, &batch)
        });
        let last = run(&|tape| {
            let qkv = tape.embed(&batch, 8, table(0, 7, 8), table(56, 5, 8), None);
            let y = tape.attention(qkv, &spec, &batch);
            tape.rows(State { full: y, operand: y }, Asker::Last.rows(&batch)).full
        });
        let rows = Asker::Last.rows(&batch).into_iter().flat_map(|row| all[row * 4..(row + 1) * 4].to_vec());
        assert_eq!(last, rows.collect::<Vec<_>>());
    }
}
