//! Model families, their checkpoints, and the reward model.
//!
//! A family is one file, which states its config and the names of its tensors, and one entry of `families.rs`. All have
//! the one network of `network.rs`, from ids to states. Its parameters are declared as in an encoder (`encoder.rs`) or in
//! a decoder (`decoder.rs`), and `load.rs` fills them from any checkpoint. [`Model`] gives texts outputs, to score and to
//! train; [`Decoder`] generates. This module must not know training or metrics: what a new head asks of a base stands in
//! `train/start.rs`.

pub mod adapter;
mod attributes;
mod bert;
mod config;
mod convert_judge;
mod decoder;
mod decoder_config;
mod distilbert;
mod encoder;
mod encoder_config;
mod families;
mod gemma;
mod generator;
pub mod gguf;
mod gpt2;
mod judge;
mod layer;
mod llama;
mod load;
mod mistral;
mod model;
mod modernbert;
mod mpnet;
mod network;
mod phi;
mod policy;
mod quantize;
mod qwen;
mod reward_config;
mod reward_model;
mod roberta;
mod scoring;
mod sharing;
mod source;
mod token_head;

pub use attributes::{AttributeHead, Weighting};
pub use config::{Config, ConfigError};
pub use convert_judge::{ConvertSettings, Converted, DEFAULT_LENGTH, convert_judge};
pub use decoder::DecoderHead;
pub use decoder_config::DecoderConfig;
pub use encoder_config::EncoderConfig;
pub use generator::{Decoder, LogitRows};
pub use judge::default_reward;
pub use layer::{Adapters, Layer, Norms};
pub use load::{ClassifierSource, LoadError, LoadOptions, load, load_for_attributes, load_frozen};
pub use model::Model;
pub use policy::NextWords;
pub use quantize::quantize;
pub use reward_config::{Calibration, RewardConfig, TrainedOn, config_of_new_judge};
pub use reward_model::{Input, JudgeError, Rated, RewardModel, Scored, Scorer, check_length};
pub use scoring::{
    SCORING_TOKENS, ScoreError, Scores, Workspace, all_or_first, batches, computed_tokens, features_each, pack, push,
    push_all, score_encoded,
};
pub use sharing::saved_tokens;
pub use source::{TokenizerDir, is_gguf};
pub use token_head::{ConvertError, TokenHead, head_from_tokens};
