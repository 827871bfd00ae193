//! An adapter and its base, merged into a judge of its own.

use super::base::Base;
use super::{Adapter, AdapterError, CONFIG_FILE, find_base};
use crate::models::config::read_object;
use crate::models::{RewardConfig, RewardModel};
use crate::nn::Precision;
use crate::nn::weights::{Raw, write_raw};
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

/// One tensor of the judge.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// Writes the judge that a base is with an adapter, in f32, to an existing directory. Then loads it once, so that nothing
/// is left that cannot be used.
///
/// # Errors
/// [`AdapterError`] for an adapter that does not fit its base exactly, and for what cannot be written.
pub fn merge(adapter: &Path, base: Option<&Path>, output: &Path) -> Result<Merged, AdapterError> {
    let adapter = Adapter::open(adapter)?;
    let base = base.map_or_else(|| find_base(&adapter), |base| Ok(base.into()))?;
    if base.join(CONFIG_FILE).exists() {
        let reason = "this is an adapter too; merge it first, and name what comes of it".into();
        return Err(AdapterError::Base { path: base, reason });
    }
    let json = read_object(&base.join("config.json"))?;
    let tensors = Base::open(&base, &adapter)?;
    let adapter = adapter.over(&tensors.tensors(json.get("model_type") == Some(&json!("gpt2"))))?;
    write_rest(&adapter, &base, &json, output)?;
    write_tensors(&output.join("model.safetensors"), &merged(&adapter, &tensors)?)?;
    RewardModel::load(output, Some(Precision::F32)).map_err(Box::new)?;
    Ok(Merged { base, adapted: adapter.modules.len(), replaced: adapter.replaced.len() })
}

/// All tensors of the judge.
fn merged(adapter: &Adapter, base: &Base) -> Result<Vec<Tensor>, AdapterError> {
    let mut tensors = Vec::new();
    for (name, stored) in &base.stored {
        let shape = base.tensor(name).shape.clone();
        let mut values = vec![0.0; shape.iter().product()];
        base.file.read(stored, &mut values)?;
        adapter.apply(name, &shape, &mut values)?;
        tensors.push((name.clone(), shape, values));
    }
    for (name, shape) in adapter.brings().filter(|(name, _)| !base.stored.contains_key(*name)) {
        let mut values = vec![0.0; shape.iter().product()];
        adapter.apply(name, shape, &mut values)?;
        tensors.push((name.to_owned(), shape.to_vec(), values));
    }
    Ok(tensors)
}

fn write_tensors(path: &Path, tensors: &[Tensor]) -> Result<(), AdapterError> {
    let raw: Vec<Raw> = tensors
        .iter()
        .map(|(name, shape, values)| Raw {
            name: name.clone(),
            dtype: "F32",
            shape: shape.clone(),
            bytes: bytemuck::cast_slice(values),
        })
        .collect();
    Ok(write_raw(path, &raw, &[])?)
}

/// Writes everything but the weights: what the adapter brings along, else what its base has.
fn write_rest(adapter: &Adapter, base: &Path, json: &Map<String, Value>, output: &Path) -> Result<(), AdapterError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = output.join(name);
        crate::files::write(&path, bytes).map_err(|source| AdapterError::Io { path, source })
    };
    let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
    let reward = reward(adapter, base)?;
    let limit = reward.as_ref().map(|reward| reward.encode.max_length);
    for (name, bytes) in tokenizer(&adapter.dir, base)? {
        let bytes = match limit.filter(|_| name == TOKENIZER_CONFIG) {
            None => bytes,
            Some(limit) => with_max_length(&bytes, limit)
                .map_err(|error| AdapterError::Base { path: base.join(name), reason: error.to_string() })?,
        };
        write(name, &bytes)?;
    }
    write("config.json", &pretty(&judge_config(adapter, json).into()))?;
    match reward {
        None => Ok(()),
        Some(reward) => write("reward.json", &pretty(&json!(reward))),
    }
}

/// The adapter's `reward.json`; else how the base encodes, without what was measured of its scores.
fn reward(adapter: &Adapter, base: &Path) -> Result<Option<RewardConfig>, AdapterError> {
    let own = RewardConfig::read(&adapter.dir).map_err(Box::new)?;
    let of_base = RewardConfig::read(base).map_err(Box::new)?;
    let without_scores = |reward: RewardConfig| RewardConfig {
        attributes: reward.attributes.clone(),
        ..RewardConfig::new(reward.encode)
    };
    Ok(own.or(of_base.map(without_scores)))
}

/// The files of the tokenizer, all of the adapter or all of the base.
fn tokenizer(adapter: &Path, base: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, AdapterError> {
    let from = if adapter.join("tokenizer.json").exists() { adapter } else { base };
    let mut files = Vec::new();
    for name in TOKENIZER_FILES {
        let path = from.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => files.push((name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(AdapterError::Io { path, source }),
        }
    }
    Ok(files)
}

/// The config of a base as that of a judge.
fn judge_config(adapter: &Adapter, json: &Map<String, Value>) -> Map<String, Value> {
    let mut json = json.clone();
    json.remove("torch_dtype");
    json.insert("dtype".into(), "float32".into());
    if let Some(classes) = json.get_mut("architectures").and_then(Value::as_array_mut) {
        classes.iter_mut().for_each(|class| *class = judge_class(class.as_str().unwrap_or_default()).into());
    }
    let heads = ["score.weight", "classifier.weight", "classifier.out_proj.weight"];
    if let Some(labels) = heads.iter().find_map(|head| adapter.rows_of(head)) {
        let said = json.get("id2label").and_then(Value::as_object).map_or(2, Map::len);
        if said != labels {
            let label = |i: usize| format!("LABEL_{i}");
            let id2label: Map<_, _> = (0..labels).map(|i| (i.to_string(), label(i).into())).collect();
            let label2id: Map<_, _> = (0..labels).map(|i| (label(i), i.into())).collect();
            json.insert("id2label".into(), id2label.into());
            json.insert("label2id".into(), label2id.into());
        }
        json.remove("num_labels");
    }
    json
}

/// The class of judges of the family that a class belongs to.
fn judge_class(class: &str) -> String {
    let ends = ["ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining", "Model"];
    let family = ends.iter().find_map(|end| class.strip_suffix(end));
    family.map_or_else(|| class.to_owned(), |family| format!("{family}ForSequenceClassification"))
}
