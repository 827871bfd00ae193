"""Makes golden/gguf: small GGUF files and what other programs read in them.

    python golden/make_gguf_golden.py                   formats, files and models
    python golden/make_gguf_golden.py --llama PYTHON    also ids; PYTHON has llama-cpp-python 0.3.36

formats.json        for each format some blocks of bytes, and the f32 that the gguf package makes of them (both in hex)
tiny_v2.gguf, tiny_v3.gguf, tiny.json     settings of every type, tensors of several formats, and what they hold
FAMILY.gguf, models.json    tiny models as llama.cpp's converter would write them. Names in the file are those of the
                    gguf package's table, names and shapes of the parameters and keys of the config transformers'.
                    Element i of parameter p (in the order of models.json) is ((40503 i + 977 p) % 4096 - 2048) / 1024.
bytes.gguf, pieces.gguf, ids.json     two vocabularies of golden/text, and the ids that llama.cpp makes of texts

`crates/kudos/tests/gguf_golden.rs` reads the result.
"""

import argparse
import json
import math
import pathlib
import subprocess
import unicodedata

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

import tiny
from text_samples import EDGES, ODD, pairs

HERE = pathlib.Path(__file__).parent
OUT = HERE / "gguf"
FORMATS = [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q5_K, Q.Q6_K]
# Where the half-precision scales of a block stand; everything else may be any byte.
SCALES = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}
SPLITS = ["default", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "deepseek-r1-qwen"]


def blocks(format, count, rng):
    """Random blocks whose scales are finite: zero, subnormal, largest, and ordinary ones."""
    values, size = gguf.GGML_QUANT_SIZES[format]
    if format in (Q.F32, Q.F16, Q.BF16):
        numbers = np.concatenate([rng.normal(size=61), [0.0, -0.0, 6e-8]]).astype(np.float32)
        if format == Q.BF16:
            return (numbers.view(np.uint32) >> 16).astype("<u2").view(np.uint8).reshape(-1, 2)
        return numbers.astype("<f4" if format == Q.F32 else "<f2").view(np.uint8).reshape(-1, size)
    made = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    special = [0.0, -0.0, 6e-8, -0.37, 65504.0 / 64]
    for at in SCALES[format]:
        scales = np.array([special[i] if i < len(special) else rng.normal() for i in range(count)], dtype="<f2")
        made[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return made


def make_formats():
    rng = np.random.default_rng(3)
    facts = {}
    for format in FORMATS:
        data = blocks(format, 8, rng)
        values = gguf.quants.dequantize(data, format).astype("<f4")
        facts[format.name] = {"blocks": data.tobytes().hex(), "values": values.tobytes().hex()}
    write_json("formats.json", facts)


def write_json(name, facts):
    (OUT / name).write_text(json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_tiny():
    path = OUT / "tiny_v3.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kinds = [("uint8", 200), ("int8", -3), ("uint16", 60000), ("int16", -300), ("uint32", 4_000_000_000), ("int32", -70_000)]
    kinds += [("uint64", 2**63 + 1), ("int64", -(2**62)), ("float32", 0.1), ("float64", 0.1), ("bool", True), ("string", "naïve ▁ text")]
    for kind, value in kinds:
        getattr(writer, f"add_{kind}")(f"tiny.{kind}", value)
    writer.add_array("tiny.words", ["one", "", "三"])
    writer.add_array("tiny.numbers", [1, -2, 3])
    rng = np.random.default_rng(4)
    tensors = {"plain": Q.F32, "half": Q.F16, "small": Q.Q8_0, "smaller": Q.Q4_K}
    facts = {"settings": {f"tiny.{kind}": float(np.float32(value)) if kind == "float32" else value for kind, value in kinds}, "tensors": {}}
    facts["settings"]["tiny.words"] = ["one", "", "三"]
    facts["settings"]["tiny.numbers"] = [1, -2, 3]
    for name, format in tensors.items():
        shape = (3, 256) if format == Q.Q4_K else (2, 3, 32)
        values, size = gguf.GGML_QUANT_SIZES[format]
        data = blocks(format, math.prod(shape) // values, rng) if format in SCALES else rng.normal(size=shape).astype("<f4" if format == Q.F32 else "<f2")
        if format in SCALES:
            data = data.reshape(*shape[:-1], shape[-1] // values * size)
            writer.add_tensor(name, data, raw_dtype=format)
        else:
            writer.add_tensor(name, data)
        facts["tensors"][name] = {"shape": shape, "values": gguf.quants.dequantize(data, format).astype("<f4").tobytes().hex()}
    finish(writer)
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    (OUT / "tiny_v2.gguf").write_bytes(raw)
    write_json("tiny.json", facts)


# --- models ---------------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40, "intermediate_size": 24, "max_position_embeddings": 64}
GROUPED = {**SMALL, "num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

MODELS = {
    "llama": ("llama", transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "llama3": ("llama", transformers.LlamaConfig(**GROUPED, head_dim=32, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5, rope_parameters=LLAMA3)),
    "qwen2": ("qwen2", transformers.Qwen2Config(**GROUPED, tie_word_embeddings=False, rms_norm_eps=1e-6, rope_parameters={"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16})),
    "qwen3": ("qwen3", transformers.Qwen3Config(**GROUPED, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "gemma3": ("gemma3", transformers.Gemma3TextConfig(**{**GROUPED, "num_hidden_layers": 7}, head_dim=8, query_pre_attn_scalar=8, sliding_window=32, rms_norm_eps=1e-6)),
    "phi2": ("phi2", transformers.PhiConfig(**SMALL, partial_rotary_factor=0.5, layer_norm_eps=1e-5)),
    "phi2_fused": ("phi2", transformers.PhiConfig(**SMALL, partial_rotary_factor=0.5, layer_norm_eps=1e-5)),
    "gpt2": ("gpt2", transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=64, vocab_size=40, n_inner=64, layer_norm_epsilon=1e-5)),
}

KEYS = "model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size vocab_size max_position_embeddings tie_word_embeddings"
FAMILY_KEYS = {
    "llama": KEYS + " head_dim rms_norm_eps hidden_act attention_bias mlp_bias",
    "qwen2": KEYS + " rms_norm_eps hidden_act use_sliding_window",
    "qwen3": KEYS + " head_dim rms_norm_eps hidden_act attention_bias use_sliding_window",
    "gemma3": KEYS + " head_dim rms_norm_eps hidden_activation sliding_window layer_types query_pre_attn_scalar attention_bias attn_logit_softcapping final_logit_softcapping",
    "phi2": KEYS + " layer_norm_eps hidden_act qk_layernorm",
    "gpt2": "model_type n_embd n_layer n_head n_inner n_positions vocab_size layer_norm_epsilon activation_function tie_word_embeddings",
}


def values(position, shape):
    index = np.arange(math.prod(shape), dtype=np.int64)
    return (((index * 40503 + position * 977) % 4096 - 2048) / 1024).astype(np.float32).reshape(shape)


def halves_to_neighbours(matrix, heads):
    """What the converter does to Llama's queries and keys."""
    rows = matrix.shape[0]
    return matrix.reshape(heads, 2, rows // heads // 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


def converted(family, config, name, value):
    if family == "llama" and "q_proj" in name:
        return halves_to_neighbours(value, config.num_attention_heads)
    if family == "llama" and "k_proj" in name:
        return halves_to_neighbours(value, config.num_key_value_heads)
    if family == "gemma3" and name.endswith("norm.weight"):
        return value + 1
    if family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return value.T
    return value


def rope_facts(family, config):
    """`rope_theta` and the rest at the top level, as older configs have them."""
    if family == "gpt2":
        return {}
    rope = dict(config.rope_parameters)
    if family == "gemma3":
        return {"rope_theta": rope["full_attention"]["rope_theta"], "rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
    facts = {"rope_theta": rope.pop("rope_theta")}
    if family == "phi2":
        facts["partial_rotary_factor"] = 0.5
    rope.pop("partial_rotary_factor", None)
    if rope["rope_type"] != "default":
        facts["rope_scaling"] = rope
    return facts


def llama3_divisors(config):
    rope, size = config.rope_parameters, config.head_dim
    made = []
    for at in range(0, size, 2):
        length = 2 * math.pi * rope["rope_theta"] ** (at / size)
        share = (rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        made.append(1.0 if share > 1 else rope["factor"] if share < 0 else 1 / ((1 - share) / rope["factor"] + share))
    return np.array(made, dtype=np.float32)


def settings(writer, family, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.n_inner if family == "gpt2" else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if family in ("phi2", "gpt2"):
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(rope_facts(family, config)["rope_theta"])
    if family in ("qwen3", "gemma3") or config.to_dict().get("head_dim") == 32:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if family == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if family == "phi2":
        writer.add_rope_dimension_count(2)
    if family == "qwen2":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)
    if family == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    writer.add_token_list([f"token {at}" for at in range(config.vocab_size)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def tensor_names(family, layers):
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == family)
    return gguf.get_tensor_name_map(architecture, layers)


def fused(tensors, layers):
    """Queries, keys and values in one, as the first converter of Phi-2 wrote them."""
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
    return tensors


# transformers 5.23 has no reader for Phi-2, and takes the size of Qwen3's heads for granted.
READ_BY_TRANSFORMERS = ["llama", "llama3", "qwen2", "gemma3", "gpt2"]


def assert_transformers_reads(name, state):
    """What was done to the values is undone by transformers, so it is what llama.cpp's converter does."""
    model = transformers.AutoModelForCausalLM.from_pretrained(OUT, gguf_file=f"{name}.gguf", dtype=torch.float32, ignore_mismatched_sizes=True)
    found = model.state_dict()
    for position, (parameter, shape) in enumerate(state.items()):
        # It does not look for biases in a Llama, nor for the number of positions in a GPT-2.
        known = parameter in found and list(found[parameter].shape) == shape
        if known and not np.array_equal(found[parameter].numpy(), values(position, shape)):
            raise SystemExit(f"{name}.gguf: transformers reads other values for {parameter}")


def make_model(name, family, config):
    model = transformers.AutoModelForCausalLM.from_config(config)
    names = tensor_names(family, config.num_hidden_layers)
    state = {key: list(value.shape) for key, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    tensors = {}
    for position, (parameter, shape) in enumerate(state.items()):
        module, kind = parameter.rsplit(".", 1)
        value = converted(family, config, parameter, values(position, shape))
        tensors[f"{names.get_name(module)}.{kind}"] = np.ascontiguousarray(value)
    if name == "phi2_fused":
        tensors = fused(tensors, config.num_hidden_layers)
    if name == "llama3":
        tensors["rope_freqs.weight"] = llama3_divisors(config)
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", family)
    settings(writer, family, config)
    for tensor, value in tensors.items():
        exact = value.ndim > 1 and np.array_equal(value.astype(np.float16).astype(np.float32), value)
        writer.add_tensor(tensor, value.astype(np.float16) if exact else value)
    finish(writer)
    if name in READ_BY_TRANSFORMERS:
        assert_transformers_reads(name, state)
    known = config.to_dict()
    facts = {key: known[key] for key in FAMILY_KEYS[family].split()}
    facts |= rope_facts(family, config) | {"bos_token_id": 1, "eos_token_id": 2}
    return {"config": facts, "parameters": list(state.items())}


def make_models():
    torch.manual_seed(0)
    write_json("models.json", {name: make_model(name, family, config) for name, (family, config) in MODELS.items()})


# --- vocabularies ---------------------------------------------------------------------------------------------------

LLAMA = """
import json, sys
from llama_cpp import Llama
model = Llama(model_path=sys.argv[1], vocab_only=True, verbose=False)
print(json.dumps([model.tokenize(text.encode(), add_bos=special, special=True) for text, special in json.load(sys.stdin)]))
"""


def write_vocabulary(path, source, pre):
    """A file that holds nothing but the vocabulary of a tokenizer of golden/text."""
    made = json.loads((HERE / "text" / source / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    special = {token["content"] for token in made["added_tokens"]}
    merges = made["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2" if pre else "llama")
    writer.add_token_list(tokens)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    if pre:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([" ".join(pair) for pair in merges])
        writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    else:
        rank = {left + right: at for at, (left, right) in reversed(list(enumerate(merges)))}
        writer.add_token_scores([-float(rank.get(token, len(merges) + at)) for at, token in enumerate(tokens)])
        kind = lambda token: 2 if token == "<unk>" else 3 if token in special else 6 if token.startswith("<0x") else 1
        writer.add_token_types([kind(token) for token in tokens])
    finish(writer)


def make_ids(python):
    texts = list(dict.fromkeys([text for pair in pairs(40, seed=9) for text in pair] + EDGES + ODD))
    # Composing (NFC) is Qwen2's own rule and not llama.cpp's; NUL ends llama.cpp's texts in some places.
    texts = [text for text in texts if unicodedata.is_normalized("NFC", text) and "\0" not in text]
    asked = [(text, special) for text in texts for special in (False, True)]
    facts = {"texts": texts, "ids": {}}
    for split in [*SPLITS, None]:
        path = OUT / ("pieces.gguf" if split is None else "bytes.gguf")
        write_vocabulary(path, "byte_level" if split else "metaspace", split)
        run = subprocess.run([python, "-c", LLAMA, str(path)], input=json.dumps(asked), capture_output=True, text=True, check=True)
        facts["ids"][split or "pieces"] = json.loads(run.stdout)
    write_vocabulary(OUT / "bytes.gguf", "byte_level", "gpt-2")
    write_json("ids.json", facts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", help="interpreter with llama-cpp-python")
    arguments = parser.parse_args()
    tiny.assert_pinned("gguf", "transformers", "torch", "numpy")
    OUT.mkdir(exist_ok=True)
    make_formats()
    make_tiny()
    make_models()
    if arguments.llama:
        make_ids(arguments.llama)


if __name__ == "__main__":
    main()
