"""Checks every figure of `kudos eval` on real scores against SciPy, scikit-learn and statsmodels.

    pip install -r golden/requirements-eval.txt
    python golden/check_eval.py KUDOS JUDGE_A JUDGE_B DATA...

DATA are files of comparisons (prompt, response_a, response_b, label), pairs (prompt, chosen, rejected) or
groups (prompt, responses: [{text, score}]), as JSON lines. The scores are those of `kudos score`; the groups
are put together here, from the files, and the figures are computed by other means than in Kudos. Prints one
line a figure; exit status 1 if any is off.
"""

import argparse
import collections
import json
import re
import subprocess
import sys

import numpy as np
import scipy.sparse
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from statsmodels.api import OLS
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.stats.contingency_tables import mcnemar

import make_eval_golden as golden

FOLDS, PLACES, PENALTY = 5, 1 << 14, 0.03
# Resamples of the difference of two judges, and how far apart the shares below a quantile may be: six deviations of both counts.
RESAMPLES, SHARE = 100_000, 0.004
failures = 0


def check(name, found, expected, tolerance=1e-6):
    global failures
    if found is None or expected is None:
        ok, distance = found is None and expected is None, float("nan")
    else:
        difference = np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)
        distance = float(np.max(np.abs(difference))) if difference.size else 0.0
        ok = distance <= tolerance
    failures += not ok
    shown = found if np.ndim(found) == 0 or found is None else f"{np.size(found)} values"
    print(f"{'ok  ' if ok else 'OFF '} {name}: {shown}, off by {distance:.2e} (may be {tolerance:.0e})")


def run(kudos, *arguments):
    done = subprocess.run([kudos, *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"kudos {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


# ------------------------------------------------------------------ groups of a file


def load(kudos, judge, path):
    """The groups of a file in the form of make_eval_golden, with `texts`; rows of one prompt are one group."""
    groups = {}
    for line in run(kudos, "score", path, "--judge", judge).splitlines():
        row = json.loads(line)
        if "responses" in row:
            add_group(groups, row)
        else:
            add_pair(groups, row)
    return list(groups.values())


def new_group(prompt):
    return {"prompt": prompt, "texts": [], "ranks": [], "lengths": [], "scores": [], "comparisons": []}


def add_response(group, text, score, rank):
    group["texts"].append(text)
    group["lengths"].append(len(text))
    group["scores"].append(score)
    group["ranks"].append(rank)


def add_group(groups, row):
    group = groups[len(groups)] = new_group(row["prompt"])
    ratings = [r["score"] for r in row["responses"]]
    for response, score in zip(row["responses"], row["scores"]):
        add_response(group, response["text"], score, -response["score"])
    for i in range(len(ratings)):
        for j in range(i + 1, len(ratings)):
            group["comparisons"].append([i, j, (np.sign(ratings[i] - ratings[j]) + 1) / 2])


def add_pair(groups, row):
    sides = ("chosen", "rejected") if "chosen" in row else ("response_a", "response_b")
    if any(not row[side].strip() for side in sides):
        return  # `kudos eval` counts rows with an empty text as unusable; `kudos score` scores them
    scores = ("score_chosen", "score_rejected") if "chosen" in row else ("score_a", "score_b")
    group = groups.setdefault(row["prompt"], new_group(row["prompt"]))
    place = []
    for side, score in zip(sides, scores):
        if row[side] not in group["texts"]:
            add_response(group, row[side], row[score], None)
        place.append(group["texts"].index(row[side]))
    target = {"a": 1.0, "b": 0.0, "tie": 0.5}[row.get("label", "a")]
    group["comparisons"].append([*place, target])


def numbered(groups):
    """The same with numbers for prompts, as make_eval_golden wants them."""
    numbers = {}
    return [{**g, "prompt": numbers.setdefault(g["prompt"], len(numbers))} for g in groups]


# ------------------------------------------------------------------ sections of the analysis


def halves(groups, value):
    """Right, half or wrong of every pair by `value(group, response)`, with the pair's prompt."""
    rows = [(np.sign(value(g, b) - value(g, w)) / 2 + 0.5, g["prompt"]) for g, b, w in golden.pairs(groups)]
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows])


def is_certain(right):
    """Right, or wrong, on every pair: every resample agrees, and a documented rule takes the bootstrap's place."""
    return len(set(right)) == 1 and right[0] != 0.5


def exact_interval(right, prompts):
    """Clopper and Pearson's, with the prompts as trials."""
    count = len(set(prompts))
    return list(stats.binomtest(count if right[0] == 1 else 0, count).proportion_ci(0.95, method="exact"))


def clustered_error(right, prompts):
    if is_certain(right):  # A coin whose pairs of one prompt all agree.
        sizes = np.array(list(collections.Counter(prompts).values()))
        return float(0.5 * np.sqrt((sizes**2).sum()) / sizes.sum())
    fit = OLS(right, np.ones(len(right))).fit(cov_type="cluster", cov_kwds={"groups": prompts})
    return float(fit.bse[0])


def check_accuracy(row, groups, folds):
    right, prompts = halves(groups, lambda g, i: g["scores"][i])
    longer, _ = halves(groups, lambda g, i: g["lengths"][i])
    check("judge", row["judge"]["accuracy"], right.mean())
    check("longer wins", row["longer_wins"]["accuracy"], longer.mean())
    check("shorter wins", row["shorter_wins"]["accuracy"], 1 - longer.mean())
    check("interval of longer wins", row["longer_wins"]["accuracy_ci95"], interval(longer, prompts), 0.01)
    if row["first_listed"]:
        first, _ = halves(groups, lambda g, i: -i)
        check("first listed", row["first_listed"]["accuracy"], first.mean())
    error = clustered_error(right, prompts)
    power = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    check("standard error, clustered", row["smallest_difference"]["standard_error"], error, 1e-9)
    check("smallest difference", row["smallest_difference"]["from_a_figure"], power * error, 1e-9)
    if row["response_only"]:
        # The dual solver stops at a tolerance, so a few undecided pairs may fall the other way.
        check("response only", row["response_only"]["accuracy"], response_only(groups, folds), 0.006)


def interval(values, prompts):
    return list(resampled(values, prompts, 9999).confidence_interval)


def resampled(values, prompts, resamples):
    sums, counts = collections.Counter(), collections.Counter(prompts)
    for value, prompt in zip(values, prompts):
        sums[prompt] += value
    pairs = (np.array([sums[p] for p in counts]), np.array([counts[p] for p in counts]))
    ratio = lambda s, c, axis: s.sum(axis) / c.sum(axis)
    rng = np.random.default_rng(0)
    return stats.bootstrap(pairs, ratio, paired=True, vectorized=True, method="percentile", rng=rng, n_resamples=resamples)


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return value


def deal(groups):
    """The fold of each prompt: dealt in the order of their hashes."""
    even = lambda g: " ".join(g["prompt"].split()).lower()
    keys = sorted({even(g) for g in groups}, key=lambda key: (fnv(key), key))
    dealt = {key: place % FOLDS for place, key in enumerate(keys)}
    return [dealt[even(g)] for g in groups]


WORDS = {}


def bag(text):
    counts = collections.Counter(re.findall(r"[^\W_]+", text.lower()))
    places = collections.Counter()
    for word, count in counts.items():
        places[WORDS.setdefault(word, fnv(word) % PLACES)] += count
    return {**{place: np.log1p(count) for place, count in places.items()}, PLACES: np.log1p(len(text))}


def response_only(groups, folds):
    rows, columns, values, of_fold = [], [], [], []
    for g, fold in zip(groups, folds):
        bags = [bag(text) for text in g["texts"]]
        for _, better, worse in golden.pairs([g]):
            for place in bags[better].keys() | bags[worse].keys():
                rows.append(len(of_fold))
                columns.append(place)
                values.append(bags[better].get(place, 0) - bags[worse].get(place, 0))
            of_fold.append(fold)
    x = scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(of_fold), PLACES + 1))
    of_fold = np.array(of_fold)
    side = np.where(np.arange(len(of_fold)) % 2 == 0, 1.0, -1.0)  # sklearn wants both classes
    margin = np.zeros(len(of_fold))
    for fold in range(FOLDS):
        train = of_fold != fold
        model = LogisticRegression(C=PENALTY, fit_intercept=False, tol=1e-8, max_iter=2000)
        model.fit(scipy.sparse.diags(side[train]) @ x[train], side[train])
        margin[~train] = x[~train] @ model.coef_[0]
    return (np.sign(margin) / 2 + 0.5).mean()


def temperature(groups):
    """The one of least log loss. Where all votes are for the response that scores higher, the loss falls down to the lower end, which
    SciPy does not reach: the loss underflows to 0 before."""
    if all((t - 0.5) * (g["scores"][i] - g["scores"][j]) > 0 and t in (0, 1) for g in groups for i, j, t in g["comparisons"]):
        return 0.01
    loss = lambda log: golden.calibration(groups, np.exp(log))["log_loss"]
    return float(np.exp(optimize.minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), options={"xatol": 1e-9}).x))


def by_chance(groups, draws=4000):
    """The mean calibration error of exact probabilities, by drawing the votes that they foretell."""
    rng = np.random.default_rng(0)
    margins = np.array([g["scores"][i] - g["scores"][j] for g in groups for i, j, t in g["comparisons"] if t in (0, 1)])
    everything = sum(len(g["comparisons"]) for g in groups)
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    bins = np.minimum(((sure - 0.5) * 20).astype(int), 9)
    off = (rng.random((draws, len(sure))) < sure) - sure
    return sum(np.abs(off[:, bins == b].sum(1)).mean() for b in range(10)) / everything


def check_calibration(section, groups, folds):
    before = golden.calibration(groups, 1.0)
    for key, expected in before.items():
        check(f"{key} before", section["before"][key], expected, 1e-6)
    check("calibration error by chance", section["before"]["ece_by_chance"], by_chance(groups), 0.0015)
    check("temperature", section["fitted_temperature"], temperature(groups), 1e-3)
    scaled, found = [], section["fold_temperatures"]
    for fold in range(FOLDS):
        fitted = temperature([g for g, f in zip(groups, folds) if f != fold])
        check(f"temperature without fold {fold}", found[fold], fitted, 1e-3 * max(1, fitted))
        own = [g for g, f in zip(groups, folds) if f == fold]
        scaled += [{**g, "scores": [s / found[fold] for s in g["scores"]]} for g in own]
    # scikit-learn clips probabilities at float64's epsilon, a loss of 36: beyond, its log loss is no oracle.
    clipped = max(np.ptp(g["scores"]) for g in scaled) > 36
    for key, expected in golden.calibration(scaled, 1.0).items():
        if key == "log_loss" and clipped:
            print("--   log_loss after: scikit-learn clips margins this wide")
        else:
            check(f"{key} after", section["after"][key], expected, 1e-6)


def check_scores(section, groups, T):
    scores = np.concatenate([g["scores"] for g in groups])
    percentiles = np.percentile(scores, np.arange(1, 100))
    check("percentiles", section["percentiles"], percentiles, 1e-9)
    beats = [np.mean(1 / (1 + np.exp((scores - x) / T))) for x in percentiles]
    check("chance against a typical response", section["beats_typical"], beats, 1e-5)
    histogram = section["histogram"]
    counts, _ = np.histogram(scores, 30, (histogram["low"], histogram["high"]))
    check("histogram", histogram["counts"], counts, 1)  # a score on an edge may round to either side


def check_length(section, groups):
    points = sorted((np.log1p(n), s) for g in groups for n, s in zip(g["lengths"], g["scores"]))
    x, y = np.array(points).T
    smooth = lowess(y, x, frac=2 / 3, it=0, delta=0, is_sorted=True, return_sorted=False)
    heights = dict(zip(x, smooth))
    anchors = np.array([[p["log_length"], p["score"]] for p in section["curve"]])
    places = np.unique(x)
    nearest = places[np.abs(places[:, None] - anchors[:, 0]).argmin(0)]
    check("LOWESS curve", anchors[:, 1], [heights[place] for place in nearest], 1e-7)
    curve = lambda n: np.interp(np.log1p(n), anchors[:, 0], anchors[:, 1])
    right, prompts = halves(groups, lambda g, i: g["scores"][i])
    after, _ = halves(groups, lambda g, i: g["scores"][i] - curve(g["lengths"][i]))
    correction = section["correction"]
    check("accuracy after the length correction", correction["after"]["accuracy"], after.mean(), 1e-9)
    check("pairs that it changes", correction["changed"], (right != after).sum(), 0)
    longer, _ = halves(groups, lambda g, i: g["lengths"][i])
    for name, picked in (("longer_right", longer == 1), ("longer_wrong", longer == 0)):
        check(f"pairs of {name}", section[f"{name}_pairs"], picked.sum(), 0)
        check(f"accuracy of {name}", section[name]["accuracy"], right[picked].mean())


def check_ties(analysis, groups, T):
    margins = [(abs(g["scores"][i] - g["scores"][j]) / T, t) for g in groups for i, j, t in g["comparisons"]]
    margin, target = np.array(margins).T
    tied = target == 0.5
    if tied.any():
        check("area under the curve of ties", analysis["ties"]["auc"], roc_auc_score(~tied, margin), 1e-9)
        sure = 1 / (1 + np.exp(-margin))
        check("unsure of ties", analysis["ties"]["unsure_of_ties"], (sure[tied] <= 0.6).mean(), 1e-3)
    check("order consistency", analysis["order"]["consistency"], 1.0, 0)


def check_mistakes(mistakes, groups):
    margins = sorted(g["scores"][b] - g["scores"][w] for g, b, w in golden.pairs(groups))
    check("margins of the hardest mistakes", [m["margin"] for m in mistakes], margins[: len(mistakes)], 1e-6)


# ------------------------------------------------------------------ two judges


def check_comparison(found, first, second):
    a, prompts = halves(first, lambda g, i: g["scores"][i])
    b, _ = halves(second, lambda g, i: g["scores"][i])
    check("difference of two judges", found["difference"], (a - b).mean(), 1e-9)
    # Two judges of a small file differ by steps of a pair, so an interval may end on one step here and on the next there:
    # what is checked is the share of SciPy's resamples on each side of an end.
    drawn = resampled(a - b, prompts, RESAMPLES).bootstrap_distribution
    for name, end, share in zip(("low", "high"), found["difference_ci95"], (0.025, 0.975)):
        below, up_to = (drawn < end - 1e-9).mean(), (drawn <= end + 1e-9).mean()
        check(f"share up to the {name} end", float(np.clip(share, below, up_to)), share, SHARE)
    table = [[0, (a > b).sum()], [(a < b).sum(), 0]]
    check("McNemar", found["mcnemar"]["p_value"], mcnemar(table, exact=True).pvalue, 1e-9)


def check_file(kudos, judges, path):
    print(f"\n{path}")
    report = json.loads(run(kudos, "eval", path, "--judge", judges[0], "--json", "--analysis"))["data"][0]
    analysis = report["analysis"]
    groups = load(kudos, judges[0], path)
    T, folds = analysis["calibration"]["stored_temperature"], deal(groups)
    # The end of an interval from 2000 resamples is known to .06 standard errors; this is four times that.
    right, prompts = halves(groups, lambda g, i: g["scores"][i])
    resampling = 1e-6 if is_certain(right) else 0.25 * clustered_error(right, prompts)
    figures = golden.expected(numbered(groups), T)
    if is_certain(right):
        figures["accuracy_ci95"] = exact_interval(right, prompts)
    for key, expected in figures.items():
        if isinstance(expected, dict):
            for n, best in expected.items():
                check(f"best of {n}", list(report[key][str(n)].values()), list(best.values()), 1e-9)
        else:
            check(key, report[key], expected, resampling if key == "accuracy_ci95" else 1e-6)
    check_accuracy(analysis["accuracy"]["all"], groups, folds)
    check_calibration(analysis["calibration"], groups, folds)
    check_scores(analysis["scores"], groups, T)
    check_length(analysis["length"], groups)
    check_ties(analysis, groups, T)
    check_mistakes(analysis["mistakes"], groups)
    both = run(kudos, "eval", path, "--judge", judges[0], "--judge", judges[1], "--json", "--bootstrap", RESAMPLES)
    check_comparison(json.loads(both)["data"][0], groups, load(kudos, judges[1], path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kudos")
    parser.add_argument("judges", nargs=2, metavar="JUDGE")
    parser.add_argument("data", nargs="+")
    args = parser.parse_args()
    for path in args.data:
        check_file(args.kudos, args.judges, path)
    print(f"\n{failures} figures are off" if failures else "\nevery figure agrees")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
