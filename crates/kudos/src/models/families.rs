//! The table of families. A family is one file, which reads its `config.json`, and one entry here.

use super::config::{Config, ConfigError, Fields};
use super::decoder_config::DecoderConfig;
use super::encoder_config::EncoderConfig;
use super::{bert, distilbert, gemma, gpt2, llama, mistral, modernbert, mpnet, phi, qwen, roberta};
use serde_json::{Map, Value};

/// A family of models.
pub(super) struct Family {
    /// As `model_type` of `config.json` has it.
    pub(super) name: &'static str,
    /// The class of transformers that is a judge of this family.
    pub(super) judge: &'static str,
    /// Reads and checks the family's settings.
    config: Reader,
}

enum Reader {
    Encoder(fn(&Fields) -> Result<EncoderConfig, ConfigError>),
    Decoder(fn(&Fields) -> Result<DecoderConfig, ConfigError>),
}

const fn encoder(
    name: &'static str,
    judge: &'static str,
    config: fn(&Fields) -> Result<EncoderConfig, ConfigError>,
) -> Family {
    Family { name, judge, config: Reader::Encoder(config) }
}

const fn decoder(
    name: &'static str,
    judge: &'static str,
    config: fn(&Fields) -> Result<DecoderConfig, ConfigError>,
) -> Family {
    Family { name, judge, config: Reader::Decoder(config) }
}

static FAMILIES: [Family; 14] = [
    encoder("distilbert", "DistilBertForSequenceClassification", distilbert::config),
    encoder("bert", "BertForSequenceClassification", bert::config),
    encoder("roberta", "RobertaForSequenceClassification", roberta::config),
    encoder("xlm-roberta", "XLMRobertaForSequenceClassification", roberta::config),
    encoder("mpnet", "MPNetForSequenceClassification", mpnet::config),
    encoder("modernbert", "ModernBertForSequenceClassification", modernbert::config),
    decoder("llama", "LlamaForSequenceClassification", llama::config),
    decoder("mistral", "MistralForSequenceClassification", mistral::config),
    decoder("phi", "PhiForSequenceClassification", phi::config),
    decoder("gpt2", "GPT2ForSequenceClassification", gpt2::config),
    decoder("qwen2", "Qwen2ForSequenceClassification", qwen::second),
    decoder("qwen3", "Qwen3ForSequenceClassification", qwen::third),
    decoder("gemma2", "Gemma2ForSequenceClassification", gemma::second),
    decoder("gemma3_text", "Gemma3TextForSequenceClassification", gemma::third),
];

impl Family {
    /// The family that a config names, if it is known.
    pub(super) fn of(json: &Map<String, Value>) -> Option<&'static Self> {
        let name = json.get("model_type").and_then(Value::as_str)?;
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// The family that a config names.
    pub(super) fn find(fields: &Fields) -> Result<&'static Self, ConfigError> {
        let known = FAMILIES.each_ref().map(|family| family.name).join(", ");
        Self::of(fields.json).ok_or_else(|| fields.error("model_type", format!("one of {known}")))
    }

    /// Reads the family's settings.
    pub(super) fn read(&self, fields: &Fields) -> Result<Config, ConfigError> {
        Ok(match self.config {
            Reader::Encoder(read) => Config::Encoder(read(fields)?),
            Reader::Decoder(read) => Config::Decoder(read(fields)?),
        })
    }
}
