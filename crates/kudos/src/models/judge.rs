//! The network of a judge, encoder or decoder: which class a checkpoint is of, and what scoring asks of it.

use super::checkpoint::load_for_scoring;
use super::config::{ConfigError, Fields, read_object};
use super::decoder::Decoder;
use super::decoder_config::DecoderConfig;
use super::encoder::Model;
use super::reward_config::RewardConfig;
use super::reward_model::JudgeError;
use super::scoring::{ScoreError, Scores};
use crate::nn::{Batch, Parameters, Precision, Sequence, Storage, Tape, Var, Weights};
use crate::text::{EncodeSettings, Encoded, pooled_index};
use serde_json::{Map, Value};
use std::path::Path;

/// The families of judges: `model_type`, and for decoders the class that reads one score off the last token. The class
/// of an encoder is told by its tensors.
const FAMILIES: [(&str, Option<&str>); 12] = [
    ("distilbert", None),
    ("bert", None),
    ("roberta", None),
    ("xlm-roberta", None),
    ("qwen3", Some("Qwen3ForSequenceClassification")),
    ("qwen2", Some("Qwen2ForSequenceClassification")),
    ("llama", Some("LlamaForSequenceClassification")),
    ("mistral", Some("MistralForSequenceClassification")),
    ("gemma2", Some("Gemma2ForSequenceClassification")),
    ("gemma3_text", Some("Gemma3TextForSequenceClassification")),
    ("phi", Some("PhiForSequenceClassification")),
    ("gpt2", Some("GPT2ForSequenceClassification")),
];

/// A decoder that scores. It reads its score where transformers does: at the last token that is not the pad id.
pub struct DecoderJudge {
    decoder: Decoder,
    pad: Option<u32>,
}

/// The network of a judge.
pub enum JudgeModel {
    /// Reads its score off the first token.
    Encoder(Box<Model>),
    /// Reads its score off the last token.
    Decoder(Box<DecoderJudge>),
}

impl JudgeModel {
    /// Loads the network of a judge directory, and says how its texts are encoded and in which precision it scores.
    pub(super) fn load(dir: &Path, asked: Option<Precision>) -> Result<(Self, RewardConfig, Precision), JudgeError> {
        let path = dir.join("config.json");
        let json = read_object(&path).map_err(super::LoadError::from)?;
        let fields = Fields { path: &path, json: &json };
        match class_of(&fields).map_err(super::LoadError::from)? {
            None => {
                let (model, precision) = load_for_scoring(dir, asked)?;
                let reward = RewardConfig::read(dir)?.unwrap_or_else(|| RewardConfig::default_for(&model.config));
                Ok((Self::Encoder(Box::new(model)), reward, precision))
            }
            Some(class) => {
                let pad = check_decoder(&fields, class).map_err(super::LoadError::from)?;
                Self::decoder(dir, json, pad, asked)
            }
        }
    }

    fn decoder(
        dir: &Path,
        json: Map<String, Value>,
        pad: Option<u32>,
        asked: Option<Precision>,
    ) -> Result<(Self, RewardConfig, Precision), JudgeError> {
        let config = DecoderConfig::check(&dir.join("config.json"), json).map_err(super::LoadError::from)?;
        let (positions, labels) = (config.positions, config.labels);
        let reward = match RewardConfig::read(dir)? {
            Some(reward) => reward,
            None => RewardConfig::new(EncodeSettings::of_decoder(dir, positions)?),
        };
        super::reward_model::check_outputs(dir, &reward, labels)?;
        super::reward_model::check_positions(&dir.join("reward.json"), &reward.encode, positions)?;
        let mut decoder = Decoder::load_judge(dir, config, asked)?;
        decoder.prepare_turns(reward.encode.max_length);
        let precision = decoder.precision();
        Ok((Self::Decoder(Box::new(DecoderJudge { decoder, pad })), reward, precision))
    }

    /// What scoring asks of it.
    pub fn scores(&self) -> &dyn Scores {
        match self {
            Self::Encoder(model) => model.as_ref(),
            Self::Decoder(judge) => judge.as_ref(),
        }
    }

    /// The encoder, if it is one.
    pub fn encoder(&self) -> Option<&Model> {
        match self {
            Self::Encoder(model) => Some(model),
            Self::Decoder(_) => None,
        }
    }

    /// The whole `config.json`.
    pub fn json(&self) -> &Map<String, Value> {
        match self {
            Self::Encoder(model) => &model.config.json,
            Self::Decoder(judge) => &judge.decoder.config.json,
        }
    }

    /// Its family, as `model_type` of `config.json` has it.
    pub fn family(&self) -> &str {
        self.json().get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Its tensors. Those that are packed have no values here.
    pub fn parameters(&self) -> &Parameters {
        match self {
            Self::Encoder(model) => &model.parameters,
            Self::Decoder(judge) => judge.decoder.parameters(),
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Encoder(model) => model.config.layers,
            Self::Decoder(judge) => judge.decoder.config.layers,
        }
    }

    /// Rows of the table of words.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(model) => model.config.vocabulary,
            Self::Decoder(judge) => judge.decoder.config.vocabulary,
        }
    }

    /// Rows of the table of segments; 0 without one.
    pub fn segments(&self) -> usize {
        self.encoder().map_or(0, |model| model.config.types)
    }

    /// The most tokens of a text.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Encoder(model) => model.config.max_tokens(),
            Self::Decoder(judge) => judge.decoder.config.positions,
        }
    }

    /// Number of outputs.
    pub fn labels(&self) -> usize {
        match self {
            Self::Encoder(model) => model.config.labels,
            Self::Decoder(judge) => judge.decoder.config.labels,
        }
    }

    /// What `id2label` calls the outputs, in their order; empty where it does not name each of them.
    pub fn label_names(&self) -> Vec<String> {
        super::config::label_names(self.json(), self.labels())
    }

    /// The token that a decoder reads its score before, where a text ends in it.
    pub fn pad(&self) -> Option<u32> {
        match self {
            Self::Encoder(_) => None,
            Self::Decoder(judge) => judge.pad,
        }
    }
}

impl Scores for DecoderJudge {
    fn push(&self, encoded: &Encoded, batch: &mut Batch) -> Result<(), ScoreError> {
        let ids = self.read(encoded)?;
        Ok(batch.push(Sequence { ids, type_ids: &vec![0; ids.len()] }, None)?)
    }

    fn causal_ids<'a>(&self, encoded: &'a Encoded) -> Option<Result<&'a [u32], ScoreError>> {
        Some(self.read(encoded))
    }

    fn features(&self, tape: &mut Tape, batch: &Batch) -> Var {
        self.decoder.push_features(tape, batch)
    }

    fn outputs(&self, tape: &mut Tape, batch: &Batch) -> Var {
        self.decoder.push_scores(tape, batch)
    }

    fn weights(&self) -> Weights<'_> {
        self.decoder.weights()
    }

    fn storage(&self) -> Storage {
        self.decoder.storage()
    }
}

impl DecoderJudge {
    /// The ids of a text up to the token that its score is read at.
    fn read<'a>(&self, encoded: &'a Encoded) -> Result<&'a [u32], ScoreError> {
        let vocabulary = self.decoder.config.vocabulary;
        if let Some(id) = encoded.ids.iter().copied().find(|id| *id as usize >= vocabulary) {
            return Err(ScoreError::Vocabulary { id, vocabulary });
        }
        let (tokens, limit) = (encoded.ids.len(), self.decoder.prepared_tokens());
        if tokens > limit {
            return Err(ScoreError::Tokens { tokens, limit });
        }
        // No token sees those after it, so what follows the token that is read changes nothing.
        let end = pooled_index(&encoded.ids, self.pad).map_or(0, |last| last + 1);
        Ok(&encoded.ids[..end])
    }
}

/// The class that a decoder judge must be of; `None` for an encoder.
fn class_of(fields: &Fields) -> Result<Option<&'static str>, ConfigError> {
    let kind = fields.json.get("model_type").and_then(Value::as_str);
    let family = FAMILIES.iter().find(|(name, _)| Some(*name) == kind);
    let known = || FAMILIES.map(|(name, _)| name).join(", ");
    family
        .map(|(_, class)| *class)
        .ok_or_else(|| fields.error("model_type", format!("a family of judges: {}", known())))
}

/// Refuses by name what would make the score another one than transformers'. Gives the pad id.
fn check_decoder(fields: &Fields, class: &str) -> Result<Option<u32>, ConfigError> {
    let classes = fields.json.get("architectures").and_then(Value::as_array);
    if classes.is_some_and(|classes| classes.iter().all(|one| one.as_str() != Some(class))) {
        return Err(fields.error("architectures", format!("{class:?}, the one class of this family that is a judge")));
    }
    for key in ["auto_map", "quantization_config"] {
        if fields.json.get(key).is_some_and(|value| !value.is_null()) {
            let what = if key == "auto_map" { "code of its own is not run" } else { "weights in F32, F16 or BF16" };
            return Err(fields.error(key, format!("none: {what}")));
        }
    }
    let layers = fields.json.get("num_hidden_layers").and_then(Value::as_u64);
    let types = fields.json.get("layer_types").and_then(Value::as_array).map(|types| types.len() as u64);
    if types.is_some() && layers.is_some() && types != layers {
        return Err(fields.error("layer_types", format!("one for each of {} layers", layers.unwrap_or(0))));
    }
    pad(fields)
}

/// The pad id. A negative one stands for none: no id is equal to it.
fn pad(fields: &Fields) -> Result<Option<u32>, ConfigError> {
    let value = match fields.json.get("pad_token_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) if value.as_i64().is_some_and(|id| id < 0) => return Ok(None),
        Some(value) => value.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    let vocabulary = fields.json.get("vocab_size").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let within = value.filter(|id| u64::from(*id) < vocabulary);
    within.map(Some).ok_or_else(|| fields.error("pad_token_id", "a token id below vocab_size, or null"))
}
