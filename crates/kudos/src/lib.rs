//! Kudos: the whole life of a reward model, as a library.
//!
//! The modules stand in pipeline order and depend one way: each may use those above it.
//!
//! | module | purpose |
//! |---|---|
//! | [`files`], [`random`] | files that appear whole; random numbers that need no state |
//! | [`data`] | files of rankings, pairs and comparisons → groups (a prompt with its responses) |
//! | [`text`] | a (prompt, response) → token ids, one function for training, evaluation and scoring |
//! | [`hub`] | fetching checkpoints by name |
//! | [`nn`] | the tape of fused ops, parameters, weight files |
//! | [`models`] | model families, checkpoints, and the reward model itself |
//! | [`verify`] | the self-test of a judge |
//! | [`shard`] | a job over files that is done in parts, by anyone, and survives every death |
//! | [`generate`] | responses from a local model or an endpoint |
//! | [`train`] | the loop, losses, schedule, optimizer state, checkpoints |
//! | [`eval`] | metrics and what they can claim |
//! | [`improve`] | a generator made better by its judge |

pub mod data;
pub mod eval;
pub mod files;
pub mod generate;
#[cfg(feature = "hub")]
mod http;
pub mod hub;
pub mod improve;
pub mod models;
pub mod nn;
pub mod random;
pub mod shard;
pub mod text;
pub mod train;
pub mod verify;
