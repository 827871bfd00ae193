//! The fused ops, each with its forward and its backward side by side in one file.

mod activate;
mod add;
mod attention;
mod distances;
mod embed;
mod gate;
mod heads;
mod linear;
mod low_rank;
mod norm;
mod pool;
mod words;

use super::tape::{Backward, Forward, Var};
pub use attention::{Asker, AttentionSpec, HeadNormSpec, Mask};
pub use distances::DistancesSpec;
pub use embed::EmbedSpec;
pub use linear::LinearSpec;
pub use low_rank::{LowRank, LowRankPart};
pub use norm::{NormKind, NormSpec};
pub use words::WordsSpec;

/// The closed set of ops.
pub(super) enum Op {
    Embed(embed::Embed),
    Linear(linear::Linear),
    Down(low_rank::Down),
    Up(low_rank::Up),
    Activate(activate::Activate),
    Norm(norm::Norm),
    PrepareHeads(heads::PrepareHeads),
    Attention(attention::Attention),
    Distances(distances::Distances),
    Gate(gate::Gate),
    Add(add::Add),
    Rows(pool::Rows),
    Mean(pool::Mean),
    WordLosses(words::WordLosses),
}

/// Runs a method of whichever op it is.
macro_rules! each_op {
    ($op:expr, $method:ident($pass:expr)) => {
        match $op {
            Op::Embed(op) => op.$method($pass),
            Op::Linear(op) => op.$method($pass),
            Op::Down(op) => op.$method($pass),
            Op::Up(op) => op.$method($pass),
            Op::Activate(op) => op.$method($pass),
            Op::Norm(op) => op.$method($pass),
            Op::PrepareHeads(op) => op.$method($pass),
            Op::Attention(op) => op.$method($pass),
            Op::Distances(op) => op.$method($pass),
            Op::Gate(op) => op.$method($pass),
            Op::Add(op) => op.$method($pass),
            Op::Rows(op) => op.$method($pass),
            Op::Mean(op) => op.$method($pass),
            Op::WordLosses(op) => op.$method($pass),
        }
    };
}

/// How an op touches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Forward reads the value.
    Reads,
    /// Forward writes the value.
    Writes,
    /// Backward reads the value.
    Saves,
    /// Backward takes the gradient of this value, an output of the op.
    Takes,
    /// Backward writes the gradient of this value, or adds to it.
    Gives,
}

/// What an op says of the buffers that it touches, as many as there are.
pub(super) struct Uses<'a>(pub(super) &'a mut dyn FnMut(Use, Var));

impl Uses<'_> {
    /// All of these are touched so. An `Option` is one value or none.
    fn each(&mut self, how: Use, values: impl IntoIterator<Item = Var>) -> &mut Self {
        values.into_iter().for_each(|value| (self.0)(how, value));
        self
    }

    fn reads(&mut self, values: impl IntoIterator<Item = Var>) -> &mut Self {
        self.each(Use::Reads, values)
    }

    fn writes(&mut self, values: impl IntoIterator<Item = Var>) -> &mut Self {
        self.each(Use::Writes, values)
    }

    fn saves(&mut self, values: impl IntoIterator<Item = Var>) -> &mut Self {
        self.each(Use::Saves, values)
    }

    fn takes(&mut self, outputs: impl IntoIterator<Item = Var>) -> &mut Self {
        self.each(Use::Takes, outputs)
    }

    fn gives(&mut self, inputs: impl IntoIterator<Item = Var>) -> &mut Self {
        self.each(Use::Gives, inputs)
    }
}

impl Op {
    /// Tells the plan which buffers the op touches.
    pub(super) fn uses(&self, uses: &mut Uses) {
        each_op!(self, uses(uses));
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        each_op!(self, forward(pass));
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        each_op!(self, backward(pass));
    }
}

/// Finite differences: the check every op's file runs on its own backward.
#[cfg(test)]
pub(super) mod check {
    use crate::nn::{Batch, Gradients, Initial, Mode, Packed, Parameters, Sequence, Storage, Tape, Var, Weights};
    use crate::random::Stream;

    /// Three sequences of 3, 1 and 5 tokens over a vocabulary of 7.
    pub(in crate::nn) fn batch() -> Batch {
        let mut batch = Batch::default();
        for ids in [&[1u32, 4, 2][..], &[6], &[3, 3, 0, 5, 1]] {
            batch.push(Sequence { ids, type_ids: &vec![1; ids.len()] }, None).expect("a sequence");
        }
        batch
    }

    /// A sequence of 2 tokens, and a text of 3 that two others of 4 and 7 tokens begin with.
    pub(in crate::nn) fn shared_batch() -> Batch {
        let mut batch = Batch::default();
        for ids in [&[2u32, 6][..], &[1, 4, 2]] {
            batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None).expect("a sequence");
        }
        for ids in [&[5u32][..], &[3, 0, 3, 6]] {
            batch.push_child(ids, 1).expect("a child");
        }
        batch
    }

    /// Gradients of so many parameters without names.
    pub(in crate::nn) fn flat(parameters: usize) -> Gradients {
        let mut all = Parameters::default();
        all.declare("all", &[parameters], Initial::Zero).expect("a small tensor");
        Gradients::new(&all)
    }

    type Build<'a> = &'a dyn Fn(&mut Tape, &Batch) -> Var;

    fn loss(build: Build, batch: &Batch, weights: &[f32], tape: &mut Tape) -> (f64, Var, Vec<f32>) {
        tape.start(Mode::Train, Storage::F32);
        let result = build(tape, batch);
        tape.forward(result, Weights { values: weights, packed: &Packed::default() }, batch);
        let mut random = Stream::new(9, 9);
        let value = tape.value(result);
        let seed: Vec<f32> = value.iter().map(|_| random.normal() as f32).collect();
        let sum = value.iter().zip(&seed).map(|(v, s)| f64::from(*v) * f64::from(*s)).sum();
        (sum, result, seed)
    }

    /// Random values for so many parameters.
    pub(in crate::nn) fn weights(parameters: usize) -> Vec<f32> {
        let mut random = Stream::new(3, 1);
        (0..parameters).map(|_| 0.7 * random.normal() as f32).collect()
    }

    /// Holds every parameter's gradient to the central difference of a random projection of the result.
    pub(in crate::nn) fn gradients(parameters: usize, build: impl Fn(&mut Tape, &Batch) -> Var) {
        gradients_over(&batch(), parameters, build);
    }

    /// As [`gradients`], over this batch.
    pub(in crate::nn) fn gradients_over(batch: &Batch, parameters: usize, build: impl Fn(&mut Tape, &Batch) -> Var) {
        let weights = weights(parameters);
        let mut tape = Tape::default();
        let (_, result, seed) = loss(&build, batch, &weights, &mut tape);
        let mut gradients = flat(parameters);
        gradients.start();
        let all = Weights { values: &weights, packed: &Packed::default() };
        tape.backward(result, &seed, all, &mut gradients, batch);
        let gradients = gradients.values();
        for i in 0..parameters {
            let h = 4e-3;
            let mut moved = weights.clone();
            moved[i] += h;
            let up = loss(&build, batch, &moved, &mut tape).0;
            moved[i] -= 2.0 * h;
            let down = loss(&build, batch, &moved, &mut tape).0;
            let difference = ((up - down) / (2.0 * f64::from(h))) as f32;
            let close = (gradients[i] - difference).abs() < 4e-3 * (1.0 + difference.abs());
            assert!(close, "parameter {i}: gradient {}, finite difference {difference}", gradients[i]);
        }
    }
}
