//! The judge directory: what `AutoModelForSequenceClassification.from_pretrained` loads, and `reward.json`.

use super::{FOLD_FILES, Finished, FoldResult, Measured, TrainError, Trainer, card, run_state};
use crate::models::adapter;
use crate::models::{Calibration, RewardConfig, TrainedOn, config_of_new_judge};
use crate::nn::weights::{INT8_FILE, shard_names};
use crate::text::{EncodeSettings, Encoder, TOKENIZER_FILES};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What the loop does not know about a judge.
pub struct JudgeFiles<'a> {
    /// Tokenizer and rendering.
    pub encoder: &'a Encoder,
    /// The base, as the user named it.
    pub base: &'a str,
    /// Where it lies.
    pub base_path: &'a Path,
    /// Whether the base brought its own classification head.
    pub new_head: bool,
    /// The data files.
    pub data: Vec<TrainedOn>,
    /// What folds over the data found.
    pub folds: Option<&'a FoldResult>,
}

/// Where the weights stand, whole, in shards, in 8 bits or as those of an adapter. Any of them makes a directory one that holds a judge.
const WEIGHTS: [&str; 4] = ["model.safetensors", INDEX, INT8_FILE, adapter::TENSORS_FILE];
/// Which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// The other files of a judge, beside its tokenizer.
const OTHERS: [&str; 8] = [
    "config.json",
    "reward.json",
    LENGTH_FILE,
    "training_args.json",
    "README.md",
    "report.html",
    adapter::CONFIG_FILE,
    adapter::LOWER_BASE,
];
/// The token limit for text-embeddings-inference, which reads it nowhere else.
const LENGTH_FILE: &str = "sentence_bert_config.json";
/// What a run leaves in `run/`, beside what folds found.
const RUN: [&str; 4] = ["metrics.jsonl", run_state::FILE, "ensemble", "folds"];

/// Whether a directory holds weights or a run: then nothing may be written over it unless that is wanted.
pub fn holds_judge(dir: &Path) -> bool {
    let run = ["run/checkpoint.safetensors", "run/ensemble"];
    WEIGHTS.iter().chain(&run).any(|name| dir.join(name).exists())
}

/// Removes every file of a judge and of its run from a directory, so that nothing of it is mixed with what comes in its
/// place. Files of other names stay.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear_judge(dir: &Path) -> Result<(), TrainError> {
    let run = dir.join("run");
    let shards = shard_names(&dir.join(INDEX)).unwrap_or_default(); // Without an index there are none.
    let names = shards.iter().map(String::as_str).chain(WEIGHTS).chain(OTHERS).chain(TOKENIZER_FILES);
    let of_run = RUN.iter().chain(&FOLD_FILES).map(|name| run.join(name));
    let files: Vec<PathBuf> = names.map(|name| dir.join(name)).chain(of_run).collect();
    files.iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<(), TrainError> {
    let removed = match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.map_err(TrainError::io(path))
}

/// Writes everything but the weights, which the run itself has written. Of the tokenizer, there are its own files afterwards
/// and no others.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_judge(dir: &Path, trainer: &Trainer, finished: &Finished, files: &JudgeFiles) -> Result<(), TrainError> {
    let settings = serde_json::to_value(trainer.settings()).expect("settings are plain data");
    let encode: &EncodeSettings = files.encoder.settings();
    let reward = RewardConfig {
        format: 1,
        encode: encode.clone(),
        base: files.base.into(),
        base_fingerprint: base_fingerprint(trainer, files)?,
        data: files.data.clone(),
        recipe: recipe(&settings),
        calibration: calibration(finished),
        attributes: trainer.settings().attributes.clone(),
    };
    let card = card::render(trainer, finished, files, &reward);
    let tokenizer = files.encoder.judge_files().map_err(crate::models::JudgeError::from)?;
    let strange = TOKENIZER_FILES.iter().filter(|name| tokenizer.iter().all(|file| file.name != **name));
    strange.into_iter().try_for_each(|name| remove(&dir.join(name)))?;
    tokenizer.iter().try_for_each(|file| write(dir, file.name, &file.bytes))?;
    write(dir, LENGTH_FILE, &pretty(&json!({"max_seq_length": encode.max_length, "do_lower_case": false})))?;
    let names = reward.attributes.as_ref().map_or(&[][..], |head| &head.names);
    write(dir, "config.json", &pretty(&Value::Object(config_of_new_judge(&trainer.model.config, names))))?;
    if let Some(lora) = trainer.adapters() {
        let config = adapter::adapter_config(&trainer.model, lora, files.base_path);
        write(dir, adapter::CONFIG_FILE, &pretty(&Value::Object(config)))?;
    }
    write(dir, "reward.json", &pretty(&serde_json::to_value(&reward).expect("plain data")))?;
    write(dir, "training_args.json", &pretty(&training_args(settings, files, finished)))?;
    write(dir, "README.md", card.as_bytes())
}

/// What tells the base of an adapter from another one; nothing for a judge that is whole.
fn base_fingerprint(trainer: &Trainer, files: &JudgeFiles) -> Result<Option<String>, TrainError> {
    let found = trainer.adapters().map(|_| adapter::fingerprint(files.base_path));
    found.transpose().map_err(TrainError::io(files.base_path))
}

/// The settings, without the attributes, which stand beside them.
fn recipe(settings: &Value) -> Map<String, Value> {
    let mut recipe = settings.as_object().cloned().unwrap_or_default();
    recipe.remove("attributes");
    recipe
}

fn training_args(settings: Value, files: &JudgeFiles, finished: &Finished) -> Value {
    let mut args = Map::new();
    args.insert("kudos_version".into(), env!("CARGO_PKG_VERSION").into());
    args.insert("base".into(), files.base.into());
    args.extend(settings.as_object().cloned().unwrap_or_default());
    if let Some(ensemble) = &finished.ensemble {
        args.insert("ensemble".into(), ensemble.members.len().into());
    }
    Value::Object(args)
}

/// The spread of the held-out scores, and the temperature fitted to them.
fn calibration(finished: &Finished) -> Option<Calibration> {
    let Measured { report, temperature, .. } = finished.held_out.as_ref()?;
    let (mean, std) = (report.metrics.score_mean?, report.metrics.score_std?);
    Some(Calibration { temperature: *temperature, mean: mean as f32, std: std as f32 })
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    text
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let path = dir.join(name);
    crate::files::write(&path, bytes).map_err(TrainError::io(&path))
}
