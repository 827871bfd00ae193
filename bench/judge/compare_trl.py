"""The default recipe beside TRL's: same base, data and epochs, held-out accuracy over sets and seeds.

    python bench/judge/compare_trl.py --kudos target/release/kudos --data DATA/train --base MINILM --work DIR [--seeds 1,2,3]

TRL's recipe is `--recipe trl`, which golden/make_trl.py shows to follow TRL's RewardTrainer step by step; its learning rate here is the
1e-4 that TRL has as a default. Each seed draws other prompts to train on (`TRAIN`) and, from those left, to measure on (`TEST`): more of
these, because the accuracy of a few dozen prompts is mostly chance. A debate of ukpconvarg1 counts as one prompt, and half of the ten are
trained on. The default recipe chooses its checkpoint on a fifth of the training prompts, which it does not train on.
A run has one thread, and two runs are done side by side. Writes bench/results/compare_trl.json after each, goes on from it when it is
called again, and prints a table.
"""

import argparse
import json
import random
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fifths import draw, read, unit, write

RESULTS = Path(__file__).parent.parent / "results" / "compare_trl.json"
# Rows that are trained on and measured on, and responses a group is cut to.
TRAIN = {"ukpconvarg1": (800, None), "hh_harmless": (500, None), "qa_feedback": (120, 4), "arena_bench": (50, 4)}
TEST = {"ukpconvarg1": (5000, None), "hh_harmless": (600, None), "qa_feedback": (200, 4), "arena_bench": (150, 4)}
RECIPES = {"default": "", "trl": "--recipe trl --learning-rate 1e-4"}


def parts(args, name: str, seed: int) -> list[Path]:
    """What is trained on and what is measured on."""
    rows = read(args.data, name)
    units = sorted({unit(name, row) for row in rows})
    rng = random.Random(seed)
    rng.shuffle(units)
    trained = set(units[: len(units) // 2 if name == "ukpconvarg1" else TRAIN[name][0]])
    paths = []
    for side, counts in (("train", TRAIN), ("test", TEST)):
        own = [row for row in rows if (unit(name, row) in trained) == (side == "train")]
        paths.append(write(args.work / f"{name}.{seed}.{side}.jsonl", draw(own, *counts[name], rng)))
    return paths


def run(args, flags: str, train: Path, test: Path, seed: int, judge: Path) -> dict:
    """Trains with these flags and measures, on one thread."""
    common = ["--threads", "1", "--quiet"]
    words = ["train", train, "--base", args.base, "-o", judge, "--overwrite", "--seed", seed, "--epochs", args.epochs]
    started = time.time()
    subprocess.run([args.kudos, *map(str, words), *flags.split(), *common], check=True)
    seconds = time.time() - started
    words = ["eval", str(test), "--judge", str(judge), "--json", *common]
    report = json.loads(subprocess.run([args.kudos, *words], check=True, stdout=subprocess.PIPE, text=True).stdout)["data"][0]
    lines = [json.loads(line) for line in open(judge / "run" / "metrics.jsonl", encoding="utf-8")]
    return {
        "epochs": args.epochs,
        "seed": seed,
        "accuracy": report["accuracy"],
        "ci95": report["accuracy_ci95"],
        "log_loss": report["log_loss"],
        "ece": report["ece"],
        "longer": report["longer_response_accuracy"],
        "steps": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "seconds": round(seconds),
    }


def arguments(doc: str, seeds: str) -> argparse.ArgumentParser:
    """What both scripts that train on these parts are told."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name in ["--kudos", "--base"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default=seeds)
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--sets", default=",".join(TRAIN))
    return parser


def earlier(results: Path) -> list[dict]:
    """The runs of earlier calls on the same parts, of any number of epochs: this one goes on after them."""
    found = json.loads(results.read_text()) if results.exists() else {}
    same = [found.get("train"), found.get("test")] == json.loads(json.dumps([TRAIN, TEST]))  # with lists for tuples
    return found["runs"] if same else []


def side_by_side(jobs: list, results: Path, rows: list[dict]) -> None:
    """Does these jobs, two at a time, and adds the row that each gives to the file as soon as it is there."""
    lock = threading.Lock()

    def one(job) -> None:
        row = job()
        with lock:
            rows.append(row)
            print(row, flush=True)
            results.write_text(json.dumps({"train": TRAIN, "test": TEST, "runs": rows}, indent=1) + "\n")

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(one, job) for job in jobs]:
            future.result()


def table(rows: list[dict]) -> str:
    lines = ["| set | default | TRL's | difference by seed | log loss | TRL's | longer wins |", "|---|---|---|---|---|---|---|"]
    differences = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = {(row["recipe"], row["seed"]): row for row in rows if row["set"] == name}
        seeds = sorted({seed for _, seed in own if ("default", seed) in own and ("trl", seed) in own})
        if not seeds:
            continue
        by_seed = [own["default", seed]["accuracy"] - own["trl", seed]["accuracy"] for seed in seeds]
        mean = lambda recipe, key, own=own, seeds=seeds: statistics.mean(own[recipe, seed][key] for seed in seeds)
        differences += by_seed
        shown = ", ".join(f"{d:+.3f}" for d in by_seed)
        cells = [f"{mean(recipe, key):.3f}" for key in ("accuracy", "log_loss") for recipe in RECIPES]
        cells = [name, *cells[:2], shown, *cells[2:], f"{mean('default', 'longer'):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, f"\nmean difference {statistics.mean(differences):+.3f}"])


def main() -> None:
    args = arguments(__doc__, "1,2,3").parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = earlier(RESULTS)
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows if row["epochs"] == args.epochs}

    def job(name: str, recipe: str, seed: int) -> dict:
        judge = args.work / f"{name}.{seed}.{recipe}"
        return {"set": name, "recipe": recipe, **run(args, RECIPES[recipe], *parts(args, name, seed), seed, judge)}

    seeds = list(map(int, args.seeds.split(",")))
    wanted = [(name, recipe, seed) for seed in seeds for name in args.sets.split(",") for recipe in RECIPES]
    side_by_side([partial(job, *each) for each in wanted if each not in done], RESULTS, rows)
    print(table([row for row in rows if row["epochs"] == args.epochs]))


if __name__ == "__main__":
    main()
