"""The wheel and the command give the same scores, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

import kudos

from conftest import PROMPTS, RESPONSES


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "kudos", *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_command_gives_the_same_bits(
    judge: kudos.RewardModel, rows: Sequence[dict[str, Any]], tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    printed = command("score", str(data), "--quiet", "--threads", "1")
    expected = numpy.array([json.loads(line)["score"] for line in printed.splitlines()], numpy.float32)
    found = judge.score(PROMPTS, RESPONSES)
    assert found.dtype == numpy.float32
    assert found.tobytes() == expected.tobytes()


def test_rows_of_annotate_are_the_command_s(judge: kudos.RewardModel, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "Yes, it is.", "rejected": "no", "score_chosen": 7},
        {"prompt": "q", "chosen": [{"role": "assistant", "content": "Of course."}], "rejected": "", "score_chosen": 8},
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [json.loads(line) for line in command("score", str(data), "--quiet").splitlines()]
    assert judge.annotate(rows) == expected
    assert "kudos_score_chosen" in expected[0]


def test_the_command_has_its_exit_status() -> None:
    wrong = subprocess.run([sys.executable, "-m", "kudos", "train", "--loss", "none"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--loss" in wrong.stderr
    failed = subprocess.run([sys.executable, "-m", "kudos", "check", "no-such-file"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    version = subprocess.run([sys.executable, "-m", "kudos", "--version"], capture_output=True, text=True)
    assert version.returncode == 0 and kudos.__version__ in version.stdout


def test_evaluation_is_the_command_s(
    judge: kudos.RewardModel, pairs_rows: Sequence[dict[str, str]], tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs_rows))
    expected = json.loads(command("eval", str(data), "--json", "--quiet", "--bootstrap", "50"))
    found = kudos.evaluate(judge, data, bootstrap=50)
    assert {**found, "judge": None} == {**expected, "judge": None}
    of_frame = kudos.evaluate(judge, pairs_rows, bootstrap=50)
    assert of_frame["data"][0]["file"] == "frame"
    assert {**of_frame["data"][0], "file": None} == {**expected["data"][0], "file": None}


def test_check_and_pairs_are_the_command_s(tmp_path: Path) -> None:
    data = tmp_path / "rankings.csv"
    data.write_text("prompt,answer,rank\np,a,1\np,b,2\np,c,2\nq,a,1\n")
    assert kudos.check(data) == json.loads(command("check", str(data), "--json"))
    expected = [json.loads(line) for line in command("pairs", str(data), "--quiet").splitlines()]
    output = tmp_path / "out.csv"
    assert kudos.pairs(data, output=output) == expected and len(expected) == 2
    assert output.read_text().splitlines()[0] == "prompt,chosen,rejected"


@pytest.mark.parametrize("threads", [1, 3])
def test_scores_do_not_depend_on_threads(judge: kudos.RewardModel, threads: int) -> None:
    other = kudos.RewardModel.from_pretrained(threads=threads)
    assert other.threads == threads
    assert other.score(PROMPTS, RESPONSES).tobytes() == judge.score(PROMPTS, RESPONSES).tobytes()
