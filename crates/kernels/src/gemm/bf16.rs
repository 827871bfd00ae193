//! Linear layers in bf16: operands of 16 bits, sums in f32, weights packed once per load or optimizer step.
//!
//! The whole reduction of an element runs in one register, so a row's bits depend neither on the
//! other rows nor on the number of threads.

use super::Store;
use super::panels::{COLUMNS, LeftPanels, Lines, MOST_ROWS, View, pack_straight, panels};
use super::tile::{Bf16Products, Left, Tile};
use super::transpose::transpose;
use crate::activation::{Activation, apply};
use crate::bf16::{Bf16, Element};
use crate::parallel::{Shared, area, for_each, threads};
use std::cell::RefCell;
use std::ops::Range;

/// Bytes of A that one task keeps in its second-level cache while the panels of B pass by.
const BLOCK_BYTES: usize = 1 << 18;
/// As [`BLOCK_BYTES`], where tiles are tall: processors with AMX have 2 MB of that cache.
const TALL_BLOCK_BYTES: usize = 1 << 20;
/// Bytes of panels of B that pass by a tall tile before the next one.
const PANELS_BYTES: usize = 1 << 19;
/// Tasks that a product is cut into at least, if it can be.
const TASKS: usize = 24;
/// Tasks for each thread at least, if there are that many: the last round is then a small part of all.
const TASKS_A_THREAD: usize = 4;

/// A weight `[outputs, inputs]` packed for the products of a linear layer.
#[derive(Clone, Debug, Default)]
pub struct PackedWeight {
    forward: Lines,
    backward: Lines,
    inputs: usize,
    outputs: usize,
}

impl PackedWeight {
    /// Whether a layer of this shape can be packed: words hold two neighbours.
    pub fn fits(inputs: usize, outputs: usize) -> bool {
        inputs.is_multiple_of(2) && outputs.is_multiple_of(2) && inputs >= 16 && outputs >= 16
    }

    /// Packs `weight: [outputs, inputs]` for `y = x·wᵀ`, and with `backward` for `dx = dy·w` too. Memory is reused.
    pub fn pack(&mut self, weight: &[f32], inputs: usize, outputs: usize, backward: bool) {
        assert!(weight.len() == area(inputs, outputs) && Self::fits(inputs, outputs));
        (self.inputs, self.outputs) = (inputs, outputs);
        let view = View::new(weight, outputs, inputs);
        pack_all(&mut self.forward, panels(outputs), inputs / 2, |words, panel| transposed_panel(words, view, panel));
        if backward {
            pack_all(&mut self.backward, panels(inputs), outputs / 2, |words, panel| {
                straight_panel(words, view, panel)
            });
        }
    }

    /// Whether it was packed for `dx = dy·w` too.
    pub fn has_backward(&self) -> bool {
        !self.backward.as_words().is_empty()
    }

    /// Columns of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

pub(super) fn pack_all(lines: &mut Lines, panels: usize, steps: usize, pack: impl Fn(&mut [u32], usize) + Sync + Send) {
    let words = Shared::new(lines.words(panels * steps * COLUMNS));
    for_each(panels, |panel| {
        // SAFETY: each task owns its own panel.
        pack(unsafe { words.slice(panel * steps * COLUMNS, steps * COLUMNS) }, panel);
    });
}

thread_local! {
    /// Rows of a matrix, narrowed.
    static NARROWED: RefCell<Lines> = RefCell::default();
}

/// Packs one panel of B = viewᵀ: narrows its rows, then turns pairs of values into columns.
pub(super) fn transposed_panel<T: Element>(words: &mut [u32], view: View<'_, T>, panel: usize) {
    let (first, pairs) = (panel * COLUMNS, view.columns / 2);
    let count = COLUMNS.min(view.rows - first);
    assert_eq!(words.len(), pairs * COLUMNS, "a step for each pair of an even number of columns");
    if count < COLUMNS {
        words.fill(0);
    }
    NARROWED.with_borrow_mut(|narrowed| {
        let narrowed = &mut narrowed.words(count * pairs)[..count * pairs];
        for (j, row) in narrowed.chunks_exact_mut(pairs.max(1)).enumerate() {
            narrow_values(bytemuck::cast_slice_mut(row), view.row(first + j));
        }
        transpose(words, count, |j| &narrowed[j * pairs..(j + 1) * pairs]);
    });
}

dispatch! {
    fn narrow_values[T: Element](narrowed: &mut [Bf16], values: &[T]) {
        for (narrowed, value) in narrowed.iter_mut().zip(values) {
            *narrowed = Bf16::narrow(value.widen());
        }
    }
}

dispatch! {
    pub(super) fn straight_panel[T: Element](words: &mut [u32], view: View<'_, T>, panel: usize) {
        pack_straight(words, view, panel);
    }
}

/// A product over rows of bf16 that lie as they are, and a packed right side.
#[derive(Clone, Copy)]
struct Product<'a> {
    left: &'a [Bf16],
    right: &'a [u32],
    rows: usize,
    columns: usize,
    inner: usize,
}

impl Product<'_> {
    /// Computes every tile and hands it to `write(tile, [first row, rows], [first column, columns])`.
    fn run(&self, write: impl Fn(&mut Tile, [usize; 2], [usize; 2]) + Sync + Send) {
        let products = Bf16Products::required();
        assert_eq!(self.left.len(), area(self.rows, self.inner), "the left side has whole rows");
        if self.rows == 0 {
            return;
        }
        let (steps, words) = (self.inner / 2, bytemuck::cast_slice(self.left));
        tiles(products.rows(), [self.rows, self.columns], 2 * self.inner, |tile, [row, rows], panel| {
            let right = &self.right[panel * steps * COLUMNS..][..steps * COLUMNS];
            let left = Left { words: &words[row * steps..], row_stride: steps, step_stride: 1 };
            products.tile(tile, left, right, rows);
            write(tile, [row, rows], [panel * COLUMNS, COLUMNS.min(self.columns - panel * COLUMNS)]);
        });
    }
}

/// Cuts `[rows, columns]` into tiles of `tall` rows and calls `task(tile, [first row, rows], panel)` for each, over all
/// threads. A row of the left side has `row_bytes` bytes.
pub(super) fn tiles(
    tall: usize,
    [rows, columns]: [usize; 2],
    row_bytes: usize,
    task: impl Fn(&mut Tile, [usize; 2], usize) + Sync + Send,
) {
    // Tiles of AMX multiply so fast that writing the result counts: neighbouring panels are then written together.
    let (bytes, most, beside) = match tall {
        MOST_ROWS => (TALL_BLOCK_BYTES, 16, (PANELS_BYTES / (COLUMNS * row_bytes)).clamp(1, 8)),
        _ => (BLOCK_BYTES, 8, 1),
    };
    let block_rows = (bytes / row_bytes).clamp(2 * tall, most * tall) / tall * tall;
    let (blocks, panels) = (rows.div_ceil(block_rows), panels(columns));
    let tasks = TASKS.max(TASKS_A_THREAD * threads());
    let groups = tasks.div_ceil(blocks.max(1)).min(panels);
    for_each(blocks * groups, |index| {
        let (block, group) = (index / groups, index % groups);
        let end = rows.min((block + 1) * block_rows);
        let mut tile = [[0.0; COLUMNS]; MOST_ROWS];
        let own = group * panels / groups..(group + 1) * panels / groups;
        for first in own.clone().step_by(beside) {
            for row in (block * block_rows..end).step_by(tall) {
                for panel in first..own.end.min(first + beside) {
                    task(&mut tile, [row, tall.min(end - row)], panel);
                }
            }
        }
    });
}

/// Writes the rows of a tile, as they are stored, into `[.., width]`.
fn write<T: Element>(out: Shared<T>, width: usize, tile: &Tile, rows: [usize; 2], [column, columns]: [usize; 2]) {
    write_rows(out, width, &tile[..rows[1]], [rows[0], column, columns]);
}

dispatch! {
    /// Rows of a tile, from a row and column of the output on, `columns` of each.
    fn write_rows[T: Element](out: Shared<'_, T>, width: usize, tile: &[[f32; COLUMNS]], place: [usize; 3]) {
        let [row, column, columns] = place;
        for (i, values) in tile.iter().enumerate() {
            // SAFETY: one task owns each tile of the output.
            let out = unsafe { out.slice((row + i) * width + column, columns) };
            // Whole panels have a length that the compiler knows.
            match <&mut [T; COLUMNS]>::try_from(&mut *out) {
                Ok(out) => out.iter_mut().zip(values).for_each(|(out, value)| *out = T::narrow(*value)),
                Err(_) => out.iter_mut().zip(values).for_each(|(out, value)| *out = T::narrow(*value)),
            }
        }
    }
}

/// Writes or adds the rows of a tile to `[.., width]`.
pub(super) fn write_f32(
    out: Shared<f32>,
    store: Store,
    width: usize,
    tile: &Tile,
    [row, rows]: [usize; 2],
    [column, columns]: [usize; 2],
) {
    let (tile, place) = (&tile[..rows], [row, column, columns]);
    match store {
        Store::Replace => write_rows(out, width, tile, place),
        Store::Add => add_rows(out, width, tile, place),
    }
}

dispatch! {
    /// As [`write_rows`], adding.
    fn add_rows(out: Shared<'_, f32>, width: usize, tile: &[[f32; COLUMNS]], place: [usize; 3]) {
        let [row, column, columns] = place;
        for (i, values) in tile.iter().enumerate() {
            // SAFETY: one task owns each tile of the output.
            let out = unsafe { out.slice((row + i) * width + column, columns) };
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        }
    }
}

dispatch! {
    fn add_to_rows(tile: &mut [[f32; COLUMNS]], bias: &[f32]) {
        for row in tile {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    }
}

/// Bias and activation of tiles on their way out, and where they go.
pub(super) struct Finish<'a, T> {
    y: Shared<'a, T>,
    z: Option<Shared<'a, T>>,
    bias: &'a [f32],
    act: Option<Activation>,
    outputs: usize,
}

impl<'a, T: Element> Finish<'a, T> {
    pub(super) fn new(layer: Linear<'a, T>, outputs: usize) -> Self {
        let (y, z) = (Shared::new(layer.y), layer.z.map(Shared::new));
        Self { y, z, bias: layer.bias, act: layer.act, outputs }
    }

    pub(super) fn tile(&self, tile: &mut Tile, rows: [usize; 2], columns: [usize; 2]) {
        let width = self.outputs;
        if !self.bias.is_empty() {
            add_to_rows(&mut tile[..rows[1]], &self.bias[columns[0]..columns[0] + columns[1]]);
        }
        if let Some(z) = self.z {
            write(z, width, tile, rows, columns);
        }
        if let Some(act) = self.act {
            apply(act, tile[..rows[1]].as_flattened_mut());
        }
        write(self.y, width, tile, rows, columns);
    }
}

/// `y = act(x·wᵀ + bias)`, x and y stored as bf16 or (for int8) as f32.
pub struct Linear<'a, T> {
    /// `[rows, outputs]`, written.
    pub y: &'a mut [T],
    /// Receives the value before the activation, for the way back.
    pub z: Option<&'a mut [T]>,
    /// `[rows, inputs]`.
    pub x: &'a [T],
    /// `[outputs]`; empty is none.
    pub bias: &'a [f32],
    /// Applied last.
    pub act: Option<Activation>,
}

impl<T: Element> Linear<'_, T> {
    /// Refuses slices that do not have the shape's lengths.
    pub(super) fn check(&self, rows: usize, inputs: usize, outputs: usize) {
        assert!(self.x.len() == area(rows, inputs) && self.y.len() == area(rows, outputs));
        assert!(self.bias.is_empty() || self.bias.len() == outputs);
        assert!(self.z.as_ref().is_none_or(|z| z.len() == self.y.len()));
    }
}

impl Linear<'_, Bf16> {
    /// Computes the layer in bf16.
    pub fn run(self, w: &PackedWeight) {
        let rows = self.x.len() / w.inputs;
        self.check(rows, w.inputs, w.outputs);
        let right = w.forward.as_words();
        let product = Product { left: self.x, right, rows, columns: w.outputs, inner: w.inputs };
        let finish = Finish::new(self, w.outputs);
        product.run(|tile, rows, columns| finish.tile(tile, rows, columns));
    }
}

/// Where the gradient of a linear layer's input goes.
pub enum InputGradient<'a> {
    /// Overwritten, in bf16.
    Bf16(&'a mut [Bf16]),
    /// Written or added to, in f32.
    F32(&'a mut [f32], Store),
}

impl InputGradient<'_> {
    /// `dx = dy·w`: `dy: [rows, outputs]`, `dx: [rows, inputs]`.
    pub fn run(self, dy: &[Bf16], w: &PackedWeight) {
        let rows = dy.len() / w.outputs;
        let right = w.backward.as_words();
        let product = Product { left: dy, right, rows, columns: w.inputs, inner: w.outputs };
        match self {
            InputGradient::Bf16(dx) => {
                assert_eq!(dx.len(), area(rows, w.inputs));
                let dx = Shared::new(dx);
                product.run(|tile, rows, columns| write(dx, w.inputs, tile, rows, columns));
            }
            InputGradient::F32(dx, store) => {
                assert_eq!(dx.len(), area(rows, w.inputs));
                let dx = Shared::new(dx);
                product.run(|tile, rows, columns| write_f32(dx, store, w.inputs, tile, rows, columns));
            }
        }
    }
}

thread_local! {
    /// Panels of the left side, of one task.
    static LEFT: RefCell<Lines> = RefCell::default();
}

/// `dw = dyᵀ·x` and `db = Σ dy` over the rows, or `+=` both.
pub struct WeightGradient<'a> {
    /// `[outputs, inputs]`.
    pub dw: &'a mut [f32],
    /// `[outputs]`, or empty for a layer without a bias.
    pub db: &'a mut [f32],
    /// Columns of dy.
    pub outputs: usize,
    /// Whether both are replaced or added to.
    pub store: Store,
    /// `[rows, outputs]`.
    pub dy: &'a [Bf16],
    /// `[rows, inputs]`.
    pub x: &'a [Bf16],
}

/// Memory for what one call packs, reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Scratch(pub(super) Lines);

/// Panels of rows of dw that one task owns.
const GRADIENT_PANELS: usize = 4;

impl WeightGradient<'_> {
    /// Computes both gradients.
    pub fn run(self, scratch: &mut Scratch) {
        let products = Bf16Products::required();
        let outputs = self.outputs;
        let (inputs, rows) = (self.dw.len() / outputs, self.dy.len() / outputs);
        assert_eq!(self.dw.len(), inputs * outputs, "dw has a row for each output");
        assert!([0, outputs].contains(&self.db.len()), "db has a value for each output, or none");
        assert!(self.dy.len() == rows * outputs && self.x.len() == area(rows, inputs));
        if rows == 0 {
            if self.store == Store::Replace {
                self.dw.fill(0.0);
                self.db.fill(0.0);
            }
            return;
        }
        let (steps, x) = (rows.div_ceil(2), View::new(self.x, rows, inputs));
        pack_all(&mut scratch.0, panels(inputs), steps, |words, panel| straight_panel(words, x, panel));
        if self.store == Store::Replace {
            self.db.fill(0.0);
        }
        let (store, has_bias) = (self.store, !self.db.is_empty());
        let (dw, db, right) = (Shared::new(self.dw), Shared::new(self.db), scratch.0.as_words());
        let dy = View::new(self.dy, rows, outputs);
        let panel = products.left_panels();
        let own = GRADIENT_PANELS * panel.rows();
        for_each(outputs.div_ceil(own), |task| {
            let first = task * own;
            let count = own.min(outputs - first);
            // SAFETY: a task owns its rows of dw and db.
            let dw = unsafe { dw.slice(first * inputs, count * inputs) };
            // SAFETY: as above.
            let db = if has_bias { unsafe { db.slice(first, count) } } else { &mut [] };
            LEFT.with_borrow_mut(|left| {
                let words = GRADIENT_PANELS * panel.words(steps);
                let left = &mut left.words(words)[..words];
                pack_gradient(left, panel, dy, first..first + count);
                add_columns(db, dy, first);
                gradient_rows(products, dw, store, [inputs, steps], [left, right]);
            });
        });
    }
}

dispatch! {
    /// Packs some columns of a view as left panels.
    pub(super) fn pack_gradient(left: &mut [u32], panels: LeftPanels, view: View<'_, Bf16>, columns: Range<usize>) {
        let steps = view.rows.div_ceil(2);
        let block = View { data: &view.data[columns.start..], stride: view.stride, rows: view.rows, columns: columns.len() };
        let count = columns.len().div_ceil(panels.rows());
        for (panel, words) in left.chunks_exact_mut(panels.words(steps)).enumerate().take(count) {
            panels.pack(words, block, panel * panels.rows());
        }
    }
}

dispatch! {
    /// Adds the sums of the columns of dy from `first` on to `db`, as many as it has.
    fn add_columns(db: &mut [f32], dy: View<'_, Bf16>, first: usize) {
        let mut sums = [0.0f32; GRADIENT_PANELS * MOST_ROWS];
        for row in 0..dy.rows {
            for (sum, value) in sums.iter_mut().zip(&dy.data[row * dy.stride + first..][..db.len()]) {
                *sum += value.widen();
            }
        }
        for (db, sum) in db.iter_mut().zip(sums) {
            *db += sum;
        }
    }
}

/// A task's rows of `dw`.
fn gradient_rows(
    products: Bf16Products,
    dw: &mut [f32],
    store: Store,
    [inputs, steps]: [usize; 2],
    [left, right]: [&[u32]; 2],
) {
    let (count, own) = (dw.len() / inputs, products.left_panels());
    let out = Shared::new(dw);
    let mut tile = [[0.0; COLUMNS]; MOST_ROWS];
    for panel in 0..panels(inputs) {
        let right = &right[panel * steps * COLUMNS..][..steps * COLUMNS];
        for (row, left) in (0..count).step_by(own.rows()).zip(left.chunks_exact(own.words(steps))) {
            let rows = own.rows().min(count - row);
            products.tile(&mut tile, own.left(left, steps), right, rows);
            let columns = COLUMNS.min(inputs - panel * COLUMNS);
            write_f32(out, store, inputs, &tile, [row, rows], [panel * COLUMNS, columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::linear_reference;
    use crate::parallel::with_threads;
    use crate::simd::tests::{on_both, on_twins_and_instructions};
    use proptest::prelude::*;

    fn values(n: usize, seed: u64) -> Vec<Bf16> {
        crate::gemm::tests::values(n, seed).into_iter().map(Bf16::narrow).collect()
    }

    fn wide(values: &[Bf16]) -> Vec<f32> {
        values.iter().map(|v| v.widen()).collect()
    }

    /// An even slice of bf16 on a word boundary, as the tape's buffers are.
    fn aligned(values: &[Bf16]) -> Vec<u32> {
        let mut words = vec![0u32; values.len().div_ceil(2)];
        bytemuck::cast_slice_mut::<u32, Bf16>(&mut words)[..values.len()].copy_from_slice(values);
        words
    }

    fn view(words: &[u32], len: usize) -> &[Bf16] {
        &bytemuck::cast_slice(words)[..len]
    }

    fn transpose(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
    }

    fn close(found: &[f32], expected: &[f32], tolerance: f32) -> bool {
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance * (1.0 + b.abs()))
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(64))]
        #[test]
        fn all_three_products_match_the_reference(rows in 1usize..110, half_in in 8usize..90, half_out in 8usize..90, seed in any::<u64>()) {
            on_twins_and_instructions(|| {
                let (inputs, outputs) = (2 * half_in, 2 * half_out);
                let (x, w, dy) = (values(rows * inputs, seed), values(outputs * inputs, seed ^ 1), values(rows * outputs, seed ^ 2));
                let (x_words, dy_words) = (aligned(&x), aligned(&dy));
                let (x, dy) = (view(&x_words, x.len()), view(&dy_words, dy.len()));
                let mut packed = PackedWeight::default();
                packed.pack(&wide(&w), inputs, outputs, true);
                let bias: Vec<f32> = (0..outputs).map(|i| i as f32 * 0.01).collect();
                let (mut y, mut z) = (vec![Bf16(7); rows * outputs], vec![Bf16(9); rows * outputs]);
                Linear { y: &mut y, z: Some(&mut z), x, bias: &bias, act: Some(Activation::Relu) }.run(&packed);
                let mut expected = vec![0.0; rows * outputs];
                linear_reference(&mut expected, &wide(x), &wide(&w), rows, inputs, outputs);
                for (i, e) in expected.iter_mut().enumerate() { *e += bias[i % outputs]; }
                prop_assert!(close(&wide(&z), &expected, 0.005));
                expected.iter_mut().for_each(|e| *e = e.max(0.0));
                prop_assert!(close(&wide(&y), &expected, 0.005));

                let mut expected = vec![0.0; rows * inputs];
                linear_reference(&mut expected, &wide(dy), &transpose(&wide(&w), outputs, inputs), rows, outputs, inputs);
                let (mut dx, mut dx16) = (vec![1.0; rows * inputs], vec![Bf16(5); rows * inputs]);
                InputGradient::F32(&mut dx, Store::Add).run(dy, &packed);
                InputGradient::Bf16(&mut dx16).run(dy, &packed);
                prop_assert!(close(&wide(&dx16), &expected, 0.005));
                expected.iter_mut().for_each(|e| *e += 1.0);
                prop_assert!(close(&dx, &expected, 1e-4));

                let (mut dw, mut db) = (vec![0.5; outputs * inputs], vec![0.5; outputs]);
                let (mut scratch, mut alone) = (Scratch::default(), vec![0.5; outputs * inputs]);
                WeightGradient { dw: &mut dw, db: &mut db, outputs, store: Store::Add, dy, x }.run(&mut scratch);
                WeightGradient { dw: &mut alone, db: &mut [], outputs, store: Store::Add, dy, x }.run(&mut scratch);
                prop_assert!(alone == dw, "a layer without a bias");
                let mut expected = vec![0.0; outputs * inputs];
                linear_reference(&mut expected, &transpose(&wide(dy), rows, outputs), &transpose(&wide(x), rows, inputs), outputs, rows, inputs);
                expected.iter_mut().for_each(|e| *e += 0.5);
                prop_assert!(close(&dw, &expected, 1e-4));
                for (j, db) in db.iter().enumerate() {
                    let sum: f32 = wide(dy).iter().skip(j).step_by(outputs).sum();
                    prop_assert!((db - 0.5 - sum).abs() < 1e-4);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        on_both(|| {
            for (inputs, outputs) in [(768, 3072), (384, 1152), (64, 50)] {
                let x = aligned(&values(300 * inputs, 3));
                let mut packed = PackedWeight::default();
                packed.pack(&wide(&values(inputs * outputs, 4)), inputs, outputs, false);
                let bias = vec![0.25; outputs];
                let run = |rows: usize, threads| {
                    let mut y = vec![Bf16(0); rows * outputs];
                    let x = view(&x, rows * inputs);
                    with_threads(threads, || {
                        Linear { y: &mut y, z: None, x, bias: &bias, act: Some(Activation::Gelu) }.run(&packed);
                    });
                    y
                };
                let all = run(300, 2);
                for rows in [1, 2, 11, 12, 13, 96, 97, 200] {
                    assert!(all[..rows * outputs] == run(rows, 1 + rows % 3)[..], "{inputs}×{outputs}, {rows} rows");
                }
            }
        });
    }
}
