//! MPNet (Song et al. 2020, arXiv:2004.09297): BERT with scores by distance, which all layers add to their own, and with
//! RoBERTa's positions and head.

use super::bert::{self, encoder_config};
use super::config::{ConfigError, Fields};
use super::encoder_config::{EncoderConfig, EncoderNames, EncoderShape};
use crate::nn::DistancesSpec;
use serde_json::json;

const NAMES: EncoderNames = EncoderNames {
    prefix: "mpnet.",
    qkv: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    distances: Some("encoder.relative_attention_bias"),
    head_dense: "classifier.dense",
    head_out: "classifier.out_proj",
    // The masked-LM head; the pooler, which sequence classification does not use; stored buffers.
    unused: &["lm_head.", "mpnet.pooler.", "mpnet.embeddings.position_ids"],
    ..bert::NAMES
};

/// The padding token, whatever the config says: transformers counts positions from it and leaves its vectors alone.
const PADDING: u32 = 1;

pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    fields.only("pad_token_id", &[json!(PADDING)])?;
    fields.only("relative_attention_num_buckets", &[json!(DistancesSpec::BUCKETS)])?;
    let shape = EncoderShape { untrained: Some(PADDING), ..EncoderShape::default() };
    Ok(EncoderConfig { types: 0, shape, ..encoder_config(fields, &NAMES, Some(PADDING))? })
}
