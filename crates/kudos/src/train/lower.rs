//! The base of an adapter over fewer layers.
//!
//! An adapter is one of a base that every program can read. So what a run with fewer layers adapts is written to a directory
//! of its own before it starts, and the adapter names that.

use super::TrainError;
use super::start::{Opened, open_anew};
use crate::models::{
    ClassifierSource, JudgeError, LoadOptions, Model, RewardConfig, TokenizerDir, config_of_new_judge, load,
};
use crate::nn::Role;
use crate::nn::weights::write_some;
use crate::text::TOKENIZER_FILES;
use serde_json::{Value, json};
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
    keep_lowest(&mut model, layers)?;
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

fn keep_lowest(model: &mut Model, asked: usize) -> Result<(), TrainError> {
    let most = model.config.layers() - 1;
    if asked == 0 || asked > most {
        return Err(TrainError::LayersToKeep { asked, fewest: 1, most, of: most + 1 });
    }
    match open_anew(model, Some(asked)) {
        Opened::HeadAndLastLayer { .. } | Opened::LowerLayers { .. } => Ok(()),
        Opened::Nothing | Opened::Head => Err(TrainError::AllLayers { asked }),
    }
}

fn write_json(dir: &Path, name: &str, json: &Value) -> Result<(), TrainError> {
    let path = dir.join(name);
    crate::files::write(&path, format!("{json:#}\n").as_bytes()).map_err(TrainError::io(&path))
}
