//! The tape: a list of fused ops over planned buffers, run forward and then backward.
//!
//! A model pushes its ops for one packed batch; nothing is computed yet. [`Tape::forward`] first
//! derives from the list how long each value must live (in scoring until its last reader, in
//! training until the backward op that needs it), places all buffers in one arena, and then runs.
//! [`Tape::backward`] walks the list in reverse. Arena and lists are reused from step to step.

use super::cache::KvCache;
use super::gradients::Gradients;
use super::ops::Op;
use super::packed::Packed;
use super::plan::{Life, Planner};
use kernels::attention::cached::Piece;
use kernels::bf16::Bf16;
use kernels::gemm::{QuantizedRows, Scratch};

/// A value on the tape: a row-major matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(pub(super) usize);

/// The state of the residual stream: the same numbers for norms and for products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// In f32: what the next residual adds.
    pub full: Var,
    /// What linear layers read: `full` itself, or its bf16 copy.
    pub operand: Var,
}

impl State {
    /// The bf16 copy, where there is one.
    pub(super) fn copy(self) -> Option<Var> {
        (self.operand != self.full).then_some(self.operand)
    }
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits; rows have an even length.
    Bf16,
}

/// Whether a backward pass will follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Forward only: a value's memory is free after its last reader.
    #[default]
    Score,
    /// Forward and backward.
    Train,
}

/// The token ids of one encoded text.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// Segment of each token; all zero for families without segments.
    pub type_ids: &'a [u32],
}

/// Sequences laid end to end: the one batch form of Kudos.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids, `[tokens]`.
    pub ids: Vec<u32>,
    /// Segments, `[tokens]`.
    pub type_ids: Vec<u32>,
    /// Row of the position table, `[tokens]`.
    pub positions: Vec<u32>,
    /// Sequence `i` is the tokens `offsets[i]..offsets[i + 1]`; `[sequences + 1]`.
    pub offsets: Vec<usize>,
    /// Slot of the cache that each sequence goes to; empty without a cache.
    pub slots: Vec<usize>,
}

impl Batch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.type_ids.clear();
        self.positions.clear();
        self.offsets.clear();
        self.offsets.push(0);
        self.slots.clear();
    }

    /// Appends new tokens of a slot, the first at `position`: they see the slot's tokens before them.
    pub fn push_cached(&mut self, ids: &[u32], slot: usize, position: usize) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.ids.extend_from_slice(ids);
        self.positions.extend((position..position + ids.len()).map(|p| p as u32));
        self.offsets.push(self.ids.len());
        self.slots.push(slot);
    }

    /// The sequences as attention over a cache wants them.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        assert_eq!(self.slots.len(), self.sequences(), "every sequence has a slot");
        let pieces = self.offsets.windows(2).zip(&self.slots);
        let piece = |(bounds, slot): (&[usize], &usize)| {
            let (row, rows) = (bounds[0], bounds[1] - bounds[0]);
            Piece { slot: *slot, position: self.positions[row] as usize, row, rows }
        };
        pieces.map(piece).collect()
    }

    /// Appends one sequence. With `padding`, positions count as in RoBERTa: from `padding + 1`, and a
    /// token that is the padding token itself stays at `padding`.
    pub fn push(&mut self, sequence: Sequence, padding: Option<u32>) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.ids.extend_from_slice(sequence.ids);
        self.type_ids.extend_from_slice(sequence.type_ids);
        match padding {
            None => self.positions.extend(0..sequence.ids.len() as u32),
            Some(padding) => {
                let counted = sequence.ids.iter().scan(padding, |position, id| {
                    *position += u32::from(*id != padding);
                    Some(if *id == padding { padding } else { *position })
                });
                self.positions.extend(counted);
            }
        }
        self.offsets.push(self.ids.len());
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
}

/// Which of a variable's two buffers.
#[derive(Clone, Copy)]
pub(super) enum Buffer {
    Value(Var),
    Gradient(Var),
}

impl Buffer {
    fn index(self) -> usize {
        match self {
            Buffer::Value(var) => 2 * var.0,
            Buffer::Gradient(var) => 2 * var.0 + 1,
        }
    }
}

/// The arena with the plan over it.
#[derive(Default)]
pub(super) struct Arena {
    memory: Vec<f32>,
    planner: Planner,
}

impl Arena {
    /// The named buffers, all at once.
    ///
    /// # Panics
    /// When two of them overlap, which the plan rules out for buffers an op declared.
    pub(super) fn buffers<const N: usize>(&mut self, names: [Buffer; N]) -> [&mut [f32]; N] {
        let ranges = names.map(|name| self.planner.range(name.index()));
        self.memory.get_disjoint_mut(ranges).expect("an op's buffers live at once, so the plan keeps them apart")
    }

    /// As [`Self::buffers`]; a name left away is an empty buffer.
    pub(super) fn optional<const N: usize>(&mut self, names: [Option<Buffer>; N]) -> [&mut [f32]; N] {
        let ranges = names.map(|name| name.map_or(0..0, |name| self.planner.range(name.index())));
        self.memory.get_disjoint_mut(ranges).expect("an op's buffers live at once, so the plan keeps them apart")
    }
}

/// A buffer of bf16 as it is.
pub(super) fn half(words: &mut [f32]) -> &mut [Bf16] {
    bytemuck::cast_slice_mut(words)
}

/// A model's parameters as ops read them.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The flat buffer.
    pub values: &'a [f32],
    /// The linear layers that run on bf16 values.
    pub packed: &'a Packed,
}

/// What an op's forward sees.
pub(super) struct Forward<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) weights: Weights<'a>,
    pub(super) batch: &'a Batch,
    pub(super) quantized: &'a mut QuantizedRows,
    pub(super) cache: Option<&'a mut KvCache>,
}

/// What an op's backward sees. Parameter gradients are added to `gradients`.
pub(super) struct Backward<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) weights: Weights<'a>,
    pub(super) gradients: &'a mut Gradients,
    pub(super) batch: &'a Batch,
    pub(super) scratch: &'a mut Scratch,
    written: &'a mut [bool],
}

impl Backward<'_> {
    /// True when this is not the first contribution to the gradient of `var`: it must be added.
    pub(super) fn adds(&mut self, var: Var) -> bool {
        std::mem::replace(&mut self.written[var.0], true)
    }
}

/// A program of fused ops over one batch.
#[derive(Default)]
pub struct Tape {
    mode: Mode,
    storage: Storage,
    ops: Vec<Op>,
    shapes: Vec<Shape>,
    lives: Vec<Option<Life>>,
    written: Vec<bool>,
    arena: Arena,
    scratch: Scratch,
    quantized: QuantizedRows,
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    storage: Storage,
    /// The value whose gradient buffer takes the gradient of this one.
    gradient: Var,
}

impl Tape {
    /// Starts a new program; memory is kept. With [`Storage::Bf16`], values between linear layers are bf16.
    pub fn start(&mut self, mode: Mode, storage: Storage) {
        (self.mode, self.storage) = (mode, storage);
        self.ops.clear();
        self.shapes.clear();
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// A new f32 value.
    pub(super) fn var(&mut self, rows: usize, columns: usize) -> Var {
        self.stored(rows, columns, Storage::F32)
    }

    /// A new value.
    pub(super) fn stored(&mut self, rows: usize, columns: usize, storage: Storage) -> Var {
        assert!(storage == Storage::F32 || columns.is_multiple_of(2), "rows of bf16 have an even length");
        let var = Var(self.shapes.len());
        self.shapes.push(Shape { rows, columns, storage, gradient: var });
        var
    }

    /// The state that an f32 value is: with bf16 storage it gets a copy, whose gradient is the value's own.
    pub(super) fn state(&mut self, full: Var) -> State {
        if self.storage == Storage::F32 {
            return State { full, operand: full };
        }
        let [rows, columns] = self.shape(full);
        let operand = self.stored(rows, columns, Storage::Bf16);
        self.shapes[operand.0].gradient = full;
        State { full, operand }
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// `[rows, columns]` of a value.
    pub fn shape(&self, var: Var) -> [usize; 2] {
        [self.shapes[var.0].rows, self.shapes[var.0].columns]
    }

    pub(super) fn storage_of(&self, var: Var) -> Storage {
        self.shapes[var.0].storage
    }

    /// The value whose gradient buffer takes the gradient of `var`.
    pub(super) fn gradient_of(&self, var: Var) -> Var {
        self.shapes[var.0].gradient
    }

    /// Words of 32 bits the arena holds: the peak memory of values and gradients.
    pub fn arena_len(&self) -> usize {
        self.arena.memory.len()
    }

    /// Runs the program; `result` stays readable until the next program.
    pub fn forward(&mut self, result: Var, weights: Weights, batch: &Batch) {
        self.run(result, weights, batch, None);
    }

    /// As [`Self::forward`], for ops that read and extend a cache.
    pub fn forward_cached(&mut self, result: Var, weights: Weights, batch: &Batch, cache: &mut KvCache) {
        self.run(result, weights, batch, Some(cache));
    }

    fn run(&mut self, result: Var, weights: Weights, batch: &Batch, cache: Option<&mut KvCache>) {
        self.plan(result);
        let (arena, quantized) = (&mut self.arena, &mut self.quantized);
        let mut pass = Forward { arena, weights, batch, quantized, cache };
        for op in &self.ops {
            op.forward(&mut pass);
        }
    }

    /// The value of the result (an f32 one) of the last [`Self::forward`].
    pub fn value(&mut self, result: Var) -> &[f32] {
        self.value_mut(result)
    }

    /// As [`Self::value`], to be changed in place.
    pub fn value_mut(&mut self, result: Var) -> &mut [f32] {
        let [value] = self.arena.buffers([Buffer::Value(result)]);
        value
    }

    /// Adds the parameter gradients of Σ `seed`·`result` to `gradients`, which the caller started. Needs [`Mode::Train`].
    pub fn backward(&mut self, result: Var, seed: &[f32], weights: Weights, gradients: &mut Gradients, batch: &Batch) {
        self.written.clear();
        self.written.resize(self.shapes.len(), false);
        let [gradient] = self.arena.buffers([Buffer::Gradient(result)]);
        gradient.copy_from_slice(seed);
        self.written[result.0] = true;
        for op in self.ops.iter().rev() {
            op.backward(&mut Backward {
                arena: &mut self.arena,
                weights,
                gradients,
                batch,
                scratch: &mut self.scratch,
                written: &mut self.written,
            });
        }
    }

    fn plan(&mut self, result: Var) {
        self.lives.clear();
        self.lives.resize(2 * self.shapes.len(), None);
        let last = 2 * self.ops.len();
        for tick in 0..self.ops.len() {
            self.live_forward(tick);
        }
        self.extend(Buffer::Value(result), last);
        if self.mode == Mode::Train {
            self.extend(Buffer::Gradient(result), self.ops.len());
            for tick in 0..self.ops.len() {
                self.live_backward(tick, last - 1 - tick);
            }
        }
        let total = self.arena.planner.place(&self.lives);
        if self.arena.memory.len() < total {
            self.arena.memory.resize(total, 0.0);
        }
    }

    fn live_forward(&mut self, tick: usize) {
        let uses = self.ops[tick].uses();
        for var in uses.reads.into_iter().chain(uses.writes).flatten() {
            self.extend(Buffer::Value(var), tick);
        }
    }

    fn live_backward(&mut self, op: usize, tick: usize) {
        let uses = self.ops[op].uses();
        for var in uses.saved.into_iter().flatten() {
            self.extend(Buffer::Value(var), tick);
        }
        for var in uses.inputs.into_iter().chain([Some(uses.output)]).flatten() {
            self.extend(Buffer::Gradient(var), tick);
        }
    }

    /// Stretches a buffer's life to hold at `tick`.
    fn extend(&mut self, buffer: Buffer, tick: usize) {
        let (Buffer::Value(var) | Buffer::Gradient(var)) = buffer;
        let shape = self.shapes[var.0];
        let len = match shape.storage {
            Storage::F32 => shape.rows * shape.columns,
            Storage::Bf16 => shape.rows * shape.columns / 2,
        };
        let life = self.lives[buffer.index()].get_or_insert(Life { len, birth: tick, death: tick });
        life.birth = life.birth.min(tick);
        life.death = life.death.max(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_each_familys_rule() {
        let ids = [0, 5, 1, 7];
        let mut batch = Batch::default();
        batch.push(Sequence { ids: &ids, type_ids: &[0; 4] }, None);
        batch.push(Sequence { ids: &ids, type_ids: &[0; 4] }, Some(1));
        assert_eq!(batch.positions, [0, 1, 2, 3, 2, 3, 1, 4]);
        assert_eq!((batch.offsets.as_slice(), batch.tokens(), batch.sequences()), ([0, 4, 8].as_slice(), 8, 2));
    }
}
