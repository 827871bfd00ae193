"""Tiny random checkpoints, and the pinned versions that every golden script runs with.

A checkpoint has 2 layers, hidden size 32, 4 heads, intermediate size 64. Its weights are far from
an initialisation on purpose (standard deviation 0.2, biases not 0, LayerNorm weights not 1), so that
a transposed matrix, a missing bias or a swapped norm changes the numbers by much more than rounding.
Dropout keeps its usual 0.1 in the configs: numbers that depend on it would not be reproducible, so
a run that forgets to switch it off shows.
"""

import json
import tempfile
import zlib
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

HERE = Path(__file__).parent
MODELS = HERE / "models"

# Of the token ids, 0..4 are left for special tokens (RoBERTa pads with 1, BERT with 0).
FIRST_ID, VOCAB = 5, 120


def assert_pinned(*packages):
    """Stop unless the installed versions of `packages` are those of the requirements files."""
    files = [HERE / "requirements.txt", HERE / "requirements-check.txt"]
    lines = [word for file in files for word in file.read_text().split()]
    pins = dict(line.split("==") for line in lines if "==" in line)
    for package in packages:
        found = version(package).split("+")[0]
        if found != pins[package]:
            raise SystemExit(f"{package} {found} is installed, the golden numbers need {pins[package]}")


def deterministic():
    """One thread and deterministic kernels: the same machine writes the same bytes again."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def generator(name):
    """A random stream that depends on `name` alone (the same on every machine)."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def config(family, labels=1, vocab=VOCAB, positions=64):
    """The config of a tiny `family` model. RoBERTa counts positions from 2."""
    if family == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocab, max_position_embeddings=positions, dim=32, n_layers=2, n_heads=4,
            hidden_dim=64, num_labels=labels)
    shape = dict(vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                 intermediate_size=64, num_labels=labels)
    if family == "bert":
        return transformers.BertConfig(**shape, max_position_embeddings=positions)
    kind = {"roberta": transformers.RobertaConfig, "xlm-roberta": transformers.XLMRobertaConfig}[family]
    return kind(**shape, max_position_embeddings=positions + 2, type_vocab_size=1, layer_norm_eps=1e-5)


def fill(model, name):
    """Overwrite every parameter of `model` with the random stream `name`."""
    random = generator(f"weights of {name}")
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            noise = 0.2 * torch.randn(parameter.shape, generator=random)
            norm_weight = "norm" in key.lower() and key.endswith("weight")
            parameter.copy_(1 + noise if norm_weight else noise)
    return model


def build(kind, name, **options):
    """A filled model of class `kind` in evaluation mode, with plain (eager) attention."""
    kind = getattr(transformers, kind)
    family = kind.config_class.model_type
    made = config(family, **options)
    made._attn_implementation = "eager"
    return fill(kind(made), name).eval()


def noise(exact, single):
    """Parameters whose comparison after AdamW means nothing: {name: "all" or flat indices}.

    `exact` and `single` are the gradients {name: tensor} of every step, in float64 and float32. Where a
    gradient is 0 in exact arithmetic, an engine computes rounding noise instead, and AdamW divides noise by
    its own size: the parameter moves by up to the learning rate a step, in any direction. This holds for
    whole parameters (softmax ignores the key bias; a difference of scores ignores the head's bias) and for
    single elements (the bias of a ReLU unit that is active for every sequence of the batch).
    An element counts as noise if, at any step, its gradient is below 1e-5 of the largest in its tensor (where
    rounding would shift the step by 1 % or more), except where it is 0 in both precisions (unused rows).
    """
    found = {}
    for name in exact[0]:
        largest = max(grads[name].abs().max().item() for grads in exact)
        if largest < 1e-12 * max(g.abs().max().item() for g in exact[0].values()):
            found[name] = "all"
            continue
        small = torch.zeros_like(exact[0][name], dtype=torch.bool)
        for one, other in zip(exact, single):
            tiny_gradient = one[name].abs() < 1e-5 * one[name].abs().max()
            small |= tiny_gradient & ((one[name] != 0) | (other[name] != 0))
        if small.any():
            found[name] = small.flatten().nonzero()[:, 0].tolist()
    return found


def largest_difference(name, one, other, noise):
    """Largest |one - other| over the elements of parameter `name` that are not in `noise`."""
    difference = (one.double() - other.double()).abs().flatten()
    skipped = noise.get(name, [])
    difference[slice(None) if skipped == "all" else skipped] = 0
    return difference.max().item()


def write_json(file, facts):
    """One line for each entry of the outer object, floats in full."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compare_fresh(make, committed, difference):
    """Make one case again beside the committed files; the largest difference of any tensor.

    `make(directory)` returns what `difference(new, old, made)` needs besides the two {name: tensor} of a file.
    """
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        made = make(fresh)
        worst = 0.0
        for file in sorted(fresh.glob("*.safetensors")):
            new, old = load_file(file), load_file(committed / file.name)
            assert new.keys() == old.keys(), f"{committed.name}/{file.name}: other tensors than committed"
            worst = max(worst, difference(new, old, made))
    return worst
