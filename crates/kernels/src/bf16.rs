//! bfloat16: the upper half of an f32, and the trait of both storage types.
//!
//! Values are stored and multiplied as bf16, and computed with as f32.

/// A bfloat16 number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

// SAFETY: a transparent u16; all bits are values.
unsafe impl bytemuck::Zeroable for Bf16 {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Bf16 {}

/// How activations are stored: f32 or bf16.
pub trait Element: Copy + Default + Send + Sync + bytemuck::Pod + PartialEq + std::fmt::Debug {
    /// To f32, exactly.
    fn widen(self) -> f32;
    /// From f32, rounded to the nearest, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for Bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN stays one: rounding could carry it into infinity or zero.
        Bf16(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

dispatch! {
    /// `values = bits`, exactly; whether all of them are finite.
    ///
    /// # Panics
    /// When there are not as many of both.
    pub fn widen(values: &mut [f32], bits: &[Bf16]) -> bool {
        assert_eq!(values.len(), bits.len());
        let mut largest = 0;
        for (value, bits) in values.iter_mut().zip(bits) {
            *value = bits.widen();
            largest = largest.max(bits.0 & 0x7fff);
        }
        largest < 0x7f80
    }
}

dispatch! {
    /// Whether all bits are those of finite values.
    pub fn all_finite_bits(bits: &[Bf16]) -> bool {
        bits.iter().fold(0, |largest: u16, bits| largest.max(bits.0 & 0x7fff)) < 0x7f80
    }
}

dispatch! {
    /// Whether all values are finite. It looks at all of them, as fast as they can be read.
    pub fn all_finite(values: &[f32]) -> bool {
        let largest = values.iter().fold(0, |largest: u32, value| largest.max(value.to_bits() & 0x7fff_ffff));
        largest < 0x7f80_0000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_are_kept() {
        let cases = [
            (0.0f32, 0u16),
            (-0.0, 0x8000),
            (1.0, 0x3f80),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (1.003_906_3, 0x3f80), // Halfway: to even, down.
            (1.011_718_8, 0x3f82), // Halfway: to even, up.
        ];
        for (value, bits) in cases {
            assert_eq!(Bf16::narrow(value), Bf16(bits), "{value}");
        }
        assert!(Bf16::narrow(f32::from_bits(0x7fff_ffff)).widen().is_nan());
    }

    #[test]
    fn values_that_are_not_finite_are_found_wherever_they_stand() {
        for len in [0, 1, 15, 16, 33, 100] {
            let finite: Vec<Bf16> = (0..len).map(|i| Bf16::narrow(f32::MAX * 0.99 - i as f32)).collect();
            let mut values = vec![0.0; len];
            assert!(widen(&mut values, &finite) && all_finite(&values) && all_finite_bits(&finite), "{len}");
            assert!(values.iter().zip(&finite).all(|(value, bits)| *value == bits.widen()));
            for at in 0..len {
                for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut bits = finite.clone();
                    bits[at] = Bf16::narrow(wrong);
                    let found = widen(&mut values, &bits) || all_finite(&values) || all_finite_bits(&bits);
                    assert!(!found, "{wrong} at {at} of {len}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rounding_is_to_the_nearest(value in -1e30f32..1e30) {
            let rounded = Bf16::narrow(value).widen();
            prop_assert!((rounded - value).abs() <= value.abs() / 256.0);
            prop_assert_eq!(Bf16::narrow(rounded).widen(), rounded);
        }
    }
}
