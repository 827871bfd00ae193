"""Decoder judges: `kudos score` beside transformers, and `kudos train --lora` beside TRL with PEFT.

    python bench/peers/compare_decoders.py --kudos target/release/kudos --judge JUDGE --small SMALL \\
        --arena arena_bench.kwise.jsonl --summeval summeval.kwise.jsonl --json bench/results/decoders.json

`JUDGE` and `SMALL` are judge directories with a chat template and `pad_token_id`, such as `kudos convert-judge` writes
(measured: Qwen2.5-Coder-0.5B and SmolLM2-135M). Kudos' time is the whole process, less the same with a single text,
which is mostly loading; transformers' is rendering, tokenising and computing. Programs take turns; a row is the median
over the rounds, and its ratio the median of the ratios within a round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_training import of_four, pairs_of, read, write
from machine import facts, has_low_precision, measured, row

HERE = Path(__file__).parent
WARM = 2
SHORT = {"prompt": "What is it?", "response": "A good day."}


def settings():
    parser = argparse.ArgumentParser(description="Decoder judges beside transformers, TRL and PEFT.")
    for name in ["kudos", "judge", "small", "arena", "summeval"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", default="", help="run the groups of rows whose name holds this")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def output(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def seconds_of(args, judge, texts, precision):
    start = time.perf_counter()
    output([args.kudos, "score", texts, "--judge", judge, "--precision", precision, "--quiet"])
    return time.perf_counter() - start


def kudos_score(args, judge, texts, precision, folder):
    """Seconds for the texts, and seconds from the start of the process to one score."""
    start = seconds_of(args, judge, write(folder / "one.jsonl", [SHORT]), precision)
    return {"seconds": seconds_of(args, judge, texts, precision) - start, "start": start}


def peer_score(judge, texts, precision):
    start = time.perf_counter()
    found = json.loads(output([sys.executable, HERE / "decoder_score_peer.py", "--model", judge, "--texts", texts,
                               "--precision", precision]))
    return {**found, "whole": time.perf_counter() - start}


def score_rows(work, judge, texts, args, folder, precision, target):
    ours, theirs, starts, wholes = [], [], [], []
    one = write(folder / "single.jsonl", [SHORT])
    for _ in range(args.rounds):
        mine = kudos_score(args, judge, texts, precision, folder)
        peer = peer_score(judge, texts, precision)
        ours.append(peer["tokens"] / mine["seconds"])
        theirs.append(peer["tokens"] / peer["seconds"])
        starts.append(mine["start"])
        wholes.append(peer_score(judge, one, precision)["whole"])
    yield row(f"{work}, {precision}", "transformers, padded batches of 8 by length", "tokens/s", ours, theirs, target)
    yield row(f"process start to one score, {precision}", "transformers", "s", starts, wholes, 5,
              higher_is_better=False)


def responses(groups, count):
    return [{"prompt": group["prompt"], "response": response["text"]}
            for group in groups[:count] for response in group["responses"]]


def kudos_train(args, base, data, folder, precision, recipe="trl"):
    judge = folder / "judge"
    memory = measured([args.kudos, "train", data, "--base", base, "-o", judge, "--overwrite", "--recipe", recipe,
                       "--lora", 16, "--precision", precision, "--max-steps", args.steps, "--batch-size", 4,
                       "--eval-fraction", 0, "--no-shuffle", "--quiet", "--max-length", 512, "--new-head",
                       "--save-every", 10 * args.steps])
    steps = read(judge / "run/metrics.jsonl")[WARM:]
    seconds = sum(step["seconds"] for step in steps)
    return {"pairs": sum(step["pairs"] for step in steps) / seconds, "memory": memory}


def trl_train(args, base, data, folder, precision):
    out = folder / "trl.json"
    memory = measured([sys.executable, HERE / "trl_train.py", "--base", base, "--train-file", data, "--lora", 16, "--chat",
                       "--max-steps", args.steps, "--batch-size", 4, "--precision", precision, "--no-shuffle",
                       "--warm-steps", WARM, "--json", out])
    result = json.loads(out.read_text())
    pairs = 4 * args.steps * result["warm_tokens_per_second"] / result["tokens"]
    return {"pairs": pairs, "memory": memory}


def lora_rows(work, base, pairs, groups, args, folder, precision):
    found = {"pairs": [], "groups": [], "trl": []}
    for _ in range(args.rounds):
        found["pairs"].append(kudos_train(args, base, pairs, folder, precision))
        found["trl"].append(trl_train(args, base, pairs, folder, precision))
        found["groups"].append(kudos_train(args, base, groups, folder, precision, "default"))
    rate = lambda name: [one["pairs"] for one in found[name]]
    memory = lambda name: [one["memory"] for one in found[name]]
    peer = "TRL + PEFT"
    yield row(f"{work}: LoRA r 16, pairs, {precision}", peer, "pairs/s", rate("pairs"), rate("trl"), 2)
    yield row(f"{work}: LoRA r 16, rankings of four, {precision}", f"{peer}, all pairs", "pairs/s", rate("groups"),
              rate("trl"), 6)
    yield row(f"{work}: LoRA r 16, peak memory, {precision}", peer, "MiB", memory("pairs"), memory("trl"), 1.67,
              higher_is_better=False)


def main():
    args = settings()
    found = {"machine": facts(), "rows": []}
    precisions = ["f32", "bf16"] if has_low_precision(found["machine"]) else ["f32"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        four = list(of_four(read(args.arena)))
        arena = write(folder / "arena.jsonl", responses(four, 6))
        summeval = write(folder / "summeval.jsonl", responses(read(args.summeval), 1))
        groups, pairs = write(folder / "groups.jsonl", four), write(folder / "pairs.jsonl", pairs_of(four))
        work = {}
        for p in precisions:
            work[f"score-{p}"] = lambda p=p: score_rows("0.5 B, arena_bench", args.judge, arena, args, folder, p, 1.3)
            work[f"shared-{p}"] = lambda p=p: score_rows("0.5 B, groups of 16 (summeval)", args.judge, summeval, args,
                                                         folder, p, 5)
            work[f"lora-small-{p}"] = lambda p=p: lora_rows("135 M", args.small, pairs, groups, args, folder, p)
            work[f"lora-{p}"] = lambda p=p: lora_rows("0.5 B", args.judge, pairs, groups, args, folder, p)
        for key, rows in work.items():
            if args.only in key:
                for one in rows():
                    found["rows"].append(one)
                    if args.json:
                        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
