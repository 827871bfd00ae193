//! Tiles of f32 products, beside those of bf16 and int8 in [`super::tile`]: a word of either side is one f32.
//!
//! The sum of an element is a chain of fused multiply-adds over the steps in order, so every instruction set gives
//! the same bits.

use super::Store;
use super::panels::COLUMNS;
#[cfg(any(test, target_arch = "x86_64"))]
use super::panels::ROWS;
use super::tile::{Left, Out};

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

    /// `out[..rows] = left · right`, or `+=`: `rows` is 1 to 12, `right` is one panel of `[steps][32]`.
    #[inline]
    pub(crate) fn store(self, store: Store, out: Out, left: Left, right: &[u32], rows: usize) {
        left.check(rows, right.len() / COLUMNS);
        out.check(rows);
        let add = store == Store::Add;
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both sides of rows were checked, the steps are those of `right`, and `here` saw the processor.
            Self::Avx512 => unsafe { x86::avx512(out.values.as_mut_ptr(), out.stride, left, right, rows, add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::avx2(out.values.as_mut_ptr(), out.stride, left, right, rows, add) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => unreachable!("AVX exists on x86-64 alone"),
            Self::Plain => f32_reference(out, left, right, rows, add),
        }
    }
}

dispatch! {
    /// Plain twin of the f32 products.
    fn f32_reference(out: Out<'_>, left: Left<'_>, right: &[u32], rows: usize, add: bool) {
        for (row, sums) in out.values.chunks_mut(out.stride).take(rows).enumerate() {
            let mut sum = [0.0f32; COLUMNS];
            if add {
                sum.copy_from_slice(&sums[..COLUMNS]);
            }
            for (step, words) in right.chunks_exact(COLUMNS).enumerate() {
                let a = f32::from_bits(left.word(row, step));
                for (sum, b) in sum.iter_mut().zip(words) {
                    *sum = a.mul_add(f32::from_bits(*b), *sum);
                }
            }
            sums[..COLUMNS].copy_from_slice(&sum);
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
    /// `left` passed its check for R rows, and `out` has as many of 32 values.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    unsafe fn rows512<const R: usize>(out: *mut f32, stride: usize, left: Left, right: &[u32], add: bool) {
        let (steps, a, b) = (right.len() / COLUMNS, left.words.as_ptr(), right.as_ptr());
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        if add {
            for row in 0..R {
                // SAFETY: the caller's promise.
                sums[row] = unsafe { [0, 16].map(|column| _mm512_loadu_ps(out.add(row * stride + column))) };
            }
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
            // SAFETY: the caller's promise.
            unsafe {
                _mm512_storeu_ps(out.add(row * stride), sums[row][0]);
                _mm512_storeu_ps(out.add(row * stride + 16), sums[row][1]);
            }
        }
    }

    /// R rows of 16 columns, from `column` on: as many sums as 16 registers leave room for.
    ///
    /// # Safety
    /// As [`rows512`]; `column` is 0 or 16.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows256<const R: usize>(
        out: *mut f32,
        stride: usize,
        left: Left,
        right: &[u32],
        column: usize,
        add: bool,
    ) {
        let (steps, a) = (right.len() / COLUMNS, left.words.as_ptr());
        // SAFETY: a step has 32 words, a row of `out` 32 values.
        let (b, out) = unsafe { (right.as_ptr().add(column), out.add(column)) };
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        if add {
            for row in 0..R {
                // SAFETY: the caller's promise.
                sums[row] = unsafe { [0, 8].map(|column| _mm256_loadu_ps(out.add(row * stride + column))) };
            }
        }
        for step in 0..steps {
            // SAFETY: as in `rows512`.
            unsafe {
                let b0 = _mm256_loadu_ps(b.add(step * COLUMNS).cast());
                let b1 = _mm256_loadu_ps(b.add(step * COLUMNS + 8).cast());
                for row in 0..R {
                    let word = a.add(row * left.row_stride + step * left.step_stride).cast();
                    let word = _mm256_broadcast_ss(&*word);
                    sums[row][0] = _mm256_fmadd_ps(word, b0, sums[row][0]);
                    sums[row][1] = _mm256_fmadd_ps(word, b1, sums[row][1]);
                }
            }
        }
        for row in 0..R {
            // SAFETY: the caller's promise.
            unsafe {
                _mm256_storeu_ps(out.add(row * stride), sums[row][0]);
                _mm256_storeu_ps(out.add(row * stride + 8), sums[row][1]);
            }
        }
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, `out` has as many of 32 values, and the processor has AVX-512 (F, VL, DQ, BW).
    #[inline]
    pub(super) unsafe fn avx512(out: *mut f32, stride: usize, left: Left, right: &[u32], rows: usize, add: bool) {
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise.
                    $($n => unsafe { rows512::<$n>(out, stride, left, right, add) },)*
                    other => unreachable!("a tile has 1 to {ROWS} rows, not {other}"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12)
    }

    /// # Safety
    /// `left` passed its check for `rows` rows, `out` has as many of 32 values, and the processor has AVX2 and FMA.
    #[inline]
    pub(super) unsafe fn avx2(out: *mut f32, stride: usize, left: Left, right: &[u32], rows: usize, add: bool) {
        const HALF: usize = ROWS / 2;
        for first in (0..rows).step_by(HALF) {
            let words = &left.words[first * left.row_stride..];
            // SAFETY: the place has `rows` rows.
            let (own, left) = (unsafe { out.add(first * stride) }, Left { words, ..left });
            for column in [0, COLUMNS / 2] {
                macro_rules! by_rows {
                    ($($n:literal)*) => {
                        match rows - first {
                            // SAFETY: the caller's promise.
                            $($n => unsafe { rows256::<$n>(own, stride, left, right, column, add) },)*
                            // SAFETY: as above.
                            _ => unsafe { rows256::<HALF>(own, stride, left, right, column, add) },
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
    use super::super::panels::MOST_ROWS;
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
            let (mut found, mut plain) = ([[7.0; COLUMNS]; MOST_ROWS], [[7.0; COLUMNS]; MOST_ROWS]);
            F32Products::here().store(store, Out::tile(&mut found), left, &b, rows);
            F32Products::Plain.store(store, Out::tile(&mut plain), left, &b, rows);
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
