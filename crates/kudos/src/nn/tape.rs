//! The tape: a list of fused ops over planned buffers, run forward and then backward.
//!
//! A model pushes its ops for one packed batch; nothing is computed yet. [`Tape::forward`] first
//! derives from the list how long each value must live (in scoring until its last reader, in
//! training until the backward op that needs it), places all buffers in one arena, and then runs.
//! [`Tape::backward`] walks the list in reverse. Arena and lists are reused from step to step.

use super::batch::Batch;
use super::cache::KvCache;
use super::gradients::Gradients;
use super::ops::{Op, Use, Uses};
use super::packed::Packed;
use super::plan::{Life, Planner};
use crate::random::Stream;
use kernels::bf16::Bf16;
use kernels::gemm::{QuantizedRows, Scratch};
use std::ops::Range;

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
    /// The first element of `memory` that lies on a cache line: the plan counts from there.
    start: usize,
    planner: Planner,
}

/// Bytes of a cache line. The plan places buffers at multiples of one.
const CACHE_LINE: usize = 64;

impl Arena {
    /// Makes room for `len` elements from the first cache line on. New memory is neither copied into nor touched; a
    /// quarter more than before is taken at least, so that batches that grow do not each take new memory.
    fn reserve(&mut self, len: usize) {
        if self.memory.len() < self.start + len {
            let len = len.max(self.memory.len() / 4 * 5);
            self.memory = Vec::new();
            self.memory = vec![0.0; len + CACHE_LINE / size_of::<f32>()];
            self.start = self.memory.as_ptr().align_offset(CACHE_LINE);
        }
    }

    /// What the plan counts in.
    fn lines(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..]
    }

    /// The named buffers, all at once.
    ///
    /// # Panics
    /// When two of them overlap, which the plan rules out for buffers an op declared.
    pub(super) fn buffers<const N: usize>(&mut self, names: [Buffer; N]) -> [&mut [f32]; N] {
        let ranges = names.map(|name| self.planner.range(name.index()));
        self.lines().get_disjoint_mut(ranges).expect("an op's buffers live at once, so the plan keeps them apart")
    }

    /// As [`Self::buffers`]; a name left away is an empty buffer.
    pub(super) fn optional<const N: usize>(&mut self, names: [Option<Buffer>; N]) -> [&mut [f32]; N] {
        let ranges = names.map(|name| name.map_or(0..0, |name| self.planner.range(name.index())));
        self.lines().get_disjoint_mut(ranges).expect("an op's buffers live at once, so the plan keeps them apart")
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
    /// What dropout draws from; none of it, no dropout.
    noise: Option<Stream>,
    shapes: Vec<Shape>,
    /// Ops up to the last [`Tape::detach`]: they have no way back.
    detached: usize,
    /// Whether a [`Tape::detach`] will follow.
    detaching: bool,
    /// Where the layers begin.
    marks: Vec<usize>,
    /// Ops that the way back has not reached.
    ahead: usize,
    /// Runs of ops that are computed again on the way back instead of being kept.
    recomputed: Vec<Range<usize>>,
    /// The segment that each value was made in.
    segments: Vec<Option<usize>>,
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
        (self.detached, self.detaching) = (0, false);
        self.recomputed.clear();
        self.marks.clear();
    }

    /// The next layer begins here: the way back can halt before what is pushed until now ([`Self::backward_to`]).
    pub fn mark(&mut self) {
        self.marks.push(self.ops.len());
    }

    /// What is pushed from here to [`Self::end_recomputed`] is not kept for the way back but computed again there, from
    /// what stands before it: the same numbers, for one more way forward.
    pub fn begin_recomputed(&mut self) {
        let start = self.ops.len();
        self.recomputed.push(start..start);
    }

    /// Ends such a part.
    ///
    /// # Panics
    /// When none has begun.
    pub fn end_recomputed(&mut self) {
        self.recomputed.last_mut().expect("a part has begun").end = self.ops.len();
    }

    /// Words of 32 bits that the values and gradients of the program would take; nothing is run.
    pub fn needed(&mut self, result: Var) -> usize {
        self.plan(result)
    }

    /// What is pushed from here to [`Self::detach`] is computed as in scoring: nothing of it is trained.
    pub fn begin_detached(&mut self) {
        self.detaching = true;
    }

    /// Ends what has no way back: [`Self::backward`] stops here.
    pub fn detach(&mut self) {
        self.detaching = false;
        self.detached = self.ops.len();
    }

    /// Dropout draws from `noise` from now on, each op from its own part of it. Without it, and when scoring, nothing is
    /// dropped.
    pub fn draw_from(&mut self, noise: Stream) {
        self.noise = Some(noise);
    }

    /// What the op that is pushed next draws from.
    pub(super) fn noise(&self) -> Option<Stream> {
        let training = self.noise.as_ref().filter(|_| self.mode == Mode::Train);
        training.map(|noise| noise.fork(self.ops.len() as u64))
    }

    pub(super) fn mode(&self) -> Mode {
        if self.detaching { Mode::Score } else { self.mode }
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
        let trainable = self.mode == Mode::Score || weights.packed.is_trainable();
        assert!(trainable, "these weights are packed for scoring: train on what `Packed::for_training` gives");
        let total = self.plan(result);
        self.arena.reserve(total);
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
    ///
    /// # Panics
    /// When the program was started in another mode.
    pub fn backward(&mut self, result: Var, seed: &[f32], weights: Weights, gradients: &mut Gradients, batch: &Batch) {
        self.begin_backward(result, seed);
        self.backward_to(None, weights, gradients, batch);
    }

    /// Begins the way back of Σ `seed`·`result`, which goes on in parts by [`Self::backward_to`].
    ///
    /// # Panics
    /// When the program was started in another mode.
    pub fn begin_backward(&mut self, result: Var, seed: &[f32]) {
        assert!(self.mode == Mode::Train, "a program to score has no way back");
        self.written.clear();
        self.written.resize(self.shapes.len(), false);
        let [gradient] = self.arena.buffers([Buffer::Gradient(result)]);
        gradient.copy_from_slice(seed);
        self.written[result.0] = true;
        self.ahead = self.ops.len();
    }

    /// Goes back to the beginning of a marked layer, or of all. The parameters of what lies behind it may then move.
    ///
    /// # Panics
    /// When no layer of that number was marked.
    pub fn backward_to(&mut self, layer: Option<usize>, weights: Weights, gradients: &mut Gradients, batch: &Batch) {
        let end = layer.map_or(0, |layer| self.marks[layer]).max(self.detached);
        let reached = std::mem::replace(&mut self.ahead, end);
        for (tick, op) in self.ops.iter().enumerate().take(reached).skip(end).rev() {
            if let Some(segment) = self.recomputed.iter().find(|segment| segment.end == tick + 1 && !segment.is_empty())
            {
                let (arena, quantized) = (&mut self.arena, &mut self.quantized);
                let mut pass = Forward { arena, weights, batch, quantized, cache: None };
                self.ops[segment.clone()].iter().for_each(|op| op.forward(&mut pass));
            }
            op.uses(&mut Uses(&mut |how, output| {
                if how == Use::Takes && !self.written[output.0] {
                    // Nobody reads this value, so no op wrote its gradient, which is zero.
                    let [gradient] = self.arena.buffers([Buffer::Gradient(output)]);
                    gradient.fill(0.0);
                }
            }));
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

    /// Places all buffers; gives the words that they take.
    fn plan(&mut self, result: Var) -> usize {
        let mut lives = std::mem::take(&mut self.lives);
        lives.clear();
        lives.resize(2 * self.shapes.len(), None);
        self.find_segments();
        let last = 2 * self.ops.len();
        self.extend(&mut lives, Buffer::Value(result), last);
        if self.mode == Mode::Train {
            self.extend(&mut lives, Buffer::Gradient(result), self.ops.len());
        }
        for (tick, op) in self.ops.iter().enumerate() {
            let mode = if tick < self.detached { Mode::Score } else { self.mode };
            let segment = self.segment_of(tick).filter(|_| mode == Mode::Train);
            op.uses(&mut Uses(&mut |how, var| match (how, mode) {
                (Use::Reads | Use::Writes, _) => {
                    self.extend(&mut lives, Buffer::Value(var), tick);
                    if let Some(segment) = segment {
                        // Where the segment begins to be computed again.
                        self.hold(&mut lives, var, segment, last - self.recomputed[segment].end);
                    }
                }
                (Use::Saves, Mode::Train) => match segment {
                    Some(segment) => self.hold(&mut lives, var, segment, last - 1 - tick),
                    None => self.extend(&mut lives, Buffer::Value(var), last - 1 - tick),
                },
                (Use::Takes | Use::Gives, Mode::Train) => {
                    self.extend(&mut lives, Buffer::Gradient(var), last - 1 - tick);
                }
                (_, Mode::Score) => {}
            }));
        }
        let total = self.arena.planner.place(&lives);
        self.lives = lives;
        total
    }

    /// Finds out in which segment each value is made.
    fn find_segments(&mut self) {
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        segments.resize(self.shapes.len(), None);
        if !self.recomputed.is_empty() {
            for (tick, op) in self.ops.iter().enumerate() {
                let segment = self.segment_of(tick);
                op.uses(&mut Uses(&mut |how, var| {
                    if how == Use::Writes {
                        segments[var.0] = segment;
                    }
                }));
            }
        }
        self.segments = segments;
    }

    /// The recomputed segment that an op is in.
    fn segment_of(&self, tick: usize) -> Option<usize> {
        self.recomputed.iter().position(|segment| segment.contains(&tick))
    }

    /// Holds a value at a tick of the way back for a segment that is computed again: a value of its own has a second life,
    /// any other is kept.
    fn hold(&self, lives: &mut [Option<Life>], var: Var, segment: usize, tick: usize) {
        if self.segments[var.0] == Some(segment) {
            let index = Buffer::Value(var).index();
            lives[index].as_mut().expect("a value is made before it is held").extend_again(tick);
        } else {
            self.extend(lives, Buffer::Value(var), tick);
        }
    }

    /// Stretches a buffer's life to hold at `tick`.
    fn extend(&self, lives: &mut [Option<Life>], buffer: Buffer, tick: usize) {
        let (Buffer::Value(var) | Buffer::Gradient(var)) = buffer;
        let shape = self.shapes[var.0];
        let len = match shape.storage {
            Storage::F32 => shape.rows * shape.columns,
            Storage::Bf16 => shape.rows * shape.columns / 2,
        };
        lives[buffer.index()].get_or_insert(Life::at(len, tick)).extend(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;
    use crate::nn::{LinearSpec, PackedLayer, Span};

    const CACHE_LINE: usize = 64;

    fn linear(start: usize, outputs: usize) -> LinearSpec {
        let weight = Span { start, len: 3 * outputs };
        LinearSpec { weight, bias: Span { start: start + weight.len, len: outputs }, inputs: 3, outputs }
    }

    fn states(tape: &mut Tape, batch: &Batch) -> Var {
        let table = |start, rows: usize| Span { start, len: rows * 3 };
        tape.embed(batch, 3, table(0, 7), table(21, 5), None)
    }

    /// The gradient buffer of a value that no op reads holds whatever lay there before: its producer must take zeros.
    #[test]
    fn c10_a_value_that_nobody_reads_has_no_gradient() {
        check::gradients(36 + 12 + 20, |tape, batch| {
            let x = states(tape, batch);
            let read = tape.linear(x, linear(36, 3), None);
            tape.linear(x, linear(48, 5), Some(kernels::activation::Activation::Gelu));
            read
        });
    }

    #[test]
    #[should_panic(expected = "packed for scoring")]
    fn c10_weights_that_were_packed_for_scoring_are_refused_in_training() {
        let (batch, values) = (check::batch(), vec![0.5; 48]);
        let spec = linear(36, 3);
        let weight = kernels::gemm::Int8Weight::new(&[1; 64 * 16], vec![1.0; 16], 64);
        let layer = PackedLayer::Int8(weight);
        let packed = Packed::new(vec![(spec, layer)]);
        let mut tape = Tape::default();
        tape.start(Mode::Train, Storage::F32);
        let x = states(&mut tape, &batch);
        let y = tape.linear(x, spec, None);
        tape.forward(y, Weights { values: &values, packed: &packed }, &batch);
    }

    /// What lies before stays as it is and costs no memory; what lies behind has the gradients that it had.
    #[test]
    fn what_is_detached_has_no_way_back() {
        let (batch, values) = (check::batch(), check::weights(36 + 12 + 20));
        let run = |detach: bool| {
            let mut tape = Tape::default();
            tape.start(Mode::Train, Storage::F32);
            if detach {
                tape.begin_detached();
            }
            let x = states(&mut tape, &batch);
            let x = tape.linear(x, linear(36, 3), Some(kernels::activation::Activation::Gelu));
            if detach {
                tape.detach();
            }
            let y = tape.linear(x, linear(48, 5), None);
            let weights = Weights { values: &values, packed: &Packed::default() };
            tape.forward(y, weights, &batch);
            let value = tape.value(y).to_vec();
            let mut gradients = check::flat(values.len());
            gradients.start();
            tape.backward(y, &vec![0.5; value.len()], weights, &mut gradients, &batch);
            (value, gradients.values().to_vec(), tape.arena_len())
        };
        let ((value, whole, memory), (same, detached, less)) = (run(false), run(true));
        assert_eq!(value, same);
        assert_eq!(detached[48..], whole[48..]);
        assert!(detached[..48].iter().all(|d| *d == 0.0) && whole[..48].iter().any(|d| *d != 0.0));
        assert!(less < memory, "{less} words, {memory} with a way back");
    }

    /// The same numbers with less memory.
    #[test]
    fn what_is_computed_again_has_the_same_gradients() {
        let (batch, values) = (check::batch(), check::weights(36 + 5 * 12));
        let run = |recomputed: &[usize]| {
            let mut tape = Tape::default();
            tape.start(Mode::Train, Storage::F32);
            let mut x = states(&mut tape, &batch);
            for layer in 0..5 {
                if recomputed.contains(&layer) {
                    tape.begin_recomputed();
                }
                for _ in 0..3 {
                    x = tape.linear(x, linear(36 + 12 * layer, 3), Some(kernels::activation::Activation::Gelu));
                }
                if recomputed.contains(&layer) {
                    tape.end_recomputed();
                }
            }
            let weights = Weights { values: &values, packed: &Packed::default() };
            let needed = tape.needed(x);
            tape.forward(x, weights, &batch);
            let value = tape.value(x).to_vec();
            let mut gradients = check::flat(values.len());
            gradients.start();
            tape.backward(x, &vec![0.5; value.len()], weights, &mut gradients, &batch);
            assert_eq!(tape.value(x), value, "the result stays readable");
            (value, gradients.values().to_vec(), needed)
        };
        let (value, gradients, most) = run(&[]);
        for recomputed in [&[0][..], &[4], &[1, 3], &[0, 1, 2, 3, 4]] {
            let (same, again, needed) = run(recomputed);
            assert_eq!((&same, &again), (&value, &gradients), "{recomputed:?}");
            assert!(
                needed < most || recomputed.len() == 1 && needed <= most,
                "{recomputed:?}: {needed} of {most} words"
            );
        }
    }

    #[test]
    fn p9_every_value_starts_on_a_cache_line() {
        let (batch, values) = (check::batch(), vec![0.5; 48]);
        let mut tape = Tape::default();
        for mode in [Mode::Score, Mode::Train, Mode::Score] {
            tape.start(mode, Storage::F32);
            let x = states(&mut tape, &batch);
            let y = tape.linear(x, linear(36, 3), None);
            tape.forward(y, Weights { values: &values, packed: &Packed::default() }, &batch);
            for var in [x, y] {
                let [value] = tape.arena.buffers([Buffer::Value(var)]);
                assert!((value.as_ptr() as usize).is_multiple_of(CACHE_LINE));
            }
        }
    }
}
