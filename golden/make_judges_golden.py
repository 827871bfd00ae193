"""Makes golden/judges/<name>: tiny judges of each family, and what transformers computes with them.

    python golden/make_judges_golden.py             write every directory again
    python golden/make_judges_golden.py --check     compare with what is committed, write nothing

golden/README.md describes the files. Everything is computed in float32 with eager attention, each text alone unless
it says otherwise. Models are filled in memory and never read back before the numbers are taken, because the place of
the weights in memory decides the last bits.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import tiny

JUDGES = tiny.HERE / "judges"
VOCAB = 64
LENGTHS = [1, 2, 7, 33, 70]
TRACED = 3  # the text whose hidden states are kept
# Texts are 0..4 of LENGTHS, 5 with pad ids inside, 6 that ends in two pad ids, 7 of pad ids alone.
PAIRS = [[[3, 1], [4, 2]], [[5, 0], [6, 2]]]  # the first two give the gradients; steps take them in turn
STEPS, LEARNING_RATE, CLIP = 10, 1e-3, 1.0

SHAPE = dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=36, max_position_embeddings=128, num_labels=1, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
ENCODER = dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=36,
               max_position_embeddings=80, num_labels=1, hidden_dropout_prob=0.1)
GPT2 = dict(vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=4, n_positions=80, num_labels=1, bos_token_id=1,
            eos_token_id=2, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
GEMMA3_ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
               "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
MODERN_ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 160000.0},
               "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
MODERN = ENCODER | dict(
    max_position_embeddings=128, num_hidden_layers=4, local_attention=16, rope_parameters=MODERN_ROPE, pad_token_id=0,
    bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)
DEBERTA = ENCODER | dict(
    hidden_size=24, relative_attention=True, norm_rel_ebd="layer_norm", pos_att_type=["p2c", "c2p"], pad_token_id=0,
    position_buckets=8, max_relative_positions=32)


def theta(value, **more):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=value, **more))


# name: (class, settings of the config)
CASES = {
    "qwen3": ("Qwen3ForSequenceClassification", SHAPE | theta(1e6) | dict(head_dim=8, tie_word_embeddings=True)),
    "qwen2": ("Qwen2ForSequenceClassification", SHAPE | theta(1e6) | dict(num_hidden_layers=2)),
    "llama": ("LlamaForSequenceClassification", SHAPE | dict(
        head_dim=8, rope_parameters=LLAMA3, eos_token_id=[2, 3, 4])),
    "gemma2": ("Gemma2ForSequenceClassification", SHAPE | theta(1e4) | dict(
        head_dim=8, query_pre_attn_scalar=12, sliding_window=16, attn_logit_softcapping=2.0,
        final_logit_softcapping=0.5)),
    "gemma3_text": ("Gemma3TextForSequenceClassification", SHAPE | dict(
        num_hidden_layers=4, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=12, sliding_window=16,
        sliding_window_pattern=3, rope_parameters=GEMMA3_ROPE)),
    "phi": ("PhiForSequenceClassification", SHAPE | theta(1e4, partial_rotary_factor=0.5) | dict(
        num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3)),
    "gpt2": ("GPT2ForSequenceClassification", GPT2),
    "mistral": ("MistralForSequenceClassification", SHAPE | theta(1e4) | dict(sliding_window=16)),
    "mpnet": ("MPNetForSequenceClassification", ENCODER | dict(
        num_hidden_layers=2, relative_attention_num_buckets=32, layer_norm_eps=1e-5)),
    "modernbert": ("ModernBertForSequenceClassification", MODERN | dict(classifier_pooling="cls")),
    "modernbert_mean": ("ModernBertForSequenceClassification", MODERN | dict(classifier_pooling="mean")),
    "deberta_v3": ("DebertaV2ForSequenceClassification", DEBERTA | dict(
        num_hidden_layers=2, share_att_key=True, position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7)),
    "deberta_v2": ("DebertaV2ForSequenceClassification", DEBERTA | dict(
        num_hidden_layers=2, share_att_key=False, position_biased_input=True, type_vocab_size=2, embedding_size=16,
        conv_kernel_size=3, conv_act="gelu")),
}
WEIGHTS_OF = {"modernbert_mean": "modernbert"}  # the same model.safetensors, which is stored once

# Changes of the config that must change the scores, or the case would not test what it is there for.
WITHOUT = {
    "qwen3": [theta(1e4)],
    "qwen2": [theta(1e4)],
    "llama": [theta(500.0)],
    "gemma2": [dict(sliding_window=1000), dict(attn_logit_softcapping=None), dict(query_pre_attn_scalar=8),
               dict(layer_types=["sliding_attention"] * 3)],
    "gemma3_text": [dict(sliding_window=1000), dict(query_pre_attn_scalar=8), dict(rope_parameters={
        **GEMMA3_ROPE, "full_attention": {"rope_type": "default", "rope_theta": 1e4}})],
    "phi": [theta(1e4, partial_rotary_factor=1.0)],
    "mistral": [dict(sliding_window=None), dict(sliding_window=15)],
    "modernbert": [dict(local_attention=256), dict(local_attention=14), dict(classifier_pooling="mean"),
                   dict(rope_parameters=MODERN_ROPE | {"sliding_attention": MODERN_ROPE["full_attention"]})],
    "deberta_v3": [dict(max_relative_positions=16), dict(pos_att_type=["c2p"]), dict(pos_att_type=["p2c"]),
                   dict(norm_rel_ebd="none")],
    "deberta_v2": [dict(max_relative_positions=16), dict(pos_att_type=["c2p"]), dict(pos_att_type=["p2c"])],
}
# Changes that must leave the scores as they are.
WITHIN = {
    "qwen3": [dict(tie_word_embeddings=False)],
    "gemma2": [dict(final_logit_softcapping=None), dict(tie_word_embeddings=False)],
}


def fill(model, name):
    """Overwrite every parameter of `model` with the random stream `name`, large enough to matter."""
    random, gemma = tiny.generator(f"judge {name}"), "gemma" in model.config.model_type
    with torch.no_grad():
        for key, module in sorted(model.named_modules()):
            kind = type(module).__name__
            for part, parameter in sorted(module.named_parameters(recurse=False)):
                noise = torch.randn(parameter.shape, generator=random)
                if kind.endswith("Norm") and part == "weight":
                    noise = 0.3 * noise + (0 if gemma else 1)  # Gemma multiplies by 1 + weight
                elif part == "bias":
                    noise *= 0.2
                elif not kind.endswith("Embedding"):
                    noise *= 1.5 / parameter.shape[0 if kind == "Conv1D" else 1] ** 0.5
                parameter.copy_(noise)
    return model


def build(name, **changes):
    """The judge of a case in evaluation mode, with `changes` of its config and the same weights."""
    kind, settings = CASES[name]
    kind = getattr(transformers, kind)
    stream = WEIGHTS_OF.get(name, name)
    model = fill(from_settings(kind, settings), stream).eval()
    if changes:
        other = from_settings(kind, settings | changes)
        missing = other.load_state_dict(model.state_dict(), strict=False).missing_keys
        assert not missing, f"{name}: {changes} needs other tensors"
        model = other.eval()
    return model


def from_settings(kind, settings):
    config = kind.config_class(**copy.deepcopy(settings))
    config._attn_implementation = "eager"
    return kind(config)


def texts(name, pad):
    """The eight texts. Ids 0 to 4 are kept for special tokens, which the first five texts do not hold."""
    random = tiny.generator(f"texts of {WEIGHTS_OF.get(name, name)}")

    def some(n):
        return torch.randint(tiny.FIRST_ID, VOCAB, (n,), generator=random).tolist()

    made = [some(n) for n in LENGTHS]
    made[3][-1] = VOCAB - 1
    return made + [some(3) + [pad, pad] + some(4), some(6) + [pad, pad], [pad] * 4]


def score(model, ids):
    """The raw score of one text alone, as a tensor with one element."""
    return model(input_ids=torch.tensor([ids])).logits[0]


@torch.no_grad()
def scores(model, every):
    return [score(model, ids).item() for ids in every]


@torch.no_grad()
def padded_scores(model, every, pad):
    """The scores of one batch, padded on the right."""
    longest = max(map(len, every))
    ids = torch.tensor([one + [pad] * (longest - len(one)) for one in every])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in every])
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()


def pooled_index(name, ids, pad):
    """Where the score is read: decoders at the last id that is not the pad id, encoders at the first or all."""
    if name == "modernbert_mean":
        return "mean"
    if name in ("mpnet", "modernbert", "deberta_v2", "deberta_v3"):
        return 0
    return max((i for i, one in enumerate(ids) if one != pad), default=0)


def layers_of(body):
    for path in ("layers", "h", "encoder.layer"):
        try:
            return body.get_submodule(path)
        except AttributeError:
            pass
    raise SystemExit(f"{type(body).__name__}: no layers found")


@torch.no_grad()
def hidden_states(model, ids):
    """{name: [n, hidden]}: what enters the first layer, what leaves each layer, what the head reads."""
    found, hooks, body = {}, [], getattr(model, model.base_model_prefix)

    def first(value):
        return value[0] if isinstance(value, tuple) else value

    def keep(key):
        return lambda _, __, output: found.update({key: first(output)[0].clone()})

    def keep_input(_, given, named):
        found["hidden.embedding"] = (given[0] if given else named["hidden_states"])[0].clone()

    layers = layers_of(body)
    hooks.append(layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
    hooks += [layer.register_forward_hook(keep(f"hidden.layer.{i}")) for i, layer in enumerate(layers)]
    hooks.append(body.register_forward_hook(lambda _, __, output: found.update(
        {"hidden.final": output.last_hidden_state[0].clone()})))
    score(model, ids)
    for hook in hooks:
        hook.remove()
    return found


def loss_of(model, every, pairs):
    """Bradley-Terry, the mean over `pairs` of (chosen, rejected) texts."""
    margins = torch.cat([score(model, every[a]) - score(model, every[b]) for a, b in pairs])
    return -torch.nn.functional.logsigmoid(margins).mean()


def gradients(model, every, pairs):
    """The loss, and the gradient of each trainable parameter by name."""
    model.zero_grad()
    loss = loss_of(model, every, pairs)
    loss.backward()
    return loss.item(), {key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad}


def adamw(model, every):
    """Ten steps on a copy of `model`, as TRL's RewardTrainer makes them: what happened, the copy, all gradients."""
    model = copy.deepcopy(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    found, kept = {"losses": [], "grad_norms": []}, []
    for step in range(STEPS):
        loss, grads = gradients(model, every, PAIRS[step % 2])
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (STEPS - step) / STEPS
        found["grad_norms"].append(torch.nn.utils.clip_grad_norm_(trained, CLIP).item())
        found["losses"].append(loss)
        kept.append(grads)
        optimizer.step()
    found["scores_beyond_first"] = beyond_first(scores(model, every))
    return found, model, kept


def beyond_first(found):
    """Scores less the first. A bias that every score shares is moved by rounding noise alone, and them with it."""
    return [score - found[0] for score in found[1:]]


def settings():
    """What `adamw` does, in words of its own."""
    return {"learning_rate": LEARNING_RATE, "schedule": "linear to 0", "steps": STEPS, "betas": [0.9, 0.999],
            "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": CLIP}


def chosen(name):
    """The parameters whose values after ten steps are kept: the second layer and the head."""
    return any(part in name for part in ("layers.1.", "h.1.", "layer.1.", "score", "classifier", "pooler", "head."))


def numbers(name, model, every):
    """(tensors, facts, gradients of each step) in the model's own precision."""
    pad = model.config.pad_token_id
    facts = {"scores": scores(model, every), "scores_padded": padded_scores(model, every, pad)}
    facts["loss"], grads = gradients(model, every, PAIRS[0])
    model.zero_grad()
    facts["adamw"], after, kept = adamw(model, every)
    tensors = hidden_states(model, every[TRACED])
    tensors |= {f"grad.{key}": value for key, value in grads.items()}
    tensors |= {f"adamw.final.{key}": p.detach() for key, p in after.named_parameters() if chosen(key)}
    return tensors, facts, kept


def spread(one, other):
    """The largest distance of two lists of floats."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def float32_error(single, double, noise):
    """How far float32 is from float64, by kind: a tolerance is a few times that."""
    found = {}
    for key, value in single[0].items():
        kind = "adamw.final" if key.startswith("adamw.final.") else key.split(".")[0]
        distance = tiny.largest_difference(key.removeprefix("adamw.final."), value, double[0][key], noise)
        if kind == "grad":
            distance = (value.double() - double[0][key]).norm().item() / max(1e-12, double[0][key].norm().item())
            distance = 0.0 if double[0][key].norm() < 1e-9 else distance
        found[kind] = max(found.get(kind, 0.0), distance)
    for key in ("scores", "scores_padded"):  # in float64, padding beside a window is not a number in transformers
        found[key] = spread(single[1][key], double[1]["scores"])
    for key in ("losses", "grad_norms", "scores_beyond_first"):
        found[f"adamw.{key}"] = spread(single[1]["adamw"][key], double[1]["adamw"][key])
    return {key: float(f"{value:.1e}") for key, value in found.items()}


def assert_matters(name, model, every):
    """Each setting that the case is there for changes a score; what must not matter does not."""
    exact = scores(model, every)
    for change in WITHOUT.get(name, []):
        distance = spread(exact, scores(build(name, **change), every))
        assert distance > 1e-2, f"{name}: {change} changes the scores by {distance} only"
    for change in WITHIN.get(name, []):
        assert spread(exact, scores(build(name, **change), every)) < 1e-6, f"{name}: {change} changes the scores"


def old_keys(config, name):
    """A config in the keys of transformers 4, as the published checkpoints write it."""
    config = copy.deepcopy(config)
    rope = config.pop("rope_parameters", None)
    if name.startswith("modernbert"):
        config["global_rope_theta"] = rope["full_attention"]["rope_theta"]
        config["local_rope_theta"] = rope["sliding_attention"]["rope_theta"]
        config["global_attn_every_n_layers"] = 3
        del config["layer_types"]
    elif name == "gemma3_text":
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["rope_scaling"] = None
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
        del config["layer_types"]
    elif rope is not None:
        config["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        config["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
        config.pop("layer_types", None)
    if name == "qwen2":  # a window that is switched off: it must not be used
        config |= {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}
    if name.startswith("deberta"):
        config["pos_att_type"] = "p2c|c2p"
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.0"
    return dict(sorted(config.items()))


def save(name, model, directory):
    """config.json, config4.json and model.safetensors; transformers reads both configs to the same scores."""
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.float32
    model.config.save_pretrained(directory)
    old = old_keys(json.loads((directory / "config.json").read_text()), name)
    (directory / "config4.json").write_text(json.dumps(old, indent=2) + "\n")
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if name == "qwen2":  # a base that was a language model leaves its head behind
        random = tiny.generator("an unused lm_head")
        tensors["lm_head.weight"] = torch.randn(VOCAB, model.config.hidden_size, generator=random)
    if name not in WEIGHTS_OF:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    every = texts(name, model.config.pad_token_id)
    for config in ("config.json", "config4.json"):
        read = read_back(type(model), directory / config, tensors)
        distance = spread(scores(model, every), scores(read, every))
        assert distance < 1e-5, f"{name}/{config}: read back differently, by {distance}"


def read_back(kind, config, tensors):
    """What transformers makes of a checkpoint of one config.json and `tensors`."""
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "config.json").write_bytes(config.read_bytes())
        save_file(tensors, Path(temporary) / "model.safetensors", metadata={"format": "pt"})
        return kind.from_pretrained(temporary, dtype=torch.float32, attn_implementation="eager").eval()


def make(name, directory):
    """Write one case into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.iterdir():
        file.unlink()
    model = build(name)
    pad = model.config.pad_token_id
    every = texts(name, pad)
    assert_matters(name, model, every)
    save(name, model, directory)
    single, double = numbers(name, model, every), numbers(name, copy.deepcopy(model).double(), every)
    noise = tiny.noise(double[2], single[2])
    facts = {"kind": type(model).__name__, "weights": WEIGHTS_OF.get(name, name), "pad": pad, "texts": every,
             "pooled": [pooled_index(name, ids, pad) for ids in every], "traced": TRACED,
             "pairs": PAIRS, **single[1], "noise": noise, "float32_error": float32_error(single, double, noise)}
    facts["adamw"]["settings"] = settings()
    save_file({key: value.contiguous() for key, value in sorted(single[0].items())}, directory / "expected.safetensors")
    tiny.write_json(directory / "expected.json", facts)
    return facts


def difference(name, root):
    """Make one case again under `root`; the largest difference from what is committed."""
    facts, old = make(name, root / name), json.loads((JUDGES / name / "expected.json").read_text())
    new, committed = (load_file(path / name / "expected.safetensors") for path in (root, JUDGES))
    assert facts["texts"] == old["texts"] and new.keys() == committed.keys(), f"{name}: other inputs than committed"
    worst = max(spread(facts[key], old[key]) for key in ("scores", "scores_padded"))
    worst = max(worst, *(spread(facts["adamw"][key], old["adamw"][key]) for key in ("losses", "scores_beyond_first")))
    return max(worst, *(tiny.largest_difference(key.removeprefix("adamw.final."), new[key], committed[key],
                                                facts["noise"]) for key in new))


def main():
    parser = argparse.ArgumentParser(description="Tiny judges and transformers' numbers for them.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "safetensors")
    tiny.deterministic()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.names or CASES:
            if arguments.check:
                worst = difference(name, Path(temporary))
                failed |= worst > 1e-4
                print(f"{name}: largest difference {worst:.1e}")
            else:
                facts = make(name, JUDGES / name)
                print(name, json.dumps(facts["float32_error"]), [round(one, 3) for one in facts["scores"]], flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
