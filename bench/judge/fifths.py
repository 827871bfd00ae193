"""Fifths by prompt of the preference sets that the judge in the box is trained on, and what of them a run sees.

A prompt belongs to the fifth that the order of its SHA-1 puts it in; a debate of ukpconvarg1 counts as one prompt, so
that both of its sides are held out together. Nothing here reads the evaluation sets.
"""

import hashlib
import json
import random
from pathlib import Path

SETS = {
    "ukpconvarg1": "ukpconvarg1.pairs.jsonl",
    "hh_harmless": "hh_harmless.pairs.jsonl",
    "qa_feedback": "qa_feedback.kwise.jsonl",
    "arena_bench": "arena_bench.kwise.jsonl",
    "summeval": "summeval.kwise.jsonl",
}
# Responses a group of the larger sets is cut to, so that a prompt is read once an epoch.
TRAIN_CUT, TEST_CUT = 8, 4


def unit(name: str, row: dict) -> str:
    """What is held out as a whole."""
    return row["id"].split("_")[0] if name == "ukpconvarg1" else row["prompt"]


def read(folder: Path, name: str) -> list[dict]:
    with open(folder / SETS[name], encoding="utf-8") as lines:
        return [{**json.loads(line), "source_set": name, "subset": name} for line in lines]


def fifths(name: str, rows: list[dict]) -> dict[str, int]:
    units = sorted({unit(name, row) for row in rows}, key=lambda u: hashlib.sha1(u.encode()).hexdigest())
    return {u: index * 5 // len(units) for index, u in enumerate(units)}


def halves(rows: list[dict], rng: random.Random) -> list[dict]:
    """Two random halves of the sixteen summaries of an article."""
    parts = []
    for row in rows:
        responses = row["responses"][:]
        rng.shuffle(responses)
        rest = {key: value for key, value in row.items() if key != "reference"}
        parts += [{**rest, "responses": responses[start : start + TRAIN_CUT]} for start in (0, TRAIN_CUT)]
    return parts


def some(rows: list[dict], rng: random.Random) -> list[dict]:
    """A random part of each group."""
    parts = []
    for row in rows:
        responses = row["responses"][:]
        rng.shuffle(responses)
        parts.append({**row, "responses": responses[:TRAIN_CUT]})
    return parts


def few(rows: list[dict]) -> list[dict]:
    """A smaller random part, to be measured with."""
    rng = random.Random(1)
    return [{**row, "responses": rng.sample(row["responses"], TEST_CUT)} for row in rows]


def draw(rows: list[dict], count: int | None, responses: int | None, rng: random.Random) -> list[dict]:
    """At most `count` of the rows, all without one, and of each group at most as many responses."""
    rows = rng.sample(rows, min(count or len(rows), len(rows)))
    if responses:
        rows = [{**row, "responses": rng.sample(row["responses"], min(responses, len(row["responses"])))} for row in rows]
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def apart(rows: list[dict], points: float) -> list[dict]:
    """The pairs of scored responses that are at least `points` apart."""
    pairs = []
    for row in rows:
        for a in row["responses"]:
            for b in row["responses"]:
                if a["score"] - b["score"] >= points:
                    pairs.append({"prompt": row["prompt"], "chosen": a["text"], "rejected": b["text"]})
    return pairs


def split(data: Path, out: Path, held_out: int = 0) -> dict[str, dict[str, Path]]:
    """Writes `NAME.train.jsonl` and `NAME.test.jsonl` of each set; gives their paths."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {}
    for name in SETS:
        rows = read(data, name)
        fifth = fifths(name, rows)
        is_held = lambda row, name=name, fifth=fifth: fifth[unit(name, row)] == held_out
        parts[name] = {"train": [r for r in rows if not is_held(r)], "test": [r for r in rows if is_held(r)]}
        if name == "arena_bench":
            write(out / "arena_apart.test.jsonl", apart(parts[name]["test"], 2))
            measured = [row for row in few(rows) if is_held(row)]
    rng = random.Random(3)
    for part in ("train", "test"):
        parts["arena_bench"][part] = some(parts["arena_bench"][part], rng)
        parts["summeval"][part] = halves(parts["summeval"][part], rng)
    parts["arena_bench"]["test"] = measured
    write_part = lambda name, part: write(out / f"{name}.{part}.jsonl", parts[name][part])
    return {name: {part: write_part(name, part) for part in ("train", "test")} for name in SETS}
