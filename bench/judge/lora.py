"""LoRA over other bases: a grid on held-out fifths of the training sets, then judges of one mixture on the evaluation sets.

    python bench/judge/lora.py parts --data DATA --work DIR
    python bench/judge/lora.py grid --kudos KUDOS --work DIR --sets hh_harmless,arena_bench --runs head,16:2e-4 NAME=BASE...
    python bench/judge/lora.py mix --kudos KUDOS --data DATA --work DIR [--share 0.5] --runs head,16:2e-4 NAME=BASE...
    python bench/judge/lora.py mix --kudos KUDOS --data DATA --work DIR --runs asis --score-flags "" box=
    python bench/judge/lora.py table --work DIR [--versus minilm.head]

`parts` writes, of each set, four fifths of the prompts to learn from and the held-out fifth, cut by characters as `bases.py` cuts them, and
a mixture of all sets, whole. A run is `head`, the head alone on the frozen base; RANK:RATE, LoRA that starts from that head; or `default`,
the default recipe, which holds out a fifth of its own. `head` has to stand before the others. BASE@15 keeps the lower 15 layers. `box=` is
the judge in the box. LoRA is kept as its last step leaves it: nothing is chosen on what is measured with. `table` compares all with one
of them, on the same pairs, by resampled prompts.
`grid` and `mix` go on where they were stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from bases import cut
from fifths import SETS, draw, fifths, read, unit, write

# Groups of a set to learn from and to measure with, and responses a group.
PARTS = {"hh_harmless": (400, 373, 2), "arena_bench": (150, 60, 4), "qa_feedback": (200, 82, 4), "ukpconvarg1": (800, 400, 2)}
# The same of the mixture, which is measured on the evaluation sets.
MIXED = {"ukpconvarg1": (400, None), "hh_harmless": (300, None), "qa_feedback": (100, 4), "arena_bench": (100, 4), "summeval": (79, 4)}
MOST_TOKENS = 256
# Fits the head, and takes one step that moves no weight beyond the last digit.
HEAD = "--max-steps 1 --learning-rate 1e-12 --eval-fraction 0"
LORA = "--head-first false --eval-fraction 0 --epochs 1"
RESAMPLES = 4000
# Where the chunks of an evaluation set begin, in groups.
CHUNKS = [0, 100, 250, 10**9]


def parts(data: Path, work: Path) -> None:
    for name, (learnt, measured, responses) in PARTS.items():
        rng = random.Random(11)
        rows = read(data / "train", name)
        fifth = fifths(name, rows)
        rows = rng.sample(rows, len(rows))
        for part, most, wanted in [("train", learnt, False), ("test", measured, True)]:
            some = [row for row in rows if (fifth[unit(name, row)] == 0) == wanted][:most]
            write(work / f"{name}.{part}.jsonl", [row for row in (cut(row, name, responses, rng) for row in some) if is_whole(row)])
    rng, mixed = random.Random(12), []
    for name, share in MIXED.items():
        mixed += [{key: row[key] for key in row if key in KEPT} for row in draw(read(data / "train", name), *share, rng)]
    write(work / "mix.train.jsonl", rng.sample(mixed, len(mixed)))


KEPT = ("prompt", "context", "chosen", "rejected", "responses")


def is_whole(row: dict) -> bool:
    """Whether all texts hold something: Kudos neither learns from nor scores an empty one."""
    return bool(row["prompt"].strip()) and all(text.strip() for text, _ in texts_of(row))


def kudos(args, *words) -> str:
    command = ["nice", "-n", "19", args.kudos, *map(str, words), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def kudos_train(args, *words) -> None:
    """Trains until the judge is written, and does not wait for its self-test, which takes as long as a small run."""
    command = ["nice", "-n", "19", args.kudos, "train", *map(str, words)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0)
    said = []
    for line in run.stderr:
        said.append(line)
        if line.startswith("judge: "):
            os.killpg(run.pid, signal.SIGTERM)
            run.wait()
            return
    raise SystemExit(f"failed: {' '.join(command)}\n{''.join(said[-20:])}")


def train(args, data: Path, folder: Path, base: str, keep: str, run: str) -> dict:
    """Trains one judge, unless it stands; what it took."""
    judge, note = folder / run.replace(":", "_"), folder / f"{run.replace(':', '_')}.train.json"
    if note.exists():
        return json.loads(note.read_text())
    words = [data, "-o", judge, "--overwrite", "--max-length", MOST_TOKENS, "--precision", "bf16", "--threads", args.threads]
    lower = ["--keep-layers", keep] if keep else []
    if run == "head":
        words += ["--base", base, *lower, *HEAD.split()]
    elif run.startswith("default"):
        words += ["--base", base, *lower]
    else:
        rank, rate = run.split(":")
        words += ["--base", folder / "head", "--lora", rank, "--learning-rate", rate, *LORA.split()]
    started = time.time()
    kudos_train(args, *words)
    steps = [json.loads(line) for line in open(judge / "run" / "metrics.jsonl", encoding="utf-8")]
    took = {"wall": time.time() - started, "steps": len(steps), "tokens": sum(step["tokens"] for step in steps)}
    took["last_loss"] = float(np.mean([step["loss"] for step in steps[-max(1, len(steps) // 5) :]]))
    note.write_text(json.dumps(took))
    return took


def texts_of(row: dict) -> list[tuple[str, float]]:
    """Responses and their values: one is better than another if its value is higher."""
    if "chosen" in row:
        return [(row["chosen"], 1), (row["rejected"], 0)]
    if "response_a" in row:
        first = {"a": 1.0, "b": 0.0}.get(row["label"], 0.5)
        return [(row["response_a"], first), (row["response_b"], 1 - first)]
    return [(response["text"], response["score"]) for response in row["responses"]]


def margins(args, judge: Path | str, test: Path, out: Path) -> None:
    """Scores every text of a file once, and keeps the margins of its pairs."""
    if out.exists():
        return
    rows = [row for row in map(json.loads, open(test, encoding="utf-8")) if is_whole(row)]
    texts = out.with_suffix(".texts.jsonl")
    asked = [{key: row[key] for key in ("prompt", "context") if key in row} for row in rows]
    write(texts, [{**ask, "response": text} for ask, row in zip(asked, rows) for text, _ in texts_of(row)])
    scored = kudos(args, "score", texts, "--judge", judge, "--threads", args.threads, *args.score_flags.split())
    scores = iter([json.loads(line)["score"] for line in scored.splitlines()])
    found = {"margin": [], "prompt": [], "subset": []}
    for row in rows:
        own = [(next(scores), value) for _, value in texts_of(row)]
        of = [a - b for a, x in own for b, y in own if x > y]
        found["margin"] += of
        found["prompt"] += [row["prompt"]] * len(of)
        found["subset"] += [row.get("subset", "")] * len(of)
    out.write_text(json.dumps(found))
    texts.unlink()


def grid(args) -> None:
    for name in args.sets.split(","):
        for word in args.names:
            base, source, keep = split_base(word)
            folder = args.work / "grid" / name / base
            folder.mkdir(parents=True, exist_ok=True)
            for run in args.runs.split(","):
                took = train(args, args.work / f"{name}.train.jsonl", folder, source, keep, run)
                tag = run.replace(":", "_")
                margins(args, folder / tag, args.work / f"{name}.test.jsonl", folder / f"{tag}.margins.json")
                found = np.array(json.loads((folder / f"{tag}.margins.json").read_text())["margin"])
                print(name, base, run, f"{right(found).mean():.3f} loss {losses(found).mean():.3f}", took, flush=True)
                if run != "head":
                    shutil.rmtree(folder / tag)  # Only the head's judge is started from again.


def split_base(word: str) -> tuple[str, str, str]:
    """NAME=BASE or NAME=BASE@LAYERS."""
    name, source = word.split("=", 1)
    source, _, keep = source.partition("@")
    return name, source, keep


def mix(args) -> None:
    rows = open(args.work / "mix.train.jsonl", encoding="utf-8").readlines()
    data = args.work / f"mix.{args.share}.jsonl"
    data.write_text("".join(rows[: int(len(rows) * args.share)]))
    for word in args.names:
        base, source, keep = split_base(word)
        folder = args.work / "mix" / f"{base}.{args.share}"
        folder.mkdir(parents=True, exist_ok=True)
        for run in args.runs.split(","):
            print(base, run, train(args, data, folder, source, keep, run) if source else "as it is", flush=True)
            judge = folder / run.replace(":", "_") if source else "kudos-judge"
            for test in sorted(args.data.glob("eval/*.jsonl")):
                for chunk in sampled(test, args):
                    out = folder / f"{run.replace(':', '_')}.{chunk.stem}.margins.json"
                    margins(args, judge, chunk, out)
                    found = np.array(json.loads(out.read_text())["margin"])
                    print(f"  {chunk.stem} {right(found).mean():.3f}", flush=True)


def sampled(test: Path, args) -> list[Path]:
    """Chunks of a set in a random order, the same for every base; all of them are the whole set."""
    rows = open(test, encoding="utf-8").readlines()
    rows = random.Random(13).sample(rows, len(rows))
    found = []
    for number in map(int, args.chunks.split(",")):
        some = rows[CHUNKS[number] : CHUNKS[number + 1]]
        if some:
            found.append(args.work / f"{test.name.split('.')[0]}.{number}.jsonl")
            found[-1].write_text("".join(some))
    return found


# --- the table ---


def right(margin: np.ndarray) -> np.ndarray:
    return (margin > 0) + 0.5 * (margin == 0)


def losses(margin: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -margin)


def resampled(values: np.ndarray, prompts: list[str]) -> np.ndarray:
    """Means over pairs of resampled prompts."""
    numbers: dict[str, int] = {}
    of = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])
    sums, counts = np.bincount(of, values), np.bincount(of)
    times = np.random.default_rng(1).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES)
    return (times @ sums) / (times @ counts)


def interval(draws: np.ndarray) -> list[float]:
    return [round(float(x), 3) for x in np.percentile(draws, [2.5, 97.5])]


def table(args) -> None:
    rows = []
    for folder in sorted((args.work / "grid").glob("*")):
        found = {f"{path.parent.name}.{path.name.removesuffix('.margins.json')}": json.loads(path.read_text()) for path in sorted(folder.glob("*/*.margins.json"))}
        rows += [{"part": "grid", **row} for row in compared(folder.name, found, args.versus)]
    found = {}
    for path in sorted((args.work / "mix").glob("*/*.margins.json")):
        run, name, _ = path.name.removesuffix(".margins.json").rsplit(".", 2)
        of = found.setdefault(name, {}).setdefault(f"{path.parent.name}.{run}", {})
        for key, values in json.loads(path.read_text()).items():
            of[key] = of.get(key, []) + values
    for name, of in found.items():
        rows += [{"part": "mix", **row} for row in compared(name, of, args.mix_versus)]
    for row in rows:
        print(" ".join(str(value) for value in row.values()))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def compared(name: str, found: dict, versus: str):
    """A row a judge: accuracy, log loss, and the difference from `versus` on the same pairs, with 95 % intervals."""
    other = found.get(versus)
    for judge, own in found.items():
        margin = np.array(own["margin"])
        row = {"set": name, "judge": judge, "pairs": len(margin), "accuracy": round(float(right(margin).mean()), 3)}
        row |= {"ci95": interval(resampled(right(margin), own["prompt"])), "log_loss": round(float(losses(margin).mean()), 3)}
        if other and other["prompt"] == own["prompt"]:
            difference = right(margin) - right(np.array(other["margin"]))
            row |= {"difference": round(float(difference.mean()), 3), "difference_ci95": interval(resampled(difference, own["prompt"]))}
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["parts", "grid", "mix", "table"])
    parser.add_argument("--kudos")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(PARTS))
    parser.add_argument("--runs", default="head,16:2e-4")
    parser.add_argument("--share", type=float, default=0.5, help="share of the mixture to learn from")
    parser.add_argument("--chunks", default="0,1,2", help="chunks of an evaluation set to measure with; these are all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score-flags", default="--precision bf16")
    parser.add_argument("--versus", default="minilm.head")
    parser.add_argument("--mix-versus", default="minilm.0.5.head")
    parser.add_argument("--json", type=Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what == "parts":
        parts(args.data, args.work)
    else:
        {"grid": grid, "mix": mix, "table": table}[args.what](args)


if __name__ == "__main__":
    main()
