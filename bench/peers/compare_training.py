"""`kudos train` beside TRL's RewardTrainer: the same pairs, base, steps and batch, runs interleaved.

    python bench/peers/compare_training.py --base DIR --pairs pairs.jsonl --kudos target/release/kudos \\
        --max-steps 60 --repeats 3 --precision f32 --json bench/results/train_f32.json

Every round runs TRL, then Kudos with TRL's recipe (every pair encoded on its own: the same work), then Kudos'
default recipe (each response encoded once, 4 groups a step: other work for the same kind of supervision). A share of
the prompts is held out once, for all. Reported are medians, and the medians of the ratios within a round.

Seconds are those of the training loop alone: `trainer.train()`, and the sum of the steps in run/metrics.jsonl.
Tokens are real ones. Peak memory is the whole process's, with loading and evaluation.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def settings():
    parser = argparse.ArgumentParser(description="kudos train beside TRL's RewardTrainer.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--kudos", type=Path, required=True)
    parser.add_argument("--max-steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["f32"], default="f32")
    parser.add_argument("--hold-out", type=int, default=5, help="every n-th prompt is held out")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def split(pairs, every, folder):
    """train.jsonl and eval.jsonl, with no prompt on both sides."""
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    held_out = set(sorted({row["prompt"] for row in rows})[::every])
    for name, wanted in [("train.jsonl", False), ("eval.jsonl", True)]:
        part = [row for row in rows if (row["prompt"] in held_out) == wanted]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))


def measured(command):
    """Runs a command; its peak resident memory in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed: {' '.join(map(str, command))}")
    return usage.ru_maxrss / 1024


def trl(args, folder):
    out = folder / "trl.json"
    command = [sys.executable, HERE / "trl_train.py", "--base", args.base, "--train-file", folder / "train.jsonl",
               "--eval-file", folder / "eval.jsonl", "--max-steps", args.max_steps, "--batch-size", args.batch_size,
               "--precision", args.precision, "--no-shuffle", "--json", out]
    memory = measured([str(word) for word in command])
    result = json.loads(out.read_text())
    seconds = result["seconds"]
    return {"seconds": seconds, "tokens_per_second": result["tokens"] / seconds, "memory_mib": memory,
            "pairs_per_second": args.max_steps * args.batch_size / seconds, "accuracy": result["held_out"]["accuracy"],
            "losses": result["losses"]}


def kudos(args, folder, recipe):
    judge = folder / f"judge-{recipe}"
    order = ["--no-shuffle"] if recipe == "trl" else []
    command = [args.kudos, "train", folder / "train.jsonl", "--eval", folder / "eval.jsonl", "--base", args.base,
               "-o", judge, "--overwrite", "--recipe", recipe, "--precision", args.precision, "--quiet", *order,
               "--max-steps", args.max_steps, "--batch-size", args.batch_size, "--eval-every", args.max_steps]
    memory = measured([str(word) for word in command])
    steps = [json.loads(line) for line in (judge / "run/metrics.jsonl").read_text().splitlines()]
    seconds = sum(step["seconds"] for step in steps)
    return {"seconds": seconds, "tokens_per_second": sum(step["tokens"] for step in steps) / seconds,
            "memory_mib": memory, "pairs_per_second": sum(step["pairs"] for step in steps) / seconds,
            "accuracy": steps[-1]["eval_accuracy"], "losses": [step["loss"] for step in steps]}


def main():
    args = settings()
    programs = {"TRL": trl, "Kudos, TRL's recipe": lambda a, f: kudos(a, f, "trl"),
                "Kudos, default recipe": lambda a, f: kudos(a, f, "default")}
    runs = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        split(args.pairs, args.hold_out, Path(folder))
        for _ in range(args.repeats):
            for name, program in programs.items():
                runs[name].append(program(args, Path(folder)))
                print(name, {k: round(v, 3) for k, v in runs[name][-1].items() if k != "losses"}, flush=True)
    keys = ["seconds", "tokens_per_second", "pairs_per_second", "memory_mib", "accuracy"]
    print(f"\n| {args.max_steps} steps, {args.precision} | " + " | ".join(keys) + " | tokens/s against TRL | pairs/s against TRL |")
    print("|---" * (len(keys) + 3) + "|")
    table = {}
    for name, results in runs.items():
        row = {key: statistics.median(result[key] for result in results) for key in keys}
        for key in ["tokens_per_second", "pairs_per_second"]:
            ratios = [mine[key] / theirs[key] for mine, theirs in zip(results, runs["TRL"])]
            row[f"{key}_ratio"] = statistics.median(ratios)
        table[name] = row
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                 "pairs": args.pairs.name, "base": args.base.name, "max_steps": args.max_steps}
        args.json.write_text(json.dumps({**facts, "table": table, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
