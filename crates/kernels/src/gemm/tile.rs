//! The innermost loops: a tile of accumulators that stays in registers over the whole reduction. It has 12×32 of them, or
//! 32×32 with AMX.
//!
//! Each step loads 32 columns of B (two registers) and broadcasts one word of A per row; [`super::amx`] has what tiles of
//! AMX do. The sum of an element runs over the steps in order, so its bits depend on its own row and column alone.
//!
//! The products have plain twins. Under `KUDOS_ISA=emulated` and `emulatedamx` they take the place of the instructions, so
//! that all code around the products runs on any processor.

use super::Store;
use super::amx::{self, flushed};
use super::panels::{COLUMNS, LeftPanels, MOST_ROWS, ROWS};
#[cfg(any(test, target_arch = "x86_64"))]
use super::quads;
use crate::simd::{self, Twins};

/// A's words: that of `row` at `step` is `words[row · row_stride + step · step_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) row_stride: usize,
    pub(crate) step_stride: usize,
}

impl<'a> Left<'a> {
    /// The same side from its word `start` on.
    pub(crate) fn from(self, start: usize) -> Left<'a> {
        Left { words: &self.words[start..], ..self }
    }

    /// Refuses a left side that is shorter than `rows` rows of `steps` words.
    pub(super) fn check(&self, rows: usize, steps: usize) {
        assert!((1..=MOST_ROWS).contains(&rows), "a tile has 1 to {MOST_ROWS} rows, not {rows}");
        if let Some(last) = steps.checked_sub(1) {
            let end = (rows - 1) * self.row_stride + last * self.step_stride;
            assert!(end < self.words.len(), "the left side ends before row {rows} of {steps} steps");
        }
    }

    #[inline(always)]
    pub(super) fn word(&self, row: usize, step: usize) -> u32 {
        self.words[row * self.row_stride + step * self.step_stride]
    }
}

/// Where the rows of 32 values of a product go.
pub(crate) struct Out<'a> {
    /// Starts with the first value.
    pub(crate) values: &'a mut [f32],
    /// Values from one row to the next.
    pub(crate) stride: usize,
}

impl<'a> Out<'a> {
    /// Into a tile.
    pub(crate) fn tile(tile: &'a mut Tile) -> Self {
        Self { values: tile.as_flattened_mut(), stride: COLUMNS }
    }

    /// Refuses a place that is shorter than `rows` rows, whose number was checked.
    pub(super) fn check(&self, rows: usize) {
        let end = (rows - 1) * self.stride + COLUMNS;
        assert!(end <= self.values.len() && self.stride >= COLUMNS, "the place of a product ends before row {rows}");
    }
}

/// A result tile in f32; rows beyond the asked ones keep their content.
pub(crate) type Tile = [[f32; COLUMNS]; MOST_ROWS];
/// A result tile of integer products.
pub(crate) type IntegerTile = [[i32; COLUMNS]; MOST_ROWS];

/// What multiplies pairs of bf16 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bf16Products {
    /// `tdpbf16ps` on tiles. Only [`Self::here`] makes this value and the next one, after it saw the processor.
    Amx,
    /// `vdpbf16ps` on registers of 512 bits.
    Avx512Bf16,
    /// [`bf16_reference`].
    Emulated,
    /// [`amx::bf16_reference`].
    EmulatedAmx,
}

impl Bf16Products {
    /// The products of this process, if it has any.
    pub(crate) fn here() -> Option<Self> {
        let missing = || simd::missing_is_emulated().then_some(Self::Emulated);
        match simd::emulated() {
            Some(Twins::Registers) => Some(Self::Emulated),
            Some(Twins::Amx) => Some(Self::EmulatedAmx),
            None => Self::of_this_processor().next().or_else(missing),
        }
    }

    /// The instructions that kernels may use here, the fastest first.
    pub(crate) fn of_this_processor() -> impl Iterator<Item = Self> {
        let has = [(Self::Amx, simd::processor_has_amx()), (Self::Avx512Bf16, simd::processor_has_bf16())];
        has.into_iter().filter(|(_, has)| *has).map(|(products, _)| products)
    }

    /// As [`Self::here`], for a kernel that cannot do without.
    pub(crate) fn required() -> Self {
        Self::here().expect("bf16 products need AMX, AVX-512 BF16, or KUDOS_ISA=emulated")
    }

    /// Rows of a tile at most.
    pub(crate) fn rows(self) -> usize {
        self.left_panels().rows()
    }

    /// How a left side is packed whose rows run along the reduction.
    pub(crate) fn left_panels(self) -> LeftPanels {
        match self {
            Self::Avx512Bf16 | Self::Emulated => LeftPanels::BySteps,
            Self::Amx | Self::EmulatedAmx => LeftPanels::ByRows,
        }
    }

    /// `tile[..rows] = left · right` over pairs of bf16: `rows` is 1 to [`Self::rows`], `right` is one panel of `[steps][32]`.
    #[inline(always)]
    pub(crate) fn tile(self, tile: &mut Tile, left: Left, right: &[u32], rows: usize) {
        self.store(Store::Replace, Out::tile(tile), left, right, rows);
    }

    /// As [`Self::tile`] to any place, or `+=`: the sums then begin with the values that are there.
    #[inline(always)]
    pub(crate) fn store(self, store: Store, out: Out, left: Left, right: &[u32], rows: usize) {
        left.check(rows, right.len() / COLUMNS);
        out.check(rows);
        assert!(rows <= self.rows());
        let add = store == Store::Add;
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both sides of rows were checked, the steps are those of `right`, and `here` saw the processor.
            Self::Amx => unsafe {
                let out = (out.values.as_mut_ptr().cast(), out.stride);
                amx::store(amx::Kind::Bf16, out, left, right, rows, add);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both sides of rows were checked, the steps are those of `right`, and `here` saw the processor.
            Self::Avx512Bf16 => unsafe { x86::bf16(out.values.as_mut_ptr(), out.stride, left, right, rows, add) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512Bf16 => unreachable!("AMX and AVX-512 exist on x86-64 alone"),
            Self::Emulated => bf16_reference(out, left, right, rows, add),
            Self::EmulatedAmx => amx::bf16_reference(out, left, right, rows, add),
        }
    }
}

/// What multiplies quads of int8 here. All give the same integers for weights within [`quads::LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int8Products {
    /// `tdpbusd` on tiles. Only [`Self::here`] makes this value and the next three, after it saw the processor.
    Amx,
    /// `vpdpbusd` on registers of 512 bits.
    Avx512Vnni,
    /// `vpdpbusd` on registers of 256 bits.
    AvxVnni,
    /// `vpmaddubsw` and `vpmaddwd`.
    Avx2,
    /// [`int8_reference`].
    Emulated,
    /// [`int8_reference`], on tiles as tall as AMX's.
    EmulatedAmx,
}

impl Int8Products {
    /// The products of this process, if it has any: the fastest.
    pub(crate) fn here() -> Option<Self> {
        let missing = || simd::missing_is_emulated().then_some(Self::Emulated);
        match simd::emulated() {
            Some(Twins::Registers) => Some(Self::Emulated),
            Some(Twins::Amx) => Some(Self::EmulatedAmx),
            None => Self::of_this_processor().next().or_else(missing),
        }
    }

    /// The instructions that kernels may use here, the fastest first.
    pub(crate) fn of_this_processor() -> impl Iterator<Item = Self> {
        let has = [
            (Self::Amx, simd::processor_has_amx()),
            (Self::Avx512Vnni, simd::processor_has_vnni()),
            (Self::AvxVnni, simd::processor_has_avx_vnni()),
            (Self::Avx2, simd::processor_has_avx2()),
        ];
        has.into_iter().filter(|(_, has)| *has).map(|(products, _)| products)
    }

    /// As [`Self::here`], for a kernel that cannot do without.
    pub(crate) fn required() -> Self {
        Self::here().expect("int8 products need AVX2, or KUDOS_ISA=emulated")
    }

    /// Rows of a tile at most.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::Amx | Self::EmulatedAmx => MOST_ROWS,
            Self::Avx512Vnni | Self::AvxVnni | Self::Avx2 | Self::Emulated => ROWS,
        }
    }

    /// `tile[..rows] = left · right` over quads, unsigned on the left and signed on the right: `rows` is 1 to
    /// [`Self::rows`], `right` is one panel of `[steps][32]`. For AVX2 the weights must lie within [`quads::LIMIT`].
    #[inline(always)]
    pub(crate) fn tile(self, tile: &mut IntegerTile, left: Left, right: &[u32], rows: usize) {
        left.check(rows, right.len() / COLUMNS);
        assert!(rows <= self.rows());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the left side was checked, the steps are those of `right`, and `here` saw the processor.
            Self::Amx => unsafe {
                let out = (tile.as_flattened_mut().as_mut_ptr().cast(), COLUMNS);
                amx::store(amx::Kind::Int8, out, left, right, rows, false);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the left side was checked, the steps are those of `right`, and `here` saw the processor.
            Self::Avx512Vnni => unsafe {
                x86::int8(tile.as_flattened_mut().as_mut_ptr(), COLUMNS, left, right, rows, false)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::AvxVnni => unsafe { quads::avx_vnni(tile, left, right, rows) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { quads::avx2(tile, left, right, rows) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512Vnni | Self::AvxVnni | Self::Avx2 => unreachable!("AVX exists on x86-64 alone"),
            Self::Emulated | Self::EmulatedAmx => int8_reference(tile, left, right, rows),
        }
    }
}

dispatch! {
    /// Plain twin of the bf16 products.
    ///
    /// `vdpbf16ps` adds the product of the upper halves to the sum, then that of the lower halves. It rounds to the
    /// nearest even after each, and takes denormal inputs and results as zero. A product of two bf16 has at most 16
    /// significant bits, so it is exact in f32 and a fused multiply-add is not needed. The twin differs only where a
    /// product alone leaves f32's range: the instruction keeps it until it was added.
    fn bf16_reference(out: Out<'_>, left: Left<'_>, right: &[u32], rows: usize, add: bool) {
        for (row, sums) in out.values.chunks_mut(out.stride).take(rows).enumerate() {
            let mut sum = [0.0f32; COLUMNS];
            if add {
                sum.copy_from_slice(&sums[..COLUMNS]);
            }
            for (step, words) in right.chunks_exact(COLUMNS).enumerate() {
                let a = left.word(row, step);
                for (sum, b) in sum.iter_mut().zip(words) {
                    *sum = flushed(*sum + upper(a) * upper(*b));
                    *sum = flushed(*sum + lower(a) * lower(*b));
                }
            }
            sums[..COLUMNS].copy_from_slice(&sum);
        }
    }
}

/// The upper of two bf16 as f32, denormals as zero.
#[inline(always)]
fn upper(word: u32) -> f32 {
    flushed(f32::from_bits(word & 0xffff_0000))
}

/// The lower of two bf16 as f32, denormals as zero.
#[inline(always)]
fn lower(word: u32) -> f32 {
    flushed(f32::from_bits(word << 16))
}

dispatch! {
    /// Plain twin of the int8 products: `vpdpbusd` adds four products of u8 and i8 to an i32, without saturation.
    fn int8_reference(tile: &mut IntegerTile, left: Left<'_>, right: &[u32], rows: usize) {
        for (row, sums) in tile[..rows].iter_mut().enumerate() {
            let mut sum = [0i32; COLUMNS];
            for (step, words) in right.chunks_exact(COLUMNS).enumerate() {
                let a = left.word(row, step);
                for (sum, b) in sum.iter_mut().zip(words) {
                    for byte in 0..4 {
                        let unsigned = (a >> (8 * byte) & 0xff) as i32;
                        let signed = (b << (24 - 8 * byte)) as i32 >> 24;
                        *sum = sum.wrapping_add(unsigned * signed);
                    }
                }
            }
            *sums = sum;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    macro_rules! tile_kernel {
        ($name:ident, $features:literal, $register:ty, $zero:ident, $load:ident, $step:expr, $store:ident, $value:ty) => {
            #[target_feature(enable = $features)]
            unsafe fn $name<const R: usize>(out: *mut $value, stride: usize, left: Left, right: &[u32], add: bool) {
                let (steps, a, b) = (right.len() / COLUMNS, left.words.as_ptr(), right.as_ptr());
                let mut sums: [[$register; 2]; R] = [[$zero(); 2]; R];
                if add {
                    for row in 0..R {
                        // SAFETY: the caller promises R rows of 32 values.
                        sums[row] = unsafe {
                            let from = out.add(row * stride);
                            [$load(from.cast()), $load(from.add(16).cast())]
                        };
                    }
                }
                for step in 0..steps {
                    // SAFETY: the right side has `steps` steps of 32 words; the caller checked R words a step on the left.
                    unsafe {
                        let b0 = _mm512_loadu_si512(b.add(step * COLUMNS).cast());
                        let b1 = _mm512_loadu_si512(b.add(step * COLUMNS + 16).cast());
                        for row in 0..R {
                            let word = *a.add(row * left.row_stride + step * left.step_stride);
                            let word = _mm512_set1_epi32(word as i32);
                            sums[row][0] = $step(sums[row][0], word, b0);
                            sums[row][1] = $step(sums[row][1], word, b1);
                        }
                    }
                }
                for row in 0..R {
                    // SAFETY: as above.
                    unsafe {
                        let out = out.add(row * stride);
                        $store(out.cast(), sums[row][0]);
                        $store(out.add(16).cast(), sums[row][1]);
                    }
                }
            }
        };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_step(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: both are 512 bits of anything.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }

    tile_kernel!(
        bf16_rows,
        "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16",
        __m512,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        bf16_step,
        _mm512_storeu_ps,
        f32
    );
    tile_kernel!(
        int8_rows,
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
        __m512i,
        _mm512_setzero_si512,
        _mm512_loadu_si512,
        _mm512_dpbusd_epi32,
        _mm512_storeu_si512,
        i32
    );

    macro_rules! by_rows {
        ($kernel:ident, $out:expr, $stride:expr, $left:expr, $right:expr, $rows:expr, $add:expr; $($n:literal)*) => {
            match $rows {
                // SAFETY: the caller's promise.
                $($n => unsafe { $kernel::<$n>($out, $stride, $left, $right, $add) },)*
                other => unreachable!("a tile has 1 to 12 rows, not {other}"),
            }
        };
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, `out` has as many of 32 values, and the processor has AVX-512 BF16.
    #[inline]
    pub(crate) unsafe fn bf16(out: *mut f32, stride: usize, left: Left, right: &[u32], rows: usize, add: bool) {
        by_rows!(bf16_rows, out, stride, left, right, rows, add; 1 2 3 4 5 6 7 8 9 10 11 12)
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, `out` has as many of 32 values, and the processor has AVX-512 VNNI.
    #[inline]
    pub(crate) unsafe fn int8(out: *mut i32, stride: usize, left: Left, right: &[u32], rows: usize, add: bool) {
        by_rows!(int8_rows, out, stride, left, right, rows, add; 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bf16::{Bf16, Element};
    use proptest::prelude::*;

    pub(in crate::gemm) fn words(n: usize, seed: u64, word: impl Fn(u64) -> u32) -> Vec<u32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word(state >> 16)
            })
            .collect()
    }

    /// Two bf16 in [−1, 1).
    fn pair(random: u64) -> u32 {
        let half = |bits: u64| u32::from(Bf16::narrow((bits & 0xffff) as f32 / 32768.0 - 1.0).0);
        half(random) | half(random >> 16) << 16
    }

    /// Rows of `steps` words one after the other, or steps of 32 words.
    pub(in crate::gemm) fn left(words: &[u32], steps: usize, straight: bool) -> Left<'_> {
        let (row_stride, step_stride) = if straight { (steps, 1) } else { (1, MOST_ROWS) };
        Left { words, row_stride, step_stride }
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(128))]
        /// Each addition rounds once: the twin is as far from exact as two roundings a step allow, and so is the instruction.
        #[test]
        fn bf16_products_are_their_twins(rows in 1usize..=12, steps in 0usize..200, straight: bool, seed: u64) {
            let (a, b) = (words(MOST_ROWS * steps, seed, pair), words(COLUMNS * steps, !seed, pair));
            let left = left(&a, steps, straight);
            let (mut twin, mut found) = ([[7.0; COLUMNS]; MOST_ROWS], [[7.0; COLUMNS]; MOST_ROWS]);
            let registers = Bf16Products::of_this_processor().find(|products| *products != Bf16Products::Amx);
            Bf16Products::Emulated.tile(&mut twin, left, &b, rows);
            registers.unwrap_or(Bf16Products::Emulated).tile(&mut found, left, &b, rows);
            for (row, column) in (0..MOST_ROWS).flat_map(|r| (0..COLUMNS).map(move |c| (r, c))) {
                let pairs = |step: usize| [16, 0].map(|shift| {
                    let value = |word: u32| f64::from(f32::from_bits(word >> shift << 16));
                    value(left.word(row, step)) * value(b[step * COLUMNS + column])
                });
                let products = || (0..steps).flat_map(pairs);
                let bound = 2.0 * steps as f64 * f64::from(f32::EPSILON / 2.0) * products().map(f64::abs).sum::<f64>();
                for value in [twin[row][column], found[row][column]] {
                    if row >= rows {
                        prop_assert_eq!(value, 7.0, "rows beyond the asked ones keep their content");
                    } else {
                        let error = (f64::from(value) - products().sum::<f64>()).abs();
                        prop_assert!(error <= bound, "row {} column {}: error {} above {}", row, column, error, bound);
                    }
                }
            }
        }

        /// With 7-bit random weights and with quartets at the limit, and with activations of 255 throughout.
        #[test]
        fn int8_products_are_their_twins(tall in 1usize..=32, steps in 0usize..200, straight: bool, extreme: bool, seed: u64) {
            let activation = |random: u64| if extreme { u32::MAX } else { random as u32 };
            let (a, b) = (words(MOST_ROWS * steps, seed, activation), weights(steps, !seed));
            let left = left(&a, steps, straight);
            let twins = [Int8Products::Emulated, Int8Products::EmulatedAmx];
            for products in Int8Products::of_this_processor().chain(twins) {
                let rows = tall.min(products.rows());
                let mut found = [[7; COLUMNS]; MOST_ROWS];
                products.tile(&mut found, left, &b, rows);
                for (row, column) in (0..MOST_ROWS).flat_map(|r| (0..COLUMNS).map(move |c| (r, c))) {
                    let quad = |step: usize| {
                        let (a, b) = (left.word(row, step).to_le_bytes(), b[step * COLUMNS + column].to_le_bytes());
                        (0..4).map(|i| i32::from(a[i]) * i32::from(b[i] as i8)).sum::<i32>()
                    };
                    let expected = if row < rows { (0..steps).map(quad).sum() } else { 7 };
                    prop_assert_eq!(found[row][column], expected, "{:?}, row {}, column {}", products, row, column);
                }
            }
        }
    }

    /// `[steps][32]` words whose quartets (two neighbours, and the same two a step later) sum to 128 at most on each
    /// side of zero, many of them to exactly that.
    fn weights(steps: usize, seed: u64) -> Vec<u32> {
        const LIMITS: [[i8; 4]; 7] = [
            [32, 32, 32, 32],
            [-32, -32, -32, -32],
            [127, 1, 0, 0],
            [0, -1, 0, -127],
            [64, -64, 64, -64],
            [127, -127, 1, -1],
            [0, 0, -1, -127],
        ];
        let mut bytes = vec![0i8; 4 * COLUMNS * (steps + 1)];
        for (i, random) in words(COLUMNS * steps.div_ceil(2) * 2, seed, |random| random as u32).into_iter().enumerate()
        {
            let (pair, column, half) = (i / COLUMNS / 2, i / 2 % COLUMNS, i % 2);
            let quartet = match LIMITS.get(random as usize % 9) {
                Some(quartet) => *quartet,
                None => random.to_le_bytes().map(|byte| (byte % 65) as i8 - 32),
            };
            for (place, weight) in quartet.into_iter().enumerate() {
                let step = 2 * pair + place / 2;
                bytes[(step * COLUMNS + column) * 4 + 2 * half + place % 2] = weight;
            }
        }
        let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([0, 1, 2, 3].map(|i| word[i] as u8)));
        words.take(COLUMNS * steps).collect()
    }

    #[test]
    fn the_test_weights_reach_the_limit_and_stay_within() {
        let (steps, b) = (40, weights(40, 3));
        let row = |column: usize| -> Vec<f32> {
            let word = |step: usize| b[step * COLUMNS + column].to_le_bytes();
            (0..steps).flat_map(|step| word(step).map(|byte| f32::from(byte as i8))).collect()
        };
        let largest = (0..COLUMNS).map(|column| quads::largest_quartet(&row(column), |w| w));
        assert!(largest.into_iter().all(|sum| sum == quads::LIMIT as f32));
    }

    /// One step of one pair in every lane.
    fn one(products: Bf16Products, a: [f32; 2], b: [f32; 2]) -> f32 {
        let word = |[low, high]: [f32; 2]| u32::from(Bf16::narrow(low).0) | u32::from(Bf16::narrow(high).0) << 16;
        let (a, right) = ([word(a)], [word(b); COLUMNS]);
        let mut tile = [[7.0; COLUMNS]; MOST_ROWS];
        products.tile(&mut tile, Left { words: &a, row_stride: 1, step_stride: 1 }, &right, 1);
        tile[0][COLUMNS - 1]
    }

    #[test]
    fn edges_of_bf16_products() {
        let tiny = f32::MIN_POSITIVE;
        let denormal = Bf16(0x0001).widen();
        let cases = [
            ([denormal, 0.0], [1e30, 1.0], 0.0),          // A denormal operand counts as zero.
            ([tiny, 0.0], [0.5, 0.0], 0.0),               // So does a denormal result.
            ([1.0, 256.0], [1.0, 65536.0], 16_777_216.0), // Ties to even, the halves in either order.
            ([f32::INFINITY, 1.0], [1.0, 1.0], f32::INFINITY),
            ([f32::NEG_INFINITY, 1.0], [1.0, 1.0], f32::NEG_INFINITY),
        ];
        let twins = [Bf16Products::Emulated, Bf16Products::EmulatedAmx];
        for products in Bf16Products::of_this_processor().chain(twins) {
            for (a, b, expected) in cases {
                assert_eq!(one(products, a, b), expected, "{products:?}: {a:?} · {b:?}");
            }
            assert!(one(products, [f32::NAN, 1.0], [1.0, 1.0]).is_nan());
            assert!(one(products, [f32::INFINITY, 1.0], [0.0, 1.0]).is_nan());
        }
    }

    #[test]
    fn c3_a_left_side_that_is_too_short_is_refused() {
        let short = vec![0; 2 * 8 - 1];
        let right = vec![0; 8 * COLUMNS];
        let tile = || {
            let left = Left { words: &short, row_stride: 8, step_stride: 1 };
            Bf16Products::Emulated.tile(&mut [[0.0; COLUMNS]; MOST_ROWS], left, &right, 2);
        };
        assert!(std::panic::catch_unwind(tile).is_err());
    }
}
