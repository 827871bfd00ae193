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
# Responses a group is cut to: a visit takes eight, and a prompt is read once an epoch.
CUT = {"arena_bench": 8, "summeval": 8}


def unit(name: str, row: dict) -> str:
    """What is held out as a whole."""
    return row["id"].split("_")[0] if name == "ukpconvarg1" else row["prompt"]


def read(folder: Path, name: str) -> list[dict]:
    with open(folder / SETS[name], encoding="utf-8") as lines:
        return [{**json.loads(line), "subset": name} for line in lines]


def fifths(name: str, rows: list[dict]) -> dict[str, int]:
    units = sorted({unit(name, row) for row in rows}, key=lambda u: hashlib.sha1(u.encode()).hexdigest())
    return {u: index * 5 // len(units) for index, u in enumerate(units)}


def cut(rows: list[dict], size: int, seed: int = 3) -> list[dict]:
    """Groups of at most `size` responses: random parts of larger groups, the last, smaller part left out."""
    rng, parts = random.Random(seed), []
    for row in rows:
        responses = row["responses"][:]
        rng.shuffle(responses)
        for start in range(0, len(responses) - size + 1, size):
            parts.append({**row, "responses": responses[start : start + size]})
    return parts


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
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
    paths = {}
    for name in SETS:
        rows = read(data, name)
        fifth = fifths(name, rows)
        parts = {"train": [], "test": []}
        for row in rows:
            parts["test" if fifth[unit(name, row)] == held_out else "train"].append(row)
        if name == "arena_bench":
            write(out / "arena_apart.test.jsonl", apart(parts["test"], 2))
        if name in CUT:
            parts = {part: cut(rows, CUT[name]) for part, rows in parts.items()}
        paths[name] = {part: write(out / f"{name}.{part}.jsonl", rows) for part, rows in parts.items()}
    return paths
