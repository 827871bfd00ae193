//! Parameter names of Hugging Face → tensor names of GGUF, and what the converter did to the values.
//!
//! A table a family; a name is a module and `weight` or `bias`. Which tensors there are is the file's business:
//! `source` answers only for those it holds.

use super::Architecture;
use crate::nn::gguf::Gguf;
use std::ops::Range;

/// What must be done to the values of a tensor to have the parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transform {
    /// Nothing.
    Same,
    /// The rows of so many heads, put back from neighbours to halves.
    Heads(usize),
    /// 1 was added.
    MinusOne,
    /// GPT-2's `Conv1D` holds [in, out], the file [out, in].
    Transposed,
    /// These rows of a matrix that is queries, keys and values in one.
    Rows(Range<usize>),
}

/// Where a parameter comes from.
#[derive(Debug)]
pub(super) struct StoredTensor {
    /// Name of the tensor in the file.
    pub(super) tensor: String,
    /// What to do with its values.
    pub(super) transform: Transform,
}

/// The names of a family.
struct Names {
    /// Before all names but the head's; a checkpoint of the bare model leaves it out.
    prefix: &'static str,
    /// Before the number of a layer.
    layers: &'static str,
    /// Modules outside the layers.
    outside: &'static [(&'static str, &'static str)],
    /// Modules of a layer.
    inside: &'static [(&'static str, &'static str)],
}

const LLAMA: Names = Names {
    prefix: "model.",
    layers: "layers.",
    outside: &[("embed_tokens", "token_embd"), ("norm", "output_norm"), ("lm_head", "output")],
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ],
};

const GEMMA3: Names = Names {
    prefix: LLAMA.prefix,
    layers: LLAMA.layers,
    outside: LLAMA.outside,
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ],
};

const PHI: Names = Names {
    prefix: "model.",
    layers: "layers.",
    outside: &[("embed_tokens", "token_embd"), ("final_layernorm", "output_norm"), ("lm_head", "output")],
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.dense", "attn_output"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
    ],
};

const GPT2: Names = Names {
    prefix: "transformer.",
    layers: "h.",
    outside: &[("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
    inside: &[
        ("ln_1", "attn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("ln_2", "ffn_norm"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ],
};

/// The tensor that holds a parameter; `None` for parameters that the family or the file does not have.
pub(super) fn source(gguf: &Gguf, family: Architecture, parameter: &str) -> Option<StoredTensor> {
    let (layer, module, kind) = tensor_name(family, parameter)?;
    let name = |module: &str| layer.map_or(format!("{module}.{kind}"), |layer| format!("blk.{layer}.{module}.{kind}"));
    let tensor = name(module);
    if family == Architecture::Phi && layer.is_some() && !gguf.tensors.contains_key(&tensor) {
        let tensor = name("attn_qkv");
        let transform = Transform::Rows(part(gguf, &tensor, module)?);
        return Some(StoredTensor { tensor, transform });
    }
    let transform = transform(gguf, family, module, kind)?;
    gguf.tensors.contains_key(&tensor).then_some(StoredTensor { tensor, transform })
}

/// Layer, tensor without number, and `weight` or `bias`.
fn tensor_name(family: Architecture, parameter: &str) -> Option<(Option<usize>, &'static str, &str)> {
    let names = match family {
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => LLAMA,
        Architecture::Gemma3 => GEMMA3,
        Architecture::Phi => PHI,
        Architecture::Gpt2 => GPT2,
    };
    let (module, kind) = parameter.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
    let module = module.strip_prefix(names.prefix).unwrap_or(module);
    let find = |table: &'static [(&str, &'static str)], module: &str| {
        table.iter().find(|(known, _)| *known == module).map(|(_, tensor)| *tensor)
    };
    match module.strip_prefix(names.layers) {
        None => Some((None, find(names.outside, module)?, kind)),
        Some(rest) => {
            let (number, module) = rest.split_once('.')?;
            let layer: usize = number.parse().ok().filter(|layer: &usize| layer.to_string() == number)?;
            Some((Some(layer), find(names.inside, module)?, kind))
        }
    }
}

/// What the converter of llama.cpp does to this kind of tensor.
fn transform(gguf: &Gguf, family: Architecture, module: &str, kind: &str) -> Option<Transform> {
    Some(match (family, module) {
        (Architecture::Llama, "attn_q") => Transform::Heads(heads(gguf, family)?.0),
        (Architecture::Llama, "attn_k") => Transform::Heads(heads(gguf, family)?.1),
        (Architecture::Gemma3, module) if module.ends_with("norm") => Transform::MinusOne,
        (Architecture::Gpt2, "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down") if kind == "weight" => {
            Transform::Transposed
        }
        _ => Transform::Same,
    })
}

/// Heads of the queries, and of keys and values.
fn heads(gguf: &Gguf, family: Architecture) -> Option<(usize, usize)> {
    let count = |key| super::config::size(gguf, family, key).ok().flatten().and_then(|n| usize::try_from(n).ok());
    let queries = count("attention.head_count")?;
    Some((queries, count("attention.head_count_kv").unwrap_or(queries)))
}

/// Where one of queries, keys and values lies in all three.
fn part(gguf: &Gguf, fused: &str, module: &str) -> Option<Range<usize>> {
    let rows = *gguf.tensors.get(fused)?.shape.first()?;
    let (queries, others) = heads(gguf, Architecture::Phi)?;
    let all = others.checked_mul(2)?.checked_add(queries)?;
    if all == 0 || !rows.is_multiple_of(all) {
        return None;
    }
    let head = rows / all;
    match module {
        "attn_q" => Some(0..queries * head),
        "attn_k" => Some(queries * head..(queries + others) * head),
        "attn_v" => Some((queries + others) * head..rows),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_family() {
        let cases = [
            (Architecture::Llama, "model.embed_tokens.weight", Some((None, "token_embd", "weight"))),
            (Architecture::Llama, "model.layers.3.self_attn.q_proj.weight", Some((Some(3), "attn_q", "weight"))),
            (Architecture::Llama, "layers.3.self_attn.q_proj.bias", Some((Some(3), "attn_q", "bias"))),
            (Architecture::Qwen2, "lm_head.weight", Some((None, "output", "weight"))),
            (Architecture::Qwen3, "model.layers.0.self_attn.k_norm.weight", Some((Some(0), "attn_k_norm", "weight"))),
            (
                Architecture::Gemma3,
                "model.layers.0.post_attention_layernorm.weight",
                Some((Some(0), "post_attention_norm", "weight")),
            ),
            (
                Architecture::Llama,
                "model.layers.0.post_attention_layernorm.weight",
                Some((Some(0), "ffn_norm", "weight")),
            ),
            (Architecture::Phi, "model.final_layernorm.bias", Some((None, "output_norm", "bias"))),
            (Architecture::Gpt2, "transformer.h.11.attn.c_attn.weight", Some((Some(11), "attn_qkv", "weight"))),
            (Architecture::Gpt2, "wpe.weight", Some((None, "position_embd", "weight"))),
            (Architecture::Llama, "model.layers.03.mlp.up_proj.weight", None),
            (Architecture::Llama, "model.layers.-1.mlp.up_proj.weight", None),
            (Architecture::Llama, "model.layers.0.mlp.up_proj.scale", None),
            (Architecture::Llama, "model.layers.0.weight", None),
            (Architecture::Llama, "weight", None),
        ];
        for (family, parameter, expected) in cases {
            assert_eq!(tensor_name(family, parameter), expected, "{parameter}");
        }
    }
}
