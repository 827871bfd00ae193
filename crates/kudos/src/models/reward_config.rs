//! `reward.json`: how a judge encodes, what it was trained on and how its scores are read. And the `config.json` of a new
//! judge.

use super::attributes::AttributeHead;
use super::config::Config;
use super::encoder_config::EncoderConfig;
use super::families::Family;
use super::reward_model::JudgeError;
use crate::text::{EncodeSettings, Rendering, Truncation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// One data file a judge was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// As the user named it.
    pub file: String,
    /// Hash of its bytes.
    pub sha256: String,
    /// Groups used.
    pub groups: usize,
    /// Pairs used.
    pub pairs: usize,
}

/// How scores are read as probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Divides margins.
    pub temperature: f32,
    /// Mean score of the data the judge was trained on.
    pub mean: f32,
    /// Standard deviation of those scores.
    pub std: f32,
}

impl Calibration {
    /// The judge's own probability that a response of this score is better than a typical one of its training: the Bradley-Terry
    /// probability at the temperature, averaged over normally distributed scores of `mean` and `std`.
    pub fn beats_typical(&self, score: f32) -> f64 {
        let [score, temperature, mean, std] = [score, self.temperature, self.mean, self.std].map(f64::from);
        let places = (-600..=600).map(|hundredth| f64::from(hundredth) / 100.0);
        let (wins, weight) = places.fold((0.0, 0.0), |(wins, total), z| {
            let weight = (-z * z / 2.0).exp();
            (wins + weight / (1.0 + ((mean + std * z - score) / temperature).exp()), total + weight)
        });
        wins / weight
    }
}

/// `reward.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardConfig {
    /// Version of this file: 1.
    pub format: u32,
    /// Rendering, token limit and truncation.
    #[serde(flatten)]
    pub encode: EncodeSettings,
    /// What training started from.
    #[serde(default)]
    pub base: String,
    /// Of an adapter, what tells its base from another one ([`fingerprint`](super::adapter::fingerprint)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_fingerprint: Option<String>,
    /// What it was trained on.
    #[serde(default)]
    pub data: Vec<TrainedOn>,
    /// The settings of the training run.
    #[serde(default)]
    pub recipe: Map<String, Value>,
    /// How to read the scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What its outputs are, where it has one an attribute; without it, the judge's one output is the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<AttributeHead>,
}

impl RewardConfig {
    /// What a checkpoint without `reward.json` means: an encoder reads `tokenizer(prompt, response,
    /// truncation=True, max_length=512)`.
    pub fn default_for(config: &EncoderConfig) -> Self {
        let encode = EncodeSettings::new(Rendering::Pair, config.max_tokens().min(512), Truncation::LongestFirst);
        Self::new(encode)
    }

    /// Of a judge that nothing is known of but how it encodes.
    pub fn new(encode: EncodeSettings) -> Self {
        let (base, data, recipe) = (String::new(), Vec::new(), Map::new());
        Self { format: 1, encode, base, base_fingerprint: None, data, recipe, calibration: None, attributes: None }
    }

    /// What divides a margin before it is read as a probability: 1 until a temperature is fitted.
    pub fn temperature(&self) -> f32 {
        self.calibration.map_or(1.0, |calibration| calibration.temperature)
    }

    /// Reads `reward.json` of a judge directory; `None` when there is none.
    ///
    /// # Errors
    /// [`JudgeError::Reward`] for an unreadable file or another format.
    pub fn read(dir: &Path) -> Result<Option<Self>, JudgeError> {
        let path = dir.join("reward.json");
        let bad = |reason: String| JudgeError::Reward { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(bad(e.to_string())),
        };
        let config: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        match config.format {
            1 => Ok(Some(config)),
            other => Err(bad(format!("format {other} is not 1: it was written by a newer version"))),
        }
    }

    /// Puts a calibration into the `reward.json` of a judge directory, in one step; everything else that stands in the
    /// file stays. A directory without one gets this config.
    ///
    /// # Errors
    /// [`JudgeError::Reward`] for a file that cannot be read or replaced.
    pub fn store_calibration(&self, dir: &Path, calibration: Calibration) -> Result<(), JudgeError> {
        let path = dir.join("reward.json");
        let bad = |reason: String| JudgeError::Reward { path: path.clone(), reason };
        let mut json: Map<String, Value> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                serde_json::from_value(json!(self)).map_err(|e| bad(e.to_string()))?
            }
            Err(e) => return Err(bad(e.to_string())),
        };
        json.insert("calibration".into(), json!(calibration));
        let text = format!("{:#}\n", Value::Object(json));
        crate::files::write(&path, text.as_bytes()).map_err(|e| bad(e.to_string()))
    }
}

const IDENTITY: &str = "torch.nn.modules.linear.Identity";

/// The `config.json` of a judge made from a base: one label, raw scores everywhere; or the names of its attributes, in
/// the order of the outputs.
pub fn config_of_new_judge(config: &Config, attributes: &[String]) -> Map<String, Value> {
    let architecture = Family::of(config.json()).map(|family| family.judge);
    let mut json = config.json().clone();
    let plain = ["LABEL_0".to_owned()];
    let labels = if attributes.is_empty() { &plain } else { attributes };
    let id2label: Map<_, _> = labels.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    let label2id: Map<_, _> = labels.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
    json.remove("num_labels");
    json.remove("torch_dtype");
    json.remove("_name_or_path");
    for (key, value) in [
        ("architectures", json!([architecture])),
        ("dtype", json!("float32")),
        ("id2label", id2label.into()),
        ("label2id", label2id.into()),
        ("problem_type", if attributes.is_empty() { Value::Null } else { json!("regression") }),
        // Raw scores from sentence-transformers, too: since version 4, and before.
        ("sentence_transformers", json!({"activation_fn": IDENTITY})),
        ("sbert_ce_default_activation_function", json!(IDENTITY)),
    ] {
        json.insert(key.into(), value);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_transformers_is_told_to_give_raw_scores() {
        let sigmoid = "torch.nn.modules.activation.Sigmoid";
        let base = json!({"model_type": "bert", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": 2,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12,
            "sentence_transformers": {"activation_fn": sigmoid}, "sbert_ce_default_activation_function": sigmoid});
        let base = Config::check(Path::new("config.json"), base.as_object().unwrap().clone()).unwrap();
        let config = config_of_new_judge(&base, &[]);
        let identity = "torch.nn.modules.linear.Identity";
        assert_eq!(config["sentence_transformers"], json!({"activation_fn": identity}));
        assert_eq!(config["sbert_ce_default_activation_function"], identity);
    }

    #[test]
    fn a_score_beats_a_typical_one_by_its_distance() {
        let chance = |temperature, std, score| Calibration { temperature, mean: 2.0, std }.beats_typical(score);
        assert!((chance(0.9, 1.1, 2.0) - 0.5).abs() < 1e-12, "the mean beats half");
        // Without noise in the comparison it is the normal distribution, without spread the logistic one.
        assert!((chance(1e-3, 1.0, 3.0) - 0.841_345).abs() < 2e-3);
        assert!((chance(0.5, 1e-6, 3.0) - 0.880_797).abs() < 1e-6);
        // scipy.integrate.quad of the logistic times the normal density.
        assert!((chance(0.9, 1.1, 3.5) - 0.787_416).abs() < 1e-6);
        assert!(chance(0.9, 1.1, 1e6) > 0.999 && chance(0.9, 1.1, -1e6) < 0.001);
    }
}
