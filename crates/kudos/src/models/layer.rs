//! One layer of a transformer, whatever its family: attention and a feed-forward part, with the norms where the family has
//! them, over the packed batch or over a cache.

use crate::nn::{Activation, Asker, AttentionSpec, Batch, LinearSpec, LowRank, NormSpec, State, Tape, Var};
use std::ops::Range;

/// Where a layer norms. Of two norms the first is that of attention, the second that of the feed-forward part.
#[derive(Clone, Copy, Debug)]
pub enum Norms {
    /// `x = norm(x + attention(x))`, then the same with the feed-forward part (BERT).
    Post([NormSpec; 2]),
    /// `x += attention(norm(x))`, then the same with the feed-forward part (Llama).
    Pre([NormSpec; 2]),
    /// As [`Norms::Pre`], but attention reads x as it is: the first layer where the embedding is normed (ModernBERT).
    First(NormSpec),
    /// `x += attention(norm(x)) + mlp(norm(x))`, with one norm (Phi).
    Parallel(NormSpec),
    /// As [`Norms::Pre`], with another norm over what each part adds (Gemma).
    Sandwich {
        /// Before attention and the feed-forward part.
        before: [NormSpec; 2],
        /// Over what they add.
        after: [NormSpec; 2],
    },
}

/// The parameters of one layer and how they are put together.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What kind of attention; its turns come when the layer is pushed.
    pub attention: AttentionSpec,
    /// Which table the turns of queries and keys are in.
    pub turns: Option<usize>,
    /// Queries, keys and values, side by side.
    pub qkv: LinearSpec,
    /// After attention.
    pub attention_out: LinearSpec,
    /// The way up of the feed-forward part: gate and up side by side, or up alone.
    pub up: LinearSpec,
    /// Its way down.
    pub down: LinearSpec,
    /// Whether the way up has a gate.
    pub gated: bool,
    /// Activation of the way up, or of its gate.
    pub activation: Activation,
    /// The norms.
    pub norms: Norms,
    /// What is added to the products.
    pub adapters: Adapters,
}

/// The low-rank adapters of a layer's products: none, unless it is trained or loaded with such.
#[derive(Clone, Debug, Default)]
pub struct Adapters {
    /// Of queries, keys and values.
    pub qkv: LowRank,
    /// Of the product after attention.
    pub attention_out: LowRank,
    /// Of the way up.
    pub up: LowRank,
    /// Of the way down.
    pub down: LowRank,
}

/// Which tokens a layer computes, and what they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All tokens of the packed batch.
    Batch,
    /// One token of each sequence of the packed batch, for which keys and values of all tokens are computed.
    One(Asker),
    /// All tokens of the batch, which continue what this layer of the cache holds.
    Cache(usize),
}

/// The residual stream between two layers.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    state: State,
    /// What the stream still has to take in; the next norm adds it.
    pending: Option<Var>,
}

impl Stream {
    /// A stream that begins with this state.
    pub fn new(state: State) -> Self {
        Self { state, pending: None }
    }

    /// The stream behind a layer that norms after its parts.
    ///
    /// # Panics
    /// When something is pending, as behind a layer that norms before them.
    pub fn state(self) -> State {
        assert!(self.pending.is_none(), "a stream with something pending ends in a norm");
        self.state
    }

    /// The stream with what was pending, and its norm.
    pub fn normed(self, tape: &mut Tape, norm: NormSpec) -> (Self, State) {
        let full = self.state.full;
        let (full, normed) = match self.pending {
            None => tape.pre_norm(full, None, norm),
            Some(pending) => tape.pre_norm(pending, Some(full), norm),
        };
        (Self::new(State { full, operand: full }), normed)
    }
}

impl Norms {
    /// The stream, and what part `part` (attention is 0, feed-forward is 1) reads of it.
    fn before(&self, tape: &mut Tape, part: usize, x: Stream) -> (Stream, State) {
        match self {
            Norms::Post(_) => (x, x.state()),
            Norms::Pre(norms) | Norms::Sandwich { before: norms, .. } => x.normed(tape, norms[part]),
            Norms::First(_) if part == 0 => (x, x.state()),
            Norms::First(norm) | Norms::Parallel(norm) => x.normed(tape, *norm),
        }
    }

    /// The stream after part `part` gave `out`.
    fn after(&self, tape: &mut Tape, part: usize, x: Stream, out: Var) -> Stream {
        match self {
            Norms::Post(norms) => Stream::new(tape.post_norm(out, Some(x.state.full), norms[part])),
            Norms::Pre(_) | Norms::First(_) | Norms::Parallel(_) => Stream { pending: Some(out), ..x },
            Norms::Sandwich { after, .. } => {
                let (_, normed) = tape.pre_norm(out, None, after[part]);
                Stream { pending: Some(normed.full), ..x }
            }
        }
    }
}

impl Layer {
    /// Pushes the layer. `attention` is the layer's own kind, with the turns of its positions.
    pub(super) fn push(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        attention: &AttentionSpec,
        x: Stream,
        reach: Reach,
    ) -> Stream {
        let (x, read) = self.norms.before(tape, 0, x);
        let (mixed, x, read) = self.attend(tape, batch, attention, (x, read), reach);
        let out = tape.adapted_linear(mixed, self.attention_out, &self.adapters.attention_out, None);
        if let Norms::Parallel(_) = self.norms {
            let down = self.feed_forward(tape, read);
            let both = tape.add(out, down);
            return self.norms.after(tape, 0, x, both);
        }
        let x = self.norms.after(tape, 0, x, out);
        let (x, read) = self.norms.before(tape, 1, x);
        let down = self.feed_forward(tape, read);
        self.norms.after(tape, 1, x, down)
    }

    /// What attention gives; and of stream and what was read, the rows of the tokens that are computed.
    fn attend(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        attention: &AttentionSpec,
        (x, read): (Stream, State),
        reach: Reach,
    ) -> (Var, Stream, State) {
        let Reach::One(asker) = reach else {
            let qkv = tape.adapted_linear(read.operand, self.qkv, &self.adapters.qkv, None); // [tokens, queries, keys and values]
            let mixed = match reach {
                Reach::Cache(layer) => tape.attention_cached(qkv, attention, layer),
                _ => tape.attention(qkv, attention, batch),
            };
            return (mixed, x, read); // [tokens, heads·head_dim]
        };
        let one = tape.rows(read, asker.rows(batch)); // [sequences, hidden]
        let own = if x.state == read { one } else { tape.rows(x.state, asker.rows(batch)) };
        let [q, kv] = [self.queries(), self.keys_and_values()];
        let [of_q, of_kv] = [&q, &kv].map(|rows| self.adapters.qkv.rows(rows.clone()));
        let kv = tape.adapted_linear(read.operand, self.qkv.rows(kv), &of_kv, None); // [tokens, keys and values]
        let q = tape.adapted_linear(one.operand, self.qkv.rows(q), &of_q, None);
        (tape.attention_of_one(q, kv, attention, asker, batch), Stream::new(own), one)
    }

    fn feed_forward(&self, tape: &mut Tape, read: State) -> Var {
        let Adapters { up, down, .. } = &self.adapters;
        let hidden = if self.gated {
            let gate_up = tape.adapted_linear(read.operand, self.up, up, None); // [rows, 2·intermediate]
            tape.gate(gate_up, self.activation)
        } else {
            tape.adapted_linear(read.operand, self.up, up, Some(self.activation)) // [rows, intermediate]
        };
        tape.adapted_linear(hidden, self.down, down, None)
    }

    /// The rows of the queries.
    fn queries(&self) -> Range<usize> {
        0..self.attention.heads * self.attention.head_dim
    }

    /// The rows of keys and values.
    fn keys_and_values(&self) -> Range<usize> {
        self.queries().end..self.qkv.outputs
    }

    /// The products of the layer, as it is pushed for all tokens or for one of each sequence.
    pub(super) fn products(&self, reach: Reach) -> Vec<LinearSpec> {
        let first = match reach {
            Reach::One(_) => [self.queries(), self.keys_and_values()].map(|rows| self.qkv.rows(rows)).to_vec(),
            Reach::Batch | Reach::Cache(_) => vec![self.qkv],
        };
        first.into_iter().chain([self.attention_out, self.up, self.down]).collect()
    }
}
