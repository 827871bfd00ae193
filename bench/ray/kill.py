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
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ["RAY_worker_niceness"] = "0"  # of a busy machine, its share

import ray  # noqa: E402
from ray.cluster_utils import Cluster

import kudos.ray
from kudos import _kudos

ROWS, UNIT = 480, 12
#: A node that is gone is noticed within seconds, so that a run is short; on a busy machine a living one may be silent.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
}


class Logged(kudos.ray._Worker):
    """A worker that writes down what it begins and what it has done."""

    path: str

    def score(self, unit: int, beside: bool) -> str:
        self.log("begin", unit)
        answer = super().score(unit, beside)
        self.log(answer, unit)
        return answer

    def log(self, what: str, unit: int) -> None:
        with open(self.path, "a") as log:
            log.write(f"{what} {unit} {os.getpid()}\n")


def write_rows(path: Path) -> None:
    chance = random.Random(1)
    with path.open("w") as file:
        for row in range(ROWS):
            words = " ".join(chance.choice("the a sum is two plus half of it not more than".split()) for _ in range(chance.randint(5, 60)))
            file.write(json.dumps({"id": row, "prompt": f"What is {row} squared?", "response": words}) + "\n")


def drive(address: str, folder: Path) -> None:
    """The driver: connects, and does what is missing."""
    ray.init(address=address, log_to_driver=False)
    Logged.path = str(folder / "log")
    kudos.ray._Worker = Logged  # type: ignore[misc]
    kudos.ray.score(folder / "rows.jsonl", folder / "job", num_cpus=1, unit_size=UNIT)


class Drivers:
    """Starts drivers as children of a process that has all modules and no threads: that is quick."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        context.Process(target=self.serve, args=(theirs,), daemon=True).start()

    @staticmethod
    def serve(pipe: Any) -> None:
        while True:
            what, *arguments = pipe.recv()
            if what == "status":
                pipe.send(os.waitpid(arguments[0], os.WNOHANG))
                continue
            child = os.fork()
            if child == 0:
                os.dup2(2, 1)  # what Ray says of the dead is no part of the table
                try:
                    drive(*arguments)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            pipe.send(child)

    def ask(self, *words: Any) -> Any:
        self.pipe.send(words)
        return self.pipe.recv()


class Driver:
    """A driver that runs."""

    def __init__(self, drivers: Drivers, address: str, folder: Path) -> None:
        self.drivers, self.status = drivers, None
        self.pid = drivers.ask("start", address, folder)

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = self.drivers.ask("status", self.pid)
            self.status = status if pid else None
        return self.status

    def wait(self) -> int:
        while (status := self.poll()) is None:
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def add_node(cluster: Cluster, nodes: list[Any]) -> None:
    """A node, however long a busy machine takes to start it."""
    while True:
        try:
            nodes.append(cluster.add_node(num_cpus=1))
            return
        except Exception as error:
            print(f"a node did not start: {error}", file=sys.stderr, flush=True)


class Trial:
    """One job and one death."""

    def __init__(self, drivers: Drivers, cluster: Cluster, nodes: list[Any], folder: Path) -> None:
        self.drivers, self.cluster, self.nodes, self.folder = drivers, cluster, nodes, folder
        shutil.rmtree(folder / "job", ignore_errors=True)
        (folder / "log").write_text("")

    def run(self, what: str, after: float) -> dict[str, Any]:
        """Kills `what` so many seconds after the first unit was begun."""
        running = self.driver()
        while not self.log() and running.poll() is None:
            time.sleep(0.01)
        began = time.monotonic()
        while time.monotonic() < began + after and running.poll() is None:
            time.sleep(0.01)
        seconds = time.monotonic() - began
        there = len(parts(self.folder / "job"))
        hit = running.poll() is None and bool(getattr(self, f"kill_{what}")(running))
        killed = time.monotonic()
        while (died := running.poll()) is None:
            time.sleep(0.02)
            if not self.nodes and time.monotonic() > killed + 4:
                add_node(self.cluster, self.nodes)
        if what == "driver":
            running = self.driver()
            died = running.wait()
        assert died == 0, f"the driver ended with status {died}"
        begun = collections.Counter(unit for word, unit, _ in self.log() if word == "begin")
        twice = sum(count - 1 for count in begun.values())
        return {"hit": hit, "there": there, "twice": twice, "seconds": seconds}

    def driver(self) -> Driver:
        return Driver(self.drivers, self.cluster.address, self.folder)

    def log(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "log").read_text().splitlines()]

    def kill_worker(self, _: Any) -> bool:
        known = {int(pid) for _, _, pid in self.log()}
        found = [pid for pid in known if Path(f"/proc/{pid}").exists()]
        if found:
            os.kill(random.choice(found), signal.SIGKILL)
        return bool(found)

    def kill_node(self, _: Any) -> bool:
        """Kills the second node at once, and adds another one later."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        return True

    def kill_driver(self, running: Any) -> bool:
        running.kill()
        return True


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--what", nargs="*", default=["worker", "node", "driver"])
    asked = asked.parse_args()
    drivers = Drivers()
    folder = Path(tempfile.mkdtemp(prefix="kudos-kill-"))
    write_rows(folder / "rows.jsonl")
    command = lambda *words: _kudos.call([str(word) for word in words], threads=2, say=lambda _: None, progress=None)  # noqa: E731
    command("score", folder / "rows.jsonl", "-o", folder / "plain.jsonl")
    command("score", folder / "rows.jsonl", "-o", folder / "whole", "--shard", "1/1", "--unit-size", UNIT)
    whole, plain = parts(folder / "whole"), (folder / "plain.jsonl").read_bytes()
    print(f"the file: {len(whole)} units", file=sys.stderr, flush=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH})
    nodes = [cluster.add_node(num_cpus=1)]
    trial = Trial(drivers, cluster, nodes, folder)
    quiet = trial.driver()
    while not trial.log():
        time.sleep(0.01)
    began = time.monotonic()
    assert quiet.wait() == 0
    length = time.monotonic() - began
    print(f"an undisturbed run: {length:.1f} s after its first unit", file=sys.stderr, flush=True)
    random.seed(22)
    print("| killed | times | units there then | all parts there, bytes equal | rows joined equal | units begun twice: most, sum |")
    print("|---|---|---|---|---|---|", flush=True)
    for what in asked.what:
        found: list[dict[str, Any]] = []
        while sum(result["hit"] for result in found) < asked.times:
            trial = Trial(drivers, cluster, nodes, folder)
            result = trial.run(what, random.uniform(0, length))
            if not result["hit"]:  # The job was done before: the machine has become faster.
                length = min(length, result["seconds"])
            command("collect", folder / "job", "-o", folder / "joined.jsonl")
            result["equal"] = parts(folder / "job") == whole
            result["joined"] = (folder / "joined.jsonl").read_bytes() == plain
            found.append(result)
            print(f"{what} {len(found)}: {json.dumps(result)}", file=sys.stderr, flush=True)
            if not nodes:
                add_node(cluster, nodes)
        found = [result for result in found if result["hit"]]
        there, twice = [r["there"] for r in found], [r["twice"] for r in found]
        equal, joined = sum(r["equal"] for r in found), sum(r["joined"] for r in found)
        print(
            f"| {what} | {len(found)} | {min(there)} to {max(there)} of {len(whole)} | {equal} | {joined} "
            f"| {max(twice)}, {sum(twice)} |",
            flush=True,
        )
    cluster.shutdown()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
