"""A good citizen: threads, signals, forks, pickles, the log, and a judge's files that change."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

import kudos
from kudos import _kudos, _progress

from conftest import PROMPTS, RESPONSES


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=full, timeout=120)


def test_many_threads_get_their_own_scores(judge: kudos.RewardModel) -> None:
    texts = [f"answer {n} " * (1 + n % 7) for n in range(200)]
    expected = judge.score("p", texts)
    start = threading.Barrier(200)

    def one(place: int) -> float:
        start.wait()
        return float(judge.score("p", [texts[place]])[0])

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        assert list(pool.map(one, range(200))) == [float(score) for score in expected]


def test_a_text_that_fails_costs_no_other_thread_its_score(judge: kudos.RewardModel) -> None:
    def one(place: int) -> object:
        try:
            return float(judge.score("p", ["fine" if place % 3 else None])[0])  # type: ignore[arg-type]
        except kudos.DataError:
            return None

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(60)))
    assert [value is None for value in found] == [place % 3 == 0 for place in range(60)]


def test_scores_can_be_awaited_together(judge: kudos.RewardModel) -> None:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(judge.ascore(p, [r]) for p, r in zip(PROMPTS, RESPONSES)))

    found = numpy.concatenate(asyncio.run(all_of_them()))
    assert found.tobytes() == judge.score(PROMPTS, RESPONSES).tobytes()


def test_other_threads_run_while_scores_are_computed(judge: kudos.RewardModel) -> None:
    ticks = 0
    over = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    judge.score("p", ["a long text " * 100] * 60)
    over.set()
    thread.join()
    assert ticks > 5, "a call that held the interpreter would leave one or none"


def test_ctrl_c_ends_a_call(judge: kudos.RewardModel) -> None:
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.4, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        judge.score("p", (f"a long text {n} " * 100 for n in range(10**9)))
    assert judge.score("p", ["a"]).shape == (1,)


def test_ctrl_c_ends_a_training(pairs_rows: Sequence[dict[str, str]], tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def first_step(done: int, total: int | None) -> None:
        if done == 2:
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        kudos.train(pairs_rows, output=tmp_path / "judge", max_steps=10_000, head_first=False, progress=first_step)


def test_an_exception_of_the_callback_ends_the_work(
    judge: kudos.RewardModel, pairs_rows: Sequence[dict[str, str]], tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        raise Enough(done)

    with pytest.raises(Enough):
        judge.score("p", ["a"] * 2000, progress=stop)
    with pytest.raises(Enough):
        judge.annotate([{"prompt": "p", "response": "r"}], progress=stop)
    with pytest.raises(Enough):
        kudos.train(pairs_rows, output=tmp_path / "judge", max_steps=10_000, head_first=False, progress=stop)


def test_progress_reaches_the_total(judge: kudos.RewardModel) -> None:
    heard: list[tuple[int, int | None]] = []
    judge.score("p", [f"{n} words " * 30 for n in range(100)], progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (100, 100) and [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_a_bar_shows_where_it_is_asked_for_and_goes(
    judge: kudos.RewardModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "_SECONDS", 0.0)
    texts = [f"{n} words " * 40 for n in range(200)]
    judge.score("p", texts)
    assert capsys.readouterr().err == "", "nobody would see it"
    judge.score("p", texts, progress=True)
    shown = capsys.readouterr().err
    assert "/200 texts" in shown and shown.endswith("\r")


def _in_child(judge: kudos.RewardModel, expected: bytes) -> None:
    assert judge.score(PROMPTS, RESPONSES).tobytes() == expected
    assert kudos.RewardModel.from_pretrained().score(PROMPTS, RESPONSES).tobytes() == expected
    assert kudos.check([{"prompt": "p", "chosen": "a", "rejected": "b"}])["pairs"] == 1
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scores(judge: kudos.RewardModel) -> None:
    expected = judge.score(PROMPTS, RESPONSES).tobytes()
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            judge.score("p", ["a text " * 50] * 20)

    others = [threading.Thread(target=busy) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=_in_child, args=(judge, expected))
            child.start()
            child.join(60)
            assert child.exitcode == 0
    finally:
        over.set()
        for other in others:
            other.join()


def test_methods_can_be_sent_along(judge: kudos.RewardModel) -> None:
    annotate, score = pickle.loads(pickle.dumps((judge.annotate, judge.score)))
    assert annotate([{"prompt": "p", "response": "r"}])[0]["score"] == score("p", ["r"])[0]


def _score_in_spawned(judge: kudos.RewardModel) -> bytes:
    return judge.score(PROMPTS, RESPONSES).tobytes()


def test_a_pickled_judge_scores_in_another_process(judge: kudos.RewardModel) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_score_in_spawned, judge).result(120) == judge.score(PROMPTS, RESPONSES).tobytes()


def test_a_judge_that_was_replaced_or_deleted_is_noticed(judge: kudos.RewardModel, tmp_path: Path) -> None:
    path = tmp_path / "judge"
    shutil.copytree(judge.path, path)
    copy = kudos.RewardModel.from_pretrained(path)
    expected = judge.score(PROMPTS, RESPONSES).tobytes()
    pickled = pickle.dumps(copy)
    assert pickle.loads(pickled).score(PROMPTS, RESPONSES).tobytes() == expected
    reward = path / "reward.json"
    reward.write_text(reward.read_text() + " ")
    with pytest.raises(kudos.JudgeError, match="another"):
        pickle.loads(pickled)
    with pytest.raises(kudos.JudgeError, match="other files"):
        pickle.dumps(copy)
    with pytest.raises(kudos.JudgeError, match="other files"):
        kudos.evaluate(copy, [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    shutil.rmtree(path)
    assert copy.score(PROMPTS, RESPONSES).tobytes() == expected, "what is loaded needs its files no more"
    with pytest.raises(kudos.JudgeError):
        pickle.dumps(copy)
    with pytest.raises(kudos.JudgeError):
        pickle.loads(pickled)


def test_judges_that_are_none(tmp_path: Path, judge: kudos.RewardModel) -> None:
    with pytest.raises(kudos.JudgeError, match="no-such-judge"):
        kudos.RewardModel.from_pretrained("no-such-judge")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(kudos.JudgeError):
        kudos.RewardModel.from_pretrained(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(judge.path, broken)
    weights = broken / "model.int8.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(kudos.JudgeError) as caught:
        kudos.RewardModel.from_pretrained(broken)
    assert caught.value.row is None
    with pytest.raises(kudos.KudosError, match="expected f32, bf16 or int8"):
        kudos.RewardModel.from_pretrained(precision="f64")
    with pytest.raises(kudos.KudosError, match="threads"):
        kudos.RewardModel.from_pretrained(threads=0)


def test_a_panic_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(kudos.KudosError, match="a fault in Kudos itself.*as a test asked"):
        _kudos.fault_for_tests()
    assert capfd.readouterr() == ("", "")


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(kudos.DataError("tensor `a.weight` and row 3", row=3)))
    assert (error.row, error.tensor, str(error)) == (3, "a.weight", "tensor `a.weight` and row 3")


THREADS = "import kudos; print(kudos.RewardModel.from_pretrained().threads)"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"KUDOS_THREADS": "3", "OMP_NUM_THREADS": "2"}, "3"),
        ({"KUDOS_THREADS": "", "OMP_NUM_THREADS": "4,2"}, "4"),
        ({"KUDOS_THREADS": "", "OMP_NUM_THREADS": ""}, str(len(os.sched_getaffinity(0)))),
    ],
)
def test_threads_follow_the_environment(env: dict[str, str], expected: str) -> None:
    assert python(THREADS, **env).stdout.strip() == expected


def test_threads_follow_the_affinity_and_a_wrong_number_is_refused() -> None:
    one = python("import os; os.sched_setaffinity(0, {0}); " + THREADS, KUDOS_THREADS="", OMP_NUM_THREADS="")
    assert one.stdout.strip() == "1"
    assert "KUDOS_THREADS=many: expected a number" in python(THREADS, KUDOS_THREADS="many").stderr


def test_nothing_is_printed_and_all_is_logged(
    pairs_rows: Sequence[dict[str, str]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    with caplog.at_level(logging.INFO, logger="kudos"):
        kudos.train(pairs_rows, output=tmp_path / "judge", max_steps=2, head_first=False)
        kudos.check(pairs_rows)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert "training on" in caplog.text and "/frame." not in caplog.text


def test_the_interpreter_can_end_while_scores_are_computed() -> None:
    code = """
import threading, time, kudos
judge = kudos.RewardModel.from_pretrained()
texts = ["a long text " * 100] * 100_000
threading.Thread(target=lambda: judge.score("p", texts), daemon=True).start()
time.sleep(0.3)
"""
    done = python(code)
    assert done.returncode == 0 and "panicked" not in done.stderr, done.stderr


def test_settings_are_checked_as_the_command_s_are(pairs_rows: Sequence[dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(kudos.KudosError, match="bradley-terry"):
        kudos.train(pairs_rows, output=tmp_path / "a", loss="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no setting"):
        kudos.train(pairs_rows, output=tmp_path / "a", losses="none")  # type: ignore[call-arg]
    with pytest.raises(kudos.DataError, match="no-such-file"):
        kudos.check("no-such-file.csv")
    with pytest.raises(kudos.DataError, match="empty list"):
        kudos.check([])
    assert not (tmp_path / "a").exists()


def test_a_callback_that_raises_leaves_no_judge(pairs_rows: Sequence[dict[str, str]], tmp_path: Path) -> None:
    output = tmp_path / "judge"

    def stop(done: int, total: int | None) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        kudos.train(pairs_rows, output=output, max_steps=100_000, head_first=False, progress=stop)


def test_training_continues_from_python(pairs_rows: Sequence[dict[str, str]], tmp_path: Path) -> None:
    judge = kudos.train(pairs_rows, output=tmp_path / "a", max_steps=3, head_first=False, eval=pairs_rows)
    steps = [step for step in judge.history if "loss" in step]
    assert [step["step"] for step in steps] == [1, 2, 3]
    again = kudos.train(pairs_rows, base=judge, output=tmp_path / "b", max_steps=1, head_first=False, lora=4)
    assert again.path == tmp_path / "b"
    with pytest.raises(kudos.KudosError, match="already holds a judge"):
        kudos.train(pairs_rows, output=tmp_path / "a")
