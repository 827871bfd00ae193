//! The formats of tensors, and the values of their blocks.
//!
//! A format cuts a row into blocks. A block has one or two half-precision scales and a few bits per value. The
//! "K" formats have 256 values in a block: sixteen or eight groups with a small scale each, itself stored in 6 or
//! 8 bits in units of the block's. The products are made in the order of ggml's reference, so that the values
//! are the same to the last bit.
//!
//! Reference: `ggml-quants.c` of <https://github.com/ggml-org/ggml>. Goldens: `golden/make_gguf_golden.py`.

use half::{bf16, f16};

/// How the values of a tensor are stored.
#[derive(Debug)]
pub struct Format {
    /// What ggml calls it (`Q4_K`).
    pub name: &'static str,
    /// Its number in the file.
    pub(super) code: u32,
    /// Values of a block.
    pub values: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Blocks → values; `None` for formats that are known by size alone.
    pub(super) decode: Option<Decode>,
}

/// Decodes blocks that lie end to end.
pub(super) type Decode = fn(&[u8], &mut [f32]);

const fn read(code: u32, name: &'static str, values: usize, bytes: usize, decode: Decode) -> Format {
    Format { name, code, values, bytes, decode: Some(decode) }
}

const fn known(code: u32, name: &'static str, values: usize, bytes: usize) -> Format {
    Format { name, code, values, bytes, decode: None }
}

/// `GGML_QUANT_SIZES`: what is read, and what else may lie in a file.
static FORMATS: [Format; 34] = [
    read(0, "F32", 1, 4, f32_values),
    read(1, "F16", 1, 2, f16_values),
    read(30, "BF16", 1, 2, bf16_values),
    read(2, "Q4_0", 32, 18, q4_0),
    read(3, "Q4_1", 32, 20, q4_1),
    read(6, "Q5_0", 32, 22, q5_0),
    read(7, "Q5_1", 32, 24, q5_1),
    read(8, "Q8_0", 32, 34, q8_0),
    read(12, "Q4_K", 256, 144, q4_k),
    read(13, "Q5_K", 256, 176, q5_k),
    read(14, "Q6_K", 256, 210, q6_k),
    known(9, "Q8_1", 32, 40),
    known(10, "Q2_K", 256, 84),
    known(11, "Q3_K", 256, 110),
    known(15, "Q8_K", 256, 292),
    known(16, "IQ2_XXS", 256, 66),
    known(17, "IQ2_XS", 256, 74),
    known(18, "IQ3_XXS", 256, 98),
    known(19, "IQ1_S", 256, 50),
    known(20, "IQ4_NL", 32, 18),
    known(21, "IQ3_S", 256, 110),
    known(22, "IQ2_S", 256, 82),
    known(23, "IQ4_XS", 256, 136),
    known(24, "I8", 1, 1),
    known(25, "I16", 1, 2),
    known(26, "I32", 1, 4),
    known(27, "I64", 1, 8),
    known(28, "F64", 1, 8),
    known(29, "IQ1_M", 256, 56),
    known(34, "TQ1_0", 256, 54),
    known(35, "TQ2_0", 256, 66),
    known(39, "MXFP4", 32, 17),
    known(40, "NVFP4", 64, 36),
    known(41, "Q1_0", 128, 18),
];

/// The formats whose values are read, for messages.
pub(super) fn readable_names() -> String {
    let names: Vec<_> = FORMATS.iter().filter(|format| format.decode.is_some()).map(|format| format.name).collect();
    names.join(", ")
}

impl Format {
    /// By its number in the file.
    pub(super) fn of(code: u32) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.code == code)
    }

    /// Bytes of so many values, which must be whole blocks.
    pub(super) fn bytes_of(&self, values: usize) -> u64 {
        (values / self.values) as u64 * self.bytes as u64
    }
}

/// Calls `decode` for each block and the place of its values.
fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (parts, _) = values.as_chunks_mut::<VALUES>();
    blocks.iter().zip(parts).for_each(|(block, part)| decode(block, part));
}

fn f32_values(bytes: &[u8], values: &mut [f32]) {
    blocks::<4, 1>(bytes, values, |block, value| value[0] = f32::from_le_bytes(*block));
}

fn f16_values(bytes: &[u8], values: &mut [f32]) {
    blocks::<2, 1>(bytes, values, |block, value| value[0] = f16::from_le_bytes(*block).to_f32());
}

fn bf16_values(bytes: &[u8], values: &mut [f32]) {
    blocks::<2, 1>(bytes, values, |block, value| value[0] = bf16::from_le_bytes(*block).to_f32());
}

/// The half-precision number at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale, then 16 bytes: the first half of the block in their low bits, the second in their high bits.
fn q4_0(bytes: &[u8], values: &mut [f32]) {
    blocks::<18, 32>(bytes, values, |block, values| {
        let scale = half(block, 0);
        for (at, byte) in block[2..].iter().enumerate() {
            values[at] = scale * (f32::from(byte & 15) - 8.0);
            values[at + 16] = scale * (f32::from(byte >> 4) - 8.0);
        }
    });
}

/// As [`q4_0`], with the least value of the block in place of the fixed −8.
fn q4_1(bytes: &[u8], values: &mut [f32]) {
    blocks::<20, 32>(bytes, values, |block, values| {
        let (scale, least) = (half(block, 0), half(block, 2));
        for (at, byte) in block[4..].iter().enumerate() {
            values[at] = scale * f32::from(byte & 15) + least;
            values[at + 16] = scale * f32::from(byte >> 4) + least;
        }
    });
}

/// The 5-bit units of byte `at` of a block: the fifth bits stand together in `fifths`.
fn five_bits(byte: u8, fifths: u32, at: usize) -> (f32, f32) {
    let low = (byte & 15) | (((fifths >> at) & 1) << 4) as u8;
    let high = (byte >> 4) | (((fifths >> (at + 16)) & 1) << 4) as u8;
    (f32::from(low), f32::from(high))
}

fn q5_0(bytes: &[u8], values: &mut [f32]) {
    blocks::<22, 32>(bytes, values, |block, values| {
        let scale = half(block, 0);
        let fifths = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for (at, byte) in block[6..].iter().enumerate() {
            let (low, high) = five_bits(*byte, fifths, at);
            values[at] = scale * (low - 16.0);
            values[at + 16] = scale * (high - 16.0);
        }
    });
}

fn q5_1(bytes: &[u8], values: &mut [f32]) {
    blocks::<24, 32>(bytes, values, |block, values| {
        let (scale, least) = (half(block, 0), half(block, 2));
        let fifths = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        for (at, byte) in block[8..].iter().enumerate() {
            let (low, high) = five_bits(*byte, fifths, at);
            values[at] = scale * low + least;
            values[at + 16] = scale * high + least;
        }
    });
}

fn q8_0(bytes: &[u8], values: &mut [f32]) {
    blocks::<34, 32>(bytes, values, |block, values| {
        let scale = half(block, 0);
        for (value, byte) in values.iter_mut().zip(&block[2..]) {
            *value = scale * f32::from(*byte as i8);
        }
    });
}

/// Scale and offset of group `group` (of 8): 6 bits each, twelve bytes for all. The first four groups have a
/// byte each; the others have four bits in the last four bytes and two in the top of the first eight.
fn group_scale(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, offset) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | ((packed[group - 4] >> 6) << 4), (low >> 4) | ((packed[group] >> 6) << 4))
    };
    (f32::from(scale), f32::from(offset))
}

/// Eight groups of 32; two groups share 32 bytes, one in the low bits and one in the high.
fn q4_k(bytes: &[u8], values: &mut [f32]) {
    blocks::<144, 256>(bytes, values, |block, values| {
        let (scale, offset) = (half(block, 0), half(block, 2));
        let (packed, units) = block[4..].split_at(12);
        for (group, values) in values.chunks_exact_mut(32).enumerate() {
            let (group_scale, group_offset) = group_scale(packed, group);
            let (scale, offset) = (scale * group_scale, offset * group_offset);
            let shift = 4 * (group % 2);
            for (value, byte) in values.iter_mut().zip(&units[32 * (group / 2)..]) {
                *value = scale * f32::from((byte >> shift) & 15) - offset;
            }
        }
    });
}

/// As [`q4_k`]; bit `group` of byte `i` of 32 bytes is the fifth bit of value `i` of that group.
fn q5_k(bytes: &[u8], values: &mut [f32]) {
    blocks::<176, 256>(bytes, values, |block, values| {
        let (scale, offset) = (half(block, 0), half(block, 2));
        let (packed, units) = block[4..].split_at(12);
        let (fifths, units) = units.split_at(32);
        for (group, values) in values.chunks_exact_mut(32).enumerate() {
            let (group_scale, group_offset) = group_scale(packed, group);
            let (scale, offset) = (scale * group_scale, offset * group_offset);
            let shift = 4 * (group % 2);
            for ((value, byte), fifth) in values.iter_mut().zip(&units[32 * (group / 2)..]).zip(fifths) {
                let unit = ((byte >> shift) & 15) | (((fifth >> group) & 1) << 4);
                *value = scale * f32::from(unit) - offset;
            }
        }
    });
}

/// Two halves of 128; in each, four runs of 32 whose low four bits stand in 64 bytes (runs 0 and 1 low, 2 and 3
/// high) and whose upper two bits stand in 32 bytes, one pair for each run. Sixteen values share an 8-bit scale.
fn q6_k(bytes: &[u8], values: &mut [f32]) {
    blocks::<210, 256>(bytes, values, |block, values| {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, block_scale) = rest.split_at(16);
        let block_scale = half(block_scale, 0);
        for (at, value) in values.iter_mut().enumerate() {
            let (part, run, place) = (at / 128, at / 32 % 4, at % 32);
            let four = low[64 * part + 32 * (run % 2) + place] >> (4 * (run / 2));
            let two = high[32 * part + place] >> (2 * run);
            let unit = i16::from((four & 15) | ((two & 3) << 4)) - 32;
            *value = block_scale * f32::from(scales[at / 16] as i8) * f32::from(unit);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_own_number_and_fits_the_chunk() {
        for (at, format) in FORMATS.iter().enumerate() {
            assert!(super::super::CHUNK.is_multiple_of(format.values));
            assert!(FORMATS[..at].iter().all(|other| other.code != format.code && other.name != format.name));
        }
    }

    #[test]
    fn group_scales_are_six_bits_each() {
        let packed = [0xFF, 0, 0, 0, 0xC0, 0, 0, 0, 0x21, 0, 0, 0];
        assert_eq!(group_scale(&packed, 0), (63.0, 0.0));
        assert_eq!(group_scale(&packed, 4), (49.0, 50.0));
    }
}
