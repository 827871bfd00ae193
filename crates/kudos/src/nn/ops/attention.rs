//! Self-attention over the packed sequences of the batch.

use super::{Op, Uses};
use crate::nn::tape::{Backward, Batch, Buffer, Forward, Tape, Var};
use kernels::attention::{Layout, Saved, bidirectional, bidirectional_backward};

pub(in crate::nn) struct Attention {
    qkv: Var,
    y: Var,
    log_sums: Var,
    heads: usize,
    head_dim: usize,
}

impl Tape {
    /// Every token sees all tokens of its sequence: `[tokens, 3·width]` (queries, keys, values) → `[tokens, width]`.
    pub fn attention(&mut self, qkv: Var, heads: usize) -> Var {
        let [tokens, columns] = self.shape(qkv);
        let head_dim = columns / 3 / heads;
        assert_eq!(columns, 3 * heads * head_dim, "width is heads · head_dim");
        let log_sums = self.var(heads, tokens);
        let y = self.var(tokens, heads * head_dim);
        self.push(Op::Attention(Attention { qkv, y, log_sums, heads, head_dim }));
        y
    }
}

impl Attention {
    pub(super) fn uses(&self) -> Uses {
        Uses {
            reads: [Some(self.qkv), None],
            writes: [Some(self.y), Some(self.log_sums), None],
            saved: [Some(self.qkv), Some(self.y), Some(self.log_sums), None],
            output: self.y,
            inputs: [Some(self.qkv), None],
        }
    }

    fn layout<'a>(&self, batch: &'a Batch) -> Layout<'a> {
        Layout { offsets: &batch.offsets, heads: self.heads, head_dim: self.head_dim }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [qkv, y, log_sums] = pass.arena.buffers([self.qkv, self.y, self.log_sums].map(Buffer::Value));
        bidirectional(y, log_sums, qkv, self.layout(pass.batch));
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        assert!(!pass.adds(self.qkv), "queries, keys and values have one reader");
        let values = [self.qkv, self.y, self.log_sums].map(Buffer::Value);
        let [qkv, out, log_sums, dy, d_qkv] =
            pass.arena.buffers([values[0], values[1], values[2], Buffer::Gradient(self.y), Buffer::Gradient(self.qkv)]);
        bidirectional_backward(d_qkv, dy, Saved { qkv, out, log_sums }, self.layout(pass.batch));
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Span, ops::check};

    #[test]
    fn gradients_match_finite_differences() {
        check::gradients(12 * 12, |tape, batch| {
            let table = |start, rows: usize| Span { start, len: rows * 12 };
            let qkv = tape.embed(batch, 12, table(0, 7), table(84, 5), None);
            tape.attention(qkv, 2)
        });
    }
}
