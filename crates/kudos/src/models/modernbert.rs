//! ModernBERT (Warner et al. 2024, arXiv:2412.13663): norms before the parts, turns in place of positions, a gated
//! feed-forward part, few biases, and windows in two of three layers.

use super::bert;
use super::config::{ConfigError, Fields, limit};
use super::decoder_config::{Rotary, RotarySettings, flag};
use super::encoder_config::{EncoderBiases, EncoderConfig, EncoderLayer, EncoderNames, EncoderShape};
use super::network::Pool;
use super::qwen::layer_types;
use crate::nn::Activation;
use serde_json::{Map, Value, json};

const NAMES: EncoderNames = EncoderNames {
    prefix: "model.",
    words: "embeddings.tok_embeddings",
    positions: None,
    embedding_norm: "embeddings.norm",
    layers: "layers",
    qkv: &["attn.Wqkv"],
    attention_out: "attn.Wo",
    attention_norm: "attn_norm",
    up: "mlp.Wi",
    gated: true,
    down: "mlp.Wo",
    mlp_norm: "mlp_norm",
    final_norm: Some("final_norm"),
    head_dense: "head.dense",
    head_norm: Some("head.norm"),
    head_out: "classifier",
    head_activation: Activation::Gelu,
    // What the masked-LM head has besides `head`, which a judge shares with it.
    unused: &["decoder."],
    ..bert::NAMES
};

/// Its classes whose tensors are a judge's or a base's. Others have a judge's tensors and mean something else.
const CLASSES: [&str; 3] = ["ModernBertForSequenceClassification", "ModernBertForMaskedLM", "ModernBertModel"];

pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let [hidden, heads] = ["hidden_size", "num_attention_heads"].map(|field| fields.size(field, limit::WIDTH));
    let (hidden, heads) = (hidden?, heads?);
    check(fields, hidden / heads)?;
    let layers = fields.size("num_hidden_layers", limit::LAYERS)?;
    let vocabulary = fields.size("vocab_size", limit::ROWS)?;
    let shape = EncoderShape {
        biases: biases(fields)?,
        rotaries: rotaries(fields, hidden / heads)?,
        layers: kinds(fields, layers)?,
        untrained: padding(fields, vocabulary)?,
        pool: pool(fields)?,
    };
    Ok(EncoderConfig {
        json: Map::new(),
        names: &NAMES,
        shape,
        hidden,
        layers,
        heads,
        intermediate: fields.size("intermediate_size", limit::WIDTH)?,
        vocabulary,
        positions: fields.size_or("max_position_embeddings", limit::ROWS, Some(8192))?,
        types: 0,
        epsilon: fields.positive("norm_eps", 1e-5)?,
        activation: fields.activation("hidden_activation")?,
        initial_deviation: fields.positive("initializer_range", 0.02)?,
        labels: 1,
        padding: None,
    })
}

/// Refuses by name what would make the scores others than transformers'.
fn check(fields: &Fields, head_dim: usize) -> Result<(), ConfigError> {
    // A word of BERT's that the published configs still have, without meaning.
    fields.only("position_embedding_type", &[json!("absolute")])?;
    fields.only("classifier_activation", &[json!("gelu")])?;
    fields.only("head_dim", &[json!(head_dim)])?;
    if !head_dim.is_multiple_of(2) {
        return Err(fields.error("num_attention_heads", "heads of an even width, which turns"));
    }
    for (field, expected) in [
        ("rope_theta", "none: there are `global_rope_theta` and `local_rope_theta`"),
        ("sliding_window", "none: `local_attention` is twice as much"),
    ] {
        if fields.json.get(field).is_some_and(|value| !value.is_null()) {
            return Err(fields.error(field, expected));
        }
    }
    let classes = fields.json.get("architectures").and_then(Value::as_array);
    let known = |class: &Value| class.as_str().is_some_and(|class| CLASSES.contains(&class));
    match classes.is_none_or(|classes| classes.is_empty() || classes.iter().any(known)) {
        true => Ok(()),
        false => Err(fields.error("architectures", CLASSES.join(" or "))),
    }
}

fn biases(fields: &Fields) -> Result<EncoderBiases, ConfigError> {
    let [attention, mlp, norms, head] = ["attention_bias", "mlp_bias", "norm_bias", "classifier_bias"];
    let bias = |field| flag(fields, field, false);
    Ok(EncoderBiases { attention: bias(attention)?, mlp: bias(mlp)?, norms: bias(norms)?, head: bias(head)? })
}

/// The turns of layers that see all, and of those that see a window.
fn rotaries(fields: &Fields, head_dim: usize) -> Result<Vec<Rotary>, ConfigError> {
    let kinds =
        [("full_attention", "global_rope_theta", 160_000.0), ("sliding_attention", "local_rope_theta", 10_000.0)];
    let rotary = |(kind, theta, default)| {
        let theta = f64::from(fields.positive(theta, default)?);
        RotarySettings::find(fields, Some(kind)).rotary_or(head_dim, theta)
    };
    kinds.into_iter().map(rotary).collect()
}

/// By the list of the config, or every third layer, from the first on, sees all.
fn kinds(fields: &Fields, layers: usize) -> Result<Vec<EncoderLayer>, ConfigError> {
    let reach = fields.size_or("local_attention", limit::ROWS, Some(128))? / 2;
    let every = fields.size_or("global_attn_every_n_layers", limit::LAYERS, Some(3))?;
    let types = layer_types(fields, layers)?;
    let sliding = |layer: usize| types.as_ref().map_or(!layer.is_multiple_of(every), |types| types[layer]);
    let kind = |layer| match sliding(layer) {
        true => EncoderLayer { rotary: Some(1), reach: Some(reach) },
        false => EncoderLayer { rotary: Some(0), reach: None },
    };
    Ok((0..layers).map(kind).collect())
}

/// The token whose vector is not trained.
fn padding(fields: &Fields, vocabulary: usize) -> Result<Option<u32>, ConfigError> {
    if fields.json.get("pad_token_id").is_some_and(Value::is_null) {
        return Ok(None);
    }
    match fields.padding(50_283)? {
        id if (id as usize) < vocabulary => Ok(Some(id)),
        _ => Err(fields.error("pad_token_id", format!("a token id below the vocab_size {vocabulary}, or null"))),
    }
}

fn pool(fields: &Fields) -> Result<Pool, ConfigError> {
    match fields.json.get("classifier_pooling").map_or(Some("cls"), Value::as_str) {
        Some("cls") => Ok(Pool::FIRST),
        Some("mean") => Ok(Pool::Mean),
        _ => Err(fields.error("classifier_pooling", "cls or mean")),
    }
}
