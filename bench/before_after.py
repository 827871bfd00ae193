"""Two builds of `kudos` in turns: scoring, training and generating must not become slower.

    python bench/before_after.py --before OLD --after NEW --distilbert DB --minilm MINILM --smollm2 SMOLLM2.gguf \\
        --texts pandalm.pairs.jsonl --json bench/results/before_after.json

Each work is a whole process. Both builds run it once in each round, and who is first changes from round to round. A row
has the median of the seconds, and the median of the ratios within a round: above 1, the new build is faster. What is
scored and generated is compared too. `--only` names rows: score, train, generate. Give both builds the same profile.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from machine import facts, has_low_precision  # noqa: E402

PROMPTS = ["Why is the sky blue?", "Name three uses of a brick.", "What is a good way to learn a language?",
           "Describe the sea to someone who has never seen it."]


def settings():
    parser = argparse.ArgumentParser(description="Two builds of kudos in turns.")
    for name in ["before", "after", "distilbert", "minilm", "smollm2", "texts"]:
        parser.add_argument(f"--{name}", type=lambda name: Path(name).resolve(), required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=150, help="rows of the texts that are scored")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", default="", help="run the rows whose name begins so")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def works(args, folder, precisions):
    """Name → arguments, and the file whose content is to be the same."""
    texts = folder / "texts.jsonl"
    texts.write_text("".join(args.texts.read_text().splitlines(keepends=True)[:args.rows]))
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    out = folder / "out.jsonl"
    for precision in precisions:
        for name, judge in [("box", []), ("DistilBERT size", ["--judge", args.distilbert])]:
            yield f"score {name}, {precision}", ["score", texts, *judge, "--precision", precision, "-o", out], out
    for precision in [p for p in precisions if p != "int8"]:
        yield f"train MiniLM, {args.steps} steps, {precision}", [
            "train", args.texts, "--base", args.minilm, "-o", folder / "judge", "--overwrite", "--recipe", "trl",
            "--precision", precision, "--max-steps", args.steps, "--eval-fraction", 0, "--save-every", 1000], None
    yield "generate, 4 prompts x 4 responses", ["generate", "--model", args.smollm2, "--prompts", prompts, "-n", 4,
                                                "--max-new-tokens", 128, "--seed", 1, "-o", out, "--overwrite"], out


def seconds(kudos, work, out):
    if out:
        out.unlink(missing_ok=True)
        for rest in out.parent.glob(f"{out.name}.*"):
            rest.unlink()
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in [kudos, *work, "--quiet"]], capture_output=True, text=True)
    spent = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"failed: {kudos} {' '.join(map(str, work))}\n{done.stderr[-2000:]}")
    return spent, out.read_text() if out else ""


def compare(name, work, out, args):
    spent, made = {"before": [], "after": []}, {}
    for turn in range(args.rounds + 1):
        for build in (["before", "after"], ["after", "before"])[turn % 2]:
            own, made[build] = seconds(getattr(args, build), work, out)
            spent[build] += [own] if turn else []  # The first is not counted.
    ratio = statistics.median(b / a for b, a in zip(spent["before"], spent["after"]))
    before, after = (statistics.median(spent[build]) for build in ("before", "after"))
    same = made["before"] == made["after"]
    print(f"{name} | before {before:.3f} s | after {after:.3f} s | {ratio:.3f}x"
          + ("" if same else " | other output"), flush=True)
    return {"work": name, "before": before, "after": after, "ratio": ratio, "same_output": same, "rounds": args.rounds}


def main():
    args = settings()
    machine = facts()
    precisions = ["f32", "bf16", "int8"] if has_low_precision(machine) else ["f32"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for work in works(args, Path(name), precisions):
            if work[0].startswith(args.only):
                rows.append(compare(*work, args))
    slower = [row["work"] for row in rows if row["ratio"] < 0.98]
    print(f"slower by more than 2 %: {', '.join(slower) or 'none'}")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
