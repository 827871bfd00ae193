"""The default recipe beside TRL's: same base, data and epochs, held-out accuracy over sets and seeds.

    python bench/judge/compare_trl.py --kudos target/release/kudos --data DATA/train --base MINILM --work DIR [--seeds 1,2,3]

TRL's recipe is `--recipe trl`, which golden/make_trl.py shows to follow TRL's RewardTrainer step by step; its learning rate here is the
1e-4 that TRL has as a default. Each set is trained on in part (`PARTS`), so that three seeds of both fit an hour on two cores, and measured on
its held-out fifth (fifths.py), which neither sees: the default recipe chooses its checkpoint on a fifth of the training prompts.
Writes bench/results/compare_trl.json after each run, goes on from it when it is called again, and prints a table.
"""

import argparse
import json
import random
import statistics
import subprocess
import time
from pathlib import Path

from fifths import split, write

RESULTS = Path(__file__).parent.parent / "results" / "compare_trl.json"
# Rows that are trained on, and responses a group is cut to.
PARTS = {"ukpconvarg1": (800, None), "hh_harmless": (500, None), "qa_feedback": (120, 4), "arena_bench": (50, 4)}
RECIPES = {"default": "", "trl": "--recipe trl --learning-rate 1e-4"}


def part(name: str, path: Path, out: Path) -> Path:
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    count, responses = PARTS[name]
    rng = random.Random(5)
    rows = rng.sample(rows, min(count, len(rows)))
    if responses:
        rows = [{**row, "responses": rng.sample(row["responses"], min(responses, len(row["responses"])))} for row in rows]
    return write(out / f"{name}.part.jsonl", rows)


def run(args, recipe: str, train: Path, test: Path, seed: int) -> dict:
    judge = args.work / "judge"
    words = ["train", train, "--base", args.base, "-o", judge, "--overwrite", "--seed", seed, "--epochs", args.epochs, "--quiet"]
    started = time.time()
    subprocess.run([args.kudos, *map(str, words), *RECIPES[recipe].split()], check=True)
    seconds = time.time() - started
    words = ["eval", str(test), "--judge", str(judge), "--json", "--quiet"]
    report = json.loads(subprocess.run([args.kudos, *words], check=True, stdout=subprocess.PIPE, text=True).stdout)["data"][0]
    lines = [json.loads(line) for line in open(judge / "run" / "metrics.jsonl", encoding="utf-8")]
    return {
        "recipe": recipe,
        "seed": seed,
        "accuracy": report["accuracy"],
        "ci95": report["accuracy_ci95"],
        "ece": report["ece"],
        "longer": report["longer_response_accuracy"],
        "steps": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "seconds": round(seconds),
    }


def table(rows: list[dict]) -> str:
    lines = ["| set | default | TRL's | difference by seed | longer wins |", "|---|---|---|---|---|"]
    differences = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = {(row["recipe"], row["seed"]): row["accuracy"] for row in rows if row["set"] == name}
        seeds = sorted({seed for _, seed in own if ("default", seed) in own and ("trl", seed) in own})
        by_seed = [own["default", seed] - own["trl", seed] for seed in seeds]
        mean = {recipe: statistics.mean(own[recipe, seed] for seed in seeds) for recipe in RECIPES}
        differences.append(statistics.mean(by_seed))
        longer = next(row["longer"] for row in rows if row["set"] == name)
        shown = ", ".join(f"{d:+.3f}" for d in by_seed)
        lines.append(f"| {name} | {mean['default']:.3f} | {mean['trl']:.3f} | {shown} | {longer:.3f} |")
    return "\n".join([*lines, f"\nmean difference {statistics.mean(differences):+.3f}"])


def earlier(epochs: str) -> list[dict]:
    """The runs of an earlier call with the same parts and epochs: this one goes on after them."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    same = found.get("epochs") == epochs and found.get("parts") == json.loads(json.dumps(PARTS))
    return found["runs"] if same else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["--kudos", "--base"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--sets", default=",".join(PARTS))
    args = parser.parse_args()
    paths = split(args.data, args.work / "fifths")
    rows = earlier(args.epochs)
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows}
    for seed in map(int, args.seeds.split(",")):
        for name in args.sets.split(","):
            train = part(name, paths[name]["train"], args.work)
            for recipe in RECIPES:
                if (name, recipe, seed) in done:
                    continue
                rows.append({"set": name, **run(args, recipe, train, paths[name]["test"], seed)})
                print(rows[-1], flush=True)
                RESULTS.write_text(json.dumps({"epochs": args.epochs, "parts": PARTS, "runs": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
