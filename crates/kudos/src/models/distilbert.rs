//! DistilBERT (Sanh et al. 2019, arXiv:1910.01108): half of BERT's layers, no segments, a ReLU head.

use super::bert;
use super::config::{ConfigError, Fields, limit};
use super::encoder_config::{EncoderConfig, EncoderNames, EncoderShape};
use crate::nn::Activation;
use serde_json::{Map, json};

const NAMES: EncoderNames = EncoderNames {
    prefix: "distilbert.",
    layers: "transformer.layer",
    qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    mlp_norm: "output_layer_norm",
    head_dense: "pre_classifier",
    head_out: "classifier",
    head_activation: Activation::Relu,
    unused: &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."],
    ..bert::NAMES
};

pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    fields.only("chunk_size_feed_forward", &[json!(0)])?;
    Ok(EncoderConfig {
        json: Map::new(),
        names: &NAMES,
        shape: EncoderShape::default(),
        hidden: fields.size("dim", limit::WIDTH)?,
        layers: fields.size("n_layers", limit::LAYERS)?,
        heads: fields.size("n_heads", limit::WIDTH)?,
        intermediate: fields.size("hidden_dim", limit::WIDTH)?,
        vocabulary: fields.size("vocab_size", limit::ROWS)?,
        positions: fields.size("max_position_embeddings", limit::ROWS)?,
        types: 0,
        epsilon: 1e-12,
        activation: fields.activation("activation")?,
        initial_deviation: fields.positive("initializer_range", 0.02)?,
        labels: 1,
        padding: None,
    })
}
