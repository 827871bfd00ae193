"""Which base makes the best judge: heads on frozen features of every layer, on the training sets' prompts.

    python bench/judge/bases.py parts --data DATA/train --work DIR
    python bench/judge/bases.py read --work DIR NAME=BASE...     with torch and transformers; one pass a base
    python bench/judge/bases.py fit --work DIR [--versus minilm] [--show "16 last,22 mean"] NAME...

`parts` writes what every base reads, as files that `kudos train` reads too: the end of a prompt and the beginning of a response, cut by
characters, so that all bases see the same words and none is cut again. `read` writes what a linear head could read of each text after each
layer: the mean of all tokens, the mean of the response's tokens, the first token, the last one. BASE is a checkpoint of transformers;
a decoder's states get its last norm, as they do where its upper layers are left away. `fit` holds every prompt out once (five folds;
a debate of ukpconvarg1 counts as one prompt). The strength is that with the lowest loss on the other folds, the layer that with the lowest loss on the other sets.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from fifths import read as rows_of
from fifths import unit

# Groups (pairs of ukpconvarg1 and hh_harmless), and responses a group.
PARTS = {"hh_harmless": (300, 2), "qa_feedback": (170, 3), "arena_bench": (150, 3), "ukpconvarg1": (7269, 2)}
# Characters of a prompt (its end) and of a response (its beginning) that are kept.
PROMPT, RESPONSE = 400, 640
POOLS = ["mean", "response", "first", "last"]
FOLDS = 5
# Texts of a set that are read before the next set has its turn.
AT_ONCE = 128


def parts(data: Path, work: Path) -> None:
    for name, (count, responses) in PARTS.items():
        rng = random.Random(5)
        rows = rows_of(data, name)
        rows = rng.sample(rows, len(rows))[:count]  # A larger count adds to what a smaller one gave.
        with open(work / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(cut(row, name, responses, rng)) + "\n")


def cut(row: dict, name: str, responses: int, rng: random.Random) -> dict:
    kept = {"prompt": row["prompt"][-PROMPT:].strip(), "unit": unit(name, row)}
    if "chosen" in row:
        return {**kept, "chosen": row["chosen"][:RESPONSE].strip(), "rejected": row["rejected"][:RESPONSE].strip()}
    some = rng.sample(row["responses"], min(responses, len(row["responses"])))
    return {**kept, "responses": [{"text": r["text"][:RESPONSE].strip(), "score": r["score"]} for r in some]}


def load(work: Path, name: str) -> tuple[list[tuple[str, str]], list[tuple[int, int, str, str]]]:
    """The distinct texts of a set, and its comparisons: better, worse, prompt, what is held out as a whole."""
    numbers: dict[tuple[str, str], int] = {}
    pairs = []
    for line in open(work / f"{name}.jsonl", encoding="utf-8"):
        row = json.loads(line)
        if "chosen" in row:
            scored = [(row["chosen"], 1), (row["rejected"], 0)]
        else:
            scored = [(r["text"], r["score"]) for r in row["responses"]]
        of = [(numbers.setdefault((row["prompt"], text), len(numbers)), score) for text, score in scored]
        pairs += [(a, b, row["prompt"], row["unit"]) for a, x in of for b, y in of if x > y and a != b]
    return list(numbers), pairs


# --- read ---


def rendered(tokenizer, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """Ids, and 1 for the response's tokens."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        start = text.rindex(response)
        tail = len(text) - start - len(response)
    elif tokenizer.cls_token is None:  # A decoder without a template: prompt, response, end.
        text, start, tail = prompt + response + tokenizer.eos_token, len(prompt), len(tokenizer.eos_token)
    else:
        both = tokenizer(prompt, response)
        segments = [int(s == 1) for s in both.sequence_ids()]
        return both["input_ids"], segments
    coded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=not tokenizer.chat_template)
    segments = [int(start < end and a < len(text) - tail and end > start and a >= start) for a, end in coded["offset_mapping"]]
    return coded["input_ids"], segments


def batches(texts: list, most: int):
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i][0]))
    while order:
        size = max(1, most // len(texts[order[0]][0]))
        yield order[:size]
        order = order[size:]


def read(base: str, name: str, work: Path, dtype: str, tokens: int, sets: list[str]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)  # Two bases are read side by side.
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModel.from_pretrained(base, dtype=getattr(torch, dtype)).eval()
    norm = getattr(model, "norm", None)
    left = list(sets)
    while left:  # A part of each set in turn, so that a run that is stopped has read some of each.
        left = [of for of in left if not read_some(model, norm, tokenizer, work / f"{name}.{of}.npz", load(work, of)[0], tokens)]


def read_some(model, norm, tokenizer, path: Path, texts: list, tokens: int) -> bool:
    """Reads the next texts of a set and adds them to the file; true when all are there."""
    old = dict(np.load(path)) if path.exists() else {"features": np.zeros(0), "tokens": 0, "seconds": 0.0}
    done = len(old["features"])
    if done == len(texts):
        return True
    new, started = [rendered(tokenizer, *text) for text in texts[done : done + AT_ONCE]], time.process_time()
    out: list = [None] * len(new)
    for at in batches(new, tokens):
        for i, row in zip(at, states_of(model, norm, [new[i] for i in at])):
            out[i] = row
    seconds = float(old["seconds"]) + time.process_time() - started
    tokens_read = int(old["tokens"]) + sum(len(ids) for ids, _ in new)
    np.savez(path, features=np.concatenate([*([old["features"]] if done else []), np.stack(out)]), tokens=tokens_read, seconds=seconds)
    print(f"{path.stem}: {done + len(new)} of {len(texts)} texts, {tokens_read / seconds:.0f} tokens a second of one core", flush=True)
    return done + len(new) == len(texts)


def states_of(model, norm, texts: list) -> np.ndarray:
    """`[texts, layers and the table, pools, width]` of texts that fit in one batch."""
    import torch

    length = max(len(ids) for ids, _ in texts)
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    segments, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (own, segment) in enumerate(texts):
        ids[row, : len(own)], segments[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), torch.tensor(segment), 1
    given = {"token_type_ids": segments} if model.config.model_type == "bert" else {}
    with torch.inference_mode():
        states = model(ids, attention_mask=mask, output_hidden_states=True, **given).hidden_states
        if norm is not None:
            states = [norm(s) for s in states[:-1]] + [states[-1]]
        return torch.stack([pool(state.float(), mask, segments) for state in states], 1).numpy()


def pool(state, mask, segments):
    """`[texts, pools, width]`."""
    import torch

    mean = lambda which: (state * which[..., None]).sum(1) / which.sum(1, keepdim=True).clamp(min=1)
    rows = torch.arange(len(state))
    return torch.stack([mean(mask), mean(segments), state[:, 0], state[rows, mask.sum(1) - 1]], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["parts", "read", "fit"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--versus", default="minilm")
    parser.add_argument("--sets", default=",".join(PARTS))
    parser.add_argument("--show", default="", help="further readings for `fit` to show: `16 last,22 mean`")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a batch")
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sets = args.sets.split(",")
    if args.what == "parts":
        parts(args.data, args.work)
    elif args.what == "read":
        for word in args.names:
            name, base = word.split("=", 1)
            read(base, name, args.work, args.dtype, args.tokens, sets)
    else:
        import heads

        heads.table(args.work, args.names, sets, args.versus, args.show.split(","))


if __name__ == "__main__":
    main()
