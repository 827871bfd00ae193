//! Settings of a GGUF file → the keys of the family's `config.json`.
//!
//! Only what decides the model's values is translated, each key by the name that the family's config has in
//! transformers. A setting that this module does not know how to express is an error where it would change the
//! model (experts, other value sizes), because a config that leaves it out describes another model.

use super::{Architecture, GgufModelError, rope};
use crate::nn::gguf::{Gguf, Value as Setting};
use serde_json::{Map, Value, json};

/// Settings with the family's prefix, and what is wrong with them.
pub(super) struct Settings<'a> {
    pub(super) gguf: &'a Gguf,
    family: Architecture,
}

/// A whole number `key` of the family. Where a file gives one for each layer, all must be the same.
pub(super) fn size(gguf: &Gguf, family: Architecture, key: &str) -> Result<Option<u64>, GgufModelError> {
    Settings { gguf, family }.whole(key)
}

impl Settings<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family.prefix())
    }

    pub(super) fn error(&self, key: &str, expected: impl Into<String>) -> GgufModelError {
        let key = self.key(key);
        let found = self.gguf.metadata.get(&key).map_or("missing".into(), Setting::to_string);
        GgufModelError::Setting { path: self.gguf.path().into(), key, expected: expected.into(), found }
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, GgufModelError> {
        let Some(value) = self.gguf.metadata.get(&self.key(key)) else {
            return Ok(None);
        };
        let Some(numbers) = value.as_numbers() else {
            let number = value.as_unsigned();
            return number.map(Some).ok_or_else(|| self.error(key, "a whole number from 0"));
        };
        let first = numbers.iter().next().and_then(|first| first.as_unsigned());
        let same = numbers.iter().all(|number| number.as_unsigned() == first);
        first.filter(|_| same).map(Some).ok_or_else(|| self.error(key, "one number, the same for every layer"))
    }

    /// A whole number that must be there and above 0.
    fn size(&self, key: &str) -> Result<u64, GgufModelError> {
        let found = self.whole(key)?.filter(|size| (1..=1 << 32).contains(size));
        found.ok_or_else(|| self.error(key, "a whole number from 1"))
    }

    /// As [`Self::size`], with a default.
    fn size_or(&self, key: &str, default: u64) -> Result<u64, GgufModelError> {
        if self.whole(key)?.is_none() { Ok(default) } else { self.size(key) }
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, GgufModelError> {
        Ok(self.gguf.float(&self.key(key))?.map(shortest))
    }

    /// A positive number that must be there.
    fn positive(&self, key: &str) -> Result<f64, GgufModelError> {
        let found = self.float(key)?.filter(|value| *value > 0.0);
        found.ok_or_else(|| self.error(key, "a positive number"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, GgufModelError> {
        Ok(self.gguf.text(&self.key(key))?)
    }

    /// Refuses a setting that asks for more than the family's config can say.
    fn only(&self, key: &str, allowed: u64) -> Result<(), GgufModelError> {
        match self.whole(key)? {
            Some(found) if found != allowed => Err(self.error(key, allowed.to_string())),
            _ => Ok(()),
        }
    }

    fn has(&self, tensor: &str) -> bool {
        self.gguf.tensors.contains_key(tensor)
    }

    /// Width of a head of queries and keys, which values must share.
    fn head_size(&self) -> Result<u64, GgufModelError> {
        let (hidden, heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        let size = self.size_or("attention.key_length", hidden / heads)?;
        self.only("attention.value_length", size)?;
        if size == 0 {
            Err(self.error("attention.head_count", format!("at most the width {hidden}")))
        } else {
            Ok(size)
        }
    }
}

/// The number that was meant by an f32: 1e-5, not 9.999999747378752e-6. The nearest f32 is the same.
fn shortest(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}

/// The whole config.
pub(super) fn config(gguf: &Gguf, family: Architecture) -> Result<Map<String, Value>, GgufModelError> {
    let settings = Settings { gguf, family };
    settings.only("expert_count", 0)?;
    let mut config = common(&settings)?;
    let own = match family {
        Architecture::Llama => llama(&settings)?,
        Architecture::Qwen2 | Architecture::Qwen3 => qwen(&settings)?,
        Architecture::Gemma3 => gemma3(&settings)?,
        Architecture::Phi => phi(&settings)?,
        Architecture::Gpt2 => gpt2(&settings)?,
    };
    let Value::Object(own) = own else { unreachable!("families write objects") };
    config.extend(own);
    if family != Architecture::Gpt2 {
        config.extend(rope::config(&settings, settings.head_size()?)?);
    }
    Ok(config)
}

/// What every family calls the same.
fn common(settings: &Settings) -> Result<Map<String, Value>, GgufModelError> {
    let gguf = settings.gguf;
    let (model_type, class) = match settings.family {
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        Architecture::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
        Architecture::Phi => ("phi", "PhiForCausalLM"),
        Architecture::Gpt2 => ("gpt2", "GPT2LMHeadModel"),
    };
    let mut config = Map::new();
    config.insert("model_type".into(), json!(model_type));
    config.insert("architectures".into(), json!([class]));
    // The table's rows, not `vocab_size`, which some files leave out and others give without padding.
    let rows = gguf.tensor("token_embd.weight")?.shape.first().copied().unwrap_or_default();
    config.insert("vocab_size".into(), json!(rows));
    config.insert("tie_word_embeddings".into(), json!(!settings.has("output.weight")));
    for (key, id) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = gguf.unsigned(&format!("tokenizer.ggml.{id}_token_id"))? {
            config.insert(key.into(), json!(id));
        }
    }
    Ok(config)
}

/// Sizes that all but GPT-2 name alike.
fn sizes(settings: &Settings) -> Result<Map<String, Value>, GgufModelError> {
    let heads = settings.size("attention.head_count")?;
    let sizes = json!({
        "hidden_size": settings.size("embedding_length")?,
        "num_hidden_layers": settings.size("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": settings.size_or("attention.head_count_kv", heads)?,
        "intermediate_size": settings.size("feed_forward_length")?,
        "max_position_embeddings": settings.size("context_length")?,
    });
    Ok(sizes.as_object().cloned().unwrap_or_default())
}

fn with(mut config: Map<String, Value>, more: Value) -> Value {
    config.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(config)
}

fn llama(settings: &Settings) -> Result<Value, GgufModelError> {
    let more = json!({
        "head_dim": settings.head_size()?,
        "rms_norm_eps": settings.positive("attention.layer_norm_rms_epsilon")?,
        "hidden_act": "silu",
        "attention_bias": settings.has("blk.0.attn_q.bias"),
        "mlp_bias": settings.has("blk.0.ffn_gate.bias"),
    });
    let mut config = sizes(settings)?;
    if let Some(window) = settings.whole("attention.sliding_window")? {
        // Only Mistral's config has the key; its models have the same tensors.
        config.extend([("model_type".into(), json!("mistral")), ("sliding_window".into(), json!(window))]);
        config.insert("architectures".into(), json!(["MistralForCausalLM"]));
    }
    Ok(with(config, more))
}

fn qwen(settings: &Settings) -> Result<Value, GgufModelError> {
    let mut config = sizes(settings)?;
    if settings.family == Architecture::Qwen3 {
        config.insert("head_dim".into(), json!(settings.head_size()?));
        config.insert("attention_bias".into(), json!(settings.has("blk.0.attn_q.bias")));
    }
    let more = json!({
        "rms_norm_eps": settings.positive("attention.layer_norm_rms_epsilon")?,
        "hidden_act": "silu",
        "use_sliding_window": false,
    });
    Ok(with(config, more))
}

/// Layers of Gemma 3 with 27 billion parameters, the only size whose queries are scaled by the width.
const LAYERS_OF_27B: u64 = 62;

fn gemma3(settings: &Settings) -> Result<Value, GgufModelError> {
    let head_size = settings.size_or("attention.key_length", 256)?;
    settings.only("attention.value_length", head_size)?;
    let layers = settings.size("block_count")?;
    let per_head = settings.size("embedding_length")? / settings.size("attention.head_count")?;
    let pattern = settings.size_or("attention.sliding_window_pattern", 6)?;
    let kinds = (1..=layers.min(1 << 16))
        .map(|layer| if layer.is_multiple_of(pattern) { "full_attention" } else { "sliding_attention" });
    let more = json!({
        "head_dim": head_size,
        "rms_norm_eps": settings.positive("attention.layer_norm_rms_epsilon")?,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": settings.size("attention.sliding_window")?,
        "layer_types": kinds.collect::<Vec<_>>(),
        "query_pre_attn_scalar": if layers == LAYERS_OF_27B { per_head } else { head_size },
        "rope_local_base_freq": settings.float("rope.freq_base_swa")?.unwrap_or(10_000.0),
        "attention_bias": false,
        "attn_logit_softcapping": settings.float("attn_logit_softcapping")?,
        "final_logit_softcapping": settings.float("final_logit_softcapping")?,
    });
    Ok(with(sizes(settings)?, more))
}

fn phi(settings: &Settings) -> Result<Value, GgufModelError> {
    let more = json!({
        "layer_norm_eps": settings.positive("attention.layer_norm_epsilon")?,
        "hidden_act": "gelu_new",
        "qk_layernorm": false,
    });
    Ok(with(sizes(settings)?, more))
}

fn gpt2(settings: &Settings) -> Result<Value, GgufModelError> {
    Ok(json!({
        "n_embd": settings.size("embedding_length")?,
        "n_layer": settings.size("block_count")?,
        "n_head": settings.size("attention.head_count")?,
        "n_inner": settings.size("feed_forward_length")?,
        "n_positions": settings.size("context_length")?,
        "layer_norm_epsilon": settings.positive("attention.layer_norm_epsilon")?,
        "activation_function": "gelu_new",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_meant() {
        assert_eq!(shortest(f64::from(1e-5f32)), 1e-5);
        assert_eq!(shortest(f64::from(1e6f32)), 1e6);
        assert_eq!(shortest(0.1), 0.1);
    }
}
