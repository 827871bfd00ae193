//! The golden judges as directories that can be loaded.
#![allow(dead_code, reason = "each test file uses a part of it")]

use kudos::models::{JudgeError, Scorer};
use kudos::nn::Precision;
use kudos::text::Encoded;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The families of decoder judges.
pub const FAMILIES: [&str; 8] = ["qwen3", "llama", "qwen2", "gemma2", "gemma3_text", "phi", "gpt2", "mistral"];

/// The encoder judges: two of them have the same weights.
pub const ENCODERS: [&str; 3] = ["mpnet", "modernbert", "modernbert_mean"];

/// Any tokenizer: these texts are ids.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 5}, "merges": []}}"#;

/// A golden's directory.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/judges").join(name)
}

/// A file of JSON.
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a golden")).expect("JSON")
}

/// The file with a golden's weights.
pub fn weights(name: &str) -> PathBuf {
    golden(name.strip_suffix("_mean").unwrap_or(name)).join("model.safetensors")
}

/// A directory with the weights of a golden, this config, and a tokenizer.
pub fn directory(name: &str, config: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(weights(name), dir.path().join("model.safetensors")).unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), TOKENIZER).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#)
        .unwrap();
    dir
}

/// The judge of a directory.
pub fn load(dir: &Path, precision: Precision) -> Result<Scorer, JudgeError> {
    Scorer::load(dir, Some(precision))
}

/// A text of these ids.
pub fn encoded(ids: Vec<u32>) -> Encoded {
    Encoded { type_ids: vec![0; ids.len()], tokens_before_truncation: ids.len(), truncated: false, ids }
}

/// The texts of an `expected.json`.
pub fn texts(expected: &Value) -> Vec<Encoded> {
    let lists: Vec<Vec<u32>> = serde_json::from_value(expected["texts"].clone()).unwrap();
    lists.into_iter().map(encoded).collect()
}
