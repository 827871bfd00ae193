//! Rows of words become columns: how a product's right side is packed whose reduction runs along its rows, and a left side
//! whose reduction runs down them.

use super::panels::COLUMNS;

/// Rows and words that are exchanged at a time: as many as 256-bit registers hold.
const BLOCK: usize = 8;

/// `panel[word][j] = row(j)[word]` for the rows `0..rows` (at most 32); `panel` is `[words][32]`. Other columns keep
/// their content.
pub(crate) fn transpose<'a>(panel: &mut [u32], rows: usize, row: impl Fn(usize) -> &'a [u32]) {
    let words = panel.len() / COLUMNS;
    transpose_into(panel, COLUMNS, rows, |j| &row(j)[..words]);
}

/// `out[word · stride + j] = row(j)[word]` for all words of the rows `0..rows`, which are equally long. What lies between
/// keeps its content.
pub(crate) fn transpose_into<'a>(out: &mut [u32], stride: usize, rows: usize, row: impl Fn(usize) -> &'a [u32]) {
    for first in (0..rows).step_by(BLOCK) {
        let count = BLOCK.min(rows - first);
        // Beyond the rows the last one is read once more, and not written.
        let rows: [&[u32]; BLOCK] = std::array::from_fn(|i| row(first + i.min(count - 1)));
        block(&mut out[first..], stride, rows, count);
    }
}

/// Up to eight columns.
fn block(out: &mut [u32], stride: usize, rows: [&[u32]; BLOCK], count: usize) {
    #[cfg(target_arch = "x86_64")]
    if count == BLOCK && crate::isa() >= crate::Isa::Avx2 {
        // SAFETY: the processor has AVX2.
        return unsafe { x86::block(out, stride, rows) };
    }
    plain(out, stride, &rows[..count], 0);
}

/// Words from `from` on, one at a time.
fn plain(out: &mut [u32], stride: usize, rows: &[&[u32]], from: usize) {
    for (j, row) in rows.iter().enumerate() {
        for (word, value) in row.iter().enumerate().skip(from) {
            out[word * stride + j] = *value;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn block(out: &mut [u32], stride: usize, rows: [&[u32]; BLOCK]) {
        let words = rows[0].len();
        assert!(words == 0 || out.len() >= (words - 1) * stride + BLOCK);
        assert!(rows.iter().all(|row| row.len() == words));
        let whole = words / BLOCK * BLOCK;
        for word in (0..whole).step_by(BLOCK) {
            // SAFETY: eight words follow in each row.
            let lines = rows.map(|row| unsafe { _mm256_loadu_ps(row.as_ptr().add(word).cast()) });
            for (i, column) in exchanged(lines).into_iter().enumerate() {
                // SAFETY: there is room for eight columns of each word.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add((word + i) * stride).cast(), column) };
            }
        }
        plain(out, stride, &rows, whole);
    }

    /// Eight rows of eight as eight columns.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn exchanged(r: [__m256; BLOCK]) -> [__m256; BLOCK] {
        let pairs = [0, 2, 4, 6].map(|i| [_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1])]);
        // Of four rows, words 0 and 4, 1 and 5, 2 and 6, 3 and 7.
        let fours = [0, 2].map(|i| {
            let ([low, high], [low2, high2]) = (pairs[i], pairs[i + 1]);
            [
                _mm256_shuffle_ps::<0x44>(low, low2),
                _mm256_shuffle_ps::<0xee>(low, low2),
                _mm256_shuffle_ps::<0x44>(high, high2),
                _mm256_shuffle_ps::<0xee>(high, high2),
            ]
        });
        let [upper, lower] = fours;
        let mut columns = r;
        for i in 0..4 {
            columns[i] = _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (rows, words) in [(1, 1), (7, 9), (8, 8), (9, 16), (31, 40), (32, 3), (32, 64)] {
            let data: Vec<u32> = (0..rows * words).map(|i| i as u32 + 100).collect();
            let mut panel = vec![7; words * COLUMNS];
            transpose(&mut panel, rows, |row| &data[row * words..(row + 1) * words]);
            for (word, columns) in panel.chunks_exact(COLUMNS).enumerate() {
                for (j, found) in columns.iter().enumerate() {
                    let expected = if j < rows { data[j * words + word] } else { 7 };
                    assert_eq!(*found, expected, "{rows} rows of {words} words, row {j} word {word}");
                }
            }
        }
    }
}
