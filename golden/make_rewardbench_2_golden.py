"""Expected scores of the suite rewardbench-2, from its authors' own code.

    git clone https://github.com/allenai/reward-bench; git -C reward-bench checkout 05a9005
    pip install torch==2.15.0 transformers==5.23.0 datasets==5.2.0 pandas==3.1.1 numpy==2.4.6
    python golden/make_rewardbench_2_golden.py reward-bench     # writes golden/eval/rewardbench_2.json

Rows and scores are random; the texts do not matter and are left out. The scores are multiples of a power of two, so
that f32 holds them. What the authors' `reroll_and_score_dataset` and `process_single_model` make of them stands in
`expected`, put together as in their `scripts/run_v2.py`; `score` is the mean of the six subsets, as on their board.

fine      fine scores; some ids of Ties are `ref` or `tied` alone
coarse    few different scores: the best is often shared, and margins are often 0
pooled    some ids of Ties stand in two rows, whose responses count as those of one
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent / "eval"
SUBSETS = ["Factuality", "Precise IF", "Math", "Safety", "Focus"]


def row(rng, id, subset, correct, incorrect, grid):
    signal = [2.0] * correct + [0.0] * incorrect
    scores = np.round((np.array(signal) + rng.normal(0, 1, len(signal))) * grid) / grid
    return {"id": id, "subset": subset, "num_correct": correct, "scores": scores.tolist()}


def rows(rng, grid, twice):
    made = [row(rng, str(n), subset, 1, 3, grid) for subset in SUBSETS for n in range(int(rng.integers(12, 20)))]
    ties = [(kind, n) for kind, ids in [("ref", range(0, 30)), ("tied", range(4, 36))] for n in ids]
    for kind, n in ties + ties[:twice] + ties[-twice:] * (twice > 0):
        correct = 1 if kind == "ref" else int(rng.integers(2, 8))
        made.append(row(rng, f"{kind}:{n}", "Ties", correct, int(rng.integers(1, 6)), grid))
    return [made[place] for place in rng.permutation(len(made))]


def expected(utils, rows):
    """The six scores and their mean, by the functions of the authors."""
    from datasets import Dataset

    facts = ["id", "subset"]
    flat = [{"text": "", "scores": score, **{f: r[f] for f in facts}} for r in rows for score in r["scores"]]
    whole = utils.reroll_and_score_dataset(Dataset.from_list(flat), [len(r["scores"]) for r in rows])
    whole = whole.add_column("num_correct", [r["num_correct"] for r in rows])
    found = {}
    for subset in SUBSETS + ["Ties"]:
        part = whole.filter(lambda example: example["subset"] == subset)
        if subset == "Ties":
            found[subset] = utils.process_single_model(part)[1]
        else:
            found[subset] = sum(part["results"]) / len(part["results"])
    return {**found, "score": float(np.mean(list(found.values())))}


def main():
    sys.path.insert(0, sys.argv[1])
    from rewardbench import utils

    cases = {}
    for seed, (name, grid, twice) in enumerate([("fine", 4096, 0), ("coarse", 0.5, 0), ("pooled", 4, 5)]):
        made = rows(np.random.default_rng(seed), grid, twice)
        cases[name] = {"expected": expected(utils, made), "rows": made}
        print(name, len(made), cases[name]["expected"])
    text = json.dumps(cases, separators=(",", ":"))
    (HERE / "rewardbench_2.json").write_text(text.replace('{"id"', '\n{"id"') + "\n")


if __name__ == "__main__":
    main()
