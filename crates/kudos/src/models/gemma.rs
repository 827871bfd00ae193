//! Gemma 2 (Gemma Team 2024) and the text model of Gemma 3 (Gemma Team 2025): norms around each block. The third has
//! windows in five of six layers and two kinds of turns.

use super::config::{ConfigError, Fields, limit};
use super::decoder_config::{Biases, DecoderConfig, DecoderNames, LayerKind, NormKind, RotarySettings, flag};
use super::{llama, qwen};
use serde_json::{Value, json};

const SECOND: DecoderNames = DecoderNames { head_norms: None, ..NAMES };

const NAMES: DecoderNames = DecoderNames {
    head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
    mlp_norm: Some("pre_feedforward_layernorm"),
    post_norms: Some(["post_attention_layernorm", "post_feedforward_layernorm"]),
    qkv: llama::NAMES.qkv,
    up: llama::NAMES.up,
    ignored: llama::NAMES.ignored,
    ..llama::NAMES
};

/// Gemma 2: windows in every other layer, scores of attention that are capped. The cap of the logits touches no score.
pub(super) fn second(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let mut config = both(fields)?;
    config.names = &SECOND;
    config.soft_cap = match fields.json.get("attn_logit_softcapping") {
        Some(Value::Null) => None,
        _ => Some(fields.positive("attn_logit_softcapping", 50.0)?),
    };
    config.rotaries = vec![RotarySettings::find(fields, None).rotary(config.head_dim)?];
    let window = fields.size_or("sliding_window", limit::ROWS, Some(4096))?;
    let types = qwen::layer_types(fields, config.layers)?;
    let sliding = |layer: usize| types.as_ref().map_or(layer.is_multiple_of(2), |types| types[layer]);
    let kind = |layer| LayerKind { rotary: Some(0), window: sliding(layer).then_some(window) };
    config.kinds = (0..config.layers).map(kind).collect();
    Ok(config)
}

/// What Gemma 2 and 3 share.
fn both(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    fields.only("use_bidirectional_attention", &[json!(false)])?;
    let mut config = llama::config(fields)?;
    let bias = flag(fields, "attention_bias", false)?;
    config.norm = NormKind::RmsPlusOne;
    config.biases = Biases { qkv: bias, out: bias, ..Biases::default() };
    config.activation = match fields.json.contains_key("hidden_activation") {
        true => fields.activation("hidden_activation")?,
        false => kernels::activation::Activation::GeluTanh,
    };
    config.head_dim = fields.size_or("head_dim", limit::WIDTH, Some(256))?;
    config.scale = 1.0 / fields.positive("query_pre_attn_scalar", 256.0)?.sqrt();
    config.word_scale = (config.hidden as f32).sqrt();
    config.tied = flag(fields, "tie_word_embeddings", true)?;
    Ok(config)
}

/// Gemma 3.
pub(super) fn third(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        fields.only(key, &[Value::Null])?;
    }
    let mut config = both(fields)?;
    config.names = &NAMES;
    let by_kind = fields.json.get("rope_parameters").and_then(|p| p.get("sliding_attention")).is_some();
    let (full, local) = match by_kind {
        true => (
            RotarySettings::find(fields, Some("full_attention")),
            RotarySettings::find(fields, Some("sliding_attention")),
        ),
        false => {
            let theta = f64::from(fields.positive("rope_local_base_freq", 10_000.0)?);
            (RotarySettings::find(fields, None), RotarySettings::plain(fields, theta))
        }
    };
    config.rotaries = vec![full.rotary_or(config.head_dim, 1_000_000.0)?, local.rotary(config.head_dim)?];
    let window = fields.size_or("sliding_window", limit::ROWS, Some(4096))?;
    let types = qwen::layer_types(fields, config.layers)?;
    let pattern = fields.size_or("sliding_window_pattern", limit::LAYERS, Some(6))?;
    let sliding = |layer: usize| types.as_ref().map_or(!(layer + 1).is_multiple_of(pattern), |types| types[layer]);
    config.kinds = (0..config.layers)
        .map(|layer| match sliding(layer) {
            true => LayerKind { rotary: Some(1), window: Some(window) },
            false => LayerKind { rotary: Some(0), window: None },
        })
        .collect();
    Ok(config)
}
