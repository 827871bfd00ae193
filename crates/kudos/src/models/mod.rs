//! Model families, their checkpoints, and the reward model.
//!
//! A family's file states its config and its checkpoint names. All have the one network of `network.rs`, from ids to
//! states. Its parameters are declared, and its head read, as in an encoder (`encoder.rs`) or in a decoder
//! (`decoder.rs`). Which of them a judge is stands in `judge.rs`. This module must not know training or metrics: what a
//! new head asks of a base stands in `train/start.rs`.

pub mod adapter;
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
mod judge;
mod layer;
mod llama;
mod mistral;
mod network;
mod phi;
mod qwen;
mod reward_config;
mod reward_model;
mod roberta;
mod scoring;

pub use attributes::{AttributeHead, Weighting};
pub use checkpoint::{ClassifierSource, LoadError, LoadOptions, load, load_for_attributes, quantize};
pub use config::{Config, ConfigError, Family};
pub use decoder::{Decoder, DecoderError, DecoderHead, LogitRows};
pub use decoder_config::DecoderConfig;
pub use encoder::Model;
pub use judge::{DecoderJudge, JudgeModel};
pub use layer::{Adapters, Layer, Norms};
pub use reward_config::{Calibration, RewardConfig, TrainedOn, config_of_new_judge};
pub use reward_model::{Input, JudgeError, Rated, RewardModel, Scored, Scorer, check_length};
pub use scoring::{
    SCORING_TOKENS, ScoreError, Scores, Workspace, all_or_first, features_each, pack, push, score_encoded,
};
