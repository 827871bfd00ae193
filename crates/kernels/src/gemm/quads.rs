//! int8 products on registers of 256 bits: for processors with AVX-VNNI, and for those with AVX2 alone.
//!
//! AVX2 has no sum of four products in 32 bits. `vpmaddubsw` multiplies bytes and adds pairs in 16 bits, and saturates
//! where a pair does not fit. Two such sums are added in 16 bits before `vpmaddwd` widens them to 32: 5 operations for
//! 64 products, where one step at a time would take 6. So what must fit into 16 bits is the sum of four products: two
//! neighbours of a step, and the same two of the step after. [`LIMIT`] is what that asks of the weights; under it no sum
//! saturates, whatever the activations, and the results are those of `vpdpbusd` to the bit.

#[cfg(any(test, target_arch = "x86_64"))]
use super::panels::COLUMNS;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{avx_vnni, avx2};

/// The most that the positive weights, and the magnitudes of the negative ones, of the four products that share 16 bits
/// may sum to: 255 · 128 is less than 2^15.
pub(super) const LIMIT: i32 = 128;

/// The largest of the sums that [`LIMIT`] bounds, over all quartets of a row of weights.
pub(super) fn largest_quartet<T: Copy>(row: &[T], value: impl Fn(T) -> f32) -> f32 {
    let mut largest = 0.0f32;
    for steps in row.chunks(8) {
        let mut w = [0.0f32; 8];
        w.iter_mut().zip(steps).for_each(|(w, weight)| *w = value(*weight));
        for [a, b, c, d] in [[w[0], w[1], w[4], w[5]], [w[2], w[3], w[6], w[7]]] {
            let positive = a.max(0.0) + b.max(0.0) + c.max(0.0) + d.max(0.0);
            largest = largest.max(positive).max(positive - (a + b + c + d));
        }
    }
    largest
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::tile::{IntegerTile, Left};
    use super::COLUMNS;
    use std::arch::x86_64::*;

    /// Columns of a register.
    const LANES: usize = 8;
    /// Registers of columns in a block: beside 4 rows of sums (6 with AVX-VNNI) the weights and a row's activations
    /// still fit into the 16 registers.
    const BESIDE: usize = 2;
    /// Columns of a block.
    const WIDTH: usize = BESIDE * LANES;

    /// A block of the tile: `R` rows from `row` on, 16 columns from `column` on.
    #[derive(Clone, Copy)]
    struct Block<'a> {
        left: Left<'a>,
        right: &'a [u32],
        row: usize,
        column: usize,
    }

    impl Block<'_> {
        fn steps(&self) -> usize {
            self.right.len() / COLUMNS
        }

        /// The weights of a step.
        ///
        /// # Safety
        /// The panel has this step.
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn weights(&self, step: usize) -> [__m256i; BESIDE] {
            // SAFETY: a step is 32 words, of which the column and 15 more are read.
            unsafe {
                let words = self.right.as_ptr().add(step * COLUMNS + self.column);
                [_mm256_loadu_si256(words.cast()), _mm256_loadu_si256(words.add(LANES).cast())]
            }
        }

        /// Where the activations of the block's rows start. Hidden, so that each row keeps a register.
        fn rows<const R: usize>(&self) -> [*const u32; R] {
            let start = |row: usize| self.left.words.as_ptr().wrapping_add((self.row + row) * self.left.row_stride);
            std::array::from_fn(|row| std::hint::black_box(start(row)))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn store<const R: usize>(&self, tile: &mut IntegerTile, sums: [[__m256i; BESIDE]; R]) {
            for (row, sums) in tile[self.row..self.row + R].iter_mut().zip(sums) {
                for (out, sums) in row[self.column..self.column + WIDTH].chunks_exact_mut(LANES).zip(sums) {
                    // SAFETY: `out` has the 8 values of a register.
                    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
                }
            }
        }
    }

    /// Adds to sums in 32 bits what 16 bits hold of two steps.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen_and_add(sums: __m256i, products: __m256i) -> __m256i {
        _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
    }

    /// # Safety
    /// The left side has the block's rows of as many steps as the panel has.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2_block<const R: usize>(tile: &mut IntegerTile, block: Block) {
        let (steps, rows, stride) = (block.steps(), block.rows::<R>(), block.left.step_stride);
        let mut sums = [[_mm256_setzero_si256(); BESIDE]; R];
        for step in (1..steps).step_by(2) {
            // SAFETY: `step` and the one before are steps of the panel and, by the caller's promise, of each row.
            unsafe {
                let (first, second) = (block.weights(step - 1), block.weights(step));
                for row in 0..R {
                    let a = _mm256_set1_epi32(*rows[row].add((step - 1) * stride) as i32);
                    let b = _mm256_set1_epi32(*rows[row].add(step * stride) as i32);
                    for v in 0..BESIDE {
                        let (a, b) = (_mm256_maddubs_epi16(a, first[v]), _mm256_maddubs_epi16(b, second[v]));
                        sums[row][v] = widen_and_add(sums[row][v], _mm256_add_epi16(a, b));
                    }
                }
            }
        }
        if steps % 2 == 1 {
            // SAFETY: as above.
            unsafe {
                let last = block.weights(steps - 1);
                for row in 0..R {
                    let a = _mm256_set1_epi32(*rows[row].add((steps - 1) * stride) as i32);
                    for v in 0..BESIDE {
                        sums[row][v] = widen_and_add(sums[row][v], _mm256_maddubs_epi16(a, last[v]));
                    }
                }
            }
        }
        block.store(tile, sums);
    }

    /// # Safety
    /// As [`avx2_block`], and the processor has AVX-VNNI.
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn avx_vnni_block<const R: usize>(tile: &mut IntegerTile, block: Block) {
        let (rows, stride) = (block.rows::<R>(), block.left.step_stride);
        let mut sums = [[_mm256_setzero_si256(); BESIDE]; R];
        for step in 0..block.steps() {
            // SAFETY: a step of the panel and, by the caller's promise, of each row.
            unsafe {
                let weights = block.weights(step);
                for row in 0..R {
                    let a = _mm256_set1_epi32(*rows[row].add(step * stride) as i32);
                    for v in 0..BESIDE {
                        sums[row][v] = _mm256_dpbusd_avx_epi32(sums[row][v], a, weights[v]);
                    }
                }
            }
        }
        block.store(tile, sums);
    }

    macro_rules! by_blocks {
        ($block:ident, $most:literal, $tile:expr, $left:expr, $right:expr, $rows:expr; $($n:literal)*) => {
            for column in (0..COLUMNS).step_by(WIDTH) {
                let mut row = 0;
                while row < $rows {
                    let block = Block { left: $left, right: $right, row, column };
                    let count = ($rows - row).min($most);
                    match count {
                        // SAFETY: the caller's promise.
                        $($n => unsafe { $block::<$n>($tile, block) },)*
                        other => unreachable!("a block has 1 to {} rows, not {other}", $most),
                    }
                    row += count;
                }
            }
        };
    }

    /// `tile[..rows] = left · right`, for weights within [`super::LIMIT`].
    ///
    /// # Safety
    /// `left` passed its check for `rows` rows, and the processor has AVX2.
    pub(in crate::gemm) unsafe fn avx2(tile: &mut IntegerTile, left: Left, right: &[u32], rows: usize) {
        by_blocks!(avx2_block, 4, tile, left, right, rows; 1 2 3 4)
    }

    /// `tile[..rows] = left · right`.
    ///
    /// # Safety
    /// `left` passed its check for `rows` rows, and the processor has AVX2 and AVX-VNNI.
    pub(in crate::gemm) unsafe fn avx_vnni(tile: &mut IntegerTile, left: Left, right: &[u32], rows: usize) {
        by_blocks!(avx_vnni_block, 6, tile, left, right, rows; 1 2 3 4 5 6)
    }
}
