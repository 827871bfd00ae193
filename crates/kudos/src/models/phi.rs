//! Phi-1.5 and Phi-2 (Li et al. 2023): parallel blocks, biases everywhere, a part of each head turned.

use super::config::{ConfigError, Fields};
use super::decoder_config::{Biases, DecoderConfig, DecoderNames, NormKind, RotarySettings, flag};
use super::llama;
use kernels::activation::Activation;
use serde_json::json;

const NAMES: DecoderNames = DecoderNames {
    out: "self_attn.dense",
    mlp_norm: None,
    up: &["mlp.fc1"],
    down: "mlp.fc2",
    final_norm: "model.final_layernorm",
    qkv: llama::NAMES.qkv,
    ignored: llama::NAMES.ignored,
    ..llama::NAMES
};

pub(super) fn config(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    fields.only("qk_layernorm", &[json!(false)])?;
    let mut config = llama::config(fields)?;
    config.names = &NAMES;
    config.norm = NormKind::Layer;
    config.epsilon = fields.positive("layer_norm_eps", 1e-5)?;
    config.activation = match fields.json.contains_key("hidden_act") {
        true => fields.activation("hidden_act")?,
        false => Activation::GeluTanh,
    };
    config.biases = Biases { qkv: true, out: true, mlp: true, head: true };
    config.rotaries = vec![RotarySettings::find(fields, None).partial(0.5).rotary(config.head_dim)?];
    config.tied = flag(fields, "tie_word_embeddings", false)?;
    Ok(config)
}
