//! The config of a decoder: what its family's file makes of `config.json`, in terms of the one wiring in `decoder.rs`.
//!
//! transformers 5 writes rotary settings as `rope_parameters`, earlier versions as `rope_theta` and `rope_scaling`;
//! both are read. A setting that the wiring does not do is refused by name.

use super::config::{Config, ConfigError, Fields, limit, read_object};
use super::decoder::DecoderHead;
use kernels::activation::Activation;
use kernels::rotary::RotaryTable;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// The norms of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm, with a shift.
    Layer,
    /// RMS norm.
    Rms,
    /// RMS norm whose stored scale lacks 1 (Gemma).
    RmsPlusOne,
}

/// Which layers have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The attention's output.
    pub out: bool,
    /// The feed-forward block.
    pub mlp: bool,
    /// The logits.
    pub head: bool,
}

/// The turns of one kind of layer: pair `i` turns by position · `frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Angle per position, for each pair of columns.
    pub frequencies: Vec<f32>,
}

impl Rotary {
    /// The table of its turns, for so many positions.
    pub(super) fn table(&self, positions: usize) -> Arc<RotaryTable> {
        Arc::new(RotaryTable::new(&self.frequencies, 1.0, positions))
    }
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// Index of its turns.
    pub rotary: Option<usize>,
    /// Tokens it sees, itself included; all, if `None`.
    pub window: Option<usize>,
}

/// Checkpoint names of a family; a layer's names follow `layers` and its number.
#[derive(Debug)]
pub struct DecoderNames {
    /// Prefix that a checkpoint of the bare decoder leaves away.
    pub prefix: &'static str,
    /// Table of words.
    pub words: &'static str,
    /// Table of positions, in families that have one.
    pub positions: Option<&'static str>,
    /// Prefix of a layer, up to its number.
    pub layers: &'static str,
    /// Queries, keys and values: three, or one that holds all.
    pub qkv: &'static [&'static str],
    /// The attention's output.
    pub out: &'static str,
    /// Norms over each head of queries and keys.
    pub head_norms: Option<[&'static str; 2]>,
    /// The norm before attention.
    pub attention_norm: &'static str,
    /// The norm before the feed-forward block; without one, attention and that block read one norm and run side by side.
    pub mlp_norm: Option<&'static str>,
    /// The norms over what attention and the feed-forward block add.
    pub post_norms: Option<[&'static str; 2]>,
    /// Gate and up, or up alone.
    pub up: &'static [&'static str],
    /// Down.
    pub down: &'static str,
    /// The norm after the last layer.
    pub final_norm: &'static str,
    /// Matrices are stored `[inputs, outputs]` (GPT-2).
    pub transposed: bool,
    /// Ends of names that hold no parameters.
    pub ignored: &'static [&'static str],
}

/// A checked `config.json` of a decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// The whole file.
    pub json: Map<String, Value>,
    /// Checkpoint names.
    pub names: &'static DecoderNames,
    /// Width of the states.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Rows of the table of words.
    pub vocabulary: usize,
    /// The most tokens of a text.
    pub positions: usize,
    /// ε of the norms.
    pub epsilon: f32,
    /// Norms.
    pub norm: NormKind,
    /// Activation of the feed-forward block, or of its gate.
    pub activation: Activation,
    /// Biases.
    pub biases: Biases,
    /// The kinds of turn.
    pub rotaries: Vec<Rotary>,
    /// What each layer does.
    pub kinds: Vec<LayerKind>,
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// Scores of attention become `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Multiplies the words.
    pub word_scale: f32,
    /// The logits are products with the table of words.
    pub tied: bool,
    /// Outputs of a reward head (`score.weight`), if the checkpoint is asked for one.
    pub labels: usize,
    /// Tokens that end a text, as the config says.
    pub eos: Vec<u32>,
    /// The token that a score is read before, where a text ends in it.
    pub pad: Option<u32>,
}

impl DecoderConfig {
    /// Reads and checks `config.json` of a checkpoint directory.
    ///
    /// # Errors
    /// [`ConfigError`] with the key, what was expected and what was found.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        Self::of(&path, read_object(&path)?)
    }

    /// Checks a config; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(path: &Path, json: Map<String, Value>) -> Result<Self, ConfigError> {
        let kind = json.get("model_type").cloned();
        match Config::check(path, json)? {
            Config::Decoder(config) => Ok(config),
            Config::Encoder(_) => Err(ConfigError::Field {
                path: path.into(),
                field: "model_type".into(),
                expected: "a decoder, which generates".into(),
                found: kind.unwrap_or_default().to_string(),
            }),
        }
    }

    /// What the families have in common.
    pub(super) fn check(&mut self, fields: &Fields) -> Result<(), ConfigError> {
        self.check_sizes(fields)?;
        self.eos = token_ids(fields, "eos_token_id")?;
        Ok(())
    }

    /// Gemma 2 scores; for its logits, whose scores over a cache would have to be capped, there is no kernel.
    pub(super) fn check_head(&self, path: &Path, head: DecoderHead) -> Result<(), ConfigError> {
        let fields = Fields { path, json: &self.json };
        match (head, self.json.get("model_type").and_then(Value::as_str)) {
            (DecoderHead::Words, Some("gemma2")) => {
                Err(fields.error("model_type", "a family that generates: Gemma 2 is read as a judge only"))
            }
            _ => Ok(()),
        }
    }

    /// The word whose vector training leaves alone, as in transformers: the pad, but in GPT-2.
    pub(super) fn padding(&self) -> Option<u32> {
        self.pad.filter(|_| self.names.positions.is_none())
    }

    /// The tables of its turns, for so many positions.
    pub(super) fn turns(&self, positions: usize) -> Vec<Arc<RotaryTable>> {
        self.rotaries.iter().map(|rotary| rotary.table(positions)).collect()
    }

    fn check_sizes(&self, fields: &Fields) -> Result<(), ConfigError> {
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(fields.error("num_key_value_heads", format!("a divisor of the {} heads", self.heads)));
        }
        let turned = self.rotaries.iter().map(|rotary| 2 * rotary.frequencies.len()).max().unwrap_or(0);
        if turned > self.head_dim {
            return Err(fields.error("partial_rotary_factor", "a share of at most 1"));
        }
        Ok(())
    }
}

/// Sizes that most families name alike.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
}

/// Reads them.
pub(super) fn sizes(fields: &Fields) -> Result<Sizes, ConfigError> {
    let hidden = fields.size("hidden_size", limit::WIDTH)?;
    let heads = fields.size("num_attention_heads", limit::WIDTH)?;
    if !fields.json.contains_key("head_dim") && !hidden.is_multiple_of(heads) {
        return Err(fields.error("num_attention_heads", format!("a divisor of the width {hidden}")));
    }
    Ok(Sizes {
        hidden,
        heads,
        layers: fields.size("num_hidden_layers", limit::LAYERS)?,
        kv_heads: fields.size_or("num_key_value_heads", limit::WIDTH, Some(heads))?,
        head_dim: fields.size_or("head_dim", limit::WIDTH, Some((hidden / heads).max(1)))?,
        intermediate: fields.size("intermediate_size", limit::WIDTH * 8)?,
        vocabulary: fields.size("vocab_size", limit::ROWS)?,
        positions: fields.size("max_position_embeddings", limit::ROWS)?,
    })
}

/// One token id, or a list of them; none when the key is missing.
pub(super) fn token_ids(fields: &Fields, field: &str) -> Result<Vec<u32>, ConfigError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match fields.json.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| fields.error(field, "a token id or a list of them"))
}

/// True or false, with a default.
pub(super) fn flag(fields: &Fields, field: &str, default: bool) -> Result<bool, ConfigError> {
    match fields.json.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_bool().ok_or_else(|| fields.error(field, "true or false")),
    }
}

/// Rotary settings of one kind of layer, in either of transformers' spellings.
pub(super) struct RotarySettings<'a> {
    fields: &'a Fields<'a>,
    own: Map<String, Value>,
    share: f64,
}

impl<'a> RotarySettings<'a> {
    /// The settings of all layers, or of the layers of `kind` where kinds differ.
    pub(super) fn find(fields: &'a Fields<'a>, kind: Option<&str>) -> Self {
        let object = |key: &str| fields.json.get(key).and_then(Value::as_object).cloned();
        let mut own = object("rope_parameters").or_else(|| object("rope_scaling")).unwrap_or_default();
        if let Some(inner) = kind.and_then(|kind| own.get(kind)).and_then(Value::as_object).cloned() {
            own = inner;
        }
        Self { fields, own, share: 1.0 }
    }

    /// No scaling, whatever the config says for other layers.
    pub(super) fn plain(fields: &'a Fields<'a>, theta: f64) -> Self {
        let own = [("rope_theta".to_owned(), Value::from(theta)), ("rope_type".to_owned(), "default".into())];
        Self { fields, own: own.into_iter().collect(), share: 1.0 }
    }

    fn number(&self, key: &str, default: Option<f64>) -> Result<f64, ConfigError> {
        let value = self.own.get(key).or_else(|| self.fields.json.get(key)).filter(|v| !v.is_null());
        let value = value.map_or(default, Value::as_f64);
        value.filter(|v| *v > 0.0 && v.is_finite()).ok_or_else(|| self.fields.error(key, "a positive number"))
    }

    /// Another share of a head's columns is turned where the config names none.
    pub(super) fn partial(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Angles per position of a head's pairs: `dim` columns, of which the config may turn a share.
    pub(super) fn rotary(&self, dim: usize) -> Result<Rotary, ConfigError> {
        self.rotary_or(dim, 10_000.0)
    }

    /// As [`Self::rotary`], with another base where the config names none.
    pub(super) fn rotary_or(&self, dim: usize, theta: f64) -> Result<Rotary, ConfigError> {
        let theta = self.number("rope_theta", Some(theta))?;
        let share = self.number("partial_rotary_factor", Some(self.share))?;
        let turned = (dim as f64 * share) as usize / 2 * 2;
        let plain = (0..turned / 2).map(|i| 1.0 / theta.powf((2 * i) as f64 / turned as f64));
        let kind = self.own.get("rope_type").or_else(|| self.own.get("type")).and_then(Value::as_str);
        let frequencies: Vec<f64> = match kind.unwrap_or("default") {
            "default" => plain.collect(),
            "linear" => {
                let factor = self.number("factor", None)?;
                plain.map(|frequency| frequency / factor).collect()
            }
            "llama3" => self.llama3(plain)?,
            _ => {
                let key =
                    if self.fields.json.contains_key("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
                return Err(self.fields.error(key, "rope_type default, linear or llama3"));
            }
        };
        Ok(Rotary { frequencies: frequencies.into_iter().map(|f| f as f32).collect() })
    }

    /// Llama 3.1's scaling: long waves are stretched by `factor`, short ones kept, those between blended.
    fn llama3(&self, plain: impl Iterator<Item = f64>) -> Result<Vec<f64>, ConfigError> {
        let factor = self.number("factor", None)?;
        let (low, high) = (self.number("low_freq_factor", None)?, self.number("high_freq_factor", None)?);
        let context = self.number("original_max_position_embeddings", None)?;
        let scaled = |frequency: f64| {
            let wave = std::f64::consts::TAU / frequency;
            if wave > context / low {
                return frequency / factor;
            }
            if wave < context / high {
                return frequency;
            }
            let smooth = (context / wave - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        };
        Ok(plain.map(scaled).collect())
    }
}
