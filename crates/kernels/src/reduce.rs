//! Reductions of a fixed shape: the same bits whatever the threads.

use crate::parallel::{Shared, for_each};

/// Accumulators a row reduction runs in, one AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Adds the lanes as a tree: (0+8)+(4+12)…, always in this order.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(i) over `0..n`, in [`LANES`] interleaved chains.
#[inline(always)]
pub(crate) fn sum_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for l in 0..LANES {
            lanes[l] += f(i + l);
        }
        i += LANES;
    }
    for l in 0..n - whole {
        lanes[l] += f(whole + l);
    }
    fold(lanes)
}

/// Σ a·b in [`LANES`] chains of fused multiply-adds.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for l in 0..LANES {
            lanes[l] = a[l].mul_add(b[l], lanes[l]);
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[l] = a.mul_add(*b, lanes[l]);
    }
    fold(lanes)
}

/// The largest value; a NaN is passed over.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m })
}

const COLUMN_BLOCK: usize = 64;

/// `sums[j] += Σ_i rows[i, j]` for `rows: [n, width]`, rows in order (bias gradients).
pub fn add_column_sums(sums: &mut [f32], rows: &[f32]) {
    let width = sums.len();
    assert!(rows.len().is_multiple_of(width), "rows of {width} values, found {}", rows.len());
    let shared = Shared::new(sums);
    for_each(width.div_ceil(COLUMN_BLOCK), |block| {
        let start = block * COLUMN_BLOCK;
        let len = COLUMN_BLOCK.min(width - start);
        // SAFETY: each task owns its own block of columns.
        let out = unsafe { shared.slice(start, len) };
        add_block(out, rows, start, width);
    });
}

dispatch! {
    fn add_block(out: &mut [f32], rows: &[f32], start: usize, width: usize) {
        let mut sums = [0.0f32; COLUMN_BLOCK];
        for row in rows.chunks_exact(width) {
            for (sum, value) in sums.iter_mut().zip(&row[start..start + out.len()]) {
                *sum += value;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

const SQUARES_CHUNK: usize = 1 << 14;

/// Σ x², in f64 over fixed chunks (the gradient norm's square).
pub fn sum_of_squares(values: &[f32]) -> f64 {
    use rayon::prelude::*;
    let chunks: Vec<f64> = values.par_chunks(SQUARES_CHUNK).map(chunk_squares).collect();
    chunks.iter().sum()
}

/// Σ x² over some rows of a table `[.., width]`.
pub fn sum_of_squares_of_rows(table: &[f32], width: usize, rows: &[u32]) -> f64 {
    rows.iter().map(|row| chunk_squares(&table[*row as usize * width..][..width])).sum()
}

dispatch! {
    fn chunk_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let chunks = values.chunks_exact(LANES);
        for (l, v) in chunks.remainder().iter().enumerate() {
            lanes[l] += f64::from(*v) * f64::from(*v);
        }
        for chunk in chunks {
            for l in 0..LANES {
                lanes[l] = f64::from(chunk[l]).mul_add(f64::from(chunk[l]), lanes[l]);
            }
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::with_threads;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn column_sums_equal_the_plain_loop_for_any_threads(rows in 0usize..40, width in 1usize..200, seed in any::<u32>()) {
            let data: Vec<f32> = (0..rows * width).map(|i| ((i as u32).wrapping_mul(seed | 1) >> 20) as f32 / 4096.0 - 0.5).collect();
            let mut expected = vec![0.0f32; width];
            for row in data.chunks_exact(width) {
                for (e, v) in expected.iter_mut().zip(row) { *e += v; }
            }
            for threads in 1..=3 {
                let mut sums = vec![0.0; width];
                with_threads(threads, || add_column_sums(&mut sums, &data));
                prop_assert_eq!(&sums, &expected);
            }
        }

        #[test]
        fn dot_matches_f64(values in proptest::collection::vec(-1.0f32..1.0, 0..300)) {
            let expected: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            prop_assert!((f64::from(dot(&values, &values)) - expected).abs() < 1e-4);
            prop_assert!((sum_of_squares(&values) - expected).abs() < 1e-9);
        }
    }
}
