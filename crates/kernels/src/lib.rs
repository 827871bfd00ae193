//! Math on slices: everything a transformer needs, forward and backward, and nothing else.
//!
//! This crate holds all unsafe code of Kudos. It knows nothing of models, text or files: shapes come
//! as numbers, data as slices, row-major. Each fast kernel stands beside a plain `_reference` twin
//! that property tests hold it to.
//!
//! # Determinism
//! One task owns each output element over its whole reduction, and every reduction has a fixed
//! shape, so a result depends neither on the number of threads nor on the rows beside it.
//! Fused multiply-adds are written out, so the vector and the scalar build of a kernel give the
//! same bits.

#[macro_use]
mod simd;

pub mod activation;
pub mod attention;
pub mod bf16;
pub mod columns;
#[cfg(test)]
mod dispatch_rule;
pub mod dots;
pub mod embed;
pub mod gated;
pub mod gemm;
pub mod heads;
pub mod limit;
pub mod math;
pub mod memory;
pub mod norm;
pub mod optimizer;
pub mod parallel;
pub mod reduce;
pub mod rotary;
mod scratch;
pub mod vocabulary;

pub use simd::{
    Isa, UnknownIsa, bf16_is_faster, check_isa, description, emulate_missing_products, has_bf16_products,
    has_int8_products, isa,
};
