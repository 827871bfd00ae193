//! Self-attention over the packed sequences of the batch, and that of each sequence's first token alone.

use super::{Op, Uses};
use crate::nn::Batch;
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, half};
use kernels::attention::{Layout, Saved, bf16, bidirectional, bidirectional_backward, first};

pub(in crate::nn) struct Attention {
    qkv: Var,
    y: Var,
    log_sums: Var,
    heads: usize,
    head_dim: usize,
    storage: Storage,
}

impl Tape {
    /// Every token sees all tokens of its sequence: `[tokens, 3·width]` (queries, keys, values) → `[tokens, width]`.
    pub fn attention(&mut self, qkv: Var, heads: usize) -> Var {
        let [tokens, columns] = self.shape(qkv);
        let head_dim = columns / 3 / heads;
        assert_eq!(columns, 3 * heads * head_dim, "width is heads · head_dim");
        let storage = self.storage_of(qkv);
        let log_sums = self.var(heads, tokens);
        let y = self.stored(tokens, heads * head_dim, storage);
        self.push(Op::Attention(Attention { qkv, y, log_sums, heads, head_dim, storage }));
        y
    }

    /// The first token of each sequence sees all of it: queries `[sequences, width]`, keys and values
    /// `[tokens, 2·width]` → `[sequences, width]`.
    pub fn attention_first(&mut self, q: Var, kv: Var, heads: usize) -> Var {
        let ([sequences, width], [tokens, columns]) = (self.shape(q), self.shape(kv));
        assert!(columns == 2 * width && width % heads == 0, "width is heads · head_dim");
        let storage = self.storage_of(q);
        let weights = self.var(heads, tokens);
        let y = self.stored(sequences, width, storage);
        self.push(Op::FirstAttention(FirstAttention { q, kv, y, weights, heads, head_dim: width / heads, storage }));
        y
    }
}

impl Attention {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.qkv]).writes([self.y, self.log_sums]).saves([self.qkv, self.y, self.log_sums]);
        uses.takes([self.y]).gives([self.qkv]);
    }

    fn layout<'a>(&self, batch: &'a Batch) -> Layout<'a> {
        Layout::new(batch.offsets(), self.heads, self.head_dim)
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let layout = self.layout(pass.batch);
        let [qkv, y, log_sums] = pass.arena.buffers([self.qkv, self.y, self.log_sums].map(Buffer::Value));
        match self.storage {
            Storage::F32 => bidirectional(y, log_sums, qkv, layout),
            Storage::Bf16 => bf16::bidirectional(half(y), log_sums, half(qkv), layout),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        assert!(!pass.adds(self.qkv), "queries, keys and values have one reader");
        let layout = self.layout(pass.batch);
        let values = [self.qkv, self.y, self.log_sums].map(Buffer::Value);
        let [qkv, out, log_sums, dy, d_qkv] =
            pass.arena.buffers([values[0], values[1], values[2], Buffer::Gradient(self.y), Buffer::Gradient(self.qkv)]);
        match self.storage {
            Storage::F32 => bidirectional_backward(d_qkv, dy, Saved { qkv, out, log_sums }, layout),
            Storage::Bf16 => {
                let saved = bf16::Saved { qkv: half(qkv), out: half(out), log_sums };
                bf16::bidirectional_backward(half(d_qkv), half(dy), saved, layout);
            }
        }
    }
}

pub(in crate::nn) struct FirstAttention {
    q: Var,
    kv: Var,
    y: Var,
    weights: Var,
    heads: usize,
    head_dim: usize,
    storage: Storage,
}

impl FirstAttention {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.q, self.kv]).writes([self.y, self.weights]).saves([self.q, self.kv, self.weights]);
        uses.takes([self.y]).gives([self.q, self.kv]);
    }

    fn layout<'a>(&self, batch: &'a Batch) -> Layout<'a> {
        Layout::new(batch.offsets(), self.heads, self.head_dim)
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let layout = self.layout(pass.batch);
        let [q, kv, y, weights] = pass.arena.buffers([self.q, self.kv, self.y, self.weights].map(Buffer::Value));
        match self.storage {
            Storage::F32 => first::attend(y, weights, q, kv, layout),
            Storage::Bf16 => first::attend(half(y), weights, half(q), half(kv), layout),
        }
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let adds = [self.q, self.kv].map(|var| pass.adds(var));
        assert_eq!(adds, [false; 2], "queries, keys and values have one reader");
        let layout = self.layout(pass.batch);
        let values = [self.q, self.kv, self.weights].map(Buffer::Value);
        let gradients = [self.q, self.kv, self.y].map(Buffer::Gradient);
        let [q, kv, weights, d_q, d_kv, dy] =
            pass.arena.buffers([values[0], values[1], values[2], gradients[0], gradients[1], gradients[2]]);
        match self.storage {
            Storage::F32 => first::attend_backward(d_q, d_kv, dy, first::Saved { q, kv, weights }, layout),
            Storage::Bf16 => {
                let saved = first::Saved { q: half(q), kv: half(kv), weights };
                first::attend_backward(half(d_q), half(d_kv), half(dy), saved, layout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{LinearSpec, Span, State, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(12 * 12, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 12 };
            let qkv = tape.embed(batch, 12, table(0, 7), table(84, 5), None);
            tape.attention(qkv, 2)
        });
    }

    #[test]
    fn gradients_of_the_first_tokens_attention_match_finite_differences() {
        check::gradients(12 * 4 + 8 * 4 + 8 + 16 + 4, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 4 };
            let x = tape.embed(batch, 4, table(0, 7), table(28, 5), None);
            let spec = |start: usize, outputs: usize| LinearSpec {
                weight: Span { start, len: 4 * outputs },
                bias: Span { start: start + 4 * outputs, len: outputs },
                inputs: 4,
                outputs,
            };
            let first = tape.pool_first(State { full: x, operand: x }, batch);
            let kv = tape.linear(x, spec(48, 8), None);
            let q = tape.linear(first.operand, spec(88, 4), None);
            tape.attention_first(q, kv, 2)
        });
    }
}
