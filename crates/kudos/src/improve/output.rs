//! What comes out: a Hugging Face checkpoint directory, also of a GGUF start.

use super::ImproveError;
use crate::models::{Decoder, TokenizerDir, is_gguf};
use crate::nn::weights;
use crate::text::TOKENIZER_FILES;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The file that makes a directory hold a model.
const WEIGHTS: &str = "model.safetensors";
/// How text is drawn from a model by default, and what ends it.
const GENERATION: &str = "generation_config.json";
/// The other files of a model and of a run.
const OTHERS: [&str; 4] = ["config.json", GENERATION, "README.md", "report.json"];
/// What a run leaves in `run/`.
const RUN: [&str; 3] = ["metrics.jsonl", "checkpoint.safetensors", "before.json"];

/// Whether a directory holds weights or a run: then nothing may be written over it unless that is wanted.
pub fn holds_model(dir: &Path) -> bool {
    [WEIGHTS, "model.safetensors.index.json", "run/checkpoint.safetensors", "run/before.json"]
        .iter()
        .any(|name| dir.join(name).exists())
}

/// Removes every file of a model and of its run from a directory. Files of other names stay.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear_model(dir: &Path) -> Result<(), ImproveError> {
    let own = TOKENIZER_FILES.iter().chain(&OTHERS).chain(&[WEIGHTS]).map(|name| dir.join(name));
    let run = RUN.iter().map(|name| dir.join("run").join(name));
    let files: Vec<PathBuf> = own.chain(run).collect();
    files.iter().try_for_each(|path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ImproveError::io(path)(error)),
        _ => Ok(()),
    })
}

/// Writes the policy as a checkpoint of the start model's kind: config, tokenizer and weights in f32. The weights come last,
/// so a directory with them is whole.
pub(super) fn write_model(dir: &Path, start: &Path, policy: &Decoder, ends: &[u32]) -> Result<(), ImproveError> {
    let tokenizer = TokenizerDir::of(start)?;
    for name in TOKENIZER_FILES {
        let from = tokenizer.path().join(name);
        if from.exists() {
            let bytes = std::fs::read(&from).map_err(ImproveError::io(&from))?;
            write(dir, name, &bytes)?;
        }
    }
    write(dir, "config.json", &pretty(&Value::Object(config(policy))))?;
    write(dir, GENERATION, &pretty(&generation(start, ends)))?;
    Ok(weights::write(&dir.join(WEIGHTS), policy.parameters())?)
}

/// The start model's config, for values in f32.
fn config(policy: &Decoder) -> Map<String, Value> {
    let mut config = policy.config.json.clone();
    config.remove("quantization_config");
    config.remove("torch_dtype");
    config.insert("dtype".into(), "float32".into());
    config.entry("tie_word_embeddings").or_insert(policy.config.tied.into());
    config
}

/// What ends a response, and what else the start model says.
fn generation(start: &Path, ends: &[u32]) -> Value {
    let path = start.join(GENERATION);
    let own = (!is_gguf(start)).then(|| std::fs::read(&path).ok()).flatten();
    let own = own.and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
    own.map_or_else(|| json!({"eos_token_id": ends}), Value::Object)
}

pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    text
}

pub(super) fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ImproveError> {
    let path = dir.join(name);
    crate::files::write(&path, bytes).map_err(ImproveError::io(&path))
}
