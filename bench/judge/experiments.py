"""What was tried for the default recipe and the judge in the box, on held-out fifths of the training sets.

    python bench/judge/experiments.py --kudos target/release/kudos --data DATA/train --base MINILM --work DIR [NAME...]

Each experiment is a row of `EXPERIMENTS`: the sets it trains on and its flags. Results are added to
bench/results/experiments.json; bench/journal.md is the table of them with what follows from it.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

from fifths import SETS, split

ALL = list(SETS)
RESULTS = Path(__file__).parent.parent / "results" / "experiments.json"

EXPERIMENTS: dict[str, tuple[list[str], str]] = {
    "qa, 5e-5": (["qa_feedback"], "--batch-size 4 --epochs 3 --learning-rate 5e-5"),
    "qa, 2e-4": (["qa_feedback"], "--batch-size 4 --epochs 3 --learning-rate 2e-4"),
    "ukp, 200 steps": (["ukpconvarg1"], "--batch-size 4 --max-steps 200 --eval-every 100000"),
    "all, one epoch": (ALL, "--batch-size 4 --epochs 1 --learning-rate 1e-4 --eval-every 250"),
    "all, three epochs": (ALL, "--batch-size 4 --epochs 3 --learning-rate 1e-4 --max-length 256 --eval-every 1000000"),
    "ukp, one at a time": (["ukpconvarg1"], "--epochs 1 --learning-rate 1e-4 --batch-size 1 --eval-every 40"),
    "ukp, four at a time": (["ukpconvarg1"], "--epochs 1 --batch-size 4 --eval-every 10"),
    "ukp, TRL": (["ukpconvarg1"], "--recipe trl --epochs 1 --learning-rate 1e-4 --eval-every 365"),
    "hh, 3e-5": (["hh_harmless"], "--epochs 1 --learning-rate 3e-5 --eval-every 186 --head-first false"),
    "hh, 1e-4": (["hh_harmless"], "--epochs 1 --learning-rate 1e-4 --eval-every 93"),
}


def run(args, name: str, paths: dict) -> dict:
    sets, flags = EXPERIMENTS[name]
    out = args.work / "runs" / name
    train = [str(paths[s]["train"]) for s in sets]
    test = [str(paths[s]["test"]) for s in sets]
    command = [args.kudos, "train", *train, "--eval", *test, "--base", args.base, "-o", str(out), "--overwrite", "--json", "--quiet"]
    started = time.time()
    report = json.loads(subprocess.run(command + flags.split(), check=True, capture_output=True, text=True).stdout)["data"][0]
    lines = [json.loads(line) for line in open(out / "run" / "metrics.jsonl", encoding="utf-8")]
    evaluations = [line for line in lines if "eval_accuracy" in line]
    return {
        "name": name,
        "sets": sets,
        "flags": flags,
        "steps": lines[-1]["step"],
        "tokens": sum(line["tokens"] for line in lines),
        "seconds": round(time.time() - started),
        "last": evaluations[-1]["eval_accuracy"],
        "best": report["accuracy"],
        "ci95": report["accuracy_ci95"],
        "subsets": {n: {"accuracy": m["accuracy"], "ci95": m["accuracy_ci95"]} for n, m in report["subsets"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kudos", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("names", nargs="*", default=list(EXPERIMENTS))
    args = parser.parse_args()
    paths = split(args.data, args.work / "fifths")
    results = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for name in args.names:
        results[name] = run(args, name, paths)
        print(name, results[name]["last"], results[name]["best"], flush=True)
        RESULTS.write_text(json.dumps(list(results.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
