//! The engine: parameters, the tape of fused ops, weight files (safetensors, GGUF), numerics.
//!
//! A model pushes ops on a [`Tape`]; the tape plans where every value lives, runs the ops forward and,
//! for training, backward. It knows tensors by shape and must not know model families or text.

mod batch;
mod cache;
pub mod gguf;
mod gradients;
pub mod numerics;
mod ops;
mod packed;
mod parameters;
mod plan;
mod tape;
mod trained;
pub mod weights;

pub use batch::{Batch, BatchError, Sequence};
pub use cache::KvCache;
pub use gradients::Gradients;
pub use kernels::activation::Activation;
pub use ops::{
    Asker, AttentionSpec, DistancesSpec, EmbedSpec, HeadNormSpec, LinearSpec, LowRank, LowRankPart, Mask, NormKind,
    NormSpec, WordsSpec,
};
pub use packed::{Packed, PackedLayer, Precision};
pub use parameters::{Form, Initial, ParameterSpec, Parameters, Place, Role, Span};
pub use tape::{Mode, State, Storage, Tape, Var, Weights};
pub use trained::Trained;
