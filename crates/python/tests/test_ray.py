"""Jobs on a Ray cluster of two local nodes: the units of the command, whoever does them and whatever dies."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kudos
from kudos import _kudos

ray = pytest.importorskip("ray")

import kudos.ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = ({"id": n, "prompt": f"What is {n} + {n}?", "response": f"It is {2 * n}. " * (1 + n % 9)} for n in range(240))
    lines = [json.dumps(row) for row in rows]
    lines[17] = '{"prompt": '
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def command(*words: object) -> None:
    _kudos.call([str(word) for word in words], threads=2, say=print, progress=None)


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_settings_are_the_flags_of_the_command() -> None:
    own = {name.replace("_", "-") for name in kudos.ray.ScoreSettings.__annotations__}
    elsewhere = {"help", "json", "judge", "output", "prompt", "response", "shard"}
    assert own == {name for name, _ in _kudos.flags("score")} - elsewhere


def test_a_job_begun_by_the_command_is_finished_by_ray_and_the_other_way_round(
    cluster: Any, file: Path, tmp_path: Path
) -> None:
    command("score", file, "-o", tmp_path / "whole", "--shard", "1/1", "--unit-size", "16")
    whole = parts(tmp_path / "whole")
    command("score", file, "-o", tmp_path / "job", "--shard", "1/3", "--unit-size", "16")
    before = len(parts(tmp_path / "job"))
    assert 0 < before < len(whole)
    heard: list[tuple[int, int | None]] = []
    done = kudos.ray.score(file, tmp_path / "job", progress=lambda rows, total: heard.append((rows, total)))
    assert (done.units, done.before, done.again) == (len(whole), before, 0)
    assert parts(tmp_path / "job") == whole and heard[-1] == (240, 240)
    command("collect", tmp_path / "job", "-o", tmp_path / "job.jsonl")
    command("score", file, "-o", tmp_path / "plain.jsonl")
    assert (tmp_path / "job.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    # Begun by Ray: one part is taken away, and the command does it.
    first = min(parts(tmp_path / "job"))
    (tmp_path / "job" / first).unlink()
    command("score", file, "-o", tmp_path / "job", "--shard", "1/1")
    assert parts(tmp_path / "job") == whole
    assert kudos.ray.score(file, tmp_path / "job").before == len(whole)


def test_a_worker_that_dies_is_replaced(cluster: Any, file: Path, tmp_path: Path) -> None:
    command("score", file, "-o", tmp_path / "whole", "--shard", "1/1", "--unit-size", "4")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            found = subprocess.run(["pgrep", "-f", "^ray::_Worker"], capture_output=True, text=True).stdout.split()
            if found and len(parts(tmp_path / "job")) > 2:
                killed.append(int(found[0]))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = kudos.ray.score([file], tmp_path / "job", unit_size=4)
    thread.join(timeout=30)
    assert killed and done.again <= 1
    assert parts(tmp_path / "job") == parts(tmp_path / "whole")


def test_errors_are_those_of_the_command(cluster: Any, file: Path, tmp_path: Path) -> None:
    kudos.ray.score(file, tmp_path / "job", unit_size=64)
    with pytest.raises(kudos.KudosError, match="has the unit size 64, this call 32"):
        kudos.ray.score(file, tmp_path / "job", unit_size=32)
    with pytest.raises(kudos.KudosError, match="num_cpus=99: expected a node with so many processors"):
        kudos.ray.score(file, tmp_path / "other", num_cpus=99)
    with pytest.raises(kudos.DataError, match=r"rows.jsonl:18: "):
        kudos.ray.score(file, tmp_path / "strict", strict=True)
    with pytest.raises(TypeError, match="no setting is named 'speed'"):
        kudos.ray.score(file, tmp_path / "job", speed=1)  # type: ignore[call-arg]
    # The rows of a unit are compared with those of the plan, whatever a worker finds there.
    (min((tmp_path / "job").glob("part-*"))).unlink()

    class Late(kudos.ray._Worker):
        def load(self, words: Any, threads: int) -> None:
            file.write_text(file.read_text("utf-8").replace("What is 3 +", "What is 4 +"), "utf-8")
            super().load(words, threads)

    original, kudos.ray._Worker = kudos.ray._Worker, Late  # type: ignore[misc]
    try:
        with pytest.raises(kudos.KudosError, match="the file was changed"):
            kudos.ray.score(file, tmp_path / "job")
    finally:
        kudos.ray._Worker = original  # type: ignore[misc]


def test_a_scorer_in_a_pipeline(cluster: Any, judge: kudos.RewardModel, rows: Any) -> None:
    pytest.importorskip("ray.data")
    import ray.data

    expected = judge.annotate(list(rows))
    scored = ray.data.from_items(list(rows)).repartition(4).map_batches(
        kudos.ray.Scorer,
        fn_constructor_args=[judge],
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=2),
    )
    found = sorted(scored.take_all(), key=lambda row: int(row["id"]))
    assert [row["score"] for row in found] == [row["score"] for row in expected]
    again = pickle.loads(pickle.dumps(kudos.ray.Scorer(judge, prefix="x_")))
    assert again.options["prefix"] == "x_" and again.judge.path == judge.path
