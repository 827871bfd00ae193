"""`kudos train` beside TRL's RewardTrainer: the same pairs, base, steps and batch, runs interleaved.

    python bench/peers/compare_training.py --kudos target/release/kudos --distilbert DIR --minilm DIR \\
        --pandalm pandalm.pairs.jsonl --arena arena_bench.kwise.jsonl --json bench/results/training.json

Pairs: both programs encode every pair on its own, 4 pairs a step, in file order (`--recipe trl`). Rankings of four:
TRL gets all pairs of each ranking, 4 a step; Kudos gets the rankings, 4 a step, each response encoded once; what is
compared is pairs of supervision a second. Within a round each program runs once, one after the other; a row is
the median over the rounds and the median of the ratios within a round.

Seconds are those of the training loop without the first steps. Tokens are real ones. Peak memory is the
whole process's. TRL runs at its best (bf16 autocast, fused AdamW, no gradient checkpointing) and with its defaults.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

from machine import facts, has_low_precision, measured, row

HERE = Path(__file__).parent
WARM = 5


def settings():
    parser = argparse.ArgumentParser(description="kudos train beside TRL's RewardTrainer.")
    for name in ["kudos", "distilbert", "minilm", "pandalm", "arena"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", default="", help="run the groups of rows whose name holds this")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def as_pairs(rows):
    """{prompt, chosen, rejected} of pair rows and of comparisons that are no ties."""
    for one in rows:
        if "chosen" in one:
            yield {key: one[key] for key in ("prompt", "chosen", "rejected")}
        elif one.get("label") in ("a", "b"):
            better, worse = ("a", "b") if one["label"] == "a" else ("b", "a")
            yield {"prompt": one["prompt"], "chosen": one[f"response_{better}"], "rejected": one[f"response_{worse}"]}


def of_four(rows):
    """Groups cut to four responses of different standing, as {prompt, responses: [{text, rank}]}."""
    for one in rows:
        key = "score" if "score" in one["responses"][0] else "rank"
        sign = -1 if key == "score" else 1
        responses = [r for r in one["responses"] if r.get(key) is not None][:4]
        ranks = sorted({sign * r[key] for r in responses})
        if len(responses) == 4 and len(ranks) == 4:
            yield {"prompt": one["prompt"], "responses": [
                {"text": r["text"], "rank": 1 + ranks.index(sign * r[key])} for r in responses]}


def pairs_of(groups):
    for group in groups:
        for better, worse in itertools.combinations(sorted(group["responses"], key=lambda r: r["rank"]), 2):
            yield {"prompt": group["prompt"], "chosen": better["text"], "rejected": worse["text"]}


def long_pairs(count):
    """Pairs whose every text fills the limit of 512 tokens, of plain words."""
    words = "river stone window garden music paper silver orange people number system market".split()
    text = lambda seed: " ".join(words[(seed * 7 + i * i) % len(words)] for i in range(600))
    return [{"prompt": f"question {i}", "chosen": text(2 * i), "rejected": text(2 * i + 1)} for i in range(count)]


def trl(base, data, args, folder, precision=None, checkpointing=False):
    precision = precision or args.precision
    out = folder / "trl.json"
    command = [sys.executable, HERE / "trl_train.py", "--base", base, "--train-file", data, "--max-steps", args.steps,
               "--batch-size", 4, "--precision", precision, "--no-shuffle", "--warm-steps", WARM, "--json", out]
    memory = measured(command + ["--gradient-checkpointing"] * checkpointing)
    result = json.loads(out.read_text())
    speed = result["warm_tokens_per_second"]
    # Every step has 4 pairs, so the rates are in the proportion of the totals.
    return {"tokens": speed, "pairs": speed * 4 * args.steps / result["tokens"], "memory": memory}


def kudos(base, data, args, folder, precision=None, recipe="trl", threads=2):
    precision = precision or args.precision
    judge = folder / "judge"
    command = [args.kudos, "train", data, "--base", base, "-o", judge, "--overwrite", "--recipe", recipe, "--precision",
               precision, "--max-steps", args.steps, "--batch-size", 4, "--eval-fraction", 0, "--no-shuffle", "--quiet",
               "--threads", threads, "--save-every", 10 * args.steps]
    memory = measured(command)
    steps = read(judge / "run/metrics.jsonl")[WARM:]
    seconds = sum(step["seconds"] for step in steps)
    return {"tokens": sum(step["tokens"] for step in steps) / seconds,
            "pairs": sum(step["pairs"] for step in steps) / seconds, "memory": memory}


def rounds(programs, args):
    """Results of each program, a list over the rounds; programs take turns."""
    results = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, program in programs.items():
            results[name].append(program())
    return results


def values(results, name, key):
    return [result[key] for result in results[name]]


def pairs_rows(label, base, data, args, folder, targets):
    """Rows of pair training for one base and data; `targets` names the peers wanted."""
    peers = {"TRL at its best": lambda: trl(base, data, args, folder),
             "TRL's defaults": lambda: trl(base, data, args, folder, checkpointing=True),
             "TRL f32": lambda: trl(base, data, args, folder, "f32")}
    programs = {args.precision: lambda: kudos(base, data, args, folder)}
    if "TRL f32" in targets:
        programs["f32"] = lambda: kudos(base, data, args, folder, "f32")
    results = rounds({**programs, **{name: peers[name] for name in targets}}, args)
    for name, target in targets.items():
        own = "f32" if name == "TRL f32" else args.precision
        yield row(f"{label}, {own}", name, "tokens/s", values(results, own, "tokens"),
                  values(results, name, "tokens"), target)


def ranking_rows(label, base, groups, pairs, args, folder, target):
    results = rounds({"kudos": lambda: kudos(base, groups, args, folder, recipe="default"),
                      "trl": lambda: trl(base, pairs, args, folder)}, args)
    yield row(label, "TRL at its best, all pairs", "pairs/s", values(results, "kudos", "pairs"),
              values(results, "trl", "pairs"), target)


def memory_rows(base, data, args, folder):
    short = argparse.Namespace(**{**vars(args), "steps": 8, "rounds": 1})
    results = rounds({"kudos": lambda: kudos(base, data, short, folder),
                      "trl": lambda: trl(base, data, short, folder)}, short)
    yield row("DistilBERT size, peak memory, 4 pairs of 512 tokens", "TRL at its best", "MiB",
              values(results, "kudos", "memory"), values(results, "trl", "memory"), 2.0, higher_is_better=False)


def thread_rows(base, data, args, folder):
    results = rounds({threads: lambda n=threads: kudos(base, data, args, folder, threads=n) for threads in (2, 1)},
                     args)
    yield row("DistilBERT size, pairs, 2 threads over 1", "Kudos, 1 thread", "tokens/s", values(results, 2, "tokens"),
              values(results, 1, "tokens"), 1.85)


def main():
    args = settings()
    found = {"machine": facts(), "steps": args.steps, "rows": []}
    # Without the instructions, bf16 is emulated and slower than f32 for both: f32 is everybody's best there.
    args.precision = "bf16" if has_low_precision(found["machine"]) else "f32"
    print(f"precision of both programs, unless a row says another: {args.precision}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        panda = write(folder / "pandalm.jsonl", as_pairs(read(args.pandalm)))
        four = list(of_four(read(args.arena)))
        groups, arena = write(folder / "groups.jsonl", four), write(folder / "arena.jsonl", pairs_of(four))
        long = write(folder / "long.jsonl", long_pairs(4 * 8))
        best = "TRL at its best"
        distilbert, minilm = args.distilbert, args.minilm
        work = {
            "pandalm": lambda: pairs_rows("DistilBERT size, pairs (PandaLM)", distilbert, panda, args, folder,
                                          {best: 2.5, "TRL's defaults": 3.0, "TRL f32": 3.0}
                                          if args.precision == "bf16" else {"TRL f32": 3.0}),
            "arena": lambda: pairs_rows("DistilBERT size, pairs (arena_bench)", distilbert, arena, args, folder,
                                        {best: 2.5, "TRL's defaults": 3.0}
                                        if args.precision == "bf16" else {"TRL f32": 3.0}),
            "rankings": lambda: ranking_rows("DistilBERT size, rankings of four", distilbert, groups, arena, args,
                                             folder, 6.0),
            "minilm-pairs": lambda: pairs_rows("MiniLM-L6, pairs (PandaLM)", minilm, panda, args, folder, {best: 3.0}),
            "minilm-rankings": lambda: ranking_rows("MiniLM-L6, rankings of four", minilm, groups, arena, args, folder,
                                                    7.0),
            "memory": lambda: memory_rows(distilbert, long, args, folder),
            "threads": lambda: thread_rows(distilbert, panda, args, folder),
        }
        for key, rows in work.items():
            if args.only in key:
                found["rows"].extend(rows())
                if args.json:
                    args.json.parent.mkdir(parents=True, exist_ok=True)
                    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
