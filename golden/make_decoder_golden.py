"""Makes golden/decoders/<name>: tiny decoders, and what transformers computes and continues with them.

    python golden/make_decoder_golden.py             write every directory again
    python golden/make_decoder_golden.py --check     compare with what is committed, write nothing
    python golden/make_decoder_golden.py --search    look for seeds whose greedy decoding is clear

Each directory holds the checkpoint as `save_pretrained` of transformers 5 writes it, and

config.v4.json      the same config in the keys of transformers 4, which most published checkpoints have
                    (decoders with rotary positions; transformers reads both to the same logits)
expected.safetensors
    input_ids            i64 [50]       three prompts laid end to end
    offsets              i64 [4]        prompt i is input_ids[offsets[i]:offsets[i + 1]]
    logits               f32 [50, 120]  of every position, each prompt run alone   (language models)
    last_hidden_state    f32 [50, H]    after the final norm
    greedy               i64 [3, 64]    the tokens that greedy decoding appends to each prompt, ends ignored
    greedy.last_logits   f32 [3, 120]   what the last of them was chosen from
    scores               f32 [3, 1]     (sequence classification, instead of logits and greedy)
expected.json
    kind, seed
    margin           the smallest distance between the two best logits over all greedy steps
    float32_error    the largest distance of logits and states from the same run in float64; transformers keeps
                     norms, rotary angles and softmax in float32 there, so this is a lower bound

Attention is eager, everything is computed in float32; weights stored in bf16 or f16 are widened first. Weights are
drawn so that logits reach about ten, attention is neither flat nor a single token, and the continuations do not
repeat one token for ever.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

import tiny

DECODERS = tiny.HERE / "decoders"
LENGTHS = [1, 9, 40]
STEPS = 64
CLEAR, DISTINCT = 0.012, 10  # what --search asks of a seed: the margin, and how many tokens a continuation has

SHAPE = dict(vocab_size=tiny.VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=64, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
GPT2 = dict(vocab_size=tiny.VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=112, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
GEMMA3 = SHAPE | dict(num_hidden_layers=4, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=24,
                      sliding_window=8, sliding_window_pattern=3)


def gemma_rope(**scaling):
    return {"full_attention": {"rope_type": "default", "rope_theta": 1e6, **scaling},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


# name: (class, seed, settings of the config)
CASES = {
    "llama": ("LlamaForCausalLM", 0, SHAPE | dict(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=80)),
    "llama_tied_bias": ("LlamaForCausalLM", 5, SHAPE | dict(
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    "llama3": ("LlamaForCausalLM", 17, SHAPE | dict(
        head_dim=16, rope_parameters=LLAMA3, eos_token_id=[2, 3, 4])),
    "llama_linear": ("LlamaForCausalLM", 5, SHAPE | dict(
        rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=4.0))),
    "phi": ("PhiForCausalLM", 12, SHAPE | dict(num_key_value_heads=4)),
    "gpt2": ("GPT2LMHeadModel", 11, GPT2),
    "gpt2_published": ("GPT2LMHeadModel", 22, GPT2 | dict(n_layer=2)),
    "qwen2": ("Qwen2ForCausalLM", 1, SHAPE | dict(rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen2_tied": ("Qwen2ForCausalLM", 0, SHAPE | dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3ForCausalLM", 1, SHAPE | dict(
        head_dim=12, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "gemma3_text": ("Gemma3ForCausalLM", 62, GEMMA3 | dict(rope_parameters=gemma_rope())),
    "gemma3_linear": ("Gemma3ForCausalLM", 0, GEMMA3 | dict(
        rope_parameters=gemma_rope(rope_type="linear", factor=8.0))),
    "llama_sharded": ("LlamaForCausalLM", 2, SHAPE),
    "qwen2_bf16": ("Qwen2ForCausalLM", 11, SHAPE),
    "llama_f16": ("LlamaForCausalLM", 11, SHAPE),
    "llama_reward": ("LlamaForSequenceClassification", 0, SHAPE | dict(num_labels=1)),
}
STORED = {"qwen2_bf16": torch.bfloat16, "llama_f16": torch.float16}

# Settings without which the logits must be others, or the case would not test what it is named after.
WITHOUT = {
    "llama3": dict(rope_parameters=dict(rope_type="default", rope_theta=500.0)),
    "llama_linear": dict(rope_parameters=dict(rope_type="default", rope_theta=1e4)),
    "gemma3_text": dict(sliding_window=1000),
    "gemma3_linear": dict(rope_parameters=gemma_rope()),
    "phi": dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=1.0)),
}


def fill(model, name, seed):
    """Overwrite every parameter of `model` with the random stream (`name`, `seed`)."""
    random = tiny.generator(f"weights of {name}, seed {seed}")
    tied, gemma = model.config.tie_word_embeddings, model.config.model_type == "gemma3_text"
    head = (1.5 if gemma else 3.0) / model.config.hidden_size ** 0.5
    with torch.no_grad():
        for key, module in sorted(model.named_modules()):
            kind = type(module).__name__
            for part, parameter in sorted(module.named_parameters(recurse=False)):
                noise = torch.randn(parameter.shape, generator=random)
                if kind.endswith("Norm") and part == "weight":
                    noise = 1 + 0.2 * noise  # Gemma multiplies by 1 + weight, so by about 2
                elif part == "bias":
                    noise *= 0.2
                elif kind.endswith("Embedding"):
                    noise *= head if tied else 1.0
                elif key == "lm_head":
                    noise *= head
                else:
                    inputs = parameter.shape[0 if kind == "Conv1D" else 1]
                    noise *= 2 / inputs ** 0.5
                parameter.copy_(noise)
    return model


def build(name, seed=None, **changes):
    """A filled model in evaluation mode; its weights are those that its stored precision keeps."""
    kind, own_seed, settings = CASES[name]
    kind = getattr(transformers, kind)
    config = kind.config_class(**copy.deepcopy(settings | changes))
    config._attn_implementation = "eager"
    model = fill(kind(config), name, own_seed if seed is None else seed).eval()
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(STORED.get(name, torch.float32)).float()
    return model


def prompts(name):
    random = tiny.generator(f"prompts of {name}")
    return [torch.randint(tiny.FIRST_ID, tiny.VOCAB, (n,), generator=random) for n in LENGTHS]


@torch.no_grad()
def run(model, ids):
    """What the head makes of the prompts, and the last hidden states, each prompt run alone: lists of [n, ...]."""
    states = []
    decoder = getattr(model, model.base_model_prefix)
    hook = decoder.register_forward_hook(lambda _, __, output: states.append(output.last_hidden_state[0]))
    results = [model(input_ids=one[None]).logits.reshape(-1, model.config.vocab_size if is_language(model) else 1)
               for one in ids]
    hook.remove()
    return results, states


def is_language(model):
    return "SequenceClassification" not in type(model).__name__


@torch.no_grad()
def greedy(model, ids, clear=0.0):
    """The continuation of each prompt, what its last token was chosen from, and the smallest margin of all.

    Ends early, with less than all, at a margin below `clear`.
    """
    settings = transformers.GenerationConfig(max_new_tokens=STEPS, do_sample=False, use_cache=True)
    model = copy.deepcopy(model)
    model.generation_config = settings
    tokens, last, margin = [], [], float("inf")
    for one in ids:
        whole = model.generate(one[None], attention_mask=torch.ones_like(one[None]))[0]
        assert len(whole) == len(one) + STEPS, "an end token stopped the continuation"
        logits = model(input_ids=whole[None]).logits[0, len(one) - 1:-1]
        best = logits.topk(2).values
        assert torch.equal(logits.argmax(-1), whole[len(one):]), "the cache changes the continuation"
        tokens.append(whole[len(one):])
        last.append(logits[-1])
        margin = min(margin, (best[:, 0] - best[:, 1]).min().item())
        if margin < clear:
            break
    return torch.stack(tokens), torch.stack(last), margin


def expected(name, model):
    """What goes into expected.safetensors, and the facts of expected.json."""
    ids = prompts(name)
    results, states = run(model, ids)
    tensors = {"input_ids": torch.cat(ids), "offsets": torch.tensor([0, *LENGTHS]).cumsum(0),
               "last_hidden_state": torch.cat(states)}
    facts = {"kind": type(model).__name__, "seed": CASES[name][1]}
    tensors["logits" if is_language(model) else "scores"] = torch.cat(results)
    if is_language(model):
        tensors["greedy"], tensors["greedy.last_logits"], facts["margin"] = greedy(model, ids)
    exact, exact_states = run(copy.deepcopy(model).double(), ids)
    facts["float32_error"] = {"logits": largest(results, exact), "last_hidden_state": largest(states, exact_states)}
    return tensors, facts


def largest(some, others):
    """The largest distance, to two digits."""
    return float(f"{max((a.double() - b.double()).abs().max().item() for a, b in zip(some, others)):.1e}")


def old_keys(config):
    """A config in the keys of transformers 4, or None where those are the same."""
    config = dict(config)
    rope = copy.deepcopy(config.pop("rope_parameters", None))
    if rope is None:
        return None
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 1 + config.pop("layer_types").index("full_attention")
        del config["_sliding_window_pattern"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.0"
    return dict(sorted(config.items()))


def publish_gpt2(directory, model):
    """Names the tensors as the published GPT-2 does: no prefix, no head, and each layer's causal mask among them."""
    mask = torch.ones(model.config.n_positions, model.config.n_positions).tril()[None, None]
    tensors = {f"h.{i}.attn.bias": mask.clone() for i in range(model.config.n_layer)}
    tensors |= {key: value.clone() for key, value in model.transformer.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def save(name, model, directory):
    """The checkpoint, and the assertion that transformers reads it back to the same numbers, in old keys too."""
    stored = copy.deepcopy(model).to(STORED.get(name, torch.float32))
    stored.save_pretrained(directory, **({"max_shard_size": "40KB"} if name == "llama_sharded" else {}))
    if name == "gpt2_published":
        publish_gpt2(directory, model)
    assert_same(name, model, directory)
    old = old_keys(json.loads((directory / "config.json").read_text()))
    if old is None:
        return
    (directory / "config.v4.json").write_text(json.dumps(old, indent=2) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        copied = Path(temporary)
        for file in directory.glob("model*"):
            (copied / file.name).write_bytes(file.read_bytes())
        (copied / "config.json").write_text(json.dumps(old))
        assert_same(name, model, copied)


def assert_same(name, model, directory):
    """Up to rounding, which depends on where the weights lie in memory."""
    read = type(model).from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    distance = largest(*(run(one, prompts(name))[0] for one in (model, read)))
    assert distance < 1e-4, f"{name}: read back differently, by {distance}"


def assert_matters(name, model):
    """The logits are others without what the case is named after."""
    if name in WITHOUT:
        other = build(name, **WITHOUT[name])
        distance = largest(*(run(one, prompts(name))[0] for one in (model, other)))
        assert distance > 0.1, f"{name}: {WITHOUT[name]} changes the logits by {distance} only"


def make(name, directory):
    """Write one case into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.iterdir():
        file.unlink()
    model = build(name)
    assert not any(module.training for module in model.modules()), "dropout must be off"
    assert_matters(name, model)
    save(name, model, directory)
    tensors, facts = expected(name, model)
    assert facts.get("margin", 1.0) > CLEAR, f"{name}: seed {facts['seed']} decodes unclearly, look for another"
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "expected.safetensors")
    tiny.write_json(directory / "expected.json", facts)
    return facts


def check(name):
    """Regenerate one case beside the committed files; the largest difference of any tensor."""
    return tiny.compare_fresh(lambda fresh: make(name, fresh), DECODERS / name,
                              lambda new, old, _: largest(list(new.values()), [old[key] for key in new]))


def search(name, seeds=400):
    """The first seed whose continuations are clear and varied."""
    for seed in range(seeds):
        tokens, last, margin = greedy(build(name, seed), prompts(name), CLEAR)
        if margin > CLEAR and min(len(set(row.tolist())) for row in tokens) >= DISTINCT:
            return seed, round(margin, 3), round(last.abs().max().item(), 1)
    return None


def main():
    parser = argparse.ArgumentParser(description="Tiny decoders and transformers' numbers for them.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--search", action="store_true", help="print a seed for each case, write nothing")
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "safetensors")
    tiny.deterministic()
    failed = False
    for name in arguments.names or CASES:
        if arguments.search:
            print(name, is_language(build(name)) and search(name), flush=True)
        elif arguments.check:
            worst = check(name)
            failed |= worst > 1e-4
            print(f"{name}: largest difference {worst:.1e}")
        else:
            print(name, json.dumps(make(name, DECODERS / name)))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
