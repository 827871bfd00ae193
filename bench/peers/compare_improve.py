"""`kudos improve` beside TRL's GRPO: the same start model, prompts, samples, steps and judge, in turns.

    python bench/peers/compare_improve.py --kudos target/release/kudos --model SMOLLM2_DIR \\
        --prompts prompts.jsonl --held-out held_out.jsonl --json bench/results/improve.json

`--model` is a Hugging Face checkpoint (of a GGUF file: what `kudos improve` writes of it). The prompts are JSONL with a
column `prompt`. TRL asks the judge through `kudos serve`, so the judge's memory is not in TRL's figure; it is in that of
`kudos improve`. Both results answer the held-out prompts through `kudos generate`, with the same seed, at the temperature of the
training, and `kudos score` scores the answers. The gain is paired by prompt.
"""

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import machine

HERE = Path(__file__).parent


def settings():
    parser = argparse.ArgumentParser(description="`kudos improve` beside TRL's GRPO.")
    parser.add_argument("--kudos", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--judge", default="kudos-judge")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=4, help="answers to each held-out prompt")
    parser.add_argument("--f32", action="store_true", help="TRL without bf16 autocast")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def shared(args, seed):
    return ["--steps", str(args.steps), "-n", str(args.n), "--max-new-tokens", str(args.max_new_tokens),
            "--learning-rate", str(args.learning_rate), "--seed", str(seed)]


def measured(command):
    """Runs a command; gives what it printed, and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return printed, usage.ru_maxrss / 1024


def kudos(args, folder, seed):
    out = folder / f"kudos{seed}"
    _, memory = measured([args.kudos, "improve", "--model", args.model, "--prompts", args.prompts, "--judge", args.judge,
                          "--held-out", "0", "--save-every", "0", "-o", out, "--quiet", *shared(args, seed)])
    lines = [json.loads(line) for line in (out / "run/metrics.jsonl").open()]
    return {"out": out, "steps": [line["seconds"] for line in lines], "maxrss_mb": memory}


def trl(args, folder, seed):
    out = folder / f"trl{seed}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([args.kudos, "serve", "--judge", args.judge, "--port", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health/ready")
        printed, memory = measured(
            [sys.executable, HERE / "improve_peer.py", "--model", args.model, "--prompts", args.prompts, "--url",
             f"http://127.0.0.1:{port}", "--out", out, *shared(args, seed), *(["--f32"] if args.f32 else [])])
    finally:
        server.terminate()
        server.wait()
    return {"out": out, "steps": json.loads(printed.splitlines()[-1])["steps"], "maxrss_mb": memory}


def wait_for(url):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def scores(args, model, folder):
    """The mean score of each held-out prompt's answers."""
    answers, scored = folder / "answers.jsonl", folder / "scored.jsonl"
    for file in (answers, scored):
        file.unlink(missing_ok=True)
    measured([args.kudos, "generate", "--model", model, "--prompts", args.held_out, "-n", str(args.samples),
              "--temperature", "1", "--top-p", "1", "--repetition-penalty", "1", "--distinct", "off", "--precision",
              "bf16", "--max-new-tokens", str(args.max_new_tokens), "-o", answers, "--quiet"])
    measured([args.kudos, "score", answers, "--judge", args.judge, "-o", scored, "--quiet"])
    found = {}
    for line in scored.open():
        row = json.loads(line)
        found.setdefault(json.dumps(row["prompt"]), []).append(row["score"])
    return {prompt: statistics.mean(all) for prompt, all in found.items()}


def gain(before, after):
    """Mean of the differences by prompt, and half of its 95 % interval (1.96 standard errors, or Student's for few)."""
    differences = [after[prompt] - before[prompt] for prompt in before]
    n = len(differences)
    z = 1.96 + (1.96**3 + 1.96) / 4 / (n - 1)
    return statistics.mean(differences), z * statistics.stdev(differences) / math.sqrt(n)


def main():
    args = settings()
    found = {"machine": machine.facts(), "settings": {k: str(v) for k, v in vars(args).items()}, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        before = scores(args, args.model, folder)
        for round in range(args.rounds):
            for name, program in (("kudos", kudos), ("trl", trl)):
                run = program(args, folder, 42 + round)
                mean, half = gain(before, scores(args, run["out"], folder))
                step = statistics.median(run["steps"][1:])
                print(f"{name}: {step:.2f} s a step, {run['maxrss_mb']:.0f} MB, gain {mean:+.3f} ± {half:.3f}", flush=True)
                found["runs"].append({"program": name, "round": round, "seconds": run["steps"], "median_step": step,
                                      "maxrss_mb": run["maxrss_mb"], "gain": mean, "half": half})
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
