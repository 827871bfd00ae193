//! An adapter and its base, merged into a judge of its own.

use super::source::{find_base, open, reward_of_base};
use super::{Adapter, AdapterError};
use crate::models::load::{LoadOptions, load_stored};
use crate::models::{JudgeError, RewardConfig, RewardModel};
use crate::nn::Precision;
use crate::nn::weights::{self, WeightError};
use crate::text::{TOKENIZER_CONFIG, TOKENIZER_FILES, with_max_length};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What was merged.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The base.
    pub base: PathBuf,
    /// Modules to which the adapter added.
    pub adapted: usize,
    /// Tensors that the adapter replaced, or that the base did not have.
    pub replaced: usize,
}

/// Writes the judge that a base is with an adapter, in f32, to an existing directory. Then loads it once, so that nothing
/// is left that cannot be used.
///
/// # Errors
/// [`JudgeError`] for an adapter that does not fit its base exactly, and for what cannot be written.
pub fn merge(dir: &Path, base: Option<&Path>, output: &Path) -> Result<Merged, JudgeError> {
    let adapter = Adapter::open(dir).map_err(|error| JudgeError::Load(error.into()))?;
    let base = match base {
        Some(base) => base.to_path_buf(),
        None => find_base(dir).map_err(|error| JudgeError::Load(error.into()))?,
    };
    let stored = open(dir, Some(&base))?;
    let json = stored.json.clone();
    let (model, _) = load_stored(dir, stored, LoadOptions::Judge)?;
    write_rest(dir, &base, json, output)?;
    weights::write(&output.join("model.safetensors"), &model.parameters)
        .map_err(|error| JudgeError::Load(error.into()))?;
    drop(model);
    RewardModel::load(output, Some(Precision::F32))?;
    Ok(Merged { base, adapted: adapter.modules.len(), replaced: adapter.replaced.len() })
}

/// Writes everything but the weights: what the adapter brings along, else what its base has.
fn write_rest(adapter: &Path, base: &Path, mut json: Map<String, Value>, output: &Path) -> Result<(), JudgeError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = output.join(name);
        crate::files::write(&path, bytes).map_err(|source| io(path, source))
    };
    let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
    let reward = match RewardConfig::read(adapter)? {
        Some(own) => Some(RewardConfig { base_fingerprint: None, ..own }),
        None => reward_of_base(base)?,
    };
    let limit = reward.as_ref().map(|reward| reward.encode.max_length);
    for (name, mut bytes) in tokenizer(adapter, base)? {
        if let Some(limit) = limit.filter(|_| name == TOKENIZER_CONFIG) {
            let reason =
                |error: &dyn std::fmt::Display| JudgeError::Reward { path: base.join(name), reason: error.to_string() };
            bytes = with_max_length(&bytes, limit).map_err(|error| reason(&error))?;
        }
        write(name, &bytes)?;
    }
    json.remove("torch_dtype");
    json.insert("dtype".into(), "float32".into());
    write("config.json", &pretty(&json.into()))?;
    match reward {
        None => Ok(()),
        Some(reward) => write("reward.json", &pretty(&json!(reward))),
    }
}

fn io(path: PathBuf, source: std::io::Error) -> JudgeError {
    JudgeError::Load(AdapterError::from(WeightError::Io { path, source }).into())
}

/// The files of the tokenizer, all of the adapter or all of the base.
fn tokenizer(adapter: &Path, base: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, JudgeError> {
    let from = if adapter.join("tokenizer.json").exists() { adapter } else { base };
    let mut files = Vec::new();
    for name in TOKENIZER_FILES {
        let path = from.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => files.push((name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io(path, source)),
        }
    }
    Ok(files)
}
