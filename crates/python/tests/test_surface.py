"""What is public, and that it is the commands'."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import kudos
from kudos import _functions, _kudos

PUBLIC = [
    "DataError",
    "Evaluation",
    "JudgeError",
    "KudosError",
    "Ranked",
    "RewardModel",
    "__version__",
    "check",
    "evaluate",
    "generate",
    "pairs",
    "train",
]

#: Flags that are no settings: what is printed, and what the functions have as arguments of their own.
ELSEWHERE = {
    "train": {"base", "output", "eval", "json", "help"},
    "eval": {"judge", "json", "report", "calibrate", "allow-training-data", "help"},
    "check": {"eval", "json", "show", "help"},
    "generate": {"model", "prompts", "output", "json", "pipe", "help"},
    "pairs": {"output", "json", "help"},
}
SETTINGS = {
    "train": _functions.TrainSettings,
    "eval": _functions.EvaluateSettings,
    "check": _functions.CheckSettings,
    "generate": _functions.GenerateSettings,
    "pairs": _functions.DataSettings,
}


def test_nothing_else_is_public() -> None:
    assert sorted(kudos.__all__) == sorted(PUBLIC)
    modules = {"errors", "integrations"}
    names = {name for name in vars(kudos) if not name.startswith("_")} - modules - {"annotations"}
    assert names == {name for name in PUBLIC if not name.startswith("_")}


@pytest.mark.parametrize("command", SETTINGS)
def test_settings_are_the_flags_of_the_command(command: str) -> None:
    flags = {name for name, _ in _kudos.flags(command)} - ELSEWHERE[command]
    own = {name.replace("_", "-") for name in SETTINGS[command].__annotations__}
    assert own == flags


@pytest.mark.parametrize("module", ["kudos", "kudos._model", "kudos._functions"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def test_what_is_public_has_a_docstring_with_an_example() -> None:
    methods = ["score", "annotate", "ascore", "compare", "rank", "best", "from_pretrained"]
    documented = [getattr(kudos.RewardModel, name) for name in methods]
    documented += [kudos.train, kudos.evaluate, kudos.check, kudos.pairs, kudos.Evaluation.save_html]
    for function in documented:
        assert ">>>" in (inspect.getdoc(function) or ""), function


def _blocks() -> list[tuple[str, str]]:
    root = Path(__file__).parents[3]
    blocks: list[tuple[str, str]] = []
    for page in ("docs/python.md", "README.md"):
        text = (root / page).read_text()
        for place, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            if "import kudos" in block:
                blocks.append((f"{page} {place + 1}", block))
    return blocks


@pytest.mark.parametrize(("place", "block"), _blocks(), ids=[place for place, _ in _blocks()])
def test_examples_in_the_documentation(place: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rankings = "prompt,answer,rank\n" + "".join(f"Say {n}.,{n},1\nSay {n}.,No.,2\n" for n in range(20))
    (tmp_path / "rankings.csv").write_text(rankings)
    exec(compile(block, place, "exec"), {"__name__": "__main__"})
