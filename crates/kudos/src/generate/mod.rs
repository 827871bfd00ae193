//! Generation: many responses to many prompts, from a model that runs here or from an endpoint.
//!
//! A [`Job`] is a list of prompts and what is wanted of each. Its responses come in any order, each is on disk
//! as soon as it is finished, and each is a function of its prompt, its settings and its own random stream
//! alone: neither the batch it was decoded in, nor the number of threads, nor an interruption changes it.
//!
//! This module knows models and texts. It must not know training or evaluation.

mod job;
mod sampler;
mod stop;

pub use job::{Attempt, FinishReason, Generated, Prompt, Sampling};
pub use sampler::{Sampler, Seen};
pub use stop::StopStrings;
