//! `config.json`: which family, and how large; everything checked before anything is allocated.

use super::decoder_config::{DecoderConfig, Rotary};
use super::encoder_config::EncoderConfig;
use super::families::Family;
use kernels::activation::Activation;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// One way for a config to be unusable each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}; expected the config.json of a Hugging Face checkpoint")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// It is no JSON object.
    #[error("{path}: {reason}")]
    Json {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A field is missing or has an impossible value.
    #[error("{path}: `{field}` is {found}, expected {expected}")]
    Field {
        /// File.
        path: PathBuf,
        /// Key.
        field: String,
        /// What would do.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// A checked `config.json`.
#[derive(Clone, Debug)]
pub enum Config {
    /// Of an encoder.
    Encoder(EncoderConfig),
    /// Of a decoder.
    Decoder(DecoderConfig),
}

/// Reads numbers and words out of a config and says what was wrong with them.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) json: &'a Map<String, Value>,
}

impl Fields<'_> {
    /// What is wrong with a field.
    pub(super) fn error(&self, field: &str, expected: impl Into<String>) -> ConfigError {
        let found = self.json.get(field).map_or("missing".into(), Value::to_string);
        ConfigError::Field { path: self.path.into(), field: field.into(), expected: expected.into(), found }
    }

    /// A whole number in `1..=limit`.
    pub(super) fn size(&self, field: &str, limit: usize) -> Result<usize, ConfigError> {
        self.size_or(field, limit, None)
    }

    /// As [`Self::size`], with a default for a missing key.
    pub(super) fn size_or(&self, field: &str, limit: usize, default: Option<usize>) -> Result<usize, ConfigError> {
        let value = match (self.json.get(field), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default),
            (value, _) => value.and_then(Value::as_u64),
        };
        match value {
            Some(n) if n >= 1 && n <= limit as u64 => Ok(n as usize),
            _ => Err(self.error(field, format!("a whole number from 1 to {limit}"))),
        }
    }

    /// A positive number, with a default.
    pub(super) fn positive(&self, field: &str, default: f64) -> Result<f32, ConfigError> {
        match self.json.get(field) {
            None => Ok(default as f32),
            Some(value) => match value.as_f64() {
                Some(v) if v > 0.0 && v.is_finite() => Ok(v as f32),
                _ => Err(self.error(field, "a positive number")),
            },
        }
    }

    /// The activation of the feed-forward block, exactly as named: a `gelu` is the erf one.
    pub(super) fn activation(&self, field: &str) -> Result<Activation, ConfigError> {
        match self.json.get(field).and_then(Value::as_str).unwrap_or("gelu") {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            _ => Err(self.error(field, "gelu, gelu_new, gelu_pytorch_tanh, relu or silu")),
        }
    }

    /// Refuses a key whose value asks for something the wiring does not do.
    pub(super) fn only(&self, field: &str, allowed: &[Value]) -> Result<(), ConfigError> {
        match self.json.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if allowed.contains(value) => Ok(()),
            Some(_) => Err(self.error(field, allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(" or "))),
        }
    }

    /// The padding token's id.
    pub(super) fn padding(&self, default: u32) -> Result<u32, ConfigError> {
        match self.json.get("pad_token_id") {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| self.error("pad_token_id", "a token id"))
            }
        }
    }
}

/// The object that a config file is.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read(path).map_err(|source| ConfigError::Io { path: path.into(), source })?;
    let bad = |reason: String| ConfigError::Json { path: path.into(), reason };
    match serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))? {
        Value::Object(json) => Ok(json),
        _ => Err(bad("expected a JSON object".into())),
    }
}

/// Largest sizes a config may ask for; more is a damaged or hostile file.
pub(super) mod limit {
    pub const WIDTH: usize = 1 << 17;
    pub const LAYERS: usize = 1000;
    pub const ROWS: usize = 1 << 24;
}

impl Config {
    /// Reads and checks `config.json` of a checkpoint directory.
    ///
    /// # Errors
    /// [`ConfigError`] with the key, what was expected and what was found.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        Self::check(&path, read_object(&path)?)
    }

    /// Checks a config; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn check(path: &Path, json: Map<String, Value>) -> Result<Self, ConfigError> {
        let fields = Fields { path, json: &json };
        let mut config = Family::find(&fields)?.read(&fields)?;
        match &mut config {
            Self::Encoder(config) => config.check(&fields)?,
            Self::Decoder(config) => config.check(&fields)?,
        }
        config.set_labels(labels(&fields)?);
        *config.json_mut() = json;
        Ok(config)
    }

    /// The whole file.
    pub fn json(&self) -> &Map<String, Value> {
        match self {
            Self::Encoder(config) => &config.json,
            Self::Decoder(config) => &config.json,
        }
    }

    /// The whole file, to be changed where the model is.
    pub(super) fn json_mut(&mut self) -> &mut Map<String, Value> {
        match self {
            Self::Encoder(config) => &mut config.json,
            Self::Decoder(config) => &mut config.json,
        }
    }

    /// Its family, as `model_type` of `config.json` has it.
    pub fn family(&self) -> &str {
        self.json().get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The config of an encoder, if it is one.
    pub fn encoder(&self) -> Option<&EncoderConfig> {
        match self {
            Self::Encoder(config) => Some(config),
            Self::Decoder(_) => None,
        }
    }

    /// The config of a decoder, if it is one.
    pub fn decoder(&self) -> Option<&DecoderConfig> {
        match self {
            Self::Encoder(_) => None,
            Self::Decoder(config) => Some(config),
        }
    }

    /// Width of the states.
    pub fn hidden(&self) -> usize {
        match self {
            Self::Encoder(config) => config.hidden,
            Self::Decoder(config) => config.hidden,
        }
    }

    /// The same model with its lowest `count` layers alone.
    pub fn with_layers(mut self, count: usize) -> Self {
        let json = self.json_mut();
        let key =
            ["n_layers", "n_layer"].into_iter().find(|key| json.contains_key(*key)).unwrap_or("num_hidden_layers");
        json.insert(key.into(), count.into());
        if let Some(Value::Array(kinds)) = json.get_mut("layer_types") {
            kinds.truncate(count);
        }
        match &mut self {
            Self::Encoder(config) => config.layers = count,
            Self::Decoder(config) => {
                config.layers = count;
                config.kinds.truncate(count);
            }
        }
        self
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Encoder(config) => config.layers,
            Self::Decoder(config) => config.layers,
        }
    }

    /// Rows of the table of words.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(config) => config.vocabulary,
            Self::Decoder(config) => config.vocabulary,
        }
    }

    /// Rows of the table of segments; 0 without one.
    pub fn segments(&self) -> usize {
        self.encoder().map_or(0, |config| config.types)
    }

    /// The most tokens of a text.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Encoder(config) => config.max_tokens(),
            Self::Decoder(config) => config.positions,
        }
    }

    /// The kinds of turn.
    pub(super) fn rotaries(&self) -> &[Rotary] {
        match self {
            Self::Encoder(config) => &config.shape.rotaries,
            Self::Decoder(config) => &config.rotaries,
        }
    }

    /// Number of outputs.
    pub fn labels(&self) -> usize {
        match self {
            Self::Encoder(config) => config.labels,
            Self::Decoder(config) => config.labels,
        }
    }

    pub(super) fn set_labels(&mut self, labels: usize) {
        match self {
            Self::Encoder(config) => config.labels = labels,
            Self::Decoder(config) => config.labels = labels,
        }
    }

    /// What `id2label` calls the outputs, in their order; empty where it does not name each of them.
    pub fn label_names(&self) -> Vec<String> {
        let Some(Value::Object(map)) = self.json().get("id2label") else { return Vec::new() };
        let name = |i: usize| map.get(&i.to_string())?.as_str().map(str::to_owned);
        (0..self.labels()).map(name).collect::<Option<_>>().unwrap_or_default()
    }

    /// The token that a decoder reads its score before, where a text ends in it.
    pub fn pad(&self) -> Option<u32> {
        self.decoder().and_then(|config| config.pad)
    }
}

/// The number of outputs: `id2label`'s entries, or `num_labels`, or transformers' default of two.
pub(super) fn labels(fields: &Fields) -> Result<usize, ConfigError> {
    match fields.json.get("id2label") {
        Some(Value::Object(map)) if !map.is_empty() => Ok(map.len()),
        Some(Value::Object(_)) => Err(fields.error("id2label", "at least one label")),
        _ => fields.size_or("num_labels", 1 << 16, Some(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::attention::first::MAX_HEAD;
    use serde_json::json;

    fn check(value: Value) -> Result<Config, String> {
        let Value::Object(json) = value else { panic!("an object") };
        Config::check(Path::new("config.json"), json).map_err(|e| e.to_string())
    }

    fn bert() -> Value {
        json!({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
               "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 12, "type_vocab_size": 2})
    }

    #[test]
    fn impossible_configs_are_refused_by_field() {
        let cases = [
            ("hidden_size", json!(0), "`hidden_size` is 0"),
            ("hidden_size", json!(1_000_000_000_000u64), "from 1 to"),
            ("num_hidden_layers", json!(1_000_000_000_000u64), "from 1 to 1000"),
            ("vocab_size", json!("many"), "`vocab_size` is \"many\""),
            ("num_attention_heads", json!(3), "divisor of the width 8"),
            ("hidden_size", json!(2048), "`num_attention_heads` is 2, expected at least 4"),
            ("hidden_act", json!("mish"), "gelu"),
            ("position_embedding_type", json!("relative_key"), "absolute"),
            ("is_decoder", json!(true), "false"),
            ("layer_norm_eps", json!(-1.0), "positive"),
            ("model_type", json!("t5"), "distilbert, bert"),
            ("id2label", json!({}), "at least one label"),
        ];
        for (field, value, expected) in cases {
            let mut config = bert();
            config[field] = value;
            let message = check(config).unwrap_err();
            assert!(message.contains(expected), "{field}: {message}");
        }
    }

    /// One query's attention keeps a head's sums on the stack.
    #[test]
    fn c7_heads_that_are_too_wide_are_refused_by_field() {
        let with = |width: usize, heads: usize| {
            let mut config = bert();
            (config["hidden_size"], config["num_attention_heads"]) = (json!(width), json!(heads));
            check(config)
        };
        assert!(with(MAX_HEAD, 1).is_ok());
        let message = with(768, 1).unwrap_err();
        assert!(message.contains("`num_attention_heads` is 1, expected at least 2"), "{message}");
        let distilbert = json!({"model_type": "distilbert", "dim": 768, "n_layers": 1, "n_heads": 1, "hidden_dim": 8,
                                "vocab_size": 10, "max_position_embeddings": 12});
        assert!(check(distilbert).unwrap_err().contains("`n_heads` is 1, expected at least 2"));
    }

    #[test]
    fn positions_that_padding_uses_up_are_refused() {
        let mut config = bert();
        (config["model_type"], config["pad_token_id"]) = (json!("roberta"), json!(11));
        assert!(check(config).unwrap_err().contains("`max_position_embeddings` is 12"));
    }

    #[test]
    fn labels_come_from_id2label_or_num_labels() {
        let mut config = bert();
        assert_eq!(check(config.clone()).unwrap().labels(), 2);
        config["num_labels"] = json!(3);
        assert_eq!(check(config.clone()).unwrap().labels(), 3);
        config["id2label"] = json!({"0": "LABEL_0"});
        assert_eq!(check(config).unwrap().labels(), 1);
    }
}
