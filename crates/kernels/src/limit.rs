//! What this processor can do at most: loops of independent multiply-adds on registers, for benchmarks to stand beside.

/// The arithmetic whose limit is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Fused multiply-adds of f32.
    F32,
    /// Pairs of bf16 added to f32 (`vdpbf16ps`).
    Bf16,
    /// Quads of int8 added to i32 (`vpdpbusd`).
    Int8,
}

/// Operations a second (a multiply and an add count as two) over `threads` threads; `None` when the
/// processor lacks the instruction. Takes about a tenth of a second.
pub fn peak(arithmetic: Arithmetic, threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let ready = match arithmetic {
            Arithmetic::F32 => crate::isa() == crate::Isa::Avx512,
            Arithmetic::Bf16 => crate::simd::processor_has_bf16(),
            Arithmetic::Int8 => crate::simd::processor_has_vnni(),
        };
        ready.then(|| x86::peak(arithmetic, threads))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (arithmetic, threads);
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Arithmetic;
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::time::Instant;

    /// Chains that run at once: enough to hide the latency of two units.
    const CHAINS: usize = 24;
    const STEPS: usize = 4_000_000;

    pub(super) fn peak(arithmetic: Arithmetic, threads: usize) -> f64 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                // SAFETY: `super::peak` checked the processor.
                scope.spawn(move || unsafe {
                    match arithmetic {
                        Arithmetic::F32 => f32_chains(),
                        Arithmetic::Bf16 => bf16_chains(),
                        Arithmetic::Int8 => int8_chains(),
                    }
                });
            }
        });
        let operations = match arithmetic {
            Arithmetic::F32 => 32,
            Arithmetic::Bf16 => 64,
            Arithmetic::Int8 => 128,
        };
        (threads * CHAINS * STEPS * operations) as f64 / start.elapsed().as_secs_f64()
    }

    macro_rules! chains {
        ($name:ident, $features:literal, $zero:expr, $one:expr, $step:expr) => {
            #[target_feature(enable = $features)]
            fn $name() {
                let mut sums = [$zero; CHAINS];
                let (a, b) = (black_box($one), black_box($one));
                for _ in 0..STEPS {
                    for sum in &mut sums {
                        *sum = $step(*sum, a, b);
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(f32_chains, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(1e-9), |sum, a, b| _mm512_fmadd_ps(a, b, sum));
    chains!(
        bf16_chains,
        "avx512f,avx512bf16",
        _mm512_setzero_ps(),
        _mm512_cvtne2ps_pbh(_mm512_setzero_ps(), _mm512_setzero_ps()),
        |sum, a, b| _mm512_dpbf16_ps(sum, a, b)
    );
    chains!(int8_chains, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_setzero_si512(), |sum, a, b| {
        _mm512_dpbusd_epi32(sum, a, b)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No speeds are compared: wall time on a machine with other work says nothing.
    #[test]
    fn limits_exist_where_the_instructions_do() {
        let found = [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8].map(|kind| peak(kind, 1));
        let has_f32 = crate::isa() == crate::Isa::Avx512;
        let has = [has_f32, crate::simd::processor_has_bf16(), crate::simd::processor_has_vnni()];
        assert_eq!(found.map(|limit| limit.is_some()), has);
        assert!(found.iter().flatten().all(|limit| limit.is_finite() && *limit > 1e7), "{found:?}");
    }
}
