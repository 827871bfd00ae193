"""One judge of several attributes against one judge for each: Spearman within held-out prompts.

    python bench/attributes.py --kudos target/release/kudos --base MODEL --train RATED.jsonl --eval HELD_OUT.jsonl \
        --attributes coherence,consistency,fluency,relevance --seeds 42,43,44

All judges have the same base, data, steps and settings (--flags, in one string, for `kudos train`); none sees the held-out
file before the end. Prints a Markdown table: for each attribute the mean over the seeds of both, and of their difference.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path


def train_and_measure(options, directory, attributes, seed):
    """{attribute: Spearman} of a judge of these attributes on the held-out file."""
    judge, report = directory / f"{'-'.join(attributes)}-{seed}", directory / "report.json"
    subprocess.run([options.kudos, "train", options.train, "--base", options.base, "-o", judge, "--quiet", "--seed", str(seed),
                    "--attributes", ",".join(attributes), "--eval-fraction", "0", *options.flags.split()], check=True)
    subprocess.run([options.kudos, "eval", options.eval, "--judge", judge, "--json", report, "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    found = json.loads(report.read_text())["data"][0]["attributes"]
    return {name: found[name]["spearman"] for name in attributes}


def main():
    parser = argparse.ArgumentParser(description="A judge of several attributes against a judge for each.")
    for name in ["kudos", "base", "train", "eval", "attributes"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--flags", default="--epochs 2 --max-length 256 --learning-rate 1e-4")
    options = parser.parse_args()
    names, seeds = options.attributes.split(","), [int(seed) for seed in options.seeds.split(",")]
    together, alone = {name: [] for name in names}, {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            for name, spearman in train_and_measure(options, Path(temporary), names, seed).items():
                together[name].append(spearman)
            for name in names:
                alone[name].append(train_and_measure(options, Path(temporary), [name], seed)[name])
    print(f"`{options.flags}`, seeds {options.seeds}\n\n| attribute | together | alone | difference by seed |\n|---|---|---|---|")
    for name in names:
        by_seed = ", ".join(f"{a - b:+.3f}" for a, b in zip(together[name], alone[name]))
        print(f"| {name} | {statistics.mean(together[name]):.3f} | {statistics.mean(alone[name]):.3f} | {by_seed} |")
    mean = [statistics.mean(sum(side.values(), [])) for side in (together, alone)]
    print(f"| mean | {mean[0]:.3f} | {mean[1]:.3f} | |")


if __name__ == "__main__":
    main()
