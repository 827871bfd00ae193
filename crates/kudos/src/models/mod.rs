//! Model families, their checkpoints, and the reward model.
//!
//! A family's file states its config, its wiring and its checkpoint names; the wiring is built from
//! the post-norm encoder of `encoder.rs`. This module must not know training or metrics.

mod attributes;
mod bert;
mod checkpoint;
mod config;
mod decoder;
mod decoder_config;
mod distilbert;
mod encoder;
mod gemma;
pub mod gguf;
mod gpt2;
mod llama;
mod phi;
mod qwen;
mod reward_model;
mod roberta;

pub use attributes::{AttributeHead, Weighting};
pub use checkpoint::{ClassifierSource, LoadError, LoadOptions, load, load_for_attributes, quantize};
pub use config::{Config, ConfigError, Family};
pub use decoder::{Decoder, DecoderError, DecoderHead, Wanted};
pub use decoder_config::DecoderConfig;
pub use encoder::{Model, Opened};
pub use reward_model::{
    Calibration, Input, JudgeError, Rated, RewardConfig, RewardModel, Scored, TrainedOn, Workspace, check_length,
    config_of_new_judge, features_encoded, push, score_encoded,
};
