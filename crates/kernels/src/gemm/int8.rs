//! Linear layers in int8, for scoring: weights of 8 bits with a scale per output, activations of 8 bits with a scale and a
//! zero point per token, sums in i32, everything after them in f32.
//!
//! A token with a few entries far larger than the rest (outliers, which trained transformers have) would lose all the
//! others to rounding. Such entries are cut off at a limit before rounding, and what was cut is multiplied
//! with their weights in f32 and added: exact, and only for the entries concerned (after Dettmers et al. 2022, LLM.int8()).

use super::bf16::{Finish, Linear, tiles};
use super::panels::{COLUMNS, Lines, MOST_ROWS, panels};
use super::quads::{LIMIT as QUARTET, largest_quartet};
use super::tile::{Int8Products, IntegerTile, Left, Tile};
use crate::bf16::Element;
use crate::parallel::{Shared, area, for_each};
use crate::reduce::sum_by;

/// A weight `[outputs, inputs]` in 8 bits.
#[derive(Clone, Debug, Default)]
pub struct Int8Weight {
    /// `[outputs/32][inputs/4][32]` words of four neighbours of a row.
    right: Lines,
    /// Value of one unit, per output.
    scales: Vec<f32>,
    /// Sum of a row's units: what the zero point contributes.
    sums: Vec<i32>,
    inputs: usize,
}

impl Int8Weight {
    /// Whether a layer of this shape can be used: words hold four neighbours.
    pub fn fits(inputs: usize, outputs: usize) -> bool {
        let even = inputs.is_multiple_of(4) && outputs.is_multiple_of(2);
        // Beyond, sums could leave 32 bits.
        even && (16..=1 << 16).contains(&inputs) && outputs >= 16
    }

    /// Packs `units: [outputs, inputs]` with `scales: [outputs]`. A row that [`quantize_weights`] would not give is
    /// rounded to coarser units: no processor may take it for another weight.
    pub fn new(units: &[i8], scales: Vec<f32>, inputs: usize) -> Self {
        let outputs = scales.len();
        assert!(units.len() == area(inputs, outputs) && Self::fits(inputs, outputs));
        let (mut units, mut scales) = (units.to_vec(), scales);
        let (rows, row_scales) = (Shared::new(&mut units), Shared::new(&mut scales));
        for_each(outputs, |row| {
            // SAFETY: each task owns its own row.
            let (units, scale) = unsafe { (rows.slice(row * inputs, inputs), row_scales.slice(row, 1)) };
            scale[0] *= coarsen(units);
        });
        let mut right = Lines::default();
        let steps = inputs / 4;
        let words = Shared::new(right.words(panels(outputs) * steps * COLUMNS));
        for_each(panels(outputs), |panel| {
            // SAFETY: each task owns its own panel.
            let words = unsafe { words.slice(panel * steps * COLUMNS, steps * COLUMNS) };
            let first = panel * COLUMNS;
            for j in 0..COLUMNS.min(outputs - first) {
                let row = &units[(first + j) * inputs..][..inputs];
                for (word, quad) in words[j..].iter_mut().step_by(COLUMNS).zip(row.chunks_exact(4)) {
                    *word = u32::from_le_bytes([0, 1, 2, 3].map(|i| quad[i] as u8));
                }
            }
        });
        let sums = units.chunks_exact(inputs).map(|row| row.iter().map(|u| i32::from(*u)).sum()).collect();
        Self { right, scales, sums, inputs }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.scales.len()
    }
}

/// Rounds each row of `[rows, columns]` to units of its largest magnitude / 127; returns the units and the scales.
pub fn quantize_rows(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    quantize(values, columns, |row| largest_magnitude(row) / 127.0)
}

/// As [`quantize_rows`], for the weights of a layer that multiplies in int8: units are as coarse as the products of
/// every processor need, so that all compute the same sums.
pub fn quantize_weights(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    quantize(values, columns, |row| {
        let (finest, coarsest) = (largest_magnitude(row) / 127.0, largest_quartet(row, |w| w) / ROUNDED_QUARTET);
        // Not `max`, which hides a NaN.
        if coarsest > finest { coarsest } else { finest }
    })
}

/// What a quartet may sum to before its four weights are rounded, each by half a unit at most.
const ROUNDED_QUARTET: f32 = (QUARTET - 2) as f32;

/// Rounds a row of units to coarser ones if a quartet of it is above the limit; returns the value of a new unit in old.
fn coarsen(row: &mut [i8]) -> f32 {
    let largest = largest_quartet(row, f32::from);
    if largest <= QUARTET as f32 {
        return 1.0;
    }
    let values: Vec<f32> = row.iter().map(|unit| f32::from(*unit)).collect();
    let unit = largest / ROUNDED_QUARTET;
    round_row(row, &values, unit);
    unit
}

fn quantize(values: &[f32], columns: usize, scale_of: impl Fn(&[f32]) -> f32 + Sync + Send) -> (Vec<i8>, Vec<f32>) {
    let rows = values.len() / columns;
    assert_eq!(values.len(), rows * columns, "whole rows of {columns} values");
    let (mut units, mut scales) = (vec![0i8; values.len()], vec![0.0f32; rows]);
    let (shared_units, shared_scales) = (Shared::new(&mut units), Shared::new(&mut scales));
    for_each(rows, |row| {
        // SAFETY: each task owns its own row.
        let (units, scale) = unsafe { (shared_units.slice(row * columns, columns), shared_scales.slice(row, 1)) };
        let values = &values[row * columns..(row + 1) * columns];
        scale[0] = scale_of(values);
        round_row(units, values, scale[0]);
    });
    (units, scales)
}

dispatch! {
    /// Units cannot hold a NaN: the scale becomes one, and with it all that the row is multiplied with.
    fn largest_magnitude(values: &[f32]) -> f32 {
        let largest = values.iter().fold(0.0f32, |m, v| if v.abs() > m { v.abs() } else { m });
        if values.iter().any(|v| v.is_nan()) { f32::NAN } else { largest }
    }
}

dispatch! {
    fn round_row(units: &mut [i8], values: &[f32], scale: f32) {
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (unit, value) in units.iter_mut().zip(values) {
            *unit = (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        }
    }
}

/// Activations in 8 bits, with memory that is reused from layer to layer.
#[derive(Clone, Debug, Default)]
pub struct QuantizedRows {
    units: Lines,
    /// Value of one unit and the zero point, per row.
    scales: Vec<[f32; 2]>,
    /// What was cut off: (row, column, value), rows in order.
    outliers: Vec<Vec<(u32, f32)>>,
}

/// How many times the mean magnitude of its row an entry must exceed to be cut.
const LIMIT: f32 = 8.0;
/// Most entries of a row that are cut: where more are large, they are no outliers.
const OUTLIERS: usize = 8;

impl QuantizedRows {
    fn fill<T: Element>(&mut self, x: &[T], inputs: usize) {
        let rows = x.len() / inputs;
        self.scales.resize(rows, [0.0; 2]);
        self.outliers.resize(rows, Vec::new());
        let units: &mut [u8] = bytemuck::cast_slice_mut(self.units.words(x.len() / 4));
        let (units, scales) = (Shared::new(units), Shared::new(&mut self.scales));
        let outliers = Shared::new(&mut self.outliers);
        for_each(rows.div_ceil(BLOCK), |block| {
            for row in block * BLOCK..rows.min((block + 1) * BLOCK) {
                // SAFETY: each task owns its own rows.
                let (units, scale, outliers) =
                    unsafe { (units.slice(row * inputs, inputs), scales.slice(row, 1), outliers.slice(row, 1)) };
                scale[0] = quantize_token(units, &mut outliers[0], &x[row * inputs..(row + 1) * inputs]);
            }
        });
    }
}

/// Entries searched for outliers at a time.
const CHUNK: usize = 64;
/// Tokens quantized by one task.
const BLOCK: usize = 16;

/// Rounds a token's values to 0..=255; returns the value of one unit and the zero point. Units cannot hold what is not
/// finite: the unit of such a token is NaN, and with it all that the token is multiplied with.
fn quantize_token<T: Element>(units: &mut [u8], outliers: &mut Vec<(u32, f32)>, x: &[T]) -> [f32; 2] {
    outliers.clear();
    let [mut low, mut high, magnitudes] = range(x);
    if !magnitudes.is_finite() {
        return [f32::NAN, 0.0];
    }
    let mut limit = LIMIT * magnitudes / x.len() as f32;
    if high > limit || -low > limit {
        find_beyond(outliers, x, limit);
        while outliers.len() > OUTLIERS {
            limit *= 1.5;
            outliers.retain(|(_, v)| v.abs() > limit);
        }
        outliers.iter_mut().for_each(|(_, v)| *v -= limit.copysign(*v));
        (low, high) = (low.max(-limit), high.min(limit));
    }
    let unit = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
    let zero = (-low / unit).round_ties_even();
    round_token(units, x, [1.0 / unit, zero]);
    [unit, zero]
}

/// Appends the entries of a larger magnitude than `limit`, with their places.
fn find_beyond<T: Element>(found: &mut Vec<(u32, f32)>, x: &[T], limit: f32) {
    for (chunk, values) in x.chunks(CHUNK).enumerate() {
        if count_beyond(values, limit) > 0 {
            let entries = values.iter().enumerate().map(|(i, v)| ((chunk * CHUNK + i) as u32, v.widen()));
            found.extend(entries.filter(|(_, v)| v.abs() > limit));
        }
    }
}

dispatch! {
    fn count_beyond[T: Element](x: &[T], limit: f32) -> usize {
        x.iter().map(|v| u32::from(v.widen().abs() > limit)).sum::<u32>() as usize
    }
}

dispatch! {
    /// Smallest and largest value, 0 included, and the sum of magnitudes.
    fn range[T: Element](x: &[T]) -> [f32; 3] {
        // One pass each: in one for all three the compiler keeps the lanes in memory, at a sixth of the speed.
        [extreme(x, |v, low| v < low), extreme(x, |v, high| v > high), sum_by(x.len(), |i| x[i].widen().abs())]
    }
}

/// The value that none lies beyond, 0 included.
#[inline(always)]
fn extreme<T: Element>(x: &[T], beyond: impl Fn(f32, f32) -> bool) -> f32 {
    let mut lanes = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for l in 0..16 {
            let v = chunk[l].widen();
            lanes[l] = if beyond(v, lanes[l]) { v } else { lanes[l] };
        }
    }
    let all = lanes.into_iter().chain(rest.iter().map(|v| v.widen()));
    all.fold(0.0, |most, v| if beyond(v, most) { v } else { most })
}

dispatch! {
    fn round_token[T: Element](units: &mut [u8], x: &[T], scale: [f32; 2]) {
        const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer in the low bits.
        let [inverse, zero] = scale;
        for (unit, v) in units.iter_mut().zip(x) {
            let scaled = v.widen().mul_add(inverse, zero);
            let scaled = if scaled < 0.0 { 0.0 } else { scaled };
            let scaled = if scaled > 255.0 { 255.0 } else { scaled };
            *unit = (scaled + MAGIC).to_bits() as u8;
        }
    }
}

impl<T: Element> Linear<'_, T> {
    /// Computes the layer in int8.
    pub fn run_int8(self, w: &Int8Weight, quantized: &mut QuantizedRows) {
        let products = Int8Products::required();
        let (rows, outputs) = (self.x.len() / w.inputs, w.outputs());
        self.check(rows, w.inputs, outputs);
        assert!(self.z.is_none(), "int8 is for scoring only");
        if rows == 0 {
            return;
        }
        quantized.fill(self.x, w.inputs);
        let finish = Finish::new(self, outputs);
        let (units, right, steps) = (quantized.units.as_words(), w.right.as_words(), w.inputs / 4);
        tiles(products.rows(), [rows, outputs], w.inputs, |tile, [row, rows], panel| {
            let left = Left { words: &units[row * steps..], row_stride: steps, step_stride: 1 };
            let right = &right[panel * steps * COLUMNS..][..steps * COLUMNS];
            let mut sums: IntegerTile = [[0; COLUMNS]; MOST_ROWS];
            products.tile(&mut sums, left, right, rows);
            let column = panel * COLUMNS;
            let columns = COLUMNS.min(outputs - column);
            let scales = &w.scales[column..column + columns];
            dequantize(tile, &sums, &quantized.scales[row..row + rows], scales, &w.sums[column..column + columns]);
            for (values, outliers) in tile.iter_mut().zip(&quantized.outliers[row..row + rows]) {
                if !outliers.is_empty() {
                    add_outliers(values, outliers, right, scales);
                }
            }
            finish.tile(tile, [row, rows], [column, columns]);
        });
    }
}

dispatch! {
    fn dequantize(tile: &mut Tile, sums: &IntegerTile, rows: &[[f32; 2]], scales: &[f32], unit_sums: &[i32]) {
        for ((values, sums), [unit, zero]) in tile.iter_mut().zip(sums).zip(rows) {
            let zero = *zero as i32;
            for (((value, sum), scale), unit_sum) in values.iter_mut().zip(sums).zip(scales).zip(unit_sums) {
                *value = (sum - zero * unit_sum) as f32 * (unit * scale);
            }
        }
    }
}

dispatch! {
    /// Adds what was cut off a row's outliers, times their weights. `right` is the panel of `scales.len()` columns.
    fn add_outliers(values: &mut [f32; COLUMNS], outliers: &[(u32, f32)], right: &[u32], scales: &[f32]) {
        for (input, rest) in outliers {
            let words = &right[*input as usize / 4 * COLUMNS..][..scales.len()];
            let shift = 24 - 8 * (input % 4);
            for ((value, word), scale) in values.iter_mut().zip(words).zip(scales) {
                let unit = ((word << shift) as i32) >> 24;
                *value = (rest * unit as f32).mul_add(*scale, *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Bf16;
    use crate::parallel::with_threads;
    use crate::simd::tests::{on_both, on_twins_and_instructions};
    use proptest::prelude::*;

    /// Sums of three, twice as wide: closer to what activations look like than uniform ones.
    fn values(n: usize, seed: u64) -> Vec<f32> {
        crate::gemm::tests::values(3 * n, seed).chunks_exact(3).map(|c| c.iter().map(|v| 2.0 * v).sum()).collect()
    }

    impl Int8Weight {
        fn unit(&self, output: usize, input: usize) -> i8 {
            let (panel, column) = (output / COLUMNS, output % COLUMNS);
            let word = self.right.as_words()[(panel * (self.inputs / 4) + input / 4) * COLUMNS + column];
            word.to_le_bytes()[input % 4] as i8
        }
    }

    /// x is stored as T before and after.
    fn run<T: Element>(x: &[f32], weight: &Int8Weight, bias: &[f32]) -> Vec<f32> {
        let x: Vec<T> = x.iter().map(|v| T::narrow(*v)).collect();
        let mut y = vec![T::default(); x.len() / weight.inputs * weight.outputs()];
        Linear { y: &mut y, z: None, x: &x, bias, act: None }.run_int8(weight, &mut QuantizedRows::default());
        y.iter().map(|v| v.widen()).collect()
    }

    fn case(rows: usize, inputs: usize, outputs: usize, seed: u64) -> (Vec<f32>, Vec<f32>, Int8Weight) {
        let (x, w) = (values(rows * inputs, seed), values(inputs * outputs, seed ^ 3));
        let (units, scales) = quantize_weights(&w, inputs);
        (x, w, Int8Weight::new(&units, scales, inputs))
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(40))]
        /// Each output beside the exact product of x and the rounded weight. An input is off by half a unit at most, what
        /// was cut off is exact, and the result is rounded to bf16.
        #[test]
        fn a_layer_is_within_half_a_unit_of_each_input(rows in 1usize..40, quads in 16usize..80, half_out in 8usize..70, seed in any::<u64>(), outliers in 0usize..10) {
            let (inputs, outputs) = (4 * quads, 2 * half_out);
            let (mut x, w, weight) = case(rows, inputs, outputs, seed);
            for row in x.chunks_exact_mut(inputs) {
                for i in 0..outliers { row[i * 7] = 300.0 * (1.0 - 2.0 * (i % 2) as f32); }
            }
            let x: Vec<f32> = x.iter().map(|v| Bf16::narrow(*v).widen()).collect();
            let rounded: Vec<f32> = (0..w.len()).map(|i| f32::from(weight.unit(i / inputs, i % inputs)) * weight.scales[i / inputs]).collect();
            for (i, (rounded, w)) in rounded.iter().zip(&w).enumerate() {
                prop_assert!((rounded - w).abs() <= 0.5001 * weight.scales[i / inputs]);
            }
            on_twins_and_instructions(|| {
                let found = run::<Bf16>(&x, &weight, &vec![0.0; outputs]);
                for (row, found) in x.chunks_exact(inputs).zip(found.chunks_exact(outputs)) {
                    let unit = f64::from(unit_of(row));
                    for (found, rounded) in found.iter().zip(rounded.chunks_exact(inputs)) {
                        let products = || row.iter().zip(rounded).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let (exact, size): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
                        let off = 0.5001 * unit * rounded.iter().map(|w| f64::from(w.abs())).sum::<f64>() + 2e-6 * size;
                        let bound = off + (exact.abs() + off) / 256.0;
                        prop_assert!((f64::from(*found) - exact).abs() <= bound, "{} for {}, bound {}", found, exact, bound);
                    }
                }
                Ok(())
            })?;
        }
    }

    /// The value of one of 255 units of a row, after at most eight entries far beyond its mean magnitude were cut.
    fn unit_of(row: &[f32]) -> f32 {
        let mut limit = 8.0 * row.iter().map(|v| v.abs()).sum::<f32>() / row.len() as f32;
        while row.iter().filter(|v| v.abs() > limit).count() > 8 {
            limit *= 1.5;
        }
        let cut = |v: f32| v.clamp(-limit, limit);
        let (low, high) = row.iter().fold((0.0f32, 0.0f32), |(low, high), v| (low.min(cut(*v)), high.max(cut(*v))));
        (high - low) / 255.0
    }

    fn check_batches<T: Element>() {
        let (x, _, weight) = case(150, 388, 1152, 5);
        let bias = vec![0.5; 1152];
        let all = run::<T>(&x, &weight, &bias);
        for rows in [1, 2, 3, 4, 5, 11, 12, 13, 97] {
            let own = with_threads(1 + rows % 3, || run::<T>(&x[..rows * 388], &weight, &bias));
            assert!(own == all[..rows * 1152], "{rows} rows");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
        on_both(|| {
            check_batches::<Bf16>();
            check_batches::<f32>();
        });
    }

    /// So a layer is the same on every processor that has int8 products.
    #[test]
    fn a_layer_has_the_same_bits_by_its_twin_and_by_instructions() {
        let (mut x, _, weight) = case(40, 388, 130, 7);
        x[5] = 100.0;
        let found = std::cell::RefCell::new(Vec::new());
        on_both(|| found.borrow_mut().push(run::<f32>(&x, &weight, &[0.5; 130])));
        let found = found.into_inner();
        assert!(found.iter().all(|y| *y == found[0]));
    }

    /// One NaN among 64 inputs gave 32 finite outputs.
    #[test]
    fn c4_values_that_are_not_finite_make_their_row_nan_and_no_other() {
        let (x, w, weight) = case(3, 64, 32, 5);
        let expected = |y: &[f32], what: f32| {
            assert!(y[..32].iter().chain(&y[64..]).all(|v| v.is_finite()), "{what}: {y:?}");
            assert!(y[32..64].iter().all(|v| v.is_nan()), "{what}: {y:?}");
        };
        for (at, bad) in [(64, f32::NAN), (127, f32::NAN), (100, f32::INFINITY), (65, f32::NEG_INFINITY)] {
            let mut x = x.clone();
            x[at] = bad;
            on_both(|| {
                expected(&run::<Bf16>(&x, &weight, &[0.5; 32]), bad);
                expected(&run::<f32>(&x, &weight, &[0.5; 32]), bad);
            });
        }
        // Weights with a NaN make their output NaN, in encoders and in decoders.
        let mut w = w.clone();
        w[3 * 64 + 7] = f32::NAN;
        let (units, scales) = quantize_weights(&w, 64);
        let damaged = Int8Weight::new(&units, scales, 64);
        let nans = |y: &[f32]| (0..32).filter(|j| y[*j].is_nan()).collect::<Vec<_>>();
        on_both(|| assert_eq!(nans(&run::<Bf16>(&x, &damaged, &[0.0; 32])), [3]));
        let narrow = crate::gemm::NarrowWeight::pack(&w, 64, 32, crate::gemm::Width::Int8);
        let mut y = vec![0.0; 3 * 32];
        narrow.run(&mut y, &x, &[]);
        assert_eq!(nans(&y), [3]);
    }

    /// The smallest units that a quartet of equal weights allows are a quarter of the limit.
    #[test]
    fn weights_that_could_saturate_get_coarser_units() {
        let row: Vec<f32> = (0..64).map(|i| if i / 32 == 0 { 1.0 } else { -0.5 }).collect();
        let mut both = row.clone();
        both.extend((0..64).map(|i| if i == 7 { 1.0 } else { 0.01 }));
        let (units, scales) = quantize_weights(&both, 64);
        assert!((31..=32).contains(&units[0]) && units[63] == -16, "{} {}", units[0], units[63]);
        assert_eq!((units[64 + 7], units[64 + 6]), (122, 1), "one large weight among small ones costs little");
        assert!((f32::from(units[0]) * scales[0] - 1.0).abs() < 0.02);
    }

    #[test]
    fn units_stored_beyond_the_limit_are_rounded_to_coarser_ones() {
        let stored: Vec<i8> = (0..32 * 64).map(|i| if i / 64 == 3 { 127 } else { (i % 33) as i8 }).collect();
        let weight = Int8Weight::new(&stored, vec![0.5; 32], 64);
        for (i, unit) in stored.iter().enumerate() {
            let (row, kept) = (i / 64, weight.unit(i / 64, i % 64));
            if row == 3 {
                assert!((31..=32).contains(&kept), "{kept}");
                assert!((f32::from(kept) * weight.scales[row] - 63.5).abs() < 1.1);
            } else {
                assert_eq!((kept, weight.scales[row]), (*unit, 0.5), "row {row} is within the limit and stays");
            }
        }
    }

    #[test]
    fn zero_rows_and_zero_weights_stay_zero() {
        on_both(|| {
            let (units, scales) = quantize_weights(&[0.0; 16 * 16], 16);
            let weight = Int8Weight::new(&units, scales, 16);
            assert!(run::<Bf16>(&[0.0; 32], &weight, &[0.0; 16]).iter().all(|v| *v == 0.0));
            assert!(run::<f32>(&[0.0; 32], &weight, &[0.0; 16]).iter().all(|v| *v == 0.0));
        });
    }
}
