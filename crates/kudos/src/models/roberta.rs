//! RoBERTa (Liu et al. 2019, arXiv:1907.11692) and XLM-RoBERTa (Conneau et al. 2019, arXiv:1911.02116).
//!
//! Wired as BERT, with positions counted from the padding token's id and a head of its own.

use super::bert::{self, encoder_config};
use super::config::{ConfigError, Fields};
use super::encoder_config::{EncoderConfig, EncoderNames};

const NAMES: EncoderNames = EncoderNames {
    prefix: "roberta.",
    head_dense: "classifier.dense",
    head_out: "classifier.out_proj",
    // The masked-LM head; the pooler, which sequence classification does not use; stored buffers.
    unused: &["lm_head.", "roberta.pooler.", "roberta.embeddings.position_ids"],
    ..bert::NAMES
};

pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let padding = fields.padding(1)?;
    encoder_config(fields, &NAMES, Some(padding))
}
