//! What a decoder's `config.json` must say for its score to be transformers', and how a judge directory is loaded.

use super::adapter;
use super::config::{Config, ConfigError, Fields};
use super::load::{load_for_scoring, open_judge};
use super::model::Model;
use super::reward_config::RewardConfig;
use super::reward_model::{JudgeError, check_outputs, check_positions};
use super::source::TensorSource;
use crate::nn::Precision;
use crate::text::EncodeSettings;
use serde_json::Value;
use std::path::Path;

/// A judge directory whose weights and tokenizer are not read yet.
pub(super) struct Opened {
    config: Config,
    tensors: Box<dyn TensorSource>,
    /// How its texts are encoded.
    pub(super) reward: RewardConfig,
}

impl Opened {
    /// Reads what a judge directory says of itself, and checks it.
    pub(super) fn of(dir: &Path) -> Result<Self, JudgeError> {
        let (config, tensors) = open_judge(dir)?;
        let reward = match adapter::reward_config(dir)? {
            Some(reward) => reward,
            None => default_reward(&adapter::tokenizer_dir(dir)?, &config)?,
        };
        check_outputs(dir, &reward, config.labels())?;
        check_positions(&dir.join("reward.json"), &reward.encode, config.max_tokens())?;
        Ok(Self { config, tensors, reward })
    }

    /// Loads the weights, and says in which precision the model scores.
    pub(super) fn weights(&self, asked: Option<Precision>) -> Result<(Model, Precision), JudgeError> {
        let (mut model, precision) = load_for_scoring(self.config.clone(), self.tensors.as_ref(), asked)?;
        model.prepare_turns(self.reward.encode.max_length);
        Ok((model, precision))
    }
}

/// What a checkpoint without `reward.json` means.
///
/// # Errors
/// Tokenizer files of a decoder that cannot be read.
pub fn default_reward(dir: &Path, config: &Config) -> Result<RewardConfig, JudgeError> {
    Ok(match config {
        Config::Encoder(config) => RewardConfig::default_for(config),
        Config::Decoder(config) => RewardConfig::new(EncodeSettings::of_decoder(dir, config.positions)?),
    })
}

/// Refuses a class that reads something else off the states than this one, which is a judge.
pub(super) fn check_class(fields: &Fields, class: &str) -> Result<(), ConfigError> {
    let classes = fields.json.get("architectures").and_then(Value::as_array);
    match classes.is_some_and(|classes| classes.iter().all(|one| one.as_str() != Some(class))) {
        true => Err(fields.error("architectures", format!("{class:?}, the one class of this family that is a judge"))),
        false => Ok(()),
    }
}

/// Refuses by name what would make the states others than transformers'. Gives the pad id.
pub(super) fn check_decoder(fields: &Fields) -> Result<Option<u32>, ConfigError> {
    for key in ["auto_map", "quantization_config"] {
        if fields.json.get(key).is_some_and(|value| !value.is_null()) {
            let what = if key == "auto_map" { "code of its own is not run" } else { "weights in F32, F16 or BF16" };
            return Err(fields.error(key, format!("none: {what}")));
        }
    }
    let layers = fields.json.get("num_hidden_layers").and_then(Value::as_u64);
    let types = fields.json.get("layer_types").and_then(Value::as_array).map(|types| types.len() as u64);
    if types.is_some() && layers.is_some() && types != layers {
        return Err(fields.error("layer_types", format!("one for each of {} layers", layers.unwrap_or(0))));
    }
    pad(fields)
}

/// The pad id. A negative one stands for none: no id is equal to it.
fn pad(fields: &Fields) -> Result<Option<u32>, ConfigError> {
    let value = match fields.json.get("pad_token_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) if value.as_i64().is_some_and(|id| id < 0) => return Ok(None),
        Some(value) => value.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    let vocabulary = fields.json.get("vocab_size").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let within = value.filter(|id| u64::from(*id) < vocabulary);
    within.map(Some).ok_or_else(|| fields.error("pad_token_id", "a token id below vocab_size, or null"))
}
