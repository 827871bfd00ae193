"""Votes of simulated people, and what published implementations make of them.

Run with `pip install krippendorff==0.9.0 crowd-kit==1.4.2 scipy==1.17.1 numpy==2.4.6`; writes golden/rank/votes.json.

Krippendorff's alpha is PyPI's `krippendorff`. Kendall's W follows from scipy's Friedman test, which corrects ties:
W = chi2 / (m (k - 1)). Crowd-Bradley-Terry is fitted here by L-BFGS on the posterior itself (Chen et al. 2013), so that it
shares no step with the program's expectation maximisation; crowd-kit's NoisyBradleyTerry, whose model of a careless person
is another, is written beside it for comparison.
"""

import importlib.metadata
import itertools
import json
import pathlib

import krippendorff
import numpy as np
import pandas as pd
from crowdkit.aggregation import NoisyBradleyTerry
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import friedmanchisquare, rankdata

PEOPLE = ["good", "fair", "good too", "careless", "adversary"]
PRECISION, GOOD, BAD = 0.1, 3.0, 2.0


def ranking(rng, truth, person):
    """Ranks (1 is best) as this person gives them; now and then a tie, or responses that are not placed."""
    noise = {"good": 0.4, "good too": 0.4, "fair": 1.0, "careless": 0.0, "adversary": 0.4}[person]
    seen = truth + noise * rng.normal(size=len(truth))
    if person == "careless":
        seen = rng.normal(size=len(truth))
    if person == "adversary":
        seen = -seen
    ranks = rankdata(-seen, method="ordinal").astype(int)
    if rng.random() < 0.15:
        ranks[ranks == 2] = 1
    dense = rankdata(ranks, method="dense").astype(int).tolist()
    if len(truth) > 2 and rng.random() < 0.1:
        dense = [rank if rank <= 1 else None for rank in dense]
    return dense


def make_items(rng):
    items = []
    for _ in range(60):
        truth = 1.5 * rng.normal(size=rng.integers(2, 6))
        voters = [p for p in range(len(PEOPLE)) if rng.random() < 0.8]
        votes = [{"person": p, "ranks": ranking(rng, truth, PEOPLE[p])} for p in voters]
        items.append({"truth": truth.tolist(), "votes": votes})
    return items


def mid_ranks(ranks):
    placed = [r for r in ranks if r is not None]
    mid = dict(zip(placed, rankdata(placed, method="average")))
    return [np.nan if r is None else mid[r] for r in ranks]


def alpha(items):
    columns = []
    for item in items:
        rows = np.full((len(PEOPLE), len(item["truth"])), np.nan)
        for vote in item["votes"]:
            rows[vote["person"]] = mid_ranks(vote["ranks"])
        columns.append(rows)
    return krippendorff.alpha(reliability_data=np.hstack(columns), level_of_measurement="ordinal")


def kendall_w(item):
    complete = [mid_ranks(v["ranks"]) for v in item["votes"] if None not in v["ranks"]]
    if len(complete) < 2 or len(item["truth"]) < 3:  # scipy wants three treatments
        return None
    chi2 = friedmanchisquare(*np.array(complete).T).statistic
    return float(chi2 / (len(complete) * (len(item["truth"]) - 1)))


def said(ranks):
    """(i, j, target) for i < j."""
    out = []
    for i, j in itertools.combinations(range(len(ranks)), 2):
        a, b = (np.inf if ranks[r] is None else ranks[r] for r in (i, j))
        if a != b or ranks[i] is not None:
            out.append((i, j, 1.0 if a < b else 0.0 if a > b else 0.5))
    return out


def pairwise(items):
    likeness = []
    for item in items:
        for a, b in itertools.combinations(item["votes"], 2):
            other = {(i, j): t for i, j, t in said(b["ranks"])}
            likeness += [1 - abs(t - other[i, j]) for i, j, t in said(a["ranks"]) if (i, j) in other]
    return float(np.mean(likeness))


def crowd_bt(items):
    starts = np.cumsum([0] + [len(item["truth"]) for item in items])
    rows = [
        (starts[n] + i, starts[n] + j, t, vote["person"])
        for n, item in enumerate(items) for vote in item["votes"] for i, j, t in said(vote["ranks"])
    ]
    i, j, t, w = (np.array(column) for column in zip(*rows))

    def loss(x):
        s, logit = x[: starts[-1]], x[starts[-1] :]
        eta = expit(logit)
        p = eta[w] * expit(s[i] - s[j]) + (1 - eta[w]) * expit(s[j] - s[i])
        log = t * np.log(p) + (1 - t) * np.log1p(-p)
        prior = -0.5 * PRECISION * np.sum(s**2) + np.sum((GOOD - 1) * np.log(eta) + (BAD - 1) * np.log1p(-eta))
        return -(log.sum() + prior)

    def gradient(x):
        s, logit = x[: starts[-1]], x[starts[-1] :]
        eta, b = expit(logit), expit(s[i] - s[j])
        p = eta[w] * b + (1 - eta[w]) * (1 - b)
        dp = t / p - (1 - t) / (1 - p)
        ds = dp * (2 * eta[w] - 1) * b * (1 - b)
        g = np.zeros_like(x)
        np.add.at(g, i, ds)
        np.add.at(g, j, -ds)
        g[: starts[-1]] -= PRECISION * s
        de = np.zeros_like(eta)
        np.add.at(de, w, dp * (2 * b - 1))
        de += (GOOD - 1) / eta - (BAD - 1) / (1 - eta)
        g[starts[-1] :] = de * eta * (1 - eta)
        return -g

    start = np.concatenate([np.zeros(starts[-1]), np.full(len(PEOPLE), np.log(2.0))])
    fit = minimize(loss, start, jac=gradient, method="L-BFGS-B",
                   options={"maxiter": 100_000, "maxfun": 1_000_000, "ftol": 1e-15, "gtol": 1e-10})
    scores = fit.x[: starts[-1]]
    by_item = [scores[starts[n] : starts[n + 1]].tolist() for n in range(len(items))]
    return {"reliability": expit(fit.x[starts[-1] :]).tolist(), "scores": by_item, "posterior": -float(fit.fun)}


def noisy_bt(items):
    rows = []
    for n, item in enumerate(items):
        for vote in item["votes"]:
            for i, j, t in said(vote["ranks"]):
                if t != 0.5:
                    rows.append((PEOPLE[vote["person"]], (n, i), (n, j), (n, i) if t == 1 else (n, j)))
    model = NoisyBradleyTerry(n_iter=1000).fit(pd.DataFrame(rows, columns=["worker", "left", "right", "label"]))
    return {name: float(skill) for name, skill in model.skills_.items()}


def main():
    items = make_items(np.random.default_rng(19))
    expected = {
        "alpha": float(alpha(items)),
        "kendall_w": [kendall_w(item) for item in items],
        "pairwise": pairwise(items),
        "crowd_bt": crowd_bt(items),
        "noisy_bt_skills": noisy_bt(items),
        "versions": {name: importlib.metadata.version(name) for name in ("krippendorff", "crowd-kit", "scipy", "numpy")},
    }
    path = pathlib.Path(__file__).parent / "rank" / "votes.json"
    path.write_text(json.dumps({"people": PEOPLE, "items": items, "expected": expected}, indent=None) + "\n")
    print(json.dumps({k: v for k, v in expected.items() if k not in ("kendall_w",)}, indent=1)[:1500])


if __name__ == "__main__":
    main()
