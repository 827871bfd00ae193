"""Makes golden/models/<name>: tiny checkpoints and what PyTorch computes with them.

    python golden/make_golden.py            write every directory again
    python golden/make_golden.py --check    compare with what is committed, write nothing

Each directory holds the checkpoint as `save_pretrained` writes it and

expected.safetensors
    input_ids, token_type_ids   i64 [T]       six sequences laid end to end, special tokens not implied
    offsets                     i64 [7]       sequence i is input_ids[offsets[i]:offsets[i + 1]]
    last_hidden_state           f32 [T, 32]   of each sequence run alone, without padding
    logits                      f32 [6, L]    raw (sequence-classification checkpoints)
    pooler_output               f32 [6, 32]   (bert_base)
    pairs                       i64 [3, 2]    (chosen, rejected) of the loss       (L = 1)
    loss.weight                 f32 [6, L]    loss = sum(logits * loss.weight)     (L > 1)
    grad.<parameter>            f32           gradients of the loss
    adamw.losses                f32 [10]      the loss before each of ten AdamW steps
    adamw.final.<parameter>     f32           the parameters after them
expected.json
    kind, loss, settings, and two things to know when comparing:
    noise            elements of adamw.final whose value is rounding noise, see tiny.noise: do not compare them
    float32_error    the largest distance between these float32 numbers and the same run in float64,
                     without that noise: a sensible test tolerance is a few times that

The loss over pairs is mean(-log sigmoid(score[chosen] - score[rejected])).
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import tiny

LENGTHS = [2, 3, 7, 17, 40, 64]
PAIRS = torch.tensor([[0, 1], [2, 3], [4, 5]])
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
WEIGHT_DECAY, STEPS = 0.01, 10

# name: (class, labels, gradients?, AdamW?)
CASES = {
    "distilbert": ("DistilBertForSequenceClassification", 1, True, True),
    "bert": ("BertForSequenceClassification", 1, True, True),
    "roberta": ("RobertaForSequenceClassification", 1, True, True),
    "xlm_roberta": ("XLMRobertaForSequenceClassification", 1, True, True),
    "bert_3_labels": ("BertForSequenceClassification", 3, True, False),
    "bert_sharded": ("BertForSequenceClassification", 1, False, False),
    # Headless: what training starts from.
    "bert_base": ("BertModel", 1, False, False),
    "distilbert_base": ("DistilBertModel", 1, False, False),
    "bert_masked_lm": ("BertForMaskedLM", 1, False, False),
    "roberta_masked_lm": ("RobertaForMaskedLM", 1, False, False),
}


def inputs(name, family):
    """Six sequences of ids. BERT's have a second segment from the middle on; the others have one type."""
    random = tiny.generator(f"ids of {name}")
    ids = [torch.randint(tiny.FIRST_ID, tiny.VOCAB, (n,), generator=random) for n in LENGTHS]
    types = [torch.zeros(n, dtype=torch.long) for n in LENGTHS]
    if family == "bert":
        for segment in types:
            segment[(len(segment) + 1) // 2:] = 1
    return ids, types


def run(model, ids, types):
    """Logits (or None), last hidden state and pooler output of each sequence run alone: lists of [n, ...]."""
    encoder = getattr(model, model.base_model_prefix, model)
    states, pooled = [], []

    def keep(_, __, output):
        states.append(output.last_hidden_state[0])
        if getattr(output, "pooler_output", None) is not None:
            pooled.append(output.pooler_output)

    hook = encoder.register_forward_hook(keep)
    logits = []
    for one, segment in zip(ids, types):
        extra = {} if model.config.model_type == "distilbert" else {"token_type_ids": segment[None]}
        output = model(input_ids=one[None], **extra)
        if hasattr(output, "logits"):
            logits.append(output.logits)
    hook.remove()
    return logits, states, pooled


def loss_of(logits, weight):
    """Bradley-Terry over PAIRS for one label, a fixed weighted sum for several. logits [6, L]."""
    if weight is not None:
        return (logits * weight).sum()
    margins = logits[PAIRS[:, 0], 0] - logits[PAIRS[:, 1], 0]
    return -torch.nn.functional.logsigmoid(margins).mean()


def gradients(model, ids, types, weight):
    """The loss and the gradient of every parameter, by name."""
    model.zero_grad()
    loss = loss_of(torch.cat(run(model, ids, types)[0]), weight)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def adamw(model, ids, types):
    """Ten AdamW steps on a copy of `model`: the losses, the final parameters, the gradients of each step."""
    model = copy.deepcopy(model)
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "norm" in name.lower()]
    decayed = [p for p in model.parameters() if all(p is not q for q in plain)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY},
                                   {"params": plain, "weight_decay": 0.0}], **ADAMW)
    losses, every = [], []
    for _ in range(STEPS):
        loss, grads = gradients(model, ids, types, None)
        losses.append(loss)
        every.append(grads)
        optimizer.step()
    return torch.tensor(losses), {name: p.detach() for name, p in model.named_parameters()}, every


def expected(name, model, labels, with_gradients, with_adamw):
    """What goes into expected.safetensors and expected.json, from `model` in its own precision.

    The third value is the gradients of the ten AdamW steps.
    """
    ids, types = inputs(name, model.config.model_type)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    tensors = {"input_ids": torch.cat(ids), "token_type_ids": torch.cat(types), "offsets": offsets}
    with torch.no_grad():
        logits, states, pooled = run(model, ids, types)
    tensors["last_hidden_state"] = torch.cat(states)
    if "SequenceClassification" in type(model).__name__:
        tensors["logits"] = torch.cat(logits)
    elif pooled:
        tensors["pooler_output"] = torch.cat(pooled)
    facts, every = {"kind": type(model).__name__}, []
    if with_gradients:
        weight = None
        if labels == 1:
            tensors["pairs"] = PAIRS
        else:
            tensors["loss.weight"] = torch.randn(len(LENGTHS), labels, generator=tiny.generator("loss weight"))
            weight = tensors["loss.weight"]
        facts["loss"], grads = gradients(model, ids, types, weight)
        tensors |= {f"grad.{key}": value for key, value in grads.items()}
    if with_adamw:
        tensors["adamw.losses"], final, every = adamw(model, ids, types)
        tensors |= {f"adamw.final.{key}": value for key, value in final.items()}
        facts["adamw"] = {**ADAMW, "steps": STEPS, "weight_decay": WEIGHT_DECAY,
                          "weight_decay_on": "all but biases and LayerNorm weights", "clip": None}
    return tensors, facts, every


def difference(one, other, noise):
    """Largest |one - other| of each kind of tensor, without noise."""
    largest = {}
    for key in one:
        parameter = key.removeprefix("adamw.final.")
        kind = key.removesuffix("." + parameter) if parameter != key else key.split(".")[0]
        value = tiny.largest_difference(parameter, one[key], other[key], noise)
        largest[kind] = max(largest.get(kind, 0.0), value)
    return {kind: float(f"{value:.1e}") for kind, value in largest.items()}


def make(name, directory):
    """Write one checkpoint and its expected numbers into `directory`."""
    kind, labels, with_gradients, with_adamw = CASES[name]
    model = tiny.build(kind, name, labels=labels)
    assert not any(module.training for module in model.modules()), "dropout must be off"
    shard = {"max_shard_size": "40KB"} if name == "bert_sharded" else {}
    model.save_pretrained(directory, **shard)
    arguments = (labels, with_gradients, with_adamw)
    tensors, facts, single = expected(name, model, *arguments)
    double, _, exact = expected(name, copy.deepcopy(model).double(), *arguments)
    facts["noise"] = tiny.noise(exact, single) if with_adamw else {}
    computed = {key: value for key, value in tensors.items() if value.is_floating_point() and key != "loss.weight"}
    facts["float32_error"] = difference(computed, double, facts["noise"])
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "expected.safetensors")
    tiny.write_json(directory / "expected.json", facts)
    return facts


def check(name):
    """Regenerate one case beside the committed files; the largest difference of any tensor."""
    return tiny.compare_fresh(lambda fresh: make(name, fresh), tiny.MODELS / name,
                              lambda new, old, facts: max(difference(new, old, facts["noise"]).values()))


def main():
    parser = argparse.ArgumentParser(description="Tiny checkpoints and PyTorch's numbers for them.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "safetensors")
    tiny.deterministic()
    failed = False
    for name in arguments.names or CASES:
        if arguments.check:
            worst = check(name)
            failed |= worst > 1e-5
            print(f"{name}: largest difference {worst:.1e}")
        else:
            print(name, json.dumps(make(name, tiny.MODELS / name)["float32_error"]))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
