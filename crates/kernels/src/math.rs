//! Elementary functions that vectorise: branch-free, within a few units in the last place of f32.

/// e^x. Relative error below 2e-7; 0 below −87.3, capped at e^88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer in the low bits.
    let clamped = x.clamp(-87.336, 88.0);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts (Cody and Waite), so that the remainder keeps its low bits.
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    // Degree-6 minimax polynomial of the Cephes library on ±ln2/2.
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let value = (p * r).mul_add(r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.336 { 0.0 } else { value * scale }
}

/// The error function. Absolute error below 4e-7 (the rational approximation Eigen and XLA use).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_3e-10f32;
    let p = p.mul_add(s, 2.770_681_4e-8);
    let p = p.mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_4e-5);
    let p = p.mul_add(s, -7.349_906_3e-4);
    let p = p.mul_add(s, -2.954_6e-3);
    let p = p.mul_add(s, -1.609_603_3e-2);
    let q = -1.456_607_2e-5f32;
    let q = q.mul_add(s, -2.133_740_6e-4);
    let q = q.mul_add(s, -1.682_827e-3);
    let q = q.mul_add(s, -7.373_329e-3);
    let q = q.mul_add(s, -1.426_473_9e-2);
    x * p / q
}

/// The hyperbolic tangent. Relative error below 4e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Near zero the polynomial of the Cephes library: the exponential would cancel there.
    let s = x * x;
    let p = -5.704_988_7e-3f32;
    let p = p.mul_add(s, 2.063_909e-2);
    let p = p.mul_add(s, -5.373_971_5e-2);
    let p = p.mul_add(s, 1.333_144_3e-1);
    let p = p.mul_add(s, -3.333_328e-1);
    let near = (p * s).mul_add(x, x);
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x.abs()));
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

/// Plain twin of [`erf`]: its Maclaurin series in f64, slow, and right to ±4.
pub fn erf_reference(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2e-7, "exp({x}): relative error {error:e}");
        }
        assert_eq!([exp(-1e4), exp(-88.0), exp(f32::NEG_INFINITY)], [0.0; 3]);
        assert!(exp(1e4).is_finite());
    }

    #[test]
    fn tanh_is_within_its_bound() {
        for i in (-20_000..=20_000).filter(|i| *i != 0) {
            let x = i as f32 / 2000.0;
            let expected = f64::from(x).tanh();
            let error = ((f64::from(tanh(x)) - expected) / expected).abs();
            assert!(error < 4e-7, "tanh({x}): relative error {error:e}");
        }
        assert_eq!([tanh(0.0), tanh(1e4), tanh(-1e4), tanh(f32::NEG_INFINITY)], [0.0, 1.0, -1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_its_bound() {
        for i in -4000..=4000 {
            let x = i as f32 / 1000.0;
            let error = (f64::from(erf(x)) - erf_reference(f64::from(x))).abs();
            assert!(error < 4e-7, "erf({x}): error {error:e}");
        }
        assert!((erf(1e4) - 1.0).abs() < 4e-7 && (erf(-1e4) + 1.0).abs() < 4e-7);
    }
}
