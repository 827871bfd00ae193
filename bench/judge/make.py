"""Makes the judge in the box again, from the data: split, train, calibrate, round to 8 bits, measure, pack.

    python bench/judge/make.py --kudos target/release/kudos --data DATA --base MINILM --work DIR [--pack assets/judge]

`DATA` has `train/` and `eval/`. The judge is trained on four fifths of the prompts of each set of `train/`; the last
fifth gives the temperature and the held-out figures of the card. `eval/` is read for the card alone, after everything
is decided. Needs the program `zstd` to pack.
"""

import argparse
import json
import random
import shutil
import subprocess
from pathlib import Path

from fifths import SETS, draw, split, unit, write

# The default recipe without a fitted head, so with all layers but one below the mean, in steps of two visits; it is
# evaluated at its end alone, since that reads five thousand responses.
RECIPE = "--head-first false --epochs 1 --batch-size 2 --eval-every 1000000 --precision f32 --seed 42"
# Rows of a set that are trained on, and responses a group is cut to.
SHARES = {
    "ukpconvarg1": (None, None),
    "hh_harmless": (500, None),
    "qa_feedback": (None, None),
    "arena_bench": (None, 4),
    "summeval": (None, 4),
}
MISMATCHED = {"train": 600, "test": 300}
FILES = [
    "config.json",
    "model.int8.safetensors",
    "reward.json",
    "README.md",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
]
LICENSES = {
    "ukpconvarg1": "CC-BY 4.0 (UKPConvArg1Strict, Habernal and Gurevych 2016)",
    "hh_harmless": "MIT (Anthropic HH-RLHF, harmless-base)",
    "qa_feedback": "Apache-2.0 (FineGrainedRLHF, Wu et al. 2023)",
    "arena_bench": "Apache-2.0; ratings by GPT-4",
    "summeval": "MIT (Fabbri et al. 2021)",
}


def kudos(args, *words: str) -> str:
    command = [args.kudos, *words, "--quiet"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(args, judge: Path, files: list[Path]) -> list[dict]:
    return json.loads(kudos(args, "eval", *map(str, files), "--judge", str(judge), "--json"))["data"]


def percent(metrics: dict) -> str:
    low, high = metrics["accuracy_ci95"]
    return f"{metrics['accuracy']:.3f} ({low:.3f} to {high:.3f})"


def row(name: str, metrics: dict) -> str:
    correlation = metrics["length_partial_correlation"]
    length = "–" if correlation is None else f"{correlation:+.2f}"
    return (
        f"| {name} | {metrics['pairs']} | {metrics['prompts']} | {percent(metrics)} "
        f"| {metrics['longer_response_accuracy']:.3f} | {metrics['ece']:.3f} | {length} |"
    )


def card(held_out: list[dict], evaluation: list[dict], reward: dict) -> str:
    head = "| set | pairs | prompts | accuracy (95 % interval) | longer wins | ECE | length |\n|---|---|---|---|---|---|---|"
    named = [(Path(report["file"]).name.split(".")[0], report) for report in held_out]
    others = [(Path(report["file"]).name.split(".")[0], report) for report in evaluation]
    data = "\n".join(f"| {name} | {license} |" for name, license in LICENSES.items())
    calibration = reward["calibration"]
    return f"""# The judge in the box

A reward model of 22 million parameters: all-MiniLM-L6-v2 (Apache-2.0) with a head, trained by `kudos train` on five permissively licensed sets
of preferences, stored in 8 bits. It answers on the first minute and is a base for a judge of your own. It is small, and it is wrong often: read the tables.

## Data

| set | license |
|---|---|
{data}

Four fifths of the prompts of each set; a debate of ukpconvarg1 counts as one prompt. Of hh_harmless {SHARES["hh_harmless"][0]} pairs, of each group of arena_bench
and half group of summeval {SHARES["summeval"][1]} responses. And {MISMATCHED["train"]} pairs that no set has, of a good response to a prompt and one to another prompt, often a refusal: without
them it learns from harmlessness alone what a refusal is worth. `reward.json` has the settings and the hashes of the files.

## Held-out prompts of the same sets

{head}
{chr(10).join(row(name, report) for name, report in named)}

`mismatched` are pairs of a response to the prompt and one to another prompt, `arena_apart` the pairs of arena_bench at least two points apart. "longer wins" is the accuracy of always choosing the longer response on the same
pairs; "length" is the correlation of score and log length within a prompt, given people's order. The temperature ({calibration["temperature"]:.2f}) was fitted on
these very prompts, and four ways to make the judge were compared on them, so these figures are slightly optimistic.

## Other data, looked at after everything was decided

{head}
{chr(10).join(row(name, report) for name, report in others)}

## What it is not for

- It is no general judge: on chat and instructions (arena_bench, pandalm) it is little better than chance, and no better than "the longer one wins".
- It likes longer responses, beyond what people's order says, and on harmlessness shorter ones (the column "length").
- It does not know whether an answer is true, or code correct: on judgebench and qa_feedback it is at chance.
- It is easily misled by answers that look good: on the adversarial part of llmbar it is worse than chance.
- It tells a refusal from an answer, not when to refuse: on xstest it is at chance where a refusal is due and where it is not.
- English only. Texts are cut to {reward["max_length"]} tokens.
- Optimising a language model hard against it will find its mistakes. Do not use it to decide about people, and do not publish its score as a measure of
  quality without saying what it is.

Made by `bench/judge/make.py`; what was tried before is in `bench/journal.md`.
"""


def mixture(paths: dict[str, dict[str, Path]], part: str) -> dict[str, list[dict]]:
    """What is trained on: of each set as much as `SHARES` says, and pairs that no set has, of a good response to a prompt and one
    to another prompt. Without them a judge learns from harmlessness alone what a refusal is worth, and likes it everywhere."""
    rng = random.Random(5)
    rows = {name: [json.loads(line) for line in open(paths[name][part], encoding="utf-8")] for name in SETS}
    mixed = {f"{name}.{part}.mixed": draw(rows[name], *share, rng) for name, share in SHARES.items()}
    return {**mixed, f"mismatched.{part}": mismatched(rows, rng, MISMATCHED[part])}


def mismatched(rows: dict[str, list[dict]], rng: random.Random, count: int) -> list[dict]:
    """Pairs of a good response to a prompt and one to another prompt: half of them to one of the same set, half to one of hh_harmless. Its
    own prompts get one of another set, since its refusals fit them all."""
    pairs = []
    while len(pairs) < count:
        name = rng.choice(list(SETS))
        row = rng.choice(rows[name])
        others = [other for other in SETS if other != name] if name == "hh_harmless" else [name, "hh_harmless"]
        other = rng.choice(rows[rng.choice(others)])
        good, bad = best(row), rng.choice(texts(other))
        if good and bad and unit_of(row) != unit_of(other):
            prompt = {key: row[key] for key in ("prompt", "context") if key in row}
            pairs.append({**prompt, "chosen": good, "rejected": bad, "subset": "mismatched"})
    return pairs


def unit_of(row: dict) -> str:
    return unit(row["source_set"], row)


def texts(row: dict) -> list[str]:
    return [r["text"] for r in row["responses"]] if "responses" in row else [row["chosen"], row["rejected"]]


def best(row: dict) -> str:
    return max(row["responses"], key=lambda r: r["score"])["text"] if "responses" in row else row["chosen"]


def pack(judge: Path, assets: Path) -> None:
    assets.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        command = ["zstd", "-q", "-19", "--check", "-f", str(judge / name), "-o", str(assets / f"{name}.zst")]
        subprocess.run(command, check=True)
    total = sum(path.stat().st_size for path in assets.iterdir())
    print(f"{assets}: {total / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kudos", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--keep", action="store_true", help="use the trained judge that is there")
    args = parser.parse_args()
    full, small = args.work / "full", args.work / "int8"
    paths = split(args.data / "train", args.work / "fifths")
    file_of = lambda name: args.work / "fifths" / f"{name}.jsonl"
    train = [str(write(file_of(name), rows)) for name, rows in mixture(paths, "train").items()]
    odd = write(file_of("mismatched.test"), mixture(paths, "test")["mismatched.test"])
    tests = [*(paths[name]["test"] for name in SETS), odd]
    if not args.keep:
        words = ["train", *train, "--eval", *map(str, tests), "--base", args.base, "-o", str(full), "--overwrite"]
        kudos(args, *words, *RECIPE.split())
    kudos(args, "eval", *map(str, tests), "--judge", str(full), "--calibrate")
    shutil.rmtree(small, ignore_errors=True)
    kudos(args, "quantize", "--judge", str(full), "-o", str(small))
    held_out = measure(args, small, [*tests, args.work / "fifths" / "arena_apart.test.jsonl"])
    evaluation = measure(args, small, sorted((args.data / "eval").glob("*.jsonl")))
    reward = json.loads((small / "reward.json").read_text())
    (small / "README.md").write_text(card(held_out, evaluation, reward), encoding="utf-8")
    (args.work / "figures.json").write_text(json.dumps({"held_out": held_out, "eval": evaluation}, indent=1))
    if args.pack:
        pack(small, args.pack)


if __name__ == "__main__":
    main()
