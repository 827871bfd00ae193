//! Linear layers on weights that are kept narrow and multiplied in f32: for decoders, on any processor.
//!
//! Generating text reads every weight for each token, so what counts is how few bytes a weight has. Values are kept in
//! 8 bits with a scale per output, in bf16 or in f32, and widened on their way into a register (for a few rows) or once
//! into the cache (for many). Activations stay f32. An element's sum runs over the inputs in order, in one register,
//! and the scale comes last: a row's bits depend neither on the other rows nor on the number of threads.

use super::int8::quantize_rows;
use super::panels::{COLUMNS, Lines};
use crate::bf16::{Bf16, Element};
use crate::parallel::{Shared, area, for_each, threads};
use std::cell::RefCell;
use std::ops::Range;

/// How the values of a weight are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits, with a scale per output.
    Int8,
    /// bf16.
    Bf16,
    /// f32.
    F32,
}

/// A weight `[outputs, inputs]` in panels of 32 outputs, `[panel][input][output]`.
#[derive(Clone, Debug)]
pub struct NarrowWeight {
    width: Width,
    panels: Lines,
    /// Value of a unit, per output of all panels; 1 unless in 8 bits.
    scales: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// Rows that one pass over the weight serves straight from registers; more rows get a widened panel.
const FEW: usize = 6;
/// Rows that pass over all panels at a time: more would leave the cache while one panel is multiplied.
const BLOCK: usize = 512;

impl NarrowWeight {
    /// Packs `weight: [outputs, inputs]`.
    pub fn pack(weight: &[f32], inputs: usize, outputs: usize, width: Width) -> Self {
        assert!(weight.len() == area(inputs, outputs) && inputs > 0 && outputs > 0);
        let panels = outputs.div_ceil(COLUMNS);
        let mut packed = Self { width, panels: Lines::default(), scales: vec![1.0; panels * COLUMNS], inputs, outputs };
        let words = panels * COLUMNS * inputs * packed.element_bytes() / 4;
        let memory = packed.panels.words(words);
        match width {
            Width::Int8 => {
                let (units, scales) = quantize_rows(weight, inputs);
                packed.scales[..outputs].copy_from_slice(&scales);
                transpose(bytemuck::cast_slice_mut(memory), &units, inputs, |v| v);
            }
            Width::Bf16 => transpose(bytemuck::cast_slice_mut(memory), weight, inputs, Bf16::narrow),
            Width::F32 => transpose(bytemuck::cast_slice_mut(memory), weight, inputs, |v| v),
        }
        packed
    }

    /// Columns of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How its values are kept.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Columns of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    fn element_bytes(&self) -> usize {
        match self.width {
            Width::Int8 => 1,
            Width::Bf16 => 2,
            Width::F32 => 4,
        }
    }

    /// Row `output` of the weight, as it is multiplied: for a table of words that is also the last layer.
    pub fn row(&self, output: usize, values: &mut [f32]) {
        assert!(output < self.outputs && values.len() == self.inputs);
        let first = output / COLUMNS * COLUMNS * self.inputs + output % COLUMNS;
        let scale = self.scales[output];
        self.each(|panels| panels.column(first, scale, values));
    }

    /// `y = x·wᵀ + bias`: `x: [rows, inputs]`, `y: [rows, outputs]`; an empty bias is none.
    pub fn run(&self, y: &mut [f32], x: &[f32], bias: &[f32]) {
        assert!(bias.is_empty() || bias.len() == self.outputs);
        self.run_outputs(0..self.outputs, y, x, bias);
    }

    /// As [`Self::run`], of some outputs alone, the first of which is a multiple of 32: `y: [rows, outputs.len()]`, and a
    /// bias is of all outputs.
    pub(crate) fn run_outputs(&self, outputs: Range<usize>, y: &mut [f32], x: &[f32], bias: &[f32]) {
        let rows = x.len() / self.inputs;
        assert!(x.len() == rows * self.inputs && y.len() == area(rows, outputs.len()));
        assert!(outputs.start.is_multiple_of(COLUMNS) && outputs.end <= self.outputs && !outputs.is_empty());
        let blocks = x.chunks(BLOCK * self.inputs).zip(y.chunks_mut(BLOCK * outputs.len()));
        blocks.for_each(|(x, y)| self.run_block(outputs.clone(), y, x, bias));
    }

    fn run_block(&self, outputs: Range<usize>, y: &mut [f32], x: &[f32], bias: &[f32]) {
        let rows = x.len() / self.inputs;
        let panels = outputs.start / COLUMNS..outputs.end.div_ceil(COLUMNS);
        let group = if rows <= FEW { group_of(panels.len()) } else { 1 };
        let product = Product { weight: self, y: Shared::new(y), x, bias, rows, outputs };
        for_each(panels.len().div_ceil(group), |task| {
            let first = panels.start + task * group;
            let range = first..(first + group).min(panels.end);
            self.each(|panels| panels.product(&product, range.clone()));
        });
    }

    /// Values of a unit, of the outputs of a panel.
    pub(super) fn scales(&self, panel: usize) -> &[f32] {
        &self.scales[panel * COLUMNS..(panel + 1) * COLUMNS]
    }

    pub(super) fn each<T>(&self, work: impl FnOnce(Panels) -> T) -> T {
        let words = self.panels.as_words();
        work(match self.width {
            Width::Int8 => Panels::Int8(bytemuck::cast_slice(words)),
            Width::Bf16 => Panels::Bf16(bytemuck::cast_slice(words)),
            Width::F32 => Panels::F32(bytemuck::cast_slice(words)),
        })
    }
}

/// Panels that one task takes when there are few rows: a multiple of three, and a few tasks a thread.
fn group_of(panels: usize) -> usize {
    (panels / (threads() * 4)).next_multiple_of(TOGETHER).max(TOGETHER)
}

/// Panels whose sums share the registers for a single row, so that additions do not wait for each other.
const TOGETHER: usize = 3;

fn transpose<S: Copy + Sync, T: Send>(panels: &mut [T], weight: &[S], inputs: usize, convert: impl Fn(S) -> T + Sync) {
    use rayon::prelude::*;
    let outputs = weight.len() / inputs;
    let count = outputs.div_ceil(COLUMNS);
    panels[..count * COLUMNS * inputs].par_chunks_mut(COLUMNS * inputs).enumerate().for_each(|(panel, words)| {
        for column in 0..COLUMNS.min(outputs - panel * COLUMNS) {
            let row = &weight[(panel * COLUMNS + column) * inputs..][..inputs];
            words[column..].iter_mut().step_by(COLUMNS).zip(row).for_each(|(word, value)| *word = convert(*value));
        }
    });
}

/// What a task of a product sees.
struct Product<'a> {
    weight: &'a NarrowWeight,
    y: Shared<'a, f32>,
    x: &'a [f32],
    bias: &'a [f32],
    rows: usize,
    /// Those that are computed.
    outputs: Range<usize>,
}

/// All panels of a weight.
#[derive(Clone, Copy)]
pub(super) enum Panels<'a> {
    Int8(&'a [i8]),
    Bf16(&'a [Bf16]),
    F32(&'a [f32]),
}

impl Panels<'_> {
    fn column(self, first: usize, scale: f32, values: &mut [f32]) {
        fn copy<T: Narrow>(panels: &[T], first: usize, scale: f32, values: &mut [f32]) {
            let column = panels[first..].iter().step_by(COLUMNS);
            values.iter_mut().zip(column).for_each(|(value, unit)| *value = unit.to_f32() * scale);
        }
        match self {
            Panels::Int8(panels) => copy(panels, first, scale, values),
            Panels::Bf16(panels) => copy(panels, first, scale, values),
            Panels::F32(panels) => copy(panels, first, scale, values),
        }
    }

    fn product(self, product: &Product, panels: Range<usize>) {
        match self {
            Panels::Int8(all) => product.run(all, panels),
            Panels::Bf16(all) => product.run(all, panels),
            Panels::F32(all) => product.run(all, panels),
        }
    }
}

thread_local! {
    /// One panel, widened.
    static WIDE: RefCell<Lines> = RefCell::new(Lines::default());
}

impl Product<'_> {
    fn run<T: Narrow>(&self, all: &[T], panels: Range<usize>) {
        let inputs = self.weight.inputs;
        let panel_len = COLUMNS * inputs;
        let mut panel = panels.start;
        while panel < panels.end {
            let together = if self.rows == 1 && panel + TOGETHER <= panels.end { TOGETHER } else { 1 };
            let own = &all[panel * panel_len..(panel + together) * panel_len];
            if self.rows <= FEW {
                self.rows_of(own, panel, 0..self.rows, Beside::NOTHING);
            } else {
                WIDE.with_borrow_mut(|wide| {
                    let wide: &mut [f32] = &mut bytemuck::cast_slice_mut(wide.words(panel_len))[..panel_len];
                    let tiles = self.rows.div_ceil(most_rows());
                    let rows = |tile: usize| tile * self.rows / tiles..(tile + 1) * self.rows / tiles;
                    let next = all.get((panel + 1) * panel_len..).filter(|next| !next.is_empty());
                    let ahead = next.map_or(Ahead::NONE, Ahead::of);
                    let keep = (tiles > 1).then_some(&mut *wide);
                    self.rows_of(own, panel, rows(0), Beside { ahead, keep });
                    (1..tiles).for_each(|tile| self.rows_of(&*wide, panel, rows(tile), Beside::NOTHING));
                });
            }
            panel += together;
        }
    }

    /// Some rows times the panels from `panel` on that `own` holds.
    fn rows_of<T: Narrow>(&self, own: &[T], panel: usize, rows: Range<usize>, beside: Beside) {
        let inputs = self.weight.inputs;
        let panels = own.len() / (COLUMNS * inputs);
        let mut sums = [0.0f32; MOST_SUMS];
        let x = &self.x[rows.start * inputs..rows.end * inputs];
        T::tile(&mut sums, x, own, inputs, beside);
        for (row, sums) in rows.zip(sums.chunks_exact(panels * COLUMNS)) {
            let first = panel * COLUMNS;
            let count = (panels * COLUMNS).min(self.outputs.end - first);
            let at = row * self.outputs.len() + first - self.outputs.start;
            // SAFETY: a task owns the columns of its panels.
            let y = unsafe { self.y.slice(at, count) };
            let scales = &self.weight.scales[first..];
            y.iter_mut().zip(sums).zip(scales).for_each(|((y, sum), scale)| *y = sum * scale);
            if !self.bias.is_empty() {
                y.iter_mut().zip(&self.bias[first..]).for_each(|(y, bias)| *y += bias);
            }
        }
    }
}

/// The panel that will be read next: asked for from memory while another is multiplied, so that the one does not wait for
/// the other. Each step of a tile asks for `step` bytes more; 0 is nothing.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "plain code asks for no memory ahead"))]
struct Ahead {
    start: *const u8,
    step: usize,
}

impl Ahead {
    const NONE: Self = Self { start: std::ptr::null(), step: 0 };

    fn of<T>(panel: &[T]) -> Self {
        Self { start: panel.as_ptr().cast(), step: COLUMNS * size_of::<T>() }
    }
}

/// What the first tile of a panel does besides: it is bound by its multiplications, so this costs little there.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "plain code asks for no memory ahead"))]
pub(super) struct Beside<'a> {
    ahead: Ahead,
    /// Takes the panel, widened, for the tiles that follow.
    keep: Option<&'a mut [f32]>,
}

impl Beside<'_> {
    const NOTHING: Self = Self { ahead: Ahead::NONE, keep: None };
}

/// Rows of a tile at most: as many as this processor's registers hold sums for.
fn most_rows() -> usize {
    match crate::isa() {
        crate::Isa::Avx512 => 12,
        _ => FEW,
    }
}

/// Sums of a tile at most.
const MOST_SUMS: usize = 12 * COLUMNS;

/// A type that weights are kept in.
pub(super) trait Narrow: Copy + Sync {
    /// To f32, exactly.
    fn to_f32(self) -> f32;
    /// `sums[row][column] = Σ_i x[row, i] · panel[i][column]` for the rows of x (1 to 12) and all panels (1, or 3 for one row).
    fn tile(sums: &mut [f32], x: &[f32], panels: &[Self], inputs: usize, beside: Beside);
}

/// One tile kernel: R rows times V registers of columns, sums in registers over the whole reduction.
#[cfg(target_arch = "x86_64")]
macro_rules! tile_kernel {
    ($features:literal, $type:ty, $load:ident, $register:ty, $lanes:literal, $zero:ident, $set1:ident, $fma:ident, $store:ident) => {
        /// Columns start at `column` of the first panel; register `v` holds those from `v` · lanes on, over panels.
        ///
        /// # Safety
        /// `x` holds R rows of `inputs` values, `panels` the panels that the columns reach, `sums` R rows of `stride`, and `keep`
        /// is null or has as many values as `panels`.
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const V: usize>(
            sums: *mut f32,
            stride: usize,
            x: *const f32,
            panels: *const $type,
            column: usize,
            inputs: usize,
            ahead: Ahead,
            keep: *mut f32,
        ) {
            let mut own: [[$register; V]; R] = [[$zero(); V]; R];
            let mut rows = [x; R];
            for row in 0..R {
                // SAFETY: the caller's promise. Hidden, so that each row keeps a register instead of being found again.
                rows[row] = std::hint::black_box(unsafe { x.add(row * inputs) });
            }
            for input in 0..inputs {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut values: [$register; V] = [$zero(); V];
                    for v in 0..V {
                        let at = column + v * $lanes;
                        let place = at / COLUMNS * COLUMNS * inputs + input * COLUMNS + at % COLUMNS;
                        values[v] = $load(panels.add(place));
                        if !keep.is_null() {
                            $store(keep.add(place), values[v]);
                        }
                    }
                    if ahead.step > 0 {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.start.wrapping_add(input * ahead.step).cast());
                    }
                    for row in 0..R {
                        let x = $set1(*rows[row].add(input));
                        for v in 0..V {
                            own[row][v] = $fma(x, values[v], own[row][v]);
                        }
                    }
                }
            }
            for row in 0..R {
                for v in 0..V {
                    // SAFETY: the caller's promise.
                    unsafe { $store(sums.add(row * stride + column + v * $lanes), own[row][v]) };
                }
            }
        }
    };
}

/// A tile of one panel for a number of rows known only now.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($rows:expr, $tile:ident $arguments:tt; $($n:literal)*) => {
        match $rows {
            $($n => by_rows!(@call $tile $n $arguments),)*
            other => unreachable!("a tile has 1 to 12 rows, not {other}"),
        }
    };
    (@call $tile:ident $n:literal ($($argument:expr),*)) => { $tile::<$n, 2>($($argument),*) };
}

dispatch! {
    /// Plain twin of the tiles.
    fn tile_reference[T: Narrow](sums: &mut [f32], x: &[f32], panels: &[T], inputs: usize) {
        let count = panels.len() / (COLUMNS * inputs);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            for (panel, values) in panels.chunks_exact(COLUMNS * inputs).enumerate() {
                let own = &mut sums[(row * count + panel) * COLUMNS..][..COLUMNS];
                own.fill(0.0);
                for (x, values) in x.iter().zip(values.chunks_exact(COLUMNS)) {
                    own.iter_mut().zip(values).for_each(|(sum, value)| *sum = x.mul_add(value.to_f32(), *sum));
                }
            }
        }
    }
}

/// The three builds of a type's tiles, and its conversions.
macro_rules! narrow {
    ($type:ty, $module:ident, $widen:expr, $load8:expr, $load16:expr) => {
        impl Narrow for $type {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                let widen: fn($type) -> f32 = $widen;
                widen(self)
            }

            fn tile(sums: &mut [f32], x: &[f32], panels: &[Self], inputs: usize, beside: Beside) {
                $module::tile(sums, x, panels, inputs, beside);
            }
        }

        mod $module {
            use super::*;

            pub(super) fn tile(sums: &mut [f32], x: &[f32], panels: &[$type], inputs: usize, beside: Beside) {
                let (rows, count) = (x.len() / inputs, panels.len() / (COLUMNS * inputs));
                assert!(x.len() == rows * inputs && panels.len() == count * COLUMNS * inputs);
                assert!((1..=most_rows()).contains(&rows) && (count == 1 || (rows == 1 && count == TOGETHER)));
                assert!(sums.len() >= rows * count * COLUMNS);
                assert!(beside.keep.as_ref().is_none_or(|keep| keep.len() == panels.len()));
                #[cfg(target_arch = "x86_64")]
                match crate::isa() {
                    // SAFETY: the processor has the instructions; the lengths were checked.
                    crate::Isa::Avx512 => return unsafe { avx512::run(sums, x, panels, [rows, count, inputs], beside) },
                    // SAFETY: as above.
                    crate::Isa::Avx2 => return unsafe { avx2::run(sums, x, panels, [rows, count, inputs], beside) },
                    crate::Isa::Baseline => {}
                }
                tile_reference(sums, x, panels, inputs);
                if let Some(keep) = beside.keep {
                    keep.iter_mut().zip(panels).for_each(|(wide, narrow)| *wide = narrow.to_f32());
                }
            }

            #[cfg(target_arch = "x86_64")]
            mod avx2 {
                use super::*;
                use std::arch::x86_64::*;

                #[inline]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn load(at: *const $type) -> __m256 {
                    // SAFETY: the caller promises 8 values.
                    unsafe { $load8(at) }
                }

                tile_kernel!("avx2,fma", $type, load, __m256, 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);

                /// # Safety
                /// The processor has AVX2 and FMA; the slices hold `[rows, panels, inputs]`.
                #[target_feature(enable = "avx2,fma")]
                pub(super) unsafe fn run(sums: &mut [f32], x: &[f32], panels: &[$type], [rows, count, inputs]: [usize; 3], beside: Beside) {
                    let (ahead, keep) = (beside.ahead, beside.keep.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr));
                    let (sums, x, panels, stride) = (sums.as_mut_ptr(), x.as_ptr(), panels.as_ptr(), count * COLUMNS);
                    // SAFETY: the caller's promise; four and more rows take a panel's halves one after the other.
                    unsafe {
                        match (rows, count) {
                            (1, TOGETHER) => tile::<1, 12>(sums, stride, x, panels, 0, inputs, ahead, keep),
                            (1, _) => tile::<1, 4>(sums, stride, x, panels, 0, inputs, ahead, keep),
                            (2, _) => tile::<2, 4>(sums, stride, x, panels, 0, inputs, ahead, keep),
                            (3, _) => tile::<3, 4>(sums, stride, x, panels, 0, inputs, ahead, keep),
                            (rows, _) => {
                                for column in [0, COLUMNS / 2] {
                                    match rows {
                                        4 => tile::<4, 2>(sums, stride, x, panels, column, inputs, ahead, keep),
                                        5 => tile::<5, 2>(sums, stride, x, panels, column, inputs, ahead, keep),
                                        _ => tile::<6, 2>(sums, stride, x, panels, column, inputs, ahead, keep),
                                    }
                                }
                            }
                        }
                    }
                }
            }

            #[cfg(target_arch = "x86_64")]
            mod avx512 {
                use super::*;
                use std::arch::x86_64::*;

                #[inline]
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                unsafe fn load(at: *const $type) -> __m512 {
                    // SAFETY: the caller promises 16 values.
                    unsafe { $load16(at) }
                }

                tile_kernel!("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma", $type, load, __m512, 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);

                /// # Safety
                /// The processor has AVX-512 (F, VL, DQ, BW); the slices hold `[rows, panels, inputs]`.
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                pub(super) unsafe fn run(sums: &mut [f32], x: &[f32], panels: &[$type], [rows, count, inputs]: [usize; 3], beside: Beside) {
                    let (ahead, keep) = (beside.ahead, beside.keep.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr));
                    let (sums, x, panels, stride) = (sums.as_mut_ptr(), x.as_ptr(), panels.as_ptr(), count * COLUMNS);
                    // SAFETY: the caller's promise.
                    unsafe {
                        if (rows, count) == (1, TOGETHER) {
                            return tile::<1, 6>(sums, stride, x, panels, 0, inputs, ahead, keep);
                        }
                        by_rows!(rows, tile(sums, stride, x, panels, 0, inputs, ahead, keep); 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                }
            }
        }
    };
}

narrow!(
    i8,
    int8,
    f32::from,
    |at: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))),
    |at: *const i8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())))
);
narrow!(
    Bf16,
    bf16,
    <Bf16 as Element>::widen,
    |at: *const Bf16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())))),
    |at: *const Bf16| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
        at.cast()
    ))))
);
narrow!(f32, full, |v| v, |at: *const f32| _mm256_loadu_ps(at), |at: *const f32| _mm512_loadu_ps(at));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::linear_reference;
    use crate::gemm::tests::values;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    fn widths() -> [Width; 3] {
        [Width::Int8, Width::Bf16, Width::F32]
    }

    /// What the packed weight multiplies with, row by row.
    fn unpacked(weight: &NarrowWeight) -> Vec<f32> {
        let mut all = vec![0.0; weight.outputs() * weight.inputs()];
        for (output, row) in all.chunks_exact_mut(weight.inputs()).enumerate() {
            weight.row(output, row);
        }
        all
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(48))]
        #[test]
        fn products_match_the_reference(rows in 1usize..40, inputs in 1usize..200, outputs in 1usize..240, seed in any::<u64>()) {
            let (x, w, bias) = (values(rows * inputs, seed), values(outputs * inputs, seed ^ 1), values(outputs, seed ^ 2));
            for (width, tolerance) in widths().into_iter().zip([0.5 / 127.0, 1.0 / 512.0, 0.0]) {
                let packed = NarrowWeight::pack(&w, inputs, outputs, width);
                let rounded = unpacked(&packed);
                for (a, b) in rounded.iter().zip(&w) {
                    prop_assert!((a - b).abs() <= tolerance * 0.5 + 1e-7, "{width:?}: {a} for {b}");
                }
                let mut expected = vec![0.0; rows * outputs];
                linear_reference(&mut expected, &x, &rounded, rows, inputs, outputs);
                let mut y = vec![7.0; rows * outputs];
                packed.run(&mut y, &x, &bias);
                for (i, (y, e)) in y.iter().zip(&expected).enumerate() {
                    prop_assert!((y - e - bias[i % outputs]).abs() < 2e-6 * (inputs as f32).sqrt() + 1e-6, "{width:?}: {y} for {e}");
                }
            }
        }
    }

    #[test]
    fn c10_a_product_without_rows_is_no_work() {
        for width in [Width::F32, Width::Bf16, Width::Int8] {
            NarrowWeight::pack(&[1.0; 6], 3, 2, width).run(&mut [], &[], &[0.5, 0.5]);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        for (inputs, outputs) in [(576, 960), (192, 100), (33, 31), (64, 97)] {
            let (x, w) = (values(70 * inputs, 3), values(outputs * inputs, 4));
            for width in widths() {
                let packed = NarrowWeight::pack(&w, inputs, outputs, width);
                let run = |rows: usize, threads| {
                    let mut y = vec![0.0; rows * outputs];
                    with_threads(threads, || packed.run(&mut y, &x[..rows * inputs], &[]));
                    y
                };
                let all = run(70, 2);
                for rows in [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 33] {
                    assert!(
                        all[..rows * outputs] == run(rows, 1 + rows % 3)[..],
                        "{width:?} {inputs}×{outputs}, {rows} rows"
                    );
                }
            }
        }
    }
}
