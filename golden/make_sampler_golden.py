"""Makes golden/sampler: which tokens transformers' logits processors keep, and with what probability.

    python golden/make_sampler_golden.py             write both files again
    python golden/make_sampler_golden.py --check     compare with what is committed, write nothing

expected.safetensors
    logits.<name>         f32 [V]    fixed logits
    seen.<name>           i32 [n]    ids of the sequence so far, some of them twice
    kept.ids              i32        for each case in turn, the tokens with a probability above 1e-30, by id
    kept.probabilities    f32        and their probabilities
cases.json
    for each case the logits' name, the settings, and the number of tokens kept

The processors are transformers' own, put together by its own `generate`; temperature 0 is greedy decoding, where the
repetition penalty is the only one that counts.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import tiny

SAMPLER = tiny.HERE / "sampler"
PLAIN = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS = [
    {}, {"temperature": 0.0}, {"temperature": 0.0, "repetition_penalty": 1.5},
    {"temperature": 0.7}, {"temperature": 1.8}, {"temperature": 0.05},
    {"repetition_penalty": 1.2}, {"repetition_penalty": 0.8}, {"repetition_penalty": 3.0, "temperature": 0.6},
    {"top_k": 1}, {"top_k": 2}, {"top_k": 7}, {"top_k": 50}, {"top_k": 100_000},
    {"top_p": 0.0}, {"top_p": 1e-6}, {"top_p": 0.3}, {"top_p": 0.8}, {"top_p": 0.95}, {"top_p": 0.999},
    {"min_p": 1.0}, {"min_p": 0.5}, {"min_p": 0.1}, {"min_p": 0.001},
    {"top_k": 20, "top_p": 0.9}, {"top_k": 20, "min_p": 0.2}, {"top_p": 0.7, "min_p": 0.05},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.5, "min_p": 0.3, "repetition_penalty": 0.9},
]


def rows():
    """(logits, ids seen) by name. No sum of probabilities comes near enough to a top-p that rounding decides."""
    random = tiny.generator("logits of the sampler")
    normal = lambda tokens, spread: spread * torch.randn(tokens, generator=random)
    seen = lambda tokens: torch.randint(0, tokens, (30,), generator=random)
    masked, one = normal(150, 2.0), torch.full((150,), -torch.inf)
    masked[::3] = -torch.inf
    one[77] = -4.0
    logits = {"usual": normal(200, 3.0), "flat": normal(130, 0.2), "sharp": normal(300, 9.0),
              "steps": normal(190, 2.0).round(), "equal": torch.full((70,), 1.5), "masked": masked, "one": one,
              "single": torch.tensor([0.3]), "large": normal(4000, 2.5)}
    return {name: (values, seen(len(values))) for name, values in logits.items()}


def model():
    """Whatever transformers can generate with: it puts the processors together."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1))


def processors(maker, sampling):
    """transformers' list for these settings."""
    asked = dict(sampling, do_sample=sampling["temperature"] > 0)
    if not asked["do_sample"]:
        asked = {"do_sample": False, "repetition_penalty": sampling["repetition_penalty"]}
    settings = transformers.GenerationConfig(**asked, max_new_tokens=1)
    settings, _ = maker._prepare_generation_config(settings)
    return maker._get_logits_processor(settings, input_ids_seq_length=1)


def lowest_of_equals(scores, before, sampling):
    """Top-p may part equal tokens, and its sort leaves open which of them go: here those with the highest ids.

    `before` are the scores without top-p and min-p.
    """
    smallest = scores[scores > -torch.inf].min()
    equals = (before == smallest).nonzero()[:, 0]
    stay = int((scores == smallest).sum())
    assert stay == len(equals) or sampling["top_p"] < 1, "only top-p parts equal tokens"
    scores[equals[stay:]] = -torch.inf
    scores[equals[:stay]] = smallest
    return scores


def kept(maker, logits, seen, sampling):
    """(ids, probabilities) of the tokens that could be drawn."""
    run = lambda settings: processors(maker, settings)(seen[None], logits[None].clone())[0]
    scores = lowest_of_equals(run(sampling), run(sampling | {"top_p": 1.0, "min_p": 0.0}), sampling)
    if sampling["temperature"] == 0:
        first = (scores == scores.max()).nonzero()[:1, 0]  # argmax leaves open which of equals it takes
        return first, torch.ones(1)
    probabilities = scores.softmax(-1)
    ids = (probabilities > 1e-30).nonzero()[:, 0]
    return ids, probabilities[ids]


def make(directory):
    """Write both files into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    maker, tensors, cases, found = model(), {}, [], []
    for name, (logits, seen) in rows().items():
        tensors[f"logits.{name}"], tensors[f"seen.{name}"] = logits, seen.int()
    for (name, (logits, seen)), changes in itertools.product(rows().items(), SETTINGS):
        sampling = PLAIN | changes
        ids, probabilities = kept(maker, logits, seen, sampling)
        if len(ids) > 300:
            continue  # the long row is there for what filters leave of it
        found.append((ids, probabilities))
        cases.append({"logits": name, "sampling": sampling, "kept": len(ids)})
    tensors["kept.ids"] = torch.cat([ids for ids, _ in found]).int()
    tensors["kept.probabilities"] = torch.cat([probabilities for _, probabilities in found])
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "expected.safetensors")
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    (directory / "cases.json").write_text(f'{{"cases": [\n{lines}\n]}}\n')
    return len(cases)


def check():
    """Make both files again; whether they are those committed, up to rounding."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        make(fresh)
        same = (fresh / "cases.json").read_text() == (SAMPLER / "cases.json").read_text()
        new, old = load_file(fresh / "expected.safetensors"), load_file(SAMPLER / "expected.safetensors")
        return same and all(torch.allclose(new[key], old[key], rtol=0, atol=1e-6) for key in new)


def main():
    parser = argparse.ArgumentParser(description="What transformers' logits processors keep.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "safetensors")
    tiny.deterministic()
    if arguments.check:
        raise SystemExit(0 if check() else "the committed files are others")
    print(make(SAMPLER), "cases")


if __name__ == "__main__":
    main()
