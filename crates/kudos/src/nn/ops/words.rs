//! The head of a language model: −ln p of one word at each row, without the logits of the whole vocabulary in memory.

use super::{LinearSpec, Op, Uses};
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, Weights};
use kernels::gemm::Store;
use kernels::vocabulary::{Head, HeadGradients, Labels, Weight, cross_entropy, cross_entropy_backward};

/// What the logits of a language model are.
#[derive(Clone, Copy, Debug)]
pub struct WordsSpec {
    /// The product with the words: the table of words itself, or a head of its own.
    pub head: LinearSpec,
    /// Logits become `cap · tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
    /// Logits are divided by it after that.
    pub temperature: f32,
}

pub(in crate::nn) struct WordLosses {
    x: Var,
    y: Var,
    /// The log-sum-exp of each row's logits, for the way back.
    log_sums: Var,
    spec: WordsSpec,
    words: Vec<u32>,
}

impl Tape {
    /// `y[row] = −ln p(words[row])`: `[rows, hidden]` → `[rows, 1]`. So the seed of the way back is the weight that each row
    /// has in the loss.
    ///
    /// # Panics
    /// When there is not a word for each row.
    pub fn word_losses(&mut self, x: Var, spec: WordsSpec, words: Vec<u32>) -> Var {
        let [rows, columns] = self.shape(x);
        assert!(words.len() == rows && columns == spec.head.inputs, "a word for each row of the head's width");
        assert!(self.storage_of(x) == Storage::F32, "a head reads f32 states");
        let (y, log_sums) = (self.var(rows, 1), self.var(rows, 1));
        self.push(Op::WordLosses(WordLosses { x, y, log_sums, spec, words }));
        y
    }
}

impl WordLosses {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.y, self.log_sums]).saves([self.x, self.log_sums]);
        uses.takes([self.y]).gives([self.x]);
    }

    fn head<'a>(&self, weights: Weights<'a>) -> Head<'a> {
        let LinearSpec { weight, bias, inputs, .. } = self.spec.head;
        let kept = match weights.packed.narrow(weight) {
            Some(narrow) => Weight::Narrow(narrow),
            None => Weight::Plain(&weights.values[weight.range()]),
        };
        let factor = 1.0 / self.spec.temperature;
        Head { weight: kept, bias: &weights.values[bias.range()], width: inputs, soft_cap: self.spec.soft_cap, factor }
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let [x, y, log_sums] = pass.arena.buffers([self.x, self.y, self.log_sums].map(Buffer::Value));
        let labels = Labels { words: &self.words, weights: &vec![1.0; self.words.len()] };
        cross_entropy(y, log_sums, x, &self.head(pass.weights), labels);
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let hidden_store = if pass.adds(self.x) { Store::Add } else { Store::Replace };
        let names =
            [Buffer::Value(self.x), Buffer::Value(self.log_sums), Buffer::Gradient(self.y), Buffer::Gradient(self.x)];
        let [x, log_sums, dy, hidden] = pass.arena.buffers(names);
        let head = self.head(pass.weights);
        let own = pass.gradients.spans([self.spec.head.weight, self.spec.head.bias]);
        let labels = Labels { words: &self.words, weights: dy };
        cross_entropy_backward(HeadGradients { hidden, hidden_store, own }, [x, log_sums], &head, labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Asker, Span, State, ops::check};

    /// Of states, table and bias, with a head of its own and with the table of words as the head.
    #[test]
    fn gradients_match_finite_differences() {
        let table = |start, rows: usize| Span { start, len: rows * 3 };
        for (tied, soft_cap, temperature) in [(false, None, 1.0), (false, Some(1.5), 0.8), (true, None, 1.3)] {
            check::gradients(36 + 21 + 7, |tape, batch| {
                let x = tape.embed(batch, 3, table(0, 7), table(21, 5), None);
                let rows = [Asker::First.rows(batch), Asker::Last.rows(batch), vec![4, 4]].concat();
                let words = (0..rows.len() as u32).map(|row| row * 3 % 7).collect();
                let x = tape.rows(State { full: x, operand: x }, rows).full;
                let bias = if tied { Span { start: 0, len: 0 } } else { Span { start: 57, len: 7 } };
                let weight = if tied { table(0, 7) } else { table(36, 7) };
                let head = LinearSpec { weight, bias, inputs: 3, outputs: 7 };
                tape.word_losses(x, WordsSpec { head, soft_cap, temperature }, words)
            });
        }
    }
}
