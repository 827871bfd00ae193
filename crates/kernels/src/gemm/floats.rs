//! Tiles of f32 products, beside those of bf16 and int8 in [`super::tile`]: a word of either side is one f32.
//!
//! The sum of an element is a chain of fused multiply-adds over the steps in order, so every instruction set gives
//! the same bits.

use super::Store;
use super::panels::{COLUMNS, ROWS};
use super::tile::{Left, Tile};

/// What multiplies f32 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum F32Products {
    /// Registers of 512 bits. Only [`Self::here`] makes this value and the next one, after it saw the processor.
    Avx512,
    /// Registers of 256 bits.
    Avx2,
    /// [`f32_reference`].
    Plain,
}

impl F32Products {
    /// The products of this process.
    pub(crate) fn here() -> Self {
        match crate::isa() {
            crate::Isa::Avx512 => Self::Avx512,
            crate::Isa::Avx2 => Self::Avx2,
            crate::Isa::Baseline => Self::Plain,
        }
    }

    /// `tile[..rows] = left · right`, or `+=`: `rows` is 1 to 12, `right` is one panel of `[steps][32]`.
    #[inline]
    pub(crate) fn store(self, store: Store, tile: &mut Tile, left: Left, right: &[u32], rows: usize) {
        left.check(rows, right.len() / COLUMNS);
        let add = store == Store::Add;
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the left side was checked, the steps are those of `right`, and `here` saw the processor.
            Self::Avx512 => unsafe { x86::avx512(tile, left, right, rows, add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::avx2(tile, left, right, rows, add) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => unreachable!("AVX exists on x86-64 alone"),
            Self::Plain => f32_reference(tile, left, right, rows, add),
        }
    }
}

dispatch! {
    /// Plain twin of the f32 products.
    fn f32_reference(tile: &mut Tile, left: Left<'_>, right: &[u32], rows: usize, add: bool) {
        for (row, sums) in tile[..rows].iter_mut().enumerate() {
            let mut sum = if add { *sums } else { [0.0f32; COLUMNS] };
            for (step, words) in right.chunks_exact(COLUMNS).enumerate() {
                let a = f32::from_bits(left.word(row, step));
                for (sum, b) in sum.iter_mut().zip(words) {
                    *sum = a.mul_add(f32::from_bits(*b), *sum);
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

    /// R rows of 32 columns.
    ///
    /// # Safety
    /// `left` passed its check for R rows.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    unsafe fn rows512<const R: usize>(tile: &mut Tile, left: Left, right: &[u32], add: bool) {
        let (steps, a, b) = (right.len() / COLUMNS, left.words.as_ptr(), right.as_ptr());
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for row in 0..if add { R } else { 0 } {
            let from = tile[row].as_ptr();
            // SAFETY: a row of the tile is 32 values.
            sums[row] = unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] };
        }
        for step in 0..steps {
            // SAFETY: the right side has `steps` steps of 32 words; the caller checked R words a step on the left.
            unsafe {
                let b0 = _mm512_loadu_ps(b.add(step * COLUMNS).cast());
                let b1 = _mm512_loadu_ps(b.add(step * COLUMNS + 16).cast());
                for row in 0..R {
                    let word = *a.add(row * left.row_stride + step * left.step_stride);
                    let word = _mm512_castsi512_ps(_mm512_set1_epi32(word as i32));
                    sums[row][0] = _mm512_fmadd_ps(word, b0, sums[row][0]);
                    sums[row][1] = _mm512_fmadd_ps(word, b1, sums[row][1]);
                }
            }
        }
        for row in 0..R {
            let to = tile[row].as_mut_ptr();
            // SAFETY: a row of the tile is 32 values.
            unsafe {
                _mm512_storeu_ps(to, sums[row][0]);
                _mm512_storeu_ps(to.add(16), sums[row][1]);
            }
        }
    }

    /// R rows of 16 columns, from `column` on: as many sums as 16 registers leave room for.
    ///
    /// # Safety
    /// As [`rows512`]; `tile` has R rows, `column` is 0 or 16.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows256<const R: usize>(
        tile: &mut [[f32; COLUMNS]],
        left: Left,
        right: &[u32],
        column: usize,
        add: bool,
    ) {
        let (steps, a, b) = (right.len() / COLUMNS, left.words.as_ptr(), right.as_ptr());
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for row in 0..if add { R } else { 0 } {
            let from = tile[row][column..].as_ptr();
            // SAFETY: 16 values of the row follow.
            sums[row] = unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] };
        }
        for step in 0..steps {
            // SAFETY: as in `rows512`.
            unsafe {
                let b0 = _mm256_loadu_ps(b.add(step * COLUMNS + column).cast());
                let b1 = _mm256_loadu_ps(b.add(step * COLUMNS + column + 8).cast());
                for row in 0..R {
                    let word = a.add(row * left.row_stride + step * left.step_stride).cast();
                    let word = _mm256_broadcast_ss(&*word);
                    sums[row][0] = _mm256_fmadd_ps(word, b0, sums[row][0]);
                    sums[row][1] = _mm256_fmadd_ps(word, b1, sums[row][1]);
                }
            }
        }
        for row in 0..R {
            let to = tile[row][column..].as_mut_ptr();
            // SAFETY: 16 values of the row follow.
            unsafe {
                _mm256_storeu_ps(to, sums[row][0]);
                _mm256_storeu_ps(to.add(8), sums[row][1]);
            }
        }
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, and the processor has AVX-512 (F, VL, DQ, BW).
    #[inline]
    pub(super) unsafe fn avx512(tile: &mut Tile, left: Left, right: &[u32], rows: usize, add: bool) {
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise.
                    $($n => unsafe { rows512::<$n>(tile, left, right, add) },)*
                    other => unreachable!("a tile has 1 to {ROWS} rows, not {other}"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12)
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, and the processor has AVX2 and FMA.
    #[inline]
    pub(super) unsafe fn avx2(tile: &mut Tile, left: Left, right: &[u32], rows: usize, add: bool) {
        const HALF: usize = ROWS / 2;
        for first in (0..rows).step_by(HALF) {
            let words = &left.words[first * left.row_stride..];
            let (own, left) = (&mut tile[first..], Left { words, ..left });
            for column in [0, COLUMNS / 2] {
                macro_rules! by_rows {
                    ($($n:literal)*) => {
                        match rows - first {
                            // SAFETY: the caller's promise.
                            $($n => unsafe { rows256::<$n>(own, left, right, column, add) },)*
                            // SAFETY: as above.
                            _ => unsafe { rows256::<HALF>(own, left, right, column, add) },
                        }
                    };
                }
                by_rows!(1 2 3 4 5)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::values;
    use proptest::prelude::*;

    fn words(n: usize, seed: u64) -> Vec<u32> {
        values(n, seed).into_iter().map(f32::to_bits).collect()
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(128))]
        #[test]
        fn f32_products_have_the_bits_of_a_plain_loop(rows in 1usize..=12, steps in 0usize..150, straight: bool, add: bool, seed: u64) {
            let (a, b) = (words(ROWS * steps, seed), words(COLUMNS * steps, !seed));
            let (row_stride, step_stride) = if straight { (steps, 1) } else { (1, ROWS) };
            let left = Left { words: &a, row_stride, step_stride };
            let store = if add { Store::Add } else { Store::Replace };
            let (mut found, mut plain) = ([[7.0; COLUMNS]; ROWS], [[7.0; COLUMNS]; ROWS]);
            F32Products::here().store(store, &mut found, left, &b, rows);
            F32Products::Plain.store(store, &mut plain, left, &b, rows);
            for (row, column) in (0..ROWS).flat_map(|r| (0..COLUMNS).map(move |c| (r, c))) {
                let start = if add || row >= rows { 7.0f32 } else { 0.0 };
                let term = |sum: f32, step: usize| {
                    f32::from_bits(left.word(row, step)).mul_add(f32::from_bits(b[step * COLUMNS + column]), sum)
                };
                let expected = (0..if row < rows { steps } else { 0 }).fold(start, term);
                prop_assert_eq!(found[row][column].to_bits(), expected.to_bits(), "row {} column {}", row, column);
                prop_assert_eq!(plain[row][column].to_bits(), expected.to_bits());
            }
        }
    }
}
