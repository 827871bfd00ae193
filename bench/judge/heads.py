"""Linear heads on the features that `bases.py read` wrote, every prompt held out once, and the table of them."""

import hashlib
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
from scipy.optimize import minimize

from bases import FOLDS, POOLS, load

# L2 on the head, beside the mean loss of a comparison; features have a mean square length of 1 within prompts.
STRENGTHS = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]
RESAMPLES = 4000


class Pairs:
    """The comparisons of a set: indices of better and worse, weights, what is held out as a whole, folds."""

    def __init__(self, work: Path, name: str, most: int | None = None):
        """Of the first `most` texts alone, if it is given."""
        self.texts, rows = load(work, name)
        self.texts = self.texts[:most]
        rows = [row for row in rows if max(row[:2]) < len(self.texts)]
        self.better, self.worse = (np.array([row[i] for row in rows]) for i in (0, 1))
        units = sorted({row[3] for row in rows}, key=lambda u: hashlib.sha1(u.encode()).hexdigest())
        number = {u: n for n, u in enumerate(units)}
        self.unit = np.array([number[row[3]] for row in rows])
        self.fold = self.unit * FOLDS // len(units)
        prompts = {}
        of = [prompts.setdefault(row[2], len(prompts)) for row in rows]
        self.weight = 1 / np.sqrt(np.bincount(of)[of])
        self.prompt = np.zeros(len(self.texts), int)
        for (a, b, *_), prompt in zip(rows, of):
            self.prompt[[a, b]] = prompt

    def longer(self) -> np.ndarray:
        length = np.array([len(text[1]) for text in self.texts])
        return length[self.better] - length[self.worse]


def losses(margins: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -margins)


def fit(features, better, worse, weight, strengths):
    """Heads of rising freedom, each started from the one before."""
    head = np.zeros(features.shape[1], features.dtype)
    weight = weight / weight.sum()
    for strength in strengths:

        def objective(h, strength=strength):
            scores = features @ h.astype(features.dtype)
            margins = (scores[better] - scores[worse]).astype(float)
            pull = -weight / (1 + np.exp(np.clip(margins, -50, 50)))
            of = np.bincount(better, pull, len(scores)) - np.bincount(worse, pull, len(scores))
            return weight @ losses(margins) + strength / 2 * h @ h, features.T @ of.astype(features.dtype) + strength * h

        head = minimize(objective, head, jac=True, method="L-BFGS-B", options={"maxiter": 80, "ftol": 1e-6, "gtol": 1e-4}).x
        yield head


def scaled(features: np.ndarray, prompt: np.ndarray, standard: bool) -> np.ndarray:
    """Less the mean of the prompt, at a mean square length of 1; `standard` gives every feature the same deviation first."""
    counts = np.bincount(prompt)[:, None]
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, prompt, features)
    out = features - (sums / counts)[prompt]
    if standard:
        out = out / np.maximum(out.std(0), 1e-9)
    return (out / np.sqrt((out**2).sum(1).mean())).astype(np.float32)


def held_out(features, pairs: Pairs, standard: bool) -> np.ndarray:
    """`[strengths, comparisons]`: margins by heads that did not see the prompt."""
    features = scaled(features, pairs.prompt, standard)
    out = np.zeros((len(STRENGTHS), len(pairs.better)), np.float32)
    for fold in range(FOLDS):
        seen = pairs.fold != fold
        for place, head in enumerate(fit(features, pairs.better[seen], pairs.worse[seen], pairs.weight[seen], STRENGTHS)):
            scores = features @ head
            out[place, ~seen] = (scores[pairs.better] - scores[pairs.worse])[~seen]
    return out


def layers_of(count: int) -> list[int]:
    """All layers of a shallow base, every other one of a deep one, and the last."""
    return list(range(1, count)) if count <= 14 else sorted({*range(2, count, 2), count - 1})


def margins_of(work: Path, base: str, name: str, pairs: Pairs) -> dict[str, np.ndarray]:
    """Margins by what is read, "layer pool", of the strength that is best on the other folds; kept in a file."""
    path = work / f"{base}.{name}.{len(pairs.texts)}.margins.npz"
    if not path.exists():
        features, found, started = np.load(work / f"{base}.{name}.npz")["features"][: len(pairs.texts)], {}, time.time()
        for layer in layers_of(features.shape[1]):
            for place, pool in enumerate(POOLS):
                if pool == ("first" if base in DECODERS else "last"):
                    continue
                for standard in (False, True) if base in DECODERS else (False,):
                    key = f"{layer} {pool}" + " standard" * standard
                    found[key] = chosen(held_out(features[:, layer, place], pairs, standard), pairs)
        np.savez(path, **found)
        print(f"{base} {name}: {len(found)} heads in {time.time() - started:.0f} s", flush=True)
    return dict(np.load(path))


DECODERS = ("smol", "qwen", "gemma")


def chosen(margins: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Of `[strengths, comparisons]`, the margins by the strength that is best on the other folds."""
    out = np.zeros(len(pairs.better))
    for fold in range(FOLDS):
        others = pairs.fold != fold
        value = lambda place: np.average(losses(margins[place][others]), weights=pairs.weight[others])
        out[~others] = margins[min(range(len(STRENGTHS)), key=value)][~others]
    return out


def right(margins: np.ndarray) -> np.ndarray:
    return (margins > 0) + 0.5 * (margins == 0)


def resampled(values: np.ndarray, pairs: Pairs, seed: int) -> np.ndarray:
    """Means over comparisons of resampled units."""
    units = pairs.unit.max() + 1
    sums, counts = np.bincount(pairs.unit, values, units), np.bincount(pairs.unit, minlength=units)
    times = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), RESAMPLES)
    return (times @ sums) / (times @ counts)


def interval(draws: np.ndarray) -> str:
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{low:+.3f} to {high:+.3f}" if low < 0.2 else f"{low:.3f} to {high:.3f}"


def default_of(base: str, keys) -> str:
    """What `kudos train` reads of this kind of base: half of a sentence encoder's layers, the last state of a decoder."""
    deepest = max(int(key.split()[0]) for key in keys)
    return f"{deepest} last" if base in DECODERS else f"{(deepest + 1) // 2} mean"


def table(work: Path, names: list[str], sets: list[str], versus: str, show: list[str]) -> None:
    """For each base its default, and the layer and reading that are best on the other sets, beside the default of `versus`
    on the same texts."""
    rows = []
    for base in names:
        own, of, other = {}, {}, {}
        for name in sets:
            path = work / f"{base}.{name}.npz"
            if path.exists():
                of[name] = Pairs(work, name, len(np.load(path)["features"]))
                own[name] = margins_of(work, base, name, of[name])
                theirs = margins_of(work, versus, name, of[name])
                other[name] = theirs[default_of(versus, theirs)]
        if not own:
            continue
        keys = list(next(iter(own.values())))
        loss = {name: {key: np.average(losses(m), weights=of[name].weight) for key, m in own[name].items()} for name in own}
        print(f"\n{base}, {default_of(base, keys)} first; accuracy, loss of what is best on average:")
        mean = lambda key, among: np.mean([loss[name][key] for name in among])
        for key in [default_of(base, keys), *sorted(keys, key=lambda key: mean(key, own))[:6]]:
            print(f"  {key:20}", "  ".join(f"{name[:5]} {right(own[name][key]).mean():.3f} {loss[name][key]:.3f}" for name in own), f"mean {np.mean([right(own[n][key]).mean() for n in own]):.3f} {mean(key, own):.3f}")
        for kind in ("default", "any", "last", "mean", "response"):
            among = [key for key in keys if kind in ("default", "any") or kind == key.split()[1]]
            picked = {name: min(among, key=lambda key, name=name: mean(key, [o for o in own if o != name])) for name in own if among}
            if kind == "default":
                picked = dict.fromkeys(own, default_of(base, keys))
            if picked:
                rows.append({"base": base, "read": kind, **against(kind, own, picked, other, of)})
        for key in show:
            if key in keys:
                rows.append({"base": base, "read": key, **against(key, own, dict.fromkeys(own, key), other, of)})
    (work / "bases.json").write_text(json.dumps(rows, indent=1) + "\n")


def against(kind: str, own: dict, picked: dict, other: dict, of: dict) -> dict:
    """Accuracy and paired difference, by set and in the mean of the sets, with 95 % intervals by resampled prompts."""
    cells, draws, means = [], [], []
    for name, key in picked.items():
        mine = right(own[name][key])
        difference = mine - right(other[name])
        draws.append(resampled(difference, of[name], 1 + len(draws)))
        means.append([mine.mean(), difference.mean()])
        whole = interval(resampled(mine, of[name], 1))
        cells.append(f"{name[:5]} {mine.mean():.3f} ({whole}) {difference.mean():+.3f} ({interval(draws[-1])}) [{key}]")
    mean, difference = np.mean(means, 0)
    print(f"  {kind:8} mean {mean:.3f} {difference:+.3f} ({interval(np.mean(draws, 0))}) | " + "; ".join(cells))
    return {"mean": mean, "difference": difference, "interval": interval(np.mean(draws, 0)), "sets": cells}
