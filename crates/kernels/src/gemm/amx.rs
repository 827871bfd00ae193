//! Products by AMX tiles: Intel's Xeons since Sapphire Rapids multiply 16 rows of A with 16 columns of B, 16 steps at a
//! time, in one instruction. The panels of [`super::panels`] are the form that it reads, so nothing is packed otherwise.
//!
//! Up to 32 rows and 32 columns are four tiles of sums. The reduction runs through them in chunks of 16 steps, and the
//! sums of a chunk are added to those before it. So an element's bits depend on its own row and column alone.
//!
//! Tiles are state of a thread that is saved at each switch to another. So a task configures them at its first product,
//! and [`AtEnd`] releases them at its end.

use super::panels::{COLUMNS, Lines};
use super::tile::{Left, Out};
use super::transpose::transpose_into;
use std::cell::{Cell, RefCell};

/// Steps of one instruction.
pub(super) const CHUNK: usize = 16;
/// Rows of one instruction.
const HALF: usize = 16;
/// Rows of a block of tiles.
pub(super) const ROWS: usize = 2 * HALF;

thread_local! {
    /// Whether this thread's tiles are configured.
    static LIVE: Cell<bool> = const { Cell::new(false) };
    /// Rows that cannot be read in place.
    static COPIED: RefCell<Lines> = RefCell::default();
}

/// Releases this thread's tiles when it is dropped, if they were configured.
pub(crate) struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        if LIVE.replace(false) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: tiles were configured, so the processor has them, and no product is under way.
            unsafe {
                std::arch::asm!("tilerelease", options(nomem, nostack, preserves_flags));
            }
        }
    }
}

/// Which instruction multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pairs of bf16 into f32.
    Bf16,
    /// Quads of unsigned and signed int8 into i32.
    Int8,
}

/// `out[..rows] (+)= left · right`, all in words: `rows` is 1 to 32, `right` is one panel of `[steps][32]`. `out` comes with
/// the words from one row to the next.
///
/// # Safety
/// `left` and `out` passed their checks for `rows` rows. The processor has the instruction, and the process may use it.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn store(
    kind: Kind,
    (out, stride): (*mut u32, usize),
    left: Left,
    right: &[u32],
    rows: usize,
    add: bool,
) {
    x86::configure();
    let steps = right.len() / COLUMNS;
    if steps == 0 && !add {
        for row in 0..rows {
            // SAFETY: the caller checked the rows of `out`.
            unsafe { std::slice::from_raw_parts_mut(out.add(row * stride), COLUMNS).fill(0) };
        }
    }
    let run = |left: Left| {
        let place = Place { out, stride, rows };
        // SAFETY: the caller's promise; whole tiles of rows can be read of this left side.
        unsafe { place.product(kind, left, right, add) }
    };
    if left.step_stride == 1 && rows >= HALF {
        return run(left);
    }
    COPIED.with_borrow_mut(|lines| {
        let row_stride = steps.next_multiple_of(CHUNK);
        let words = &mut lines.words(HALF * rows.div_ceil(HALF) * row_stride)[..];
        copy(words, row_stride, left, rows, steps);
        run(Left { words, row_stride, step_stride: 1 });
    });
}

/// Copies rows of a left side one after the other.
#[cfg(target_arch = "x86_64")]
fn copy(words: &mut [u32], row_stride: usize, left: Left, rows: usize, steps: usize) {
    if left.step_stride == 1 {
        for (row, words) in words.chunks_exact_mut(row_stride.max(1)).enumerate().take(rows) {
            words[..steps].copy_from_slice(&left.words[row * left.row_stride..][..steps]);
        }
    } else if left.row_stride == 1 {
        transpose_into(words, row_stride, steps, |step| &left.words[step * left.step_stride..][..rows]);
    } else {
        for (row, step) in (0..rows).flat_map(|row| (0..steps).map(move |step| (row, step))) {
            words[row * row_stride + step] = left.word(row, step);
        }
    }
}

dispatch! {
    /// Plain twin of the bf16 products by tiles.
    ///
    /// The upper and the lower halves of a chunk are two chains of fused multiply-adds that begin with zero. Their sum is
    /// added to the sums before. Each operation rounds to the nearest even, and takes denormal inputs and results as zero.
    pub(super) fn bf16_reference(out: Out<'_>, left: Left<'_>, right: &[u32], rows: usize, add: bool) {
        for (row, sums) in out.values.chunks_mut(out.stride).take(rows).enumerate() {
            let mut sum = [0.0f32; COLUMNS];
            if add {
                sum.copy_from_slice(&sums[..COLUMNS]);
            }
            for (chunk, words) in right.chunks(CHUNK * COLUMNS).enumerate() {
                let (mut upper, mut lower) = ([0.0f32; COLUMNS], [0.0f32; COLUMNS]);
                for (step, words) in words.chunks_exact(COLUMNS).enumerate() {
                    let a = left.word(row, chunk * CHUNK + step);
                    let (a_upper, a_lower) = (flushed(f32::from_bits(a & 0xffff_0000)), flushed(f32::from_bits(a << 16)));
                    for ((upper, lower), b) in upper.iter_mut().zip(&mut lower).zip(words) {
                        *upper = flushed(a_upper.mul_add(flushed(f32::from_bits(b & 0xffff_0000)), *upper));
                        *lower = flushed(a_lower.mul_add(flushed(f32::from_bits(b << 16)), *lower));
                    }
                }
                // The steps that a last chunk lacks are zeros: they make a zero positive, and change nothing else.
                let lacking = if words.len() < CHUNK * COLUMNS { 0.0 } else { -0.0 };
                for ((sum, upper), lower) in sum.iter_mut().zip(upper).zip(lower) {
                    let (upper, lower) = (upper + lacking, lower + lacking);
                    *sum = flushed(flushed(*sum) + flushed(upper + lower));
                }
            }
            sums[..COLUMNS].copy_from_slice(&sum);
        }
    }
}

/// Denormals become a zero of their sign.
#[inline(always)]
pub(super) fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(value) } else { value }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::asm;

    /// What `ldtilecfg` reads: palette 1, and for each of eight tiles its bytes a row and its rows.
    #[repr(C, align(64))]
    struct Config([u8; 64]);

    /// All tiles whole: rows that are not asked for are computed and not used.
    static WHOLE: Config = Config(whole());

    const fn whole() -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = HALF as u8;
            tile += 1;
        }
        bytes
    }

    /// Configures this thread's tiles, unless they are.
    #[inline]
    pub(super) fn configure() {
        if !LIVE.replace(true) {
            // SAFETY: the configuration is valid, and the callers saw that the processor has tiles.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly, preserves_flags)) };
        }
    }

    /// Where rows of a product go, in words.
    #[derive(Clone, Copy)]
    pub(super) struct Place {
        pub(super) out: *mut u32,
        pub(super) stride: usize,
        pub(super) rows: usize,
    }

    impl Place {
        /// # Safety
        /// As [`super::store`], tiles are configured, and `left` has 16 rows of words at least, side by side along the steps.
        pub(super) unsafe fn product(self, kind: Kind, left: Left, right: &[u32], add: bool) {
            if self.rows >= HALF {
                // SAFETY: the caller's promise.
                return unsafe { self.whole_tiles(kind, left, right, add) };
            }
            let mut tile = Tile([[0; COLUMNS]; HALF]);
            for (row, values) in tile.0.iter_mut().enumerate().take(self.rows) {
                // SAFETY: the caller checked these rows of `out`.
                values.copy_from_slice(unsafe { std::slice::from_raw_parts(self.out.add(row * self.stride), COLUMNS) });
            }
            let whole = Self { out: tile.0.as_flattened_mut().as_mut_ptr(), stride: COLUMNS, rows: HALF };
            // SAFETY: the tile has 16 rows; for the rest, the caller's promise.
            unsafe { whole.whole_tiles(kind, left, right, add) };
            for (row, values) in tile.0.iter().enumerate().take(self.rows) {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(self.out.add(row * self.stride), COLUMNS) }
                    .copy_from_slice(values);
            }
        }

        /// 16 to 32 rows. Where they are fewer than 32, the second tile begins among the rows of the first, whose values
        /// it computes again.
        ///
        /// # Safety
        /// As [`Self::product`].
        unsafe fn whole_tiles(self, kind: Kind, left: Left, right: &[u32], add: bool) {
            let (steps, second) = (right.len() / COLUMNS, self.rows - HALF);
            let block = Block {
                left: left.words.as_ptr(),
                left_stride: left.row_stride,
                second: second * left.row_stride,
                right: right.as_ptr(),
                out: self.out,
                out_stride: self.stride,
                out_second: second * self.stride,
                chunks: steps / CHUNK,
                add,
            };
            if block.chunks > 0 {
                // SAFETY: the checked sides have as many chunks of these rows.
                unsafe { block.run(kind, self.rows > HALF) };
            }
            let rest = steps % CHUNK;
            if rest == 0 {
                return;
            }
            // The last steps, with zeros to a whole chunk.
            let (mut a, mut b) = (Tail([[0; CHUNK]; ROWS]), Tile([[0; COLUMNS]; CHUNK]));
            let first = steps - rest;
            for (row, words) in a.0.iter_mut().enumerate().take(self.rows) {
                words[..rest].copy_from_slice(&left.words[row * left.row_stride + first..][..rest]);
            }
            b.0.as_flattened_mut()[..rest * COLUMNS].copy_from_slice(&right[first * COLUMNS..]);
            let tail = Block {
                left: a.0.as_flattened().as_ptr(),
                left_stride: CHUNK,
                second: second * CHUNK,
                right: b.0.as_flattened().as_ptr(),
                chunks: 1,
                add: add || block.chunks > 0,
                ..block
            };
            // SAFETY: the copies have one chunk of 32 rows.
            unsafe { tail.run(kind, self.rows > HALF) };
        }
    }

    #[repr(align(64))]
    struct Tile([[u32; COLUMNS]; HALF]);
    #[repr(align(64))]
    struct Tail([[u32; CHUNK]; ROWS]);

    /// Operands of a block of tiles; strides and places count words.
    #[derive(Clone, Copy)]
    struct Block {
        left: *const u32,
        left_stride: usize,
        /// From the first row to that of the second tile of rows.
        second: usize,
        right: *const u32,
        out: *mut u32,
        out_stride: usize,
        out_second: usize,
        chunks: usize,
        add: bool,
    }

    /// The loop of a block. Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns; with one tile of rows, 2, 3 and 5 are
    /// not used.
    macro_rules! tiles {
        ($name:ident, $product:literal) => {
            /// # Safety
            /// As [`Block::run`].
            unsafe fn $name(block: Block, both: bool) {
                let Block { left, left_stride, second, right, out, out_stride, out_second, chunks, add } = block;
                if both {
                    // SAFETY: the caller's promise. The clobbers are all tiles that are used; memory is written through `out`.
                    unsafe {
                        asm!(
                            "test {add:e}, {add:e}",
                            "jnz 2f",
                            "tilezero tmm0",
                            "tilezero tmm1",
                            "tilezero tmm2",
                            "tilezero tmm3",
                            "jmp 3f",
                            "2:",
                            "tileloadd tmm0, [{c} + {cs}]",
                            "tileloadd tmm1, [{c} + {cs} + 64]",
                            "tileloadd tmm2, [{c2} + {cs}]",
                            "tileloadd tmm3, [{c2} + {cs} + 64]",
                            "3:",
                            "tileloadd tmm6, [{b} + {bs}]",
                            "tileloadd tmm4, [{a} + {s}]",
                            "tileloadd tmm7, [{b} + {bs} + 64]",
                            concat!($product, " tmm0, tmm4, tmm6"),
                            "tileloadd tmm5, [{a2} + {s}]",
                            concat!($product, " tmm1, tmm4, tmm7"),
                            concat!($product, " tmm2, tmm5, tmm6"),
                            concat!($product, " tmm3, tmm5, tmm7"),
                            "add {a}, 64",
                            "add {a2}, 64",
                            "add {b}, 2048",
                            "dec {n}",
                            "jnz 3b",
                            "tilestored [{c} + {cs}], tmm0",
                            "tilestored [{c} + {cs} + 64], tmm1",
                            "tilestored [{c2} + {cs}], tmm2",
                            "tilestored [{c2} + {cs} + 64], tmm3",
                            add = in(reg) u32::from(add),
                            a = inout(reg) left => _,
                            a2 = inout(reg) left.add(second) => _,
                            s = in(reg) 4 * left_stride,
                            b = inout(reg) right => _,
                            bs = in(reg) 4 * COLUMNS,
                            n = inout(reg) chunks => _,
                            c = in(reg) out,
                            c2 = in(reg) out.add(out_second),
                            cs = in(reg) 4 * out_stride,
                            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                            options(nostack),
                        );
                    }
                } else {
                    // SAFETY: as above.
                    unsafe {
                        asm!(
                            "test {add:e}, {add:e}",
                            "jnz 2f",
                            "tilezero tmm0",
                            "tilezero tmm1",
                            "jmp 3f",
                            "2:",
                            "tileloadd tmm0, [{c} + {cs}]",
                            "tileloadd tmm1, [{c} + {cs} + 64]",
                            "3:",
                            "tileloadd tmm4, [{a} + {s}]",
                            "tileloadd tmm6, [{b} + {bs}]",
                            concat!($product, " tmm0, tmm4, tmm6"),
                            "tileloadd tmm7, [{b} + {bs} + 64]",
                            concat!($product, " tmm1, tmm4, tmm7"),
                            "add {a}, 64",
                            "add {b}, 2048",
                            "dec {n}",
                            "jnz 3b",
                            "tilestored [{c} + {cs}], tmm0",
                            "tilestored [{c} + {cs} + 64], tmm1",
                            add = in(reg) u32::from(add),
                            a = inout(reg) left => _,
                            s = in(reg) 4 * left_stride,
                            b = inout(reg) right => _,
                            bs = in(reg) 4 * COLUMNS,
                            n = inout(reg) chunks => _,
                            c = in(reg) out,
                            cs = in(reg) 4 * out_stride,
                            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                            options(nostack),
                        );
                    }
                }
            }
        };
    }

    tiles!(bf16, "tdpbf16ps");
    tiles!(int8, "tdpbusd");

    impl Block {
        /// Runs the block with one tile of rows, or both.
        ///
        /// # Safety
        /// There is a chunk at least. The sides have the rows and chunks, `out` has the rows of 32 words, tiles are configured,
        /// and the processor has the instruction.
        unsafe fn run(self, kind: Kind, both: bool) {
            match kind {
                // SAFETY: the caller's promise.
                Kind::Bf16 => unsafe { bf16(self, both) },
                // SAFETY: as above.
                Kind::Int8 => unsafe { int8(self, both) },
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use x86::Place;

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::panels::{LeftPanels, MOST_ROWS, View};
    use super::super::tile::tests::{left, words};
    use super::super::tile::{Bf16Products, Tile};
    use super::*;
    use crate::bf16::{Bf16, Element};
    use crate::simd::has_tiles;
    use proptest::prelude::*;

    /// What bits of values a property draws from.
    #[derive(Clone, Copy, Debug)]
    enum Values {
        /// Around one: all bits of a sum count.
        Ordinary,
        /// Products and sums around the smallest normal numbers.
        Tiny,
        /// Products beyond the largest.
        Huge,
        /// Zeros, denormals, infinities and NaN among others.
        Special,
    }

    fn bf16(values: Values, random: u64) -> u32 {
        let (sign_and_fraction, more) = ((random & 0x807f) as u32, (random >> 16) as u32);
        let exponent = match values {
            Values::Ordinary => 120 + more % 12,
            Values::Tiny => 55 + more % 12,
            Values::Huge => 185 + more % 10,
            Values::Special if more.is_multiple_of(7) => {
                const SPECIAL: [u32; 8] = [0, 0x8000, 0x7f80, 0xff80, 0x7fc0, 1, 0x8001, 0x7f7f];
                return SPECIAL[(more / 7 % 8) as usize];
            }
            Values::Special => 127,
        };
        sign_and_fraction | exponent << 7
    }

    fn pair(values: Values, random: u64) -> u32 {
        bf16(values, random) | bf16(values, random.rotate_right(23)) << 16
    }

    /// A sum before: of the size of the products.
    fn sum(values: Values, random: u64) -> f32 {
        let scale = match values {
            Values::Tiny => f32::MIN_POSITIVE * 4.0,
            Values::Huge => f32::MAX / 4.0,
            Values::Ordinary | Values::Special => 1.0,
        };
        ((random & 0xffff) as f32 / 32768.0 - 1.0) * scale
    }

    proptest! {
        #![proptest_config(crate::simd::tests::cases(512))]
        /// The very bits, but for those of a NaN.
        #[test]
        fn the_twin_has_the_bits_of_the_instruction(
            rows in 1usize..=32, steps in 0usize..70, straight: bool, add: bool,
            values in prop_oneof![Just(Values::Ordinary), Just(Values::Tiny), Just(Values::Huge), Just(Values::Special)], seed: u64,
        ) {
            if !has_tiles() {
                return Ok(());
            }
            let (a, b) = (words(MOST_ROWS * steps, seed, |r| pair(values, r)), words(COLUMNS * steps, !seed, |r| pair(values, r)));
            let before: Vec<f32> = words(MOST_ROWS * COLUMNS, seed ^ 5, |r| sum(values, r).to_bits()).into_iter().map(f32::from_bits).collect();
            let store = if add { Store::Add } else { Store::Replace };
            let run = |products: Bf16Products| {
                let mut out = before.clone();
                products.store(store, Out { values: &mut out, stride: COLUMNS }, left(&a, steps, straight), &b, rows);
                out
            };
            let _at_end = AtEnd;
            let (found, twin) = (run(Bf16Products::Amx), run(Bf16Products::EmulatedAmx));
            for (i, (found, twin)) in found.iter().zip(&twin).enumerate() {
                let same = found.to_bits() == twin.to_bits() || found.is_nan() && twin.is_nan();
                prop_assert!(same, "row {} column {}: {:e} for {:e}", i / COLUMNS, i % COLUMNS, found, twin);
            }
            prop_assert_eq!(&found[rows * COLUMNS..], &before[rows * COLUMNS..], "rows beyond the asked ones keep their content");
        }

        /// A row and its sums are the same beside any other rows, and wherever it stands among them.
        #[test]
        fn a_row_does_not_depend_on_others(rows in 1usize..=32, steps in 1usize..70, seed: u64) {
            let twin = [Bf16Products::EmulatedAmx];
            for products in Bf16Products::of_this_processor().filter(|products| *products == Bf16Products::Amx).chain(twin) {
                let (a, b) = (words(MOST_ROWS * steps, seed, |r| pair(Values::Ordinary, r)), words(COLUMNS * steps, !seed, |r| pair(Values::Ordinary, r)));
                let (mut all, mut one): (Tile, Tile) = ([[0.0; COLUMNS]; MOST_ROWS], [[0.0; COLUMNS]; MOST_ROWS]);
                let left = left(&a, steps, true);
                let _at_end = AtEnd;
                products.tile(&mut all, left, &b, rows);
                for row in 0..rows {
                    products.tile(&mut one, left.from(row * steps), &b, 1);
                    prop_assert_eq!(one[0], all[row], "row {} of {}", row, rows);
                }
            }
        }

        #[test]
        fn left_panels_hold_the_columns_of_a_matrix(rows in 1usize..80, columns in 1usize..70, beside in 0usize..5, seed: u64) {
            let stride = columns + beside;
            let data: Vec<Bf16> = words(rows * stride, seed, |r| bf16(Values::Ordinary, r)).into_iter().map(|bits| Bf16(bits as u16)).collect();
            let (view, steps) = (View { data: &data, stride, rows, columns }, rows.div_ceil(2));
            for panels in [LeftPanels::BySteps, LeftPanels::ByRows] {
                let mut words = vec![7; panels.words(steps)];
                for first in (0..columns).step_by(panels.rows()) {
                    panels.pack(&mut words, view, first);
                    let left = panels.left(&words, steps);
                    for (row, step) in (0..panels.rows().min(columns - first)).flat_map(|row| (0..steps).map(move |step| (row, step))) {
                        let value = |at: usize| if at < rows { u32::from(data[at * stride + first + row].0) } else { 0 };
                        prop_assert_eq!(left.word(row, step), value(2 * step) | value(2 * step + 1) << 16, "{:?}", panels);
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_are_released_at_the_end_of_a_task() {
        if !has_tiles() {
            return;
        }
        crate::parallel::for_each(1, |_| {
            let mut tile = [[0.0; COLUMNS]; MOST_ROWS];
            Bf16Products::Amx.tile(&mut tile, left(&[1; MOST_ROWS], 1, true), &[1; COLUMNS], 3);
            assert!(LIVE.get());
        });
        assert!(!LIVE.get());
        assert_eq!(flushed(Bf16(1).widen()), 0.0);
    }
}
