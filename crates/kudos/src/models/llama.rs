//! Llama (Touvron et al. 2023; Grattafiori et al. 2024), which SmolLM2 is too.

use super::config::{ConfigError, Fields};
use super::decoder_config::{Biases, DecoderConfig, DecoderNames, LayerKind, NormKind, RotarySettings, flag, sizes};
use kernels::activation::Activation;
use serde_json::Map;

pub(super) const NAMES: DecoderNames = DecoderNames {
    prefix: "model.",
    words: "model.embed_tokens",
    positions: None,
    layers: "model.layers.",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    head_norms: None,
    attention_norm: "input_layernorm",
    mlp_norm: Some("post_attention_layernorm"),
    post_norms: None,
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    final_norm: "model.norm",
    transposed: false,
    ignored: &["rotary_emb.inv_freq", "rope_freqs.weight"],
};

pub(super) fn config(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let sizes = sizes(fields)?;
    let bias = flag(fields, "attention_bias", false)?;
    Ok(DecoderConfig {
        json: Map::new(),
        names: &NAMES,
        hidden: sizes.hidden,
        layers: sizes.layers,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        intermediate: sizes.intermediate,
        vocabulary: sizes.vocabulary,
        positions: sizes.positions,
        epsilon: fields.positive("rms_norm_eps", 1e-6)?,
        norm: NormKind::Rms,
        activation: gate_activation(fields, "hidden_act")?,
        biases: Biases { qkv: bias, out: bias, mlp: flag(fields, "mlp_bias", false)?, head: false },
        rotaries: vec![RotarySettings::find(fields, None).rotary(sizes.head_dim)?],
        kinds: vec![LayerKind { rotary: Some(0), window: None }; sizes.layers],
        scale: 1.0 / (sizes.head_dim as f32).sqrt(),
        soft_cap: None,
        word_scale: 1.0,
        tied: flag(fields, "tie_word_embeddings", false)?,
        labels: 0,
        eos: Vec::new(),
        pad: None,
    })
}

/// The gate's activation; these families mean silu where the key is missing.
pub(super) fn gate_activation(fields: &Fields, field: &str) -> Result<Activation, ConfigError> {
    match fields.json.contains_key(field) {
        true => fields.activation(field),
        false => Ok(Activation::Silu),
    }
}
