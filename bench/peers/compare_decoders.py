"""Decoder judges: `kudos score` beside transformers, and `kudos train --lora` beside TRL with PEFT.

    python bench/peers/compare_decoders.py --kudos target/release/kudos --judge JUDGE --small SMALL \\
        --arena arena_bench.kwise.jsonl --summeval summeval.kwise.jsonl --only score --json bench/results/decoders.json

`JUDGE` and `SMALL` are judge directories with a chat template and `pad_token_id`, such as `kudos convert-judge` writes
(measured: Qwen2.5-Coder-0.5B and SmolLM2-135M). `--only` names rows: score, shared, lora-small, lora-large, memory, each with
-f32 or -bf16 behind it. Programs take turns; a row is the median over the rounds, and its ratio the median of the ratios
within a round.

Scores: Kudos' time is the whole process, less the same with a single text, which is mostly loading; transformers' is
rendering, tokenising and computing. The largest difference of their scores is printed.

Training: TRL has a base in the precision that is compared, and ends after the step in which `--seconds` are over. Kudos
does as many steps on the same pairs in the same order; of rankings of four it does as many as hold these pairs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_training import long_pairs, of_four, pairs_of, read, write
from machine import facts, has_low_precision, measured, row

HERE = Path(__file__).parent
WARM = 1
SHORT = {"prompt": "What is it?", "response": "A good day."}


def settings():
    parser = argparse.ArgumentParser(description="Decoder judges beside transformers, TRL and PEFT.")
    for name in ["kudos", "judge", "small", "arena", "summeval"]:
        parser.add_argument(f"--{name}", type=lambda name: Path(name).resolve(), required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=6, help="rankings of four to score, and a sixth as many of 16")
    parser.add_argument("--steps", type=int, default=20, help="steps of training at most")
    parser.add_argument("--seconds", type=float, default=90, help="seconds of training a run, at about")
    parser.add_argument("--only", default="", help="run the groups of rows whose name begins so")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def output(command):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        sys.exit(f"not done in ten minutes: {' '.join(map(str, command))}")
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def run_kudos(args, judge, texts, precision):
    """Seconds of the process, and its scores."""
    start = time.perf_counter()
    rows = output([args.kudos, "score", texts, "--judge", judge, "--precision", precision, "--quiet"])
    return time.perf_counter() - start, [json.loads(row)["score"] for row in rows.splitlines()]


def kudos_score(args, judge, texts, precision, folder):
    loading, _ = run_kudos(args, judge, write(folder / "one.jsonl", [SHORT]), precision)
    seconds, scores = run_kudos(args, judge, texts, precision)
    return {"seconds": seconds - loading, "scores": scores}


def peer_score(judge, texts, precision):
    return json.loads(output([sys.executable, HERE / "decoder_score_peer.py", "--model", judge, "--texts", texts,
                              "--precision", precision]))


def score_rows(work, judge, texts, args, folder, precision, target):
    ours, theirs = [], []
    for _ in range(args.rounds):
        mine = kudos_score(args, judge, texts, precision, folder)
        peer = peer_score(judge, texts, precision)
        ours.append(peer["tokens"] / mine["seconds"])
        theirs.append(peer["tokens"] / peer["seconds"])
    apart = max(abs(a - b) for a, b in zip(mine["scores"], peer["scores"]))
    print(f"{len(mine['scores'])} texts, {peer['tokens']} tokens, scores differ by at most {apart:.2g}")
    yield row(f"{work}, {precision}", "transformers, padded batches of 8 by length", "tokens/s", ours, theirs, target)


def responses(groups, count):
    return [{"prompt": group["prompt"], "response": response["text"]}
            for group in groups[:count] for response in group["responses"]]


def kudos_train(args, base, data, folder, precision, steps, recipe="trl"):
    judge = folder / "judge"
    memory = measured([args.kudos, "train", data, "--base", base, "-o", judge, "--overwrite", "--recipe", recipe,
                       "--lora", 16, "--precision", precision, "--max-steps", steps, "--batch-size", 4,
                       "--eval-fraction", 0, "--no-shuffle", "--quiet", "--max-length", 512, "--new-head",
                       "--save-every", 1000])
    steps = read(judge / "run/metrics.jsonl")[WARM:]
    seconds = sum(step["seconds"] for step in steps)
    return {"pairs": sum(step["pairs"] for step in steps) / seconds, "memory": memory,
            "tokens": sum(step["tokens"] for step in steps) / seconds}


def trl_train(args, base, data, folder, precision):
    out = folder / "trl.json"
    memory = measured([sys.executable, HERE / "trl_train.py", "--base", base, "--train-file", data, "--lora", 16, "--chat",
                       "--max-steps", args.steps, "--batch-size", 4, "--precision", precision, "--base-dtype", precision,
                       "--no-shuffle", "--warm-steps", WARM, "--max-seconds", args.seconds, "--json", out])
    result = json.loads(out.read_text())
    pairs = 4 * result["steps"] * result["warm_tokens_per_second"] / result["tokens"]
    return {"pairs": pairs, "memory": memory, "steps": result["steps"], "tokens": result["warm_tokens_per_second"]}


def lora_rows(work, base, pairs, groups, args, folder, precision):
    found = {"pairs": [], "groups": [], "trl": []}
    for _ in range(args.rounds):
        peer = trl_train(args, base, pairs, folder, precision)
        found["trl"].append(peer)
        found["pairs"].append(kudos_train(args, base, pairs, folder, precision, peer["steps"]))
        # A ranking of four holds six pairs: a step of four holds 24.
        of_groups = max(1 + WARM, peer["steps"] * 4 // 24)
        found["groups"].append(kudos_train(args, base, groups, folder, precision, of_groups, "default"))
        print({name: results[-1] for name, results in found.items()}, flush=True)
    values = lambda name, what: [one[what] for one in found[name]]
    peer = "TRL + PEFT"
    yield row(f"{work}: LoRA r 16, pairs, {precision}", peer, "tokens/s", values("pairs", "tokens"),
              values("trl", "tokens"), 2)
    yield row(f"{work}: LoRA r 16, rankings of four, {precision}", f"{peer}, all pairs", "pairs/s",
              values("groups", "pairs"), values("trl", "pairs"), 6)


def memory_rows(work, base, pairs, args, folder, precision):
    """Peak memory of two steps of four pairs whose texts have 512 tokens."""
    args = argparse.Namespace(**{**vars(args), "steps": 2})
    ours, theirs = [], []
    theirs.append(trl_train(args, base, pairs, folder, precision)["memory"])
    ours.append(kudos_train(args, base, pairs, folder, precision, 2)["memory"])
    yield row(f"{work}: LoRA r 16, 4 pairs of 512, peak memory, {precision}", "TRL + PEFT", "MiB", ours, theirs, 1.67,
              higher_is_better=False)


def main():
    args = settings()
    found = {"machine": facts(), "rows": []}
    precisions = ["f32", "bf16"] if has_low_precision(found["machine"]) else ["f32"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        four = list(of_four(read(args.arena)))
        arena = write(folder / "arena.jsonl", responses(four, args.groups))
        summeval = write(folder / "summeval.jsonl", responses(read(args.summeval), max(1, args.groups // 6)))
        groups, pairs = write(folder / "groups.jsonl", four), write(folder / "pairs.jsonl", pairs_of(four))
        long = write(folder / "long.jsonl", long_pairs(8))
        work = {}
        for p in precisions:
            work[f"score-{p}"] = lambda p=p: score_rows("0.5 B, arena_bench", args.judge, arena, args, folder, p, 1.3)
            work[f"shared-{p}"] = lambda p=p: score_rows("0.5 B, groups of 16 (summeval)", args.judge, summeval, args,
                                                         folder, p, 5)
            work[f"lora-small-{p}"] = lambda p=p: lora_rows("135 M", args.small, pairs, groups, args, folder, p)
            work[f"lora-large-{p}"] = lambda p=p: lora_rows("0.5 B", args.judge, pairs, groups, args, folder, p)
            work[f"memory-{p}"] = lambda p=p: memory_rows("0.5 B", args.judge, long, args, folder, p)
        for key, rows in work.items():
            if key.startswith(args.only):
                for one in rows():
                    found["rows"].append(one)
                    if args.json:
                        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
