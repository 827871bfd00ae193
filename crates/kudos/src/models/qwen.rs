//! Qwen2 and Qwen2.5 (Yang et al. 2024), Qwen3 (Yang et al. 2025): Llama's wiring; the former have biases on queries, keys
//! and values, the latter norms over each head of queries and keys.

use super::config::{ConfigError, Fields, limit};
use super::decoder_config::{Biases, DecoderConfig, DecoderNames, LayerKind, flag};
use super::llama;
use serde_json::Value;

const QWEN3: DecoderNames = DecoderNames {
    head_norms: Some(["self_attn.q_norm", "self_attn.k_norm"]),
    qkv: llama::NAMES.qkv,
    up: llama::NAMES.up,
    ignored: llama::NAMES.ignored,
    ..llama::NAMES
};

/// Qwen2 and Qwen2.5.
pub(super) fn second(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let config = llama::config(fields)?;
    let (biases, kinds) = (Biases { qkv: true, ..Biases::default() }, kinds(fields, config.layers)?);
    Ok(DecoderConfig { biases, kinds, ..config })
}

/// Qwen3.
pub(super) fn third(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let config = llama::config(fields)?;
    // Where the key is missing, transformers means 128 columns a head, not a share of the width.
    let head_dim = fields.size_or("head_dim", limit::WIDTH, Some(128))?;
    let (scale, kinds) = (1.0 / (head_dim as f32).sqrt(), kinds(fields, config.layers)?);
    Ok(DecoderConfig { names: &QWEN3, head_dim, scale, kinds, ..config })
}

/// Layers see a window only where the config asks for it: `layer_types`, or the layers from `max_window_layers` on.
fn kinds(fields: &Fields, layers: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let all = LayerKind { rotary: Some(0), window: None };
    if !flag(fields, "use_sliding_window", false)? || fields.json.get("sliding_window").is_none_or(Value::is_null) {
        return Ok(vec![all; layers]);
    }
    let windowed = LayerKind { window: Some(fields.size("sliding_window", limit::ROWS)?), ..all };
    match layer_types(fields, layers)? {
        Some(types) => Ok(types.iter().map(|sliding| if *sliding { windowed } else { all }).collect()),
        None => {
            let first = fields.size_or("max_window_layers", limit::LAYERS, Some(28))?;
            Ok((0..layers).map(|layer| if layer >= first { windowed } else { all }).collect())
        }
    }
}

/// For each layer whether it sees a window only, if the config lists them.
pub(super) fn layer_types(fields: &Fields, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let Some(value) = fields.json.get("layer_types").filter(|v| !v.is_null()) else { return Ok(None) };
    let types = value.as_array().filter(|types| types.len() == layers).and_then(|types| {
        types
            .iter()
            .map(|kind| match kind.as_str() {
                Some("sliding_attention") => Some(true),
                Some("full_attention") => Some(false),
                _ => None,
            })
            .collect()
    });
    let expected = format!("{layers} times full_attention or sliding_attention");
    types.map(Some).ok_or_else(|| fields.error("layer_types", expected))
}
