//! The base of an adapter over fewer layers.
//!
//! An adapter is one of a base that every program can read. So what a run with fewer layers adapts is written to a directory
//! of its own before it starts, and the adapter names that.

use super::TrainError;
use super::start::{Opened, keep_layers, open_anew};
use crate::models::{
    ClassifierSource, Config, JudgeError, LoadError, LoadOptions, Model, RewardConfig, TokenizerDir,
    config_of_new_judge, load,
};
use crate::nn::Role;
use crate::nn::weights::write_some;
use crate::text::TOKENIZER_FILES;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Writes the lowest `layers` layers of a decoder to a directory; of a BERT those below a layer that averages all tokens, as
/// they stand under a new head. Weights are in f32, without an output layer.
///
/// # Errors
/// A base that keeps all its layers, that has fewer, or whose own head would have to go; what cannot be read or written.
pub fn write_lower_base(base: &Path, layers: usize, new_head: bool, dir: &Path) -> Result<(), TrainError> {
    let (mut model, head) = load(base, LoadOptions::Base { seed: 0, new_head }).map_err(JudgeError::from)?;
    if head == ClassifierSource::Checkpoint {
        return Err(TrainError::AllLayers { asked: layers });
    }
    keep_lowest(&mut model, layers, base)?;
    write_some(&dir.join("model.safetensors"), &model.parameters, |spec| spec.role != Role::Output)?;
    write_json(dir, "config.json", &Value::Object(config_of_new_judge(&model.config, &[])))?;
    if let Some(reward) = RewardConfig::read(base)? {
        write_json(dir, "reward.json", &json!(RewardConfig::new(reward.encode)))?;
    }
    let tokenizer = TokenizerDir::of(base)?;
    for name in TOKENIZER_FILES {
        let from = tokenizer.path().join(name);
        if from.exists() {
            std::fs::copy(&from, dir.join(name)).map_err(TrainError::io(&from))?;
        }
    }
    Ok(())
}

fn keep_lowest(model: &mut Model, asked: usize, base: &Path) -> Result<(), TrainError> {
    let most = model.config.layers() - 1;
    if asked == 0 || asked > most {
        return Err(TrainError::TooManyLayers { asked, most });
    }
    if model.config.decoder().is_none() {
        return match open_anew(model, Some(asked)) {
            Opened::HeadAndLastLayer { .. } => Ok(()),
            Opened::Nothing | Opened::Head => Err(TrainError::AllLayers { asked }),
        };
    }
    let json = fewer_layers(model.config.json().clone(), asked);
    let config = Config::check(&base.join("config.json"), json).map_err(|e| JudgeError::from(LoadError::from(e)))?;
    keep_layers(model, config);
    Ok(())
}

/// The config of a decoder with its lowest layers alone.
fn fewer_layers(mut json: Map<String, Value>, count: usize) -> Map<String, Value> {
    let key = if json.contains_key("n_layer") { "n_layer" } else { "num_hidden_layers" };
    json.insert(key.into(), count.into());
    if let Some(Value::Array(kinds)) = json.get_mut("layer_types") {
        kinds.truncate(count);
    }
    json
}

fn write_json(dir: &Path, name: &str, json: &Value) -> Result<(), TrainError> {
    let path = dir.join(name);
    crate::files::write(&path, format!("{json:#}\n").as_bytes()).map_err(TrainError::io(&path))
}
