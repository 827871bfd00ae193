"""Tiny random checkpoints, and the pinned versions that every golden script runs with.

A checkpoint has 2 layers, hidden size 32, 4 heads, intermediate size 64. Its weights are far from
an initialisation on purpose (standard deviation 0.2, biases not 0, LayerNorm weights not 1), so that
a transposed matrix, a missing bias or a swapped norm changes the numbers by much more than rounding.
Dropout keeps its usual 0.1 in the configs: numbers that depend on it would not be reproducible, so
a run that forgets to switch it off shows.
"""

import zlib
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).parent
MODELS = HERE / "models"

# Of the token ids, 0..4 are left for special tokens (RoBERTa pads with 1, BERT with 0).
FIRST_ID, VOCAB = 5, 120


def assert_pinned(*packages):
    """Stop unless the installed versions of `packages` are those of requirements.txt."""
    lines = (HERE / "requirements.txt").read_text().split()
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
