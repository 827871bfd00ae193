//! Rows of f32 against vectors of f64: what fitting a linear model passes over its features with.
//!
//! Sums are in f64, so that a fit can be driven to its end, and of a fixed shape, so that they do not depend on threads.

/// Accumulators of one dot product: four AVX-512 registers.
const LANES: usize = 32;
/// Rows that are added to a sum at once, so that it is loaded and stored once for all of them.
const TOGETHER: usize = 4;

/// `out[i] = rows[i]·vector` for `rows: [out.len(), vector.len()]`.
///
/// # Panics
/// When the rows are not as many and as wide as that.
pub fn row_dots(out: &mut [f64], rows: &[f32], vector: &[f64]) {
    assert_eq!(rows.len(), out.len() * vector.len(), "one row an output");
    if vector.is_empty() {
        out.fill(0.0);
    } else {
        dots(out, rows, vector);
    }
}

/// `sum += Σ scales[i]·rows[i]` for `rows: [scales.len(), sum.len()]`, rows in order.
///
/// # Panics
/// When the rows are not as many and as wide as that.
pub fn add_scaled_rows(sum: &mut [f64], rows: &[f32], scales: &[f64]) {
    assert_eq!(rows.len(), scales.len() * sum.len(), "one row a scale");
    if !sum.is_empty() {
        scaled(sum, rows, scales);
    }
}

dispatch! {
    /// `a·b` of vectors of the same length.
    pub fn dot(a: &[f64], b: &[f64]) -> f64 {
        sum_of_products(a, b, |a| a)
    }
}

dispatch! {
    fn dots(out: &mut [f64], rows: &[f32], vector: &[f64]) {
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(vector.len())) {
            *out = sum_of_products(row, vector, f64::from);
        }
    }
}

dispatch! {
    fn scaled(sum: &mut [f64], rows: &[f32], scales: &[f64]) {
        let width = sum.len();
        let (whole, rest) = scales.split_at(scales.len() / TOGETHER * TOGETHER);
        let (whole_rows, rest_rows) = rows.split_at(whole.len() * width);
        for (rows, scales) in whole_rows.chunks_exact(TOGETHER * width).zip(whole.chunks_exact(TOGETHER)) {
            let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| &rows[i * width..(i + 1) * width]);
            for (j, sum) in sum.iter_mut().enumerate() {
                let mut total = f64::from(first[j]).mul_add(scales[0], *sum);
                total = f64::from(second[j]).mul_add(scales[1], total);
                total = f64::from(third[j]).mul_add(scales[2], total);
                *sum = f64::from(fourth[j]).mul_add(scales[3], total);
            }
        }
        for (row, scale) in rest_rows.chunks_exact(width).zip(rest) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum = f64::from(*value).mul_add(*scale, *sum);
            }
        }
    }
}

/// Σ a·b in [`LANES`] chains of fused multiply-adds, folded as a tree.
#[inline(always)]
fn sum_of_products<T: Copy>(a: &[T], b: &[f64], wide: impl Fn(T) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for l in 0..LANES {
            lanes[l] = wide(a[l]).mul_add(b[l], lanes[l]);
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[l] = wide(*a).mul_add(*b, lanes[l]);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// [`row_dots`], plainly.
pub fn row_dots_reference(out: &mut [f64], rows: &[f32], vector: &[f64]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = (0..vector.len()).map(|j| f64::from(rows[i * vector.len() + j]) * vector[j]).sum();
    }
}

/// [`add_scaled_rows`], plainly.
pub fn add_scaled_rows_reference(sum: &mut [f64], rows: &[f32], scales: &[f64]) {
    let width = sum.len();
    for (j, sum) in sum.iter_mut().enumerate() {
        *sum += (0..scales.len()).map(|i| f64::from(rows[i * width + j]) * scales[i]).sum::<f64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_products_match_the_reference(rows in 0usize..13, width in 0usize..150, seed in any::<u32>()) {
            let value = |i: usize| ((i as u32).wrapping_mul(seed | 1) >> 8) as f64 / (1 << 23) as f64 - 1.0;
            let data: Vec<f32> = (0..rows * width).map(|i| value(i) as f32).collect();
            let vector: Vec<f64> = (0..width).map(|i| value(i + 7)).collect();
            let scales: Vec<f64> = (0..rows).map(|i| value(i + 11)).collect();
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
            let (mut out, mut expected) = (vec![9.0; rows], vec![9.0; rows]);
            row_dots(&mut out, &data, &vector);
            row_dots_reference(&mut expected, &data, &vector);
            prop_assert!(close(&out, &expected), "{out:?} instead of {expected:?}");
            let (mut sum, mut expected) = (vector.clone(), vector.clone());
            add_scaled_rows(&mut sum, &data, &scales);
            add_scaled_rows_reference(&mut expected, &data, &scales);
            prop_assert!(close(&sum, &expected), "{sum:?} instead of {expected:?}");
            let plain: f64 = vector.iter().zip(&expected).map(|(a, b)| a * b).sum();
            prop_assert!((dot(&vector, &expected) - plain).abs() < 1e-12);
        }
    }
}
