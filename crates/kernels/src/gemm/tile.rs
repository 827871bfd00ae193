//! The innermost loops: a tile of 12×32 accumulators that stays in registers over the whole reduction.
//!
//! Each step loads 32 columns of B (two registers) and broadcasts one word of A per row. The sum of an
//! element runs over the steps in order, so its bits depend on its own row and column alone.

use super::panels::{COLUMNS, ROWS};

/// A's words: that of `row` at `step` is `data[row · row_stride + step · step_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) data: *const u32,
    pub(crate) row_stride: usize,
    pub(crate) step_stride: usize,
}

/// A result tile in f32; rows beyond the asked ones keep their content.
pub(crate) type Tile = [[f32; COLUMNS]; ROWS];
/// A result tile of integer products.
pub(crate) type IntegerTile = [[i32; COLUMNS]; ROWS];

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    macro_rules! tile_kernel {
        ($name:ident, $features:literal, $register:ty, $zero:ident, $step:expr, $store:ident, $tile:ty) => {
            #[target_feature(enable = $features)]
            unsafe fn $name<const R: usize>(tile: &mut $tile, left: Left, right: *const u32, steps: usize) {
                let mut sums: [[$register; 2]; R] = [[$zero(); 2]; R];
                for step in 0..steps {
                    // SAFETY: the caller promises `steps` steps of 32 words on the right and of R words on the left.
                    unsafe {
                        let b0 = _mm512_loadu_si512(right.add(step * COLUMNS).cast());
                        let b1 = _mm512_loadu_si512(right.add(step * COLUMNS + 16).cast());
                        for row in 0..R {
                            let word = *left.data.add(row * left.row_stride + step * left.step_stride);
                            let a = _mm512_set1_epi32(word as i32);
                            sums[row][0] = $step(sums[row][0], a, b0);
                            sums[row][1] = $step(sums[row][1], a, b1);
                        }
                    }
                }
                for row in 0..R {
                    let out = tile[row].as_mut_ptr();
                    // SAFETY: a row of the tile is 32 values.
                    unsafe {
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
        bf16_step,
        _mm512_storeu_ps,
        Tile
    );
    tile_kernel!(
        int8_rows,
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
        __m512i,
        _mm512_setzero_si512,
        _mm512_dpbusd_epi32,
        _mm512_storeu_si512,
        IntegerTile
    );

    macro_rules! by_rows {
        ($kernel:ident, $tile:expr, $left:expr, $right:expr, $steps:expr, $rows:expr; $($n:literal)*) => {
            match $rows {
                // SAFETY: the caller's promise.
                $($n => unsafe { $kernel::<$n>($tile, $left, $right, $steps) },)*
                other => unreachable!("a tile has 1 to 12 rows, not {other}"),
            }
        };
    }

    /// # Safety
    /// As [`super::bf16`].
    #[inline]
    pub(crate) unsafe fn bf16(tile: &mut Tile, left: Left, right: *const u32, steps: usize, rows: usize) {
        by_rows!(bf16_rows, tile, left, right, steps, rows; 1 2 3 4 5 6 7 8 9 10 11 12)
    }

    /// # Safety
    /// As [`super::int8`].
    #[inline]
    pub(crate) unsafe fn int8(tile: &mut IntegerTile, left: Left, right: *const u32, steps: usize, rows: usize) {
        by_rows!(int8_rows, tile, left, right, steps, rows; 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

/// `tile[..rows] = left · right` over `steps` pairs of bf16.
///
/// # Safety
/// `left` must hold `rows` (1 to 12) rows and `right` a panel of `steps` steps, and
/// [`crate::bf16::has_low_precision`] must be true.
#[inline]
pub(crate) unsafe fn bf16(tile: &mut Tile, left: Left, right: *const u32, steps: usize, rows: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        x86::bf16(tile, left, right, steps, rows)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("bf16 products need AVX-512: {tile:p} {left:?} {right:p} {steps} {rows}")
}

/// `tile[..rows] = left · right` over `steps` quads, unsigned on the left and signed on the right.
///
/// # Safety
/// As [`bf16`].
#[inline]
pub(crate) unsafe fn int8(tile: &mut IntegerTile, left: Left, right: *const u32, steps: usize, rows: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        x86::int8(tile, left, right, steps, rows)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("int8 products need AVX-512: {tile:p} {left:?} {right:p} {steps} {rows}")
}
