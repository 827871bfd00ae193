//! Run-time choice of the instruction set: one body per kernel, compiled three times.
//!
//! `KUDOS_ISA` lowers the choice, so that one machine tests the code of others.

use crate::gemm::tile::{Bf16Products, Int8Products};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The instruction sets a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target guarantees (SSE2 on x86-64, NEON on aarch64).
    Baseline,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
}

/// What `KUDOS_ISA` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    highest: Isa,
    products: Products,
}

/// Which bf16 and int8 products may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Products {
    /// All that the processor has.
    All,
    /// No tiles: AMD, and Intel before Sapphire Rapids.
    WithoutAmx,
    /// No bf16: Cascade Lake and Ice Lake.
    WithoutBf16,
    /// Neither bf16 nor `vpdpbusd`: int8 by what AVX2 has.
    WithoutVnni,
    /// Plain twins of all.
    Emulated,
    /// Plain twins of AMX.
    EmulatedAmx,
}

/// The accepted values of `KUDOS_ISA`.
const CHOICES: [(&str, Choice); 8] = [
    ("amx", Choice { highest: Isa::Avx512, products: Products::All }),
    ("avx512", Choice { highest: Isa::Avx512, products: Products::WithoutAmx }),
    ("avx512vnni", Choice { highest: Isa::Avx512, products: Products::WithoutBf16 }),
    ("avxvnni", Choice { highest: Isa::Avx2, products: Products::All }),
    ("avx2", Choice { highest: Isa::Avx2, products: Products::WithoutVnni }),
    ("baseline", Choice { highest: Isa::Baseline, products: Products::WithoutVnni }),
    ("emulated", Choice { highest: Isa::Avx512, products: Products::Emulated }),
    ("emulatedamx", Choice { highest: Isa::Avx512, products: Products::EmulatedAmx }),
];

/// `KUDOS_ISA` holds a value that names no instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(String);

impl std::fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let names = CHOICES.map(|(name, _)| name).join(", ");
        write!(f, "KUDOS_ISA is `{}`, expected one of {names}; unset it to use all that the processor has", self.0)
    }
}

impl std::error::Error for UnknownIsa {}

fn parse(value: &str) -> Result<Choice, UnknownIsa> {
    let known = |name: &str| CHOICES.iter().find(|(known, _)| *known == name).map(|(_, choice)| *choice);
    let name = if value.is_empty() { "amx" } else { value };
    known(name).ok_or_else(|| UnknownIsa(value.into()))
}

fn asked() -> Result<Choice, UnknownIsa> {
    parse(&std::env::var_os("KUDOS_ISA").unwrap_or_default().to_string_lossy())
}

fn choice() -> Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    *CHOICE.get_or_init(|| asked().unwrap_or_else(|error| panic!("{error}")))
}

/// Refuses an unknown value of `KUDOS_ISA`. Programs ask this when they start: the first kernel would panic.
///
/// # Errors
/// Names the value and the accepted ones.
pub fn check_isa() -> Result<(), UnknownIsa> {
    asked().map(drop)
}

/// The best instruction set of this processor; `KUDOS_ISA` names the highest that is used.
///
/// # Panics
/// When `KUDOS_ISA` has an unknown value, see [`check_isa`].
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| detect().min(choice().highest))
}

/// Whether the bf16 kernels run here: on AMX (`tdpbf16ps`), on AVX-512 BF16 (`vdpbf16ps`), or emulated. Without it everything runs in f32.
pub fn has_bf16_products() -> bool {
    Bf16Products::here().is_some()
}

/// Whether bf16 products are faster than f32 ones, where they run. AMX has many times the rate of f32's multiply-adds.
/// `vdpbf16ps` has twice that rate on AMD, and half of it on Intel (measured: `cargo bench -p kernels`).
pub fn bf16_is_faster() -> bool {
    Bf16Products::here().is_some_and(|products| products != Bf16Products::Avx512Bf16 || made_by_amd())
}

/// Whether the processor names AMD as its maker.
fn made_by_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Leaf 0 of `cpuid` spells the maker's name over three registers.
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether the int8 kernels run here: on AMX (`tdpbusd`), on AVX-512 VNNI or AVX-VNNI (`vpdpbusd`), on AVX2 (`vpmaddubsw`), or emulated.
pub fn has_int8_products() -> bool {
    Int8Products::here().is_some()
}

static MISSING_IS_EMULATED: AtomicBool = AtomicBool::new(false);

/// From now on this process emulates the bf16 and int8 products that its processor lacks, as `KUDOS_ISA=emulated`
/// does with all. Tests use it, so that none has to be skipped. It is slower than f32.
pub fn emulate_missing_products() {
    MISSING_IS_EMULATED.store(true, Ordering::Relaxed);
}

pub(crate) fn missing_is_emulated() -> bool {
    MISSING_IS_EMULATED.load(Ordering::Relaxed)
}

/// What multiplies in this process, one line each: what a summary of tests says about the instructions they ran on.
pub fn description() -> String {
    let products = |own: Vec<String>| match (emulated(), own.is_empty()) {
        (Some(_), _) => "emulated (KUDOS_ISA)".to_string(),
        (None, true) => "none here: nothing ran on instructions, their twin was tested".to_string(),
        (None, false) => own.join(", "),
    };
    let bf16 = products(Bf16Products::of_this_processor().map(|products| format!("{products:?}")).collect());
    let int8 = products(Int8Products::of_this_processor().map(|products| format!("{products:?}")).collect());
    format!("instruction set: {:?}\nbf16 products: {bf16}\nint8 products: {int8}", isa())
}

#[cfg(test)]
thread_local! {
    /// What this thread's kernels take instead of what `KUDOS_ISA` asks for.
    pub(crate) static TESTED: std::cell::Cell<Option<Products>> = const { std::cell::Cell::new(None) };
}

/// The products that may be used.
fn allowed() -> Products {
    #[cfg(test)]
    if let Some(tested) = TESTED.get() {
        return tested;
    }
    choice().products
}

/// Which twins take the place of the instructions, if any do.
pub(crate) fn emulated() -> Option<Twins> {
    match allowed() {
        Products::Emulated => Some(Twins::Registers),
        Products::EmulatedAmx => Some(Twins::Amx),
        _ => None,
    }
}

/// Plain twins of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twins {
    /// Of those on registers.
    Registers,
    /// Of those on tiles.
    Amx,
}

/// Whether kernels may use `tdpbf16ps` and `tdpbusd`.
pub(crate) fn processor_has_amx() -> bool {
    isa() == Isa::Avx512 && allowed() == Products::All && has_tiles()
}

/// Whether kernels may use `vdpbf16ps`.
pub(crate) fn processor_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let allowed = matches!(allowed(), Products::All | Products::WithoutAmx);
        isa() == Isa::Avx512 && allowed && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether kernels may use `vpdpbusd` on registers of 512 bits.
pub(crate) fn processor_has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        isa() == Isa::Avx512 && may_use_vnni() && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether kernels may use `vpdpbusd` on registers of 256 bits.
pub(crate) fn processor_has_avx_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        processor_has_avx2() && may_use_vnni() && is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether kernels may use AVX2.
pub(crate) fn processor_has_avx2() -> bool {
    isa() >= Isa::Avx2
}

#[cfg(target_arch = "x86_64")]
fn may_use_vnni() -> bool {
    allowed() != Products::WithoutVnni
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Baseline,
    }
}

/// Whether the processor has AMX with the products of both kinds, the system saves tiles, and this process may use them.
pub(crate) fn has_tiles() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static HAS: OnceLock<bool> = OnceLock::new();
        *HAS.get_or_init(|| amx::has_instructions() && amx::saves_tiles() && amx::permitted())
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Leaf 7 of `cpuid` has bits 22, 24 and 25 of EDX for bf16, tiles and int8.
    pub(super) fn has_instructions() -> bool {
        const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
    }

    /// Bits 17 and 18 of XCR0: the system saves the configuration of tiles and their content.
    pub(super) fn saves_tiles() -> bool {
        const TILES: u64 = 1 << 17 | 1 << 18;
        // SAFETY: `is_x86_feature_detected` saw XSAVE, and that the system uses it.
        is_x86_feature_detected!("xsave") && unsafe { _xgetbv(0) } & TILES == TILES
    }

    /// Asks Linux, which saves tiles of a process only after it asked. Permission holds for all threads.
    pub(super) fn permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const TILE_DATA: u64 = 18;
        let status: i64;
        // SAFETY: a system call that reads and writes no memory of ours; it clobbers the named registers.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => status,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        status == 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Baseline
}

/// Defines a function whose body is compiled for every [`Isa`] and chosen at run time. Type parameters stand in
/// brackets with their one bound: `fn name[T: Element](…)`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($type:ident: $bound:ident),+])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$($type: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<$($type: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512 $(<$($type: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($type: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::isa() {
                    // SAFETY: `isa` reports an instruction set only after the processor confirmed it.
                    $crate::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::Isa::Baseline => {}
                }
            }
            body($($arg),*)
        }
    };
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Cases of a property: `count`, or `PROPTEST_CASES` where that is fewer (on an emulated processor, say). Under Miri,
    /// which takes thousands of times as long, one.
    pub(crate) fn cases(count: u32) -> proptest::test_runner::Config {
        let most = std::env::var("PROPTEST_CASES").ok().and_then(|most| most.parse().ok()).unwrap_or(u32::MAX);
        proptest::test_runner::Config::with_cases(if cfg!(miri) { 1 } else { count.min(most) })
    }

    /// Runs a test of a bf16 or int8 kernel on the plain twins, then on the instructions where the processor has them: on
    /// tiles, and on registers.
    pub(crate) fn on_twins_and_instructions<E>(test: impl Fn() -> Result<(), E>) -> Result<(), E> {
        let run = |products| {
            let before = TESTED.replace(products);
            let found = test();
            TESTED.set(before);
            found
        };
        run(Some(Products::Emulated))?;
        run(Some(Products::EmulatedAmx))?;
        emulate_missing_products();
        if emulated().is_some() {
            return Ok(());
        }
        if processor_has_amx() {
            run(Some(Products::WithoutAmx))?;
        }
        let int8 = Int8Products::of_this_processor().next().is_some();
        if processor_has_bf16() || int8 { run(None) } else { Ok(()) }
    }

    /// As [`on_twins_and_instructions`], for tests that panic.
    pub(crate) fn on_both(test: impl Fn()) {
        let Ok(()) = on_twins_and_instructions(|| {
            test();
            Ok::<(), std::convert::Infallible>(())
        });
    }

    #[test]
    fn c10_unknown_instruction_sets_are_refused() {
        for (name, choice) in CHOICES {
            assert_eq!(parse(name), Ok(choice));
        }
        assert_eq!(parse(""), parse("amx"));
        for value in ["AVX2", "sse", " avx2", "avx512f"] {
            let message = parse(value).unwrap_err().to_string();
            assert!(
                message.contains(value)
                    && message.contains("amx, avx512, avx512vnni, avxvnni, avx2, baseline, emulated, emulatedamx"),
                "{message}"
            );
        }
    }
}
