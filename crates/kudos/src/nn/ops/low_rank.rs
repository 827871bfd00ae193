//! Low-rank adapters of a linear layer (Hu et al. 2021, LoRA): `y += s·(drop(x)·Aᵀ)·Bᵀ`, before the activation.
//!
//! A layer of several joined products has an adapter for each of them, in its own range of the outputs. Their A lie side
//! by side and make one product, [`Down`]. [`Up`] adds what each B makes of its part to y in place. On the tape the
//! layer's own product stands between the two: on the way back it writes the gradient of x, and [`Down`] adds to it.
//!
//! A, B and their gradients are f32, whatever x and y are stored as. Over values of bf16, products round both sides to
//! bf16 and sum in f32, as those of the layers do. Odd ranks, and inputs of which some are dropped, are widened instead.

use super::linear::LinearSpec;
use super::{Op, Uses};
use crate::nn::parameters::Span;
use crate::nn::tape::{Backward, Buffer, Forward, Storage, Tape, Var, half};
use crate::random::Stream;
use kernels::activation::Activation;
use kernels::bf16::{Bf16, Element};
use kernels::columns::{self, Columns};
use kernels::gemm::low_rank::{self, Lies, Target};
use kernels::gemm::{Store, linear, linear_input_gradient, linear_weight_gradient};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// The adapter of one of the products that a layer joins.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankPart {
    /// Its outputs among the layer's.
    pub outputs: Range<usize>,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// `[rank, inputs]`.
    pub a: Span,
    /// `[outputs, rank]`.
    pub b: Span,
    /// What B's output is multiplied by.
    pub scale: f32,
}

impl LowRankPart {
    /// `s·B`.
    fn scaled_b(&self, weights: &[f32]) -> Vec<f32> {
        weights[self.b.range()].iter().map(|value| self.scale * value).collect()
    }

    /// What of it lies in `range`, counted from its start.
    fn rows(&self, range: &Range<usize>) -> Option<Self> {
        let start = self.outputs.start.max(range.start);
        let end = self.outputs.end.min(range.end);
        let first = self.b.start + start.saturating_sub(self.outputs.start) * self.rank;
        (start < end).then(|| Self {
            outputs: start - range.start..end - range.start,
            b: Span { start: first, len: (end - start) * self.rank },
            ..self.clone()
        })
    }
}

/// The adapters of a layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LowRank {
    /// In the order of their outputs. Their A lie side by side in the parameters.
    pub parts: Vec<LowRankPart>,
    /// Chance of a value of x to be dropped on its way to A, when training.
    pub dropout: f32,
}

impl LowRank {
    /// The adapters of the outputs `range` alone. One that reaches beyond it gives the rows of its B that lie in it.
    pub fn rows(&self, range: Range<usize>) -> Self {
        Self { parts: self.parts.iter().filter_map(|part| part.rows(&range)).collect(), dropout: self.dropout }
    }

    /// Rows of all A together.
    fn rank(&self) -> usize {
        self.parts.iter().map(|part| part.rank).sum()
    }

    /// Whether all products run on pairs of bf16.
    fn is_even(&self, inputs: usize) -> bool {
        let even = |n: usize| n.is_multiple_of(2);
        let part = |part: &LowRankPart| even(part.rank) && even(part.outputs.start) && even(part.outputs.len());
        even(inputs) && self.parts.iter().all(part)
    }

    /// All A, `[rank, inputs]`.
    fn a(&self) -> Span {
        Span::join(&self.parts.iter().map(|part| part.a).collect::<Vec<_>>())
    }
}

impl Tape {
    /// [`Tape::linear`] with what the adapters add to the product; without any, that alone.
    pub fn adapted_linear(&mut self, x: Var, spec: LinearSpec, adapters: &LowRank, act: Option<Activation>) -> Var {
        if adapters.parts.is_empty() {
            return self.linear(x, spec, act);
        }
        let z = self.down(x, adapters);
        let y = self.linear(x, spec, None);
        self.up(z, y, adapters);
        match act {
            None => y,
            Some(act) => self.activate(y, act),
        }
    }

    /// `drop(x)·Aᵀ`: `[rows, inputs]` → `[rows, rank]`.
    fn down(&mut self, x: Var, adapters: &LowRank) -> Var {
        let ([rows, inputs], storage, dx) = (self.shape(x), self.storage_of(x), self.gradient_of(x));
        let (a, rank) = (adapters.a(), adapters.rank());
        assert_eq!(a.len, rank * inputs, "A of {rank} rows");
        let drop = self.noise().and_then(|stream| Drop::new(adapters.dropout, stream));
        let in_pairs = storage == Storage::Bf16 && drop.is_none() && adapters.is_even(inputs);
        let z = self.stored(rows, rank, if in_pairs { Storage::Bf16 } else { Storage::F32 });
        let dx_storage = self.storage_of(dx);
        self.push(Op::Down(Down { x, dx, z, a, rank, inputs, drop, storage, dx_storage, in_pairs }));
        z
    }

    /// `y += s·z·Bᵀ`, in place.
    fn up(&mut self, z: Var, y: Var, adapters: &LowRank) {
        let ([_, width], storage) = (self.shape(y), self.storage_of(y));
        let inside = |part: &LowRankPart| part.outputs.end <= width && part.b.len == part.outputs.len() * part.rank;
        assert!(adapters.parts.iter().all(inside), "B has a row for each output");
        let (parts, rank) = (adapters.parts.clone(), adapters.rank());
        let in_pairs = self.storage_of(z) == Storage::Bf16;
        self.push(Op::Up(Up { z, y, parts, rank, width, storage, in_pairs }));
    }
}

/// Rows that are widened at a time: what they take stays in a cache.
const BLOCK: usize = 256;

thread_local! {
    /// Memory of one op.
    static MEMORY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with two slices of these lengths, of unspecified content.
fn with_memory(lengths: [usize; 2], work: impl FnOnce(&mut [f32], &mut [f32])) {
    // Taken out, because the thread may run another task while it waits for the rows of this one.
    let mut memory = MEMORY.take();
    memory.resize(memory.len().max(lengths[0] + lengths[1]), 0.0);
    let (first, rest) = memory.split_at_mut(lengths[0]);
    work(first, &mut rest[..lengths[1]]);
    MEMORY.set(memory);
}

/// Which values are dropped, as a function of their place, and what the others are multiplied by.
#[derive(Clone, Debug)]
struct Drop {
    stream: Stream,
    /// A value with 16 bits below this is dropped.
    below: u64,
}

impl Drop {
    /// `None` where nothing is dropped.
    fn new(rate: f32, stream: Stream) -> Option<Self> {
        let below = (f64::from(rate) * 65536.0).round() as u64;
        (below > 0).then_some(Self { stream, below })
    }

    /// Drops of `values`, whose first is value `first` (a multiple of 4) of all.
    fn apply(&self, values: &mut [f32], first: usize) {
        let kept = (65536.0 / (65536.0 - self.below as f64)) as f32;
        values.par_chunks_mut(1 << 12).enumerate().for_each(|(chunk, values)| {
            for (at, four) in values.chunks_mut(4).enumerate() {
                let bits = self.stream.bits_at((first / 4 + (chunk << 10) + at) as u64);
                for (lane, value) in four.iter_mut().enumerate() {
                    let dropped = bits >> (16 * lane) & 0xffff < self.below;
                    *value = if dropped { 0.0 } else { kept * *value };
                }
            }
        });
    }
}

/// All columns of rows of `width` values.
fn whole(width: usize) -> Columns {
    Columns { first: 0, count: width, width }
}

/// `z = drop(x)·Aᵀ`.
pub(in crate::nn) struct Down {
    x: Var,
    /// Whose gradient buffer x's gradient goes to.
    dx: Var,
    z: Var,
    a: Span,
    rank: usize,
    inputs: usize,
    drop: Option<Drop>,
    storage: Storage,
    dx_storage: Storage,
    /// Whether x and z are of bf16 and multiplied so.
    in_pairs: bool,
}

impl Down {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.x]).writes([self.z]).saves([self.x]).takes([self.z]).gives([self.dx]);
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let a = &pass.weights.values[self.a.range()];
        let [x, z] = pass.arena.buffers([self.x, self.z].map(Buffer::Value));
        match self.storage {
            _ if self.in_pairs => {
                let out = Target { data: half(z), columns: whole(self.rank), store: Store::Replace };
                low_rank::linear(out, low_rank::Part { data: half(x), columns: whole(self.inputs) }, a);
            }
            Storage::F32 => self.product(z, x, a),
            Storage::Bf16 => self.product(z, half(x), a),
        }
    }

    fn product<T: Element>(&self, z: &mut [f32], x: &[T], a: &[f32]) {
        let blocks = z.chunks_mut(BLOCK * self.rank).zip(x.chunks(BLOCK * self.inputs));
        with_memory([BLOCK * self.inputs, 0], |memory, _| {
            for (block, (z, x)) in blocks.enumerate() {
                let rows = x.len() / self.inputs;
                linear(z, self.read(memory, x, block), a, rows, self.inputs, self.rank);
            }
        });
    }

    /// A block of x as A reads it.
    fn read<'a, T: Element>(&self, memory: &'a mut [f32], x: &[T], block: usize) -> &'a [f32] {
        let memory = &mut memory[..x.len()];
        columns::take(memory, x, whole(self.inputs), 1.0);
        if let Some(drop) = &self.drop {
            drop.apply(memory, block * BLOCK * self.inputs);
        }
        memory
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        let added = pass.adds(self.dx);
        let a = &pass.weights.values[self.a.range()];
        let buffers = [Buffer::Gradient(self.z), Buffer::Value(self.x), Buffer::Gradient(self.dx)];
        let [dz, x, dx] = pass.arena.buffers(buffers);
        let da = pass.gradients.spans([self.a]).map(|([da], store)| (da, store));
        if self.in_pairs {
            let store = if added { Store::Add } else { Store::Replace };
            return self.backward_in_pairs(da, (dx, store), [half(dz), half(x)], a);
        }
        if !added {
            dx.fill(0.0);
        }
        if let Some((da, store)) = da {
            match self.storage {
                Storage::F32 => self.weight_gradient(da, store, dz, x),
                Storage::Bf16 => self.weight_gradient(da, store, dz, half(x)),
            }
        }
        match self.dx_storage {
            Storage::F32 => self.input_gradient(dx, dz, a),
            Storage::Bf16 => self.input_gradient(half(dx), dz, a),
        }
    }

    fn backward_in_pairs(
        &self,
        da: Option<(&mut [f32], Store)>,
        (dx, store): (&mut [f32], Store),
        [dz, x]: [&[Bf16]; 2],
        a: &[f32],
    ) {
        let (columns, dz) = (whole(self.inputs), low_rank::Part { data: dz, columns: whole(self.rank) });
        if let Some((da, store)) = da {
            low_rank::weight_gradient(da, Lies::Thin, store, low_rank::Part { data: x, columns }, dz, 1.0);
        }
        match self.dx_storage {
            Storage::F32 => low_rank::input_gradient(Target { data: dx, columns, store }, dz, a),
            Storage::Bf16 => low_rank::input_gradient(Target { data: half(dx), columns, store }, dz, a),
        }
    }

    fn weight_gradient<T: Element>(&self, da: &mut [f32], mut store: Store, dz: &[f32], x: &[T]) {
        let blocks = dz.chunks(BLOCK * self.rank).zip(x.chunks(BLOCK * self.inputs));
        with_memory([BLOCK * self.inputs, 0], |memory, _| {
            for (block, (dz, x)) in blocks.enumerate() {
                let rows = x.len() / self.inputs;
                let x = self.read(memory, x, block);
                linear_weight_gradient(da, store, dz, x, rows, self.inputs, self.rank);
                store = Store::Add;
            }
        });
    }

    fn input_gradient<T: Element>(&self, dx: &mut [T], dz: &[f32], a: &[f32]) {
        let blocks = dz.chunks(BLOCK * self.rank).zip(dx.chunks_mut(BLOCK * self.inputs));
        with_memory([BLOCK * self.inputs, 0], |memory, _| {
            for (block, (dz, dx)) in blocks.enumerate() {
                let own = &mut memory[..dx.len()];
                linear_input_gradient(own, Store::Replace, dz, a, dx.len() / self.inputs, self.inputs, self.rank);
                if let Some(drop) = &self.drop {
                    drop.apply(own, block * BLOCK * self.inputs);
                }
                columns::add(dx, own, whole(self.inputs), 1.0);
            }
        });
    }
}

/// `y += s·z·Bᵀ`, each part in its own columns of y.
pub(in crate::nn) struct Up {
    z: Var,
    y: Var,
    parts: Vec<LowRankPart>,
    /// Columns of z.
    rank: usize,
    /// Columns of y.
    width: usize,
    storage: Storage,
    /// Whether z and y are of bf16 and multiplied so.
    in_pairs: bool,
}

impl Up {
    pub(super) fn uses(&self, uses: &mut Uses) {
        uses.reads([self.z, self.y]).writes([self.y]).saves([self.z]).takes([self.y]).gives([self.z]);
    }

    /// Each part, its columns of z and its columns of y.
    fn each(&self) -> impl Iterator<Item = (&LowRankPart, Columns, Columns)> {
        let mut first = 0;
        self.parts.iter().map(move |part| {
            let of_z = Columns { first, count: part.rank, width: self.rank };
            first += part.rank;
            (part, of_z, Columns { first: part.outputs.start, count: part.outputs.len(), width: self.width })
        })
    }

    pub(super) fn forward(&self, pass: &mut Forward) {
        let weights = pass.weights.values;
        let [z, y] = pass.arena.buffers([self.z, self.y].map(Buffer::Value));
        match self.storage {
            _ if self.in_pairs => {
                for (part, of_z, of_y) in self.each() {
                    let out = Target { data: half(y), columns: of_y, store: Store::Add };
                    low_rank::linear(out, low_rank::Part { data: half(z), columns: of_z }, &part.scaled_b(weights));
                }
            }
            Storage::F32 => self.add_products(y, z, weights),
            Storage::Bf16 => self.add_products(half(y), z, weights),
        }
    }

    fn add_products<T: Element>(&self, y: &mut [T], z: &[f32], weights: &[f32]) {
        with_memory([BLOCK * self.rank, BLOCK * self.width], |own_z, added| {
            for (z, y) in z.chunks(BLOCK * self.rank).zip(y.chunks_mut(BLOCK * self.width)) {
                let rows = z.len() / self.rank;
                for (part, of_z, of_y) in self.each() {
                    let (own_z, added) = (&mut own_z[..rows * of_z.count], &mut added[..rows * of_y.count]);
                    columns::take(own_z, z, of_z, 1.0);
                    linear(added, own_z, &weights[part.b.range()], rows, of_z.count, of_y.count);
                    columns::add(y, added, of_y, part.scale);
                }
            }
        });
    }

    pub(super) fn backward(&self, pass: &mut Backward) {
        pass.adds(self.z);
        let buffers = [Buffer::Gradient(self.y), Buffer::Value(self.z), Buffer::Gradient(self.z)];
        let [dy, z, dz] = pass.arena.buffers(buffers);
        dz.fill(0.0);
        for (part, of_z, of_y) in self.each() {
            let b = &pass.weights.values[part.b.range()];
            let db = pass.gradients.spans([part.b]).map(|([db], store)| (db, store));
            if self.in_pairs {
                let dy = low_rank::Part { data: half(dy), columns: of_y };
                let out = Target { data: half(dz), columns: of_z, store: Store::Replace };
                low_rank::input_gradient(out, dy, &part.scaled_b(pass.weights.values));
                if let Some((db, store)) = db {
                    let z = low_rank::Part { data: half(z), columns: of_z };
                    low_rank::weight_gradient(db, Lies::Wide, store, dy, z, part.scale);
                }
                continue;
            }
            let gradients = PartGradients { db, dz: &mut *dz, z, b, scale: part.scale, of_z, of_y };
            match self.storage {
                Storage::F32 => gradients.run(dy),
                Storage::Bf16 => gradients.run(half(dy)),
            }
        }
    }
}

/// The gradients of one part: of its B, and of its columns of z, which are added.
struct PartGradients<'a> {
    db: Option<(&'a mut [f32], Store)>,
    dz: &'a mut [f32],
    z: &'a [f32],
    b: &'a [f32],
    scale: f32,
    of_z: Columns,
    of_y: Columns,
}

impl PartGradients<'_> {
    fn run<T: Element>(mut self, dy: &[T]) {
        let Self { of_z, of_y, scale, .. } = self;
        with_memory([BLOCK * of_z.count, BLOCK * of_y.count], |thin, own_dy| {
            let blocks = self.dz.chunks_mut(BLOCK * of_z.width).zip(self.z.chunks(BLOCK * of_z.width));
            for ((dz, z), dy) in blocks.zip(dy.chunks(BLOCK * of_y.width)) {
                let rows = z.len() / of_z.width;
                let (thin, own_dy) = (&mut thin[..rows * of_z.count], &mut own_dy[..rows * of_y.count]);
                columns::take(own_dy, dy, of_y, scale);
                if let Some((db, store)) = &mut self.db {
                    columns::take(thin, z, of_z, 1.0);
                    linear_weight_gradient(db, *store, own_dy, thin, rows, of_z.count, of_y.count);
                    *store = Store::Add;
                }
                linear_input_gradient(thin, Store::Replace, own_dy, self.b, rows, of_z.count, of_y.count);
                columns::add(dz, thin, of_z, 1.0);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ops::check;
    use crate::nn::{
        Batch, EmbedSpec, Gradients, Initial, Mode, NormKind, NormSpec, Packed, PackedLayer, Parameters, Precision,
        State, Weights,
    };
    use kernels::gemm::{NarrowWeight, PackedWeight, Width};

    fn span(at: &mut usize, len: usize) -> Span {
        *at += len;
        Span { start: *at - len, len }
    }

    /// x of 3 columns, a layer of 3 → 5 at 36 and adapters of ranks 2 and 1 in outputs 0..2 and 3..5.
    fn adapted(tape: &mut Tape, batch: &Batch, act: Option<Activation>, dropout: f32) -> Var {
        let mut at = 0;
        let [words, segments] = [21, 15].map(|len| span(&mut at, len));
        let x = tape.embed(batch, 3, words, segments, None);
        let [weight, bias] = [15, 5].map(|len| span(&mut at, len));
        let [a, other_a, b, other_b] = [6, 3, 4, 2].map(|len| span(&mut at, len));
        let parts = vec![
            LowRankPart { outputs: 0..2, rank: 2, a, b, scale: 1.5 },
            LowRankPart { outputs: 3..5, rank: 1, a: other_a, b: other_b, scale: -0.5 },
        ];
        let spec = LinearSpec { weight, bias, inputs: 3, outputs: 5 };
        tape.adapted_linear(x, spec, &LowRank { parts, dropout }, act)
    }

    const PARAMETERS: usize = 36 + 20 + 15;

    #[test]
    fn gradients_match_finite_differences() {
        for act in [None, Some(Activation::Gelu), Some(Activation::Tanh)] {
            check::gradients(PARAMETERS, |tape, batch| adapted(tape, batch, act, 0.0));
        }
    }

    /// The same values are dropped on the way forward and back.
    #[test]
    fn gradients_under_dropout_match_finite_differences() {
        check::gradients(PARAMETERS, |tape, batch| {
            tape.draw_from(Stream::new(5, 1));
            adapted(tape, batch, Some(Activation::Tanh), 0.4)
        });
    }

    fn run(mode: Mode, noise: Option<Stream>) -> Vec<f32> {
        let (mut tape, batch, values) = (Tape::default(), check::batch(), check::weights(PARAMETERS));
        tape.start(mode, Storage::F32);
        noise.into_iter().for_each(|noise| tape.draw_from(noise));
        let y = adapted(&mut tape, &batch, None, 0.4);
        tape.forward(y, Weights { values: &values, packed: &Packed::default() }, &batch);
        tape.value(y).to_vec()
    }

    #[test]
    fn dropout_depends_on_the_noise_and_is_off_when_scoring() {
        let scored = run(Mode::Score, Some(Stream::new(5, 1)));
        assert_eq!(scored, run(Mode::Train, None));
        let [one, again, other] = [1, 1, 2].map(|step| run(Mode::Train, Some(Stream::new(5, step))));
        assert_eq!(one, again);
        assert!(one != other && one != scored);
        assert!(one.chunks(5).zip(scored.chunks(5)).all(|(one, all)| one[2] == all[2]), "a column without an adapter");
    }

    #[test]
    fn as_many_are_dropped_as_was_asked_and_the_mean_stays() {
        let drop = Drop::new(0.3, Stream::new(1, 1)).unwrap();
        let mut values = vec![1.0; 1 << 18];
        drop.apply(&mut values, 0);
        let dropped = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        assert!((dropped - 0.3).abs() < 0.005 && (mean - 1.0).abs() < 0.01, "{dropped} {mean}");
        let mut rest = vec![1.0; (1 << 18) - 8];
        drop.apply(&mut rest, 8);
        assert_eq!(rest, values[8..], "a value's lot is a matter of its place");
        assert!(Drop::new(0.0, Stream::new(1, 1)).is_none());
    }

    #[test]
    fn a_range_of_the_outputs_has_its_own_adapters() {
        let part = |outputs: Range<usize>, start| LowRankPart {
            rank: 1,
            a: Span { start, len: 3 },
            b: Span { start: 100 + start, len: outputs.len() },
            outputs,
            scale: 2.0,
        };
        let all = LowRank { parts: vec![part(0..4, 0), part(4..6, 3), part(6..8, 6)], dropout: 0.1 };
        assert_eq!(all.rows(0..4), LowRank { parts: vec![part(0..4, 0)], dropout: 0.1 });
        let moved = [part(0..2, 3), part(2..4, 6)]
            .map(|part| LowRankPart { b: Span { start: part.b.start, ..part.b }, ..part });
        assert_eq!(all.rows(4..8).parts, moved);
        let across = LowRank { parts: vec![LowRankPart { rank: 2, ..part(0..6, 0) }], dropout: 0.0 };
        let [before, after] = [0..2, 2..6].map(|range| across.rows(range).parts[0].clone());
        assert_eq!((before.outputs, before.b), (0..2, Span { start: 100, len: 4 }));
        assert_eq!((after.outputs, after.b, after.a), (0..4, Span { start: 104, len: 8 }, before.a));
    }

    const WIDTH: usize = 64;
    const RANK: usize = 4;

    /// Two frozen layers of width 64, each with two adapters, and a norm.
    struct Wide {
        parameters: Parameters,
        layers: [LinearSpec; 2],
        adapters: [LowRank; 2],
        norm: NormSpec,
        words: Span,
    }

    fn wide() -> Wide {
        let mut parameters = Parameters::default();
        let mut declare = |name: String, shape: &[usize]| {
            parameters.declare(name, shape, Initial::Normal(0.2)).expect("a small tensor")
        };
        let layers = [0, 1].map(|i| LinearSpec {
            weight: declare(format!("layer {i}"), &[WIDTH, WIDTH]),
            bias: Span { start: 0, len: 0 },
            inputs: WIDTH,
            outputs: WIDTH,
        });
        let words = declare("words".into(), &[7, WIDTH]);
        let gamma = declare("gamma".into(), &[WIDTH]);
        let adapters = [0, 1].map(|i| {
            let a = [0, 1].map(|part| declare(format!("lora A {i} {part}"), &[RANK, WIDTH]));
            let b = [0, 1].map(|part| declare(format!("lora B {i} {part}"), &[WIDTH / 2, RANK]));
            let outputs = |part: usize| part * WIDTH / 2..(part + 1) * WIDTH / 2;
            let part = |i: usize| LowRankPart { outputs: outputs(i), rank: RANK, a: a[i], b: b[i], scale: 2.0 };
            LowRank { parts: vec![part(0), part(1)], dropout: 0.0 }
        });
        parameters.freeze(|spec| !spec.name.starts_with("lora"));
        parameters.allocate();
        (0..parameters.specs().len()).for_each(|index| parameters.initialise(index, 3));
        let norm = NormSpec { kind: NormKind::Rms, gamma, beta: None, epsilon: 1e-5 };
        Wide { parameters, layers, adapters, norm, words }
    }

    impl Wide {
        fn weight(&self, layer: usize) -> &[f32] {
            &self.parameters.values[self.layers[layer].weight.range()]
        }

        fn packed(&self, pack: impl Fn(&[f32]) -> PackedLayer) -> Packed {
            Packed::new((0..2).map(|layer| (self.layers[layer], pack(self.weight(layer)))).collect())
        }

        /// The outputs, and the gradients of all A and B under a fixed projection.
        fn run(&self, packed: &Packed) -> [Vec<f32>; 2] {
            let (mut tape, batch) = (Tape::default(), check::batch());
            tape.start(Mode::Train, packed.storage());
            let words = EmbedSpec { words: self.words, scale: 1.0, types: None, positions: None, padding: None };
            let words = tape.embed_by(&batch, WIDTH, words);
            let x = tape.state(words);
            let x = tape.rows(State { full: x.full, operand: x.full }, (0..batch.tokens()).collect());
            let y = tape.adapted_linear(x.operand, self.layers[0], &self.adapters[0], Some(Activation::Gelu));
            let y = tape.adapted_linear(y, self.layers[1], &self.adapters[1], None);
            let result = tape.post_norm(y, Some(x.full), self.norm).full;
            let weights = Weights { values: &self.parameters.values, packed };
            tape.forward(result, weights, &batch);
            let found = tape.value(result).to_vec();
            let seed: Vec<f32> = (0..found.len()).map(|i| ((i * 7 % 13) as f32 - 6.0) / 6.0).collect();
            let mut gradients = Gradients::new(&self.parameters);
            gradients.start();
            tape.backward(result, &seed, weights, &mut gradients, &batch);
            gradients.finish();
            [found, gradients.values().to_vec()]
        }
    }

    /// ‖a − b‖ / ‖b‖.
    fn distance(a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len());
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
        (square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut b.iter().copied())).sqrt()
    }

    /// A frozen layer that is packed gives the gradients that its values in the flat buffer give.
    #[test]
    fn adapters_over_packed_layers_learn_as_over_flat_ones() {
        let mut wide = wide();
        let narrow = |width| move |weight: &[f32]| NarrowWeight::pack(weight, WIDTH, WIDTH, width);
        let [eight, sixteen] =
            [Width::Int8, Width::Bf16].map(|width| [0, 1].map(|layer| narrow(width)(wide.weight(layer))));
        for weights in [eight, sixteen] {
            let packed = weights.clone().map(PackedLayer::Narrow).into_iter().zip(wide.layers);
            let packed = Packed::new(packed.map(|(layer, spec)| (spec, layer)).collect());
            let found = wide.run(&packed);
            for (layer, weight) in wide.layers.iter().zip(&weights) {
                let rows = wide.parameters.values[layer.weight.range()].chunks_exact_mut(WIDTH);
                rows.enumerate().for_each(|(row, values)| weight.row(row, values));
            }
            for (found, flat) in found.iter().zip(wide.run(&Packed::default())) {
                assert!(distance(found, &flat) < 1e-5, "{}", distance(found, &flat));
            }
        }
    }

    /// With values of 16 bits the gradients are those of f32, but for rounding. The second layer reads bf16 values, whose
    /// gradient both its own product and its adapters give.
    #[test]
    fn adapters_learn_on_bf16_values() {
        if !Precision::Bf16.runs_here() {
            eprintln!("no bf16 products here: nothing was tested");
            return;
        }
        let wide = wide();
        let packed = wide.packed(|weight| {
            let mut packed = PackedWeight::default();
            packed.pack(weight, WIDTH, WIDTH, true);
            PackedLayer::Bf16(packed)
        });
        for (found, exact) in wide.run(&packed).iter().zip(wide.run(&Packed::default())) {
            let distance = distance(found, &exact);
            assert!(distance > 1e-6 && distance < 0.02, "{distance}");
        }
    }
}
