"""Kills workers, nodes and drivers of a Ray job at random moments, and counts what that cost.

    python bench/ray/kill.py --times 20 > bench/ray/kill.md

Two local nodes with a processor each score a file of 40 units. After each death the job must be complete: every part there,
with the bytes of an undisturbed run, and the joined rows those of `kudos score`. The log of the workers says which units
were begun more than once.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

import kudos.ray
from kudos import _kudos

ROWS, UNIT = 1280, 32
#: A node that is gone is noticed within three seconds, so that a run is short.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Logged(kudos.ray._Worker):
    """A worker that writes down what it begins and what it has done."""

    def score(self, unit: int, beside: bool) -> str:
        self.log("begin", unit)
        answer = super().score(unit, beside)
        self.log(answer, unit)
        return answer

    @staticmethod
    def log(what: str, unit: int) -> None:
        with open(os.environ["KILL_LOG"], "a") as log:
            log.write(f"{what} {unit} {os.getpid()}\n")


def write_rows(path: Path) -> None:
    chance = random.Random(1)
    with path.open("w") as file:
        for row in range(ROWS):
            words = " ".join(chance.choice("the a sum is two plus half of it not more than".split()) for _ in range(chance.randint(5, 120)))
            file.write(json.dumps({"id": row, "prompt": f"What is {row} squared?", "response": words}) + "\n")


def drive(address: str, file: str, output: str, log: str) -> kudos.ray.Summary:
    """The driver: connects, and does what is missing."""
    environment = {"env_vars": {"KILL_LOG": log, "PYTHONPATH": os.pathsep.join(sys.path)}}
    ray.init(address=address, log_to_driver=False, runtime_env=environment)
    kudos.ray._Worker = Logged  # type: ignore[misc]
    try:
        return kudos.ray.score(file, output, num_cpus=1, unit_size=UNIT)
    finally:
        ray.shutdown()


def driver(folder: Path, address: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, __file__, "--drive", address, str(folder / "rows.jsonl"), str(folder / "job"), str(folder / "log")]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def workers() -> list[int]:
    return [int(pid) for pid in subprocess.run(["pgrep", "-f", "^ray::Logged"], capture_output=True, text=True).stdout.split()]


class Trial:
    """One job and one death."""

    def __init__(self, cluster: Cluster, nodes: list[Any], folder: Path) -> None:
        self.cluster, self.nodes, self.folder = cluster, nodes, folder
        shutil.rmtree(folder / "job", ignore_errors=True)
        (folder / "log").write_text("")

    def run(self, what: str, after: float) -> dict[str, Any]:
        """Kills `what` so many seconds after the first unit was begun."""
        running = driver(self.folder, self.cluster.address)
        while not self.log() and running.poll() is None:
            time.sleep(0.01)
        time.sleep(after)
        there = len(parts(self.folder / "job"))
        hit = running.poll() is None and bool(getattr(self, f"kill_{what}")(running))
        died = running.wait()
        if what == "driver":
            running = driver(self.folder, self.cluster.address)
            died = running.wait()
        assert died == 0, running.stderr.read().decode()[-2000:] if running.stderr else died
        begun = collections.Counter(unit for word, unit, _ in self.log() if word == "begin")
        twice = sum(count - 1 for count in begun.values())
        return {"hit": hit, "there": there, "twice": twice}

    def log(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "log").read_text().splitlines()]

    def kill_worker(self, _: Any) -> bool:
        found = workers()
        if found:
            os.kill(random.choice(found), signal.SIGKILL)
        return bool(found)

    def kill_node(self, _: Any) -> bool:
        """Kills the second node at once, and adds another one later."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        threading.Timer(4, lambda: self.nodes.append(self.cluster.add_node(num_cpus=1))).start()
        return True

    def kill_driver(self, running: Any) -> bool:
        running.kill()
        return True


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--what", nargs="*", default=["worker", "node", "driver"])
    asked.add_argument("--drive", nargs=4)
    asked = asked.parse_args()
    if asked.drive:
        drive(*asked.drive)
        return
    folder = Path(tempfile.mkdtemp(prefix="kudos-kill-"))
    write_rows(folder / "rows.jsonl")
    command = lambda *words: _kudos.call([str(word) for word in words], threads=2, say=lambda _: None, progress=None)  # noqa: E731
    command("score", folder / "rows.jsonl", "-o", folder / "plain.jsonl")
    command("score", folder / "rows.jsonl", "-o", folder / "whole", "--shard", "1/1", "--unit-size", UNIT)
    whole, plain = parts(folder / "whole"), (folder / "plain.jsonl").read_bytes()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": HEALTH})
    nodes = [cluster.add_node(num_cpus=1)]
    trial = Trial(cluster, nodes, folder)
    quiet = driver(folder, cluster.address)
    while not trial.log():
        time.sleep(0.01)
    began = time.monotonic()
    assert quiet.wait() == 0
    length = time.monotonic() - began
    random.seed(22)
    print("| killed | times | at work when killed | units there then | jobs complete, bytes equal | rows joined equal | units begun twice: most, sum |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for what in asked.what:
        found, equal, joined = [], 0, 0
        for number in range(asked.times):
            trial = Trial(cluster, nodes, folder)
            result = trial.run(what, random.uniform(0, length))
            found.append(result)
            equal += parts(folder / "job") == whole
            command("collect", folder / "job", "-o", folder / "joined.jsonl")
            joined += (folder / "joined.jsonl").read_bytes() == plain
            print(f"{what} {number + 1}: {result}", file=sys.stderr, flush=True)
            while len([node for node in cluster.list_all_nodes()]) < 2:
                time.sleep(0.2)
        hits, there, twice = sum(r["hit"] for r in found), [r["there"] for r in found], [r["twice"] for r in found]
        print(
            f"| {what} | {asked.times} | {hits} | {min(there)} to {max(there)} of {len(whole)} | {equal} | {joined} "
            f"| {max(twice)}, {sum(twice)} |",
            flush=True,
        )
    cluster.shutdown()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
