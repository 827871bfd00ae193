"""Expected metrics for crates/kudos/tests/eval_golden.rs, from SciPy, scikit-learn and NumPy.

    pip install numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
    python golden/make_eval_golden.py            # writes golden/eval/*.json

Each file holds a small random data set (the texts as their lengths alone), the scores, and what
the libraries say of them. Nothing here repeats the formulas of the Rust side where another way
exists: best-of-n goes through all draws, the partial correlation through the residuals of two
regressions, the interval through scipy.stats.bootstrap, and the temperature through scipy.optimize.
"""

import itertools
import json
import pathlib

import numpy as np
from scipy import optimize, stats
from sklearn.metrics import brier_score_loss, log_loss, ndcg_score

HERE = pathlib.Path(__file__).parent / "eval"


# ------------------------------------------------------------------ data sets


def ranked(rng, prompts, sizes, levels, unranked=0.0, grid=64):
    """Groups with ranks among `levels` values (fewer levels, more ties) and all their comparisons."""
    groups = []
    for prompt in range(prompts):
        k = int(rng.choice(sizes))
        ranks = rng.integers(1, levels + 1, k) if levels else rng.permutation(k) + 1
        ranks = [None if rng.random() < unranked else int(r) for r in ranks]
        pairs = [p for p in itertools.combinations(range(k), 2) if ranks[p[0]] and ranks[p[1]]]
        target = lambda a, b: 1.0 if a < b else 0.5 if a == b else 0.0
        comparisons = [[i, j, target(ranks[i], ranks[j])] for i, j in pairs]
        lengths = rng.integers(1, 60, k)
        signal = np.array([0 if r is None else -r for r in ranks]) + 0.03 * lengths
        groups.append(group(rng, prompt, ranks, comparisons, lengths, signal, grid))
    return groups


def compared(rng, count, prompts, targets, grid=64):
    """Groups of two with one comparison each; several share a prompt."""
    groups = []
    for _ in range(count):
        target = float(rng.choice(targets))
        lengths = rng.integers(1, 60, 2)
        signal = np.array([target, 1 - target]) + 0.01 * lengths
        prompt = int(rng.integers(prompts))
        groups.append(group(rng, prompt, [None, None], [[0, 1, target]], lengths, signal, grid))
    return groups


def group(rng, prompt, ranks, comparisons, lengths, signal, grid):
    scores = signal + rng.normal(0, 1, len(ranks))
    return {
        "prompt": prompt,
        "ranks": ranks,
        "lengths": [int(n) for n in lengths],
        "comparisons": comparisons,
        # Multiples of 1/grid are exact in f32; a coarse grid makes equal scores.
        "scores": [float(np.round(s * grid) / grid) for s in scores],
    }


# ------------------------------------------------------------------ metrics


def pairs(groups):
    """(group, better, worse) of every comparison with a majority."""
    for g in groups:
        for i, j, t in g["comparisons"]:
            if t != 0.5:
                yield (g, i, j) if t > 0.5 else (g, j, i)


def accuracy(groups, value):
    wins = [np.sign(value(g, b) - value(g, w)) / 2 + 0.5 for g, b, w in pairs(groups)]
    return float(np.mean(wins)) if wins else None


def rankings(groups):
    """(quality, scores) of groups with three or more ranked responses that are not all tied."""
    for g in groups:
        known = [(-r, s) for r, s in zip(g["ranks"], g["scores"]) if r is not None]
        quality, scores = np.array(known, dtype=float).reshape(-1, 2).T
        if len(quality) >= 3 and len(set(quality)) > 1:
            yield quality, scores


def mean_over(groups, figure):
    values = [figure(q, s) for q, s in rankings(groups)]
    return float(np.mean(values)) if values else None


def zero_if_constant(correlation):
    return lambda q, s: 0.0 if len(set(s)) == 1 else correlation(q, s).statistic


def ndcg(quality, scores):
    gains = (quality[:, None] > quality[None, :]).sum(1)
    return ndcg_score([gains], [scores])


def best_of_n(groups):
    curve = {}
    for n in (2, 4, 8, 16):
        judge, oracle = [], []
        for quality, scores in rankings(groups):
            if len(quality) < n:
                continue
            share = (stats.rankdata(quality) - 1) / (len(quality) - 1)
            draws = np.array(list(itertools.combinations(range(len(quality)), n)))
            judge.append(np.mean([top(share[d], scores[d]) for d in draws]))
            oracle.append(np.mean([share[d].max() for d in draws]))
        if judge:
            means = {"judge": np.mean(judge), "random": 0.5, "oracle": np.mean(oracle)}
            curve[n] = {**{k: float(v) for k, v in means.items()}, "groups": len(judge)}
    return curve


def top(quality, scores):
    return quality[scores == scores.max()].mean()


def calibration(groups, temperature):
    forecasts = [
        ((g["scores"][i] - g["scores"][j]) / temperature, t)
        for g in groups
        for i, j, t in g["comparisons"]
    ]
    logit, target = np.array(forecasts).T
    p = 1 / (1 + np.exp(-logit))
    # A soft target is a vote of `target` for the first and of `1 − target` for the second.
    votes = np.repeat([1, 0], len(p))
    weights = np.concatenate([target, 1 - target])
    twice = np.concatenate([p, p])
    brier = brier_score_loss(votes, twice, sample_weight=weights) - np.mean(target * (1 - target))
    confidence = np.maximum(p, 1 - p)
    agreement = np.where(p > 0.5, target, np.where(p < 0.5, 1 - target, 0.5))
    place = np.digitize(confidence, np.linspace(0.5, 1, 11)[1:-1])
    ece = sum(
        abs(confidence[place == b].sum() - agreement[place == b].sum()) for b in range(10)
    ) / len(p)
    return {
        "ece": float(ece),
        "brier": float(brier),
        "log_loss": float(log_loss(votes, twice, sample_weight=weights)),
    }


def fitted_temperature(groups):
    loss = lambda beta: calibration(groups, 1 / beta)["log_loss"]
    return float(1 / optimize.minimize_scalar(loss, bounds=(0.01, 100), options={"xatol": 1e-9}).x)


def length_partial_correlation(groups):
    """Pearson's r of what is left of score and log length after regressing each on people's order."""
    columns = []
    for g in groups:
        if not g["comparisons"]:
            continue
        wins = np.zeros(len(g["scores"]))
        for i, j, t in g["comparisons"]:
            wins[i] += t - (1 - t)
            wins[j] += (1 - t) - t
        rows = np.array([g["scores"], np.log1p(g["lengths"]), wins])
        columns.append(rows - rows.mean(1, keepdims=True))
    score, length, wins = np.concatenate(columns, 1)
    rest = lambda y: y - wins * np.linalg.lstsq(wins[:, None], y, rcond=None)[0]
    return float(stats.pearsonr(rest(score), rest(length)).statistic)


def interval(groups):
    """Percentile bootstrap over prompts, which come with all their pairs."""
    right, count = {}, {}
    for g, better, worse in pairs(groups):
        won = np.sign(g["scores"][better] - g["scores"][worse]) / 2 + 0.5
        right[g["prompt"]] = right.get(g["prompt"], 0) + won
        count[g["prompt"]] = count.get(g["prompt"], 0) + 1
    result = stats.bootstrap(
        (np.array(list(right.values())), np.array(list(count.values()))),
        lambda r, c, axis: r.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    return [float(end) for end in result.confidence_interval]


def expected(groups, temperature):
    targets = [t for g in groups for _, _, t in g["comparisons"]]
    ties = sum(t == 0.5 for t in targets)
    by_format = all(t == 1 for t in targets) and all(r is None for g in groups for r in g["ranks"])
    scores = np.concatenate([g["scores"] for g in groups])
    return {
        "groups": len(groups),
        "prompts": len({g["prompt"] for g in groups}),
        "pairs": len(targets) - ties,
        "ties": ties,
        "score_ties": sum(g["scores"][b] == g["scores"][w] for g, b, w in pairs(groups)),
        "accuracy": accuracy(groups, lambda g, i: g["scores"][i]),
        "accuracy_ci95": interval(groups),
        "longer_response_accuracy": accuracy(groups, lambda g, i: g["lengths"][i]),
        "first_listed_accuracy": None if by_format else accuracy(groups, lambda g, i: -i),
        "kendall_tau_b": mean_over(groups, zero_if_constant(stats.kendalltau)),
        "spearman": mean_over(groups, zero_if_constant(stats.spearmanr)),
        "ndcg": mean_over(groups, ndcg),
        **calibration(groups, temperature),
        "length_partial_correlation": length_partial_correlation(groups),
        "best_of_n": best_of_n(groups),
        "score_mean": float(scores.mean()),
        "score_std": float(scores.std()),
    }


def main():
    rng = np.random.default_rng(20260101)
    votes = [0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
    sets = {
        "rankings_of_four": (ranked(rng, 150, [4], 0), 1.0),
        "rankings_with_ties": (ranked(rng, 120, [2, 3, 4, 5, 6], 3, unranked=0.1, grid=2), 1.5),
        "long_rankings": (ranked(rng, 12, [9, 16], 5, grid=4), 1.0),
        "chosen_rejected": (compared(rng, 200, 200, [1.0]), 1.0),
        "votes": (compared(rng, 240, 150, votes, grid=8), 0.5),
    }
    HERE.mkdir(exist_ok=True)
    for name, (groups, temperature) in sets.items():
        golden = {
            "temperature": temperature,
            "fitted_temperature": fitted_temperature(groups),
            "expected": expected(groups, temperature),
            "groups": groups,
        }
        text = json.dumps(golden, separators=(",", ":"))
        # One group a line, so that a change of the data can be read in a diff.
        text = text.replace('{"prompt"', '\n{"prompt"')
        (HERE / f"{name}.json").write_text(text + "\n")
        print(name, len(text), json.dumps(golden["expected"]))


if __name__ == "__main__":
    main()
