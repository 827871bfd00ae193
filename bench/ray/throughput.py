"""Rows a second of `kudos.ray.score` on two local nodes of one processor each, beside `kudos score` with two threads.

    python bench/ray/throughput.py --times 5 > bench/ray/throughput.md

Both sides tell how many rows are done. A rate is that from the first such moment to the last, so neither start-up nor the
loading of the judge counts. The sides take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

import kudos.ray
from kudos import _kudos


class Clock:
    """When how many rows were done."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int]] = []

    def __call__(self, done: int, *_: object) -> None:
        if done and (not self.heard or done > self.heard[-1][1]):
            self.heard.append((time.perf_counter(), done))

    def rate(self) -> float:
        (began, first), (ended, last) = self.heard[0], self.heard[-1]
        return (last - first) / (ended - began)


def write_rows(path: Path, rows: int) -> None:
    chance = random.Random(1)
    words = "the a sum is two plus half of it not more than".split()
    with path.open("w") as file:
        for row in range(rows):
            response = " ".join(chance.choice(words) for _ in range(chance.randint(5, 120)))
            file.write(json.dumps({"id": row, "prompt": f"What is {row} squared?", "response": response}) + "\n")


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--times", type=int, default=5)
    asked.add_argument("--rows", type=int, default=8192)
    asked.add_argument("--unit-size", type=int, default=256)
    asked.add_argument("--judge")
    asked = asked.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kudos-rate-"))
    write_rows(folder / "rows.jsonl", asked.rows)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    judge = [f"--judge={asked.judge}"] if asked.judge else []
    print("| run | `kudos score`, 2 threads | `kudos.ray.score`, 2 × 1 | ratio |\n|---|---|---|---|", flush=True)
    ratios = []
    for run in range(asked.times):
        alone, many = Clock(), Clock()
        words = ["score", str(folder / "rows.jsonl"), "-o", str(folder / "plain.parquet"), *judge]
        _kudos.call(words, threads=2, say=lambda _: None, progress=alone)
        shutil.rmtree(folder / "job", ignore_errors=True)
        kudos.ray.score(
            folder / "rows.jsonl", folder / "job", asked.judge, num_cpus=1, unit_size=asked.unit_size, progress=many
        )
        ratios.append(many.rate() / alone.rate())
        print(f"| {run + 1} | {alone.rate():.0f} rows/s | {many.rate():.0f} rows/s | {ratios[-1]:.2f} |", flush=True)
    print(f"| median | | | {statistics.median(ratios):.2f} |")
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
