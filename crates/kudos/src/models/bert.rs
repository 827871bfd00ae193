//! BERT (Devlin et al. 2018, arXiv:1810.04805): segments, a pooler with tanh, a classifier.

use super::config::{ConfigError, Fields, limit};
use super::encoder_config::{EncoderConfig, EncoderNames, EncoderShape};
use crate::nn::Activation;
use serde_json::{Map, json};

/// BERT's names, most of which RoBERTa and MPNet share.
pub(super) const NAMES: EncoderNames = EncoderNames {
    prefix: "bert.",
    words: "embeddings.word_embeddings",
    positions: Some("embeddings.position_embeddings"),
    embedding_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    gated: false,
    down: "output.dense",
    mlp_norm: "output.LayerNorm",
    final_norm: None,
    distances: None,
    head_dense: "bert.pooler.dense",
    head_norm: None,
    head_out: "classifier",
    head_activation: Activation::Tanh,
    // The masked-LM and next-sentence heads; and a buffer that old versions stored.
    unused: &["cls.", "bert.embeddings.position_ids"],
};

pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    encoder_config(fields, &NAMES, None)
}

/// The keys that BERT shares with RoBERTa and MPNet.
pub(super) fn encoder_config(
    fields: &Fields,
    names: &'static EncoderNames,
    padding: Option<u32>,
) -> Result<EncoderConfig, ConfigError> {
    fields.only("position_embedding_type", &[json!("absolute")])?;
    fields.only("is_decoder", &[json!(false)])?;
    fields.only("add_cross_attention", &[json!(false)])?;
    Ok(EncoderConfig {
        json: Map::new(),
        names,
        shape: EncoderShape::default(),
        hidden: fields.size("hidden_size", limit::WIDTH)?,
        layers: fields.size("num_hidden_layers", limit::LAYERS)?,
        heads: fields.size("num_attention_heads", limit::WIDTH)?,
        intermediate: fields.size("intermediate_size", limit::WIDTH)?,
        vocabulary: fields.size("vocab_size", limit::ROWS)?,
        positions: fields.size("max_position_embeddings", limit::ROWS)?,
        types: fields.size_or("type_vocab_size", limit::ROWS, Some(2))?,
        epsilon: fields.positive("layer_norm_eps", 1e-12)?,
        activation: fields.activation("hidden_act")?,
        initial_deviation: fields.positive("initializer_range", 0.02)?,
        labels: 1,
        padding,
    })
}
