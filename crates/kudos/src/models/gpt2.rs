//! GPT-2 (Radford et al. 2019): a table of positions, matrices stored `[inputs, outputs]`, logits tied to the words.

use super::config::{ConfigError, Fields, limit};
use super::decoder_config::{Biases, DecoderConfig, DecoderNames, LayerKind, NormKind, flag};
use kernels::activation::Activation;
use serde_json::{Map, json};

const NAMES: DecoderNames = DecoderNames {
    prefix: "transformer.",
    words: "transformer.wte",
    positions: Some("transformer.wpe"),
    layers: "transformer.h.",
    qkv: &["attn.c_attn"],
    out: "attn.c_proj",
    head_norms: None,
    attention_norm: "ln_1",
    mlp_norm: Some("ln_2"),
    post_norms: None,
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    final_norm: "transformer.ln_f",
    transposed: true,
    // The causal mask, which early checkpoints carry.
    ignored: &["attn.bias", "attn.masked_bias"],
};

pub(super) fn config(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    fields.only("scale_attn_weights", &[json!(true)])?;
    fields.only("scale_attn_by_inverse_layer_idx", &[json!(false)])?;
    fields.only("add_cross_attention", &[json!(false)])?;
    let hidden = fields.size_or("n_embd", limit::WIDTH, Some(768))?;
    let heads = fields.size_or("n_head", limit::WIDTH, Some(12))?;
    if !hidden.is_multiple_of(heads) {
        return Err(fields.error("n_head", format!("a divisor of the width {hidden}")));
    }
    let layers = fields.size_or("n_layer", limit::LAYERS, Some(12))?;
    let activation = match fields.json.contains_key("activation_function") {
        true => fields.activation("activation_function")?,
        false => Activation::GeluTanh,
    };
    Ok(DecoderConfig {
        json: Map::new(),
        names: &NAMES,
        hidden,
        layers,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        intermediate: fields.size_or("n_inner", limit::WIDTH * 8, Some(4 * hidden))?,
        vocabulary: fields.size_or("vocab_size", limit::ROWS, Some(50257))?,
        positions: fields.size_or("n_positions", limit::ROWS, Some(1024))?,
        epsilon: fields.positive("layer_norm_epsilon", 1e-5)?,
        norm: NormKind::Layer,
        activation,
        biases: Biases { qkv: true, out: true, mlp: true, head: false },
        rotaries: Vec::new(),
        kinds: vec![LayerKind { rotary: None, window: None }; layers],
        scale: 1.0 / ((hidden / heads) as f32).sqrt(),
        soft_cap: None,
        word_scale: 1.0,
        tied: flag(fields, "tie_word_embeddings", true)?,
        labels: 0,
        eos: Vec::new(),
        pad: None,
    })
}
