"""The commands as functions: the same settings, names, defaults and results."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import _data, _kudos
from ._data import Data, FilePath, Text
from ._model import RewardModel
from ._progress import Bar, Progress, listener
from .errors import DataError, KudosError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Evaluation", "check", "evaluate", "generate", "pairs", "train"]

log = logging.getLogger("kudos")


class DataSettings(TypedDict, total=False):
    """How data are read. Each key is the flag of that name, with a dash for each underscore."""

    #: Which columns are meant: `{"prompt": "question.text"}`.
    columns: Mapping[str, str] | Sequence[str]
    #: What labels mean: `{"a": "1", "b": "0"}`.
    labels: Mapping[str, str] | Sequence[str]
    #: The column of ratings: higher is better.
    rating: str
    #: The column of ranks: 1 is best.
    rank: str
    #: The column that says whose ranking a row belongs to.
    group_by: str
    #: Stop at the first row that cannot be used.
    strict: bool


class TrainSettings(DataSettings, total=False):
    """Settings of `train`: `kudos train --help` says what each means and its default."""

    recipe: Literal["default", "trl"]
    loss: Literal["bradley-terry", "plackett-luce"]
    max_steps: int
    epochs: float
    batch_size: int
    accumulate: int
    group_size: int
    learning_rate: float
    layer_decay: float
    keep_layers: int
    renew_layers: int
    freeze: int
    memory: int | str
    schedule: Literal["linear", "cosine", "constant"]
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    center_coefficient: float
    max_length: int
    truncation: Literal["longest_first", "keep_response"]
    precision: Literal["f32", "bf16", "int8"]
    seed: int
    no_shuffle: bool
    eval_fraction: float
    eval_every: int
    early_stop: int
    save_every: int
    head_first: bool
    folds: int
    ensemble: int
    resume: bool
    overwrite: bool
    new_head: bool
    head_from: str
    lora: int | bool
    lora_alpha: float
    lora_targets: Sequence[str]
    lora_dropout: float
    rslora: bool
    literal: bool
    teacher: str
    template: str
    attributes: Sequence[str]
    attribute_weights: str


class EvaluateSettings(DataSettings, total=False):
    """Settings of `evaluate`: `kudos eval --help` says what each means and its default."""

    suite: Literal["llmbar", "pandalm", "judgebench", "rewardbench", "rewardbench-2", "rm-bench", "xstest"]
    precision: Literal["f32", "bf16", "int8"]
    analysis: bool
    bootstrap: int
    seed: int
    literal: bool


class CheckSettings(DataSettings, total=False):
    """Settings of `check`: `kudos check --help` says what each means and its default."""

    base: str
    max_length: int


class GenerateSettings(TypedDict, total=False):
    """Settings of `generate`: `kudos generate --help` says what each means and its default."""

    temperature: float | Sequence[float]
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int
    max_new_tokens: int
    stop: str | Sequence[str]
    distinct: Literal["exact", "near", "off"]
    raw: bool
    system: str
    precision: Literal["f32", "bf16", "int8"]
    sequences: int
    model_name: str
    key_variable: str
    concurrency: int
    timeout: int
    retries: int
    restart: bool
    overwrite: bool


class Evaluation(dict[str, Any]):
    """What `kudos eval --json` prints, and the report that goes with it."""

    _html: bytes

    def save_html(self, path: FilePath) -> None:
        """Writes the report as one HTML file: what the judge can do, figures, mistakes, settings.

        >>> import tempfile
        >>> found = evaluate(None, [{"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}] * 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found.save_html(f"{folder}/report.html")
        """
        Path(path).write_bytes(self._html)


def train(
    data: Data,
    *,
    base: FilePath | RewardModel | None = None,
    output: FilePath = "judge",
    eval: Data | None = None,
    threads: int | None = None,
    progress: bool | Progress | None = None,
    **settings: Unpack[TrainSettings],
) -> RewardModel:
    """Trains a judge on rankings, pairs or comparisons, as `kudos train` does.

    Args:
        data: Files, or a frame, with any columns that Kudos reads.
        base: What to start from: a model's directory or name. Without it, the judge in the box.
        output: Directory for the judge.
        eval: Data to measure on while training, instead of held-out prompts.
        threads: Threads to compute with.
        progress: A function of (done, total) steps, whose exception stops the run; or True or False for a bar.
        **settings: As the flags of `kudos train`, with an underscore for each dash.

    Returns:
        The judge. Its `history` has a dictionary for each step.

    >>> import tempfile
    >>> rows = [{"prompt": f"Say {n}.", "chosen": f"{n}", "rejected": "No."} for n in range(20)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     judge = train(rows, output=f"{folder}/judge", max_steps=2, head_first=False)
    ...     [step["step"] for step in judge.history if "loss" in step]
    [1, 2]
    """
    words: list[str] = [f"--output={os.fspath(output)}"]
    if base is not None:
        words.append(f"--base={_name(base)}")
    with _data.files(data) as (files, folder):
        if eval is None:
            _run("train", [*words, *_flags("train", settings)], files, threads, progress, "steps", folder)
        else:
            with _data.files(eval) as (held_out, _):
                words += [f"--eval={path}" for path in held_out]
                _run("train", [*words, *_flags("train", settings)], files, threads, progress, "steps", folder)
    return RewardModel.from_pretrained(output, threads=threads)


def evaluate(
    judge: RewardModel | FilePath | None,
    data: Data,
    *,
    threads: int | None = None,
    progress: bool | Progress | None = None,
    **settings: Unpack[EvaluateSettings],
) -> Evaluation:
    """Measures a judge on labelled data it was not trained on.

    Args:
        judge: A judge, its directory or its name; None is the judge in the box.
        data: Files, or a frame: rankings, pairs, comparisons or groups.
        threads: Threads to compute with.
        progress: A function of (done, total), whose exception stops the work; or True or False for a bar.
        **settings: As the flags of `kudos eval`, with an underscore for each dash.

    Returns:
        The dictionary of `kudos eval --json`. Accuracies are shares from 0 to 1.

    >>> found = evaluate(None, [{"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}] * 4)
    >>> found["data"][0]["pairs"]
    4
    """
    words = ["--json", f"--judge={_name(judge)}"]
    if isinstance(judge, RewardModel):
        threads = judge.threads if threads is None else threads
        if "precision" not in settings:
            words.append(f"--precision={judge.precision}")
    with _data.files(data) as (files, folder), tempfile.TemporaryDirectory(prefix="kudos-") as scratch:
        report = Path(scratch) / "report.html"
        words += [f"--report={report}", *_flags("eval", settings)]
        printed = _run("eval", words, files, threads, progress, "groups", folder)
        found = Evaluation(json.loads(_without(folder, printed)))
        found._html = _without(folder, report.read_text("utf-8")).encode()
    return found


def check(
    data: Data, *, eval: Data | None = None, threads: int | None = None, **settings: Unpack[CheckSettings]
) -> dict[str, Any]:
    """Says what is wrong with preference data, before training on it.

    Args:
        data: Files, or a frame.
        eval: Data for evaluation; a prompt that `data` has too is an error among the findings.
        threads: Threads to compute with.
        **settings: As the flags of `kudos check`, with an underscore for each dash.

    Returns:
        The report of `kudos check --json`: `findings` has what was found, each with its severity and its places.

    >>> check([{"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}])["pairs"]
    1
    """
    with _data.files(data) as (files, folder):
        words = ["--json", *_flags("check", settings)]
        if eval is None:
            printed = _run("check", words, files, threads, False, "rows", folder)
            return dict(json.loads(_without(folder, printed)))
        with _data.files(eval) as (held_out, other):
            words += [f"--eval={path}" for path in held_out]
            printed = _run("check", words, files, threads, False, "rows", folder)
            return dict(json.loads(_without(other, _without(folder, printed))))


def pairs(data: Data, *, output: FilePath | None = None, **settings: Unpack[DataSettings]) -> list[dict[str, Any]]:
    """Turns rankings, comparisons and groups into pairs: prompt, chosen, rejected.

    Args:
        data: Files, or a frame.
        output: A file to write as well: .jsonl, .json, .csv or .parquet, also .gz and .zst.
        **settings: As the flags of `kudos pairs`, with an underscore for each dash.

    Returns:
        The pairs, a dictionary each.

    >>> ranking = {"prompt": "Name a colour.", "answer": "Red.", "rank": 1}
    >>> pairs([ranking, {**ranking, "answer": "No.", "rank": 2}])
    [{'prompt': 'Name a colour.', 'chosen': 'Red.', 'rejected': 'No.'}]
    """
    with _data.files(data) as (files, folder), tempfile.TemporaryDirectory(prefix="kudos-") as scratch:
        if output is not None:
            words = [f"--output={os.fspath(output)}", *_flags("pairs", settings)]
            _run("pairs", words, files, None, False, "rows", folder)
        path = Path(scratch) / "pairs.jsonl"
        quiet = ["--quiet"] if output is not None else []
        words = [f"--output={path}", *quiet, *_flags("pairs", settings)]
        _run("pairs", words, files, None, False, "rows", folder)
        return _read_lines(path)


def generate(
    model: FilePath,
    prompts: FilePath | Sequence[Text] | Iterable[Text],
    *,
    n: int = 4,
    output: FilePath | None = None,
    threads: int | None = None,
    progress: bool | Progress | None = None,
    **settings: Unpack[GenerateSettings],
) -> list[dict[str, Any]]:
    """Writes several responses to each prompt, by a model that runs here or on a server.

    Args:
        model: A directory, a .gguf file, a name that `kudos pull` knows, or the address of a server.
        prompts: A file of prompts, or the prompts themselves.
        n: Responses to each prompt.
        output: A file to write as well: .csv, .jsonl, .json or .parquet. An interrupted call continues from it.
        threads: Threads to compute with.
        progress: A function of (done, total) responses, whose exception stops the work; or True or False for a bar.
        **settings: As the flags of `kudos generate`, with an underscore for each dash.

    Returns:
        A dictionary for each response: `prompt`, `answer`, and what else the command writes.
    """
    with tempfile.TemporaryDirectory(prefix="kudos-") as scratch:
        path = Path(scratch) / "answers.jsonl" if output is None else Path(output)
        words = [f"--model={os.fspath(model)}", f"-n={n}", f"--output={path}", *_flags("generate", settings)]
        if isinstance(prompts, (str, os.PathLike)):
            file = os.fspath(prompts)
        else:
            file = str(Path(scratch) / "prompts.jsonl")
            rows = ({"prompt": prompt} for prompt in prompts)
            Path(file).write_bytes(_data.json_lines(rows))
        _run("generate", [*words, f"--prompts={file}"], [], threads, progress, "responses", scratch)
        if path.suffix == ".jsonl":
            return _read_lines(path)
        copy = Path(scratch) / "copy.jsonl"
        _kudos.call(["convert", f"--output={copy}", "--", str(path)], threads=1, say=log.info, progress=None)
        return _read_lines(copy)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def _name(judge: RewardModel | FilePath | None) -> str:
    """What the command line calls a judge."""
    if judge is None:
        return _kudos.BOXED_JUDGE
    if isinstance(judge, RewardModel):
        judge.check_unchanged()
        return str(judge.path)
    return os.fspath(judge)


def _flags(command: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags."""
    known = dict(_kudos.flags(command))
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if flag not in known:
            raise TypeError(f"{command}: no setting is named {name!r}")
        words += _flag(flag, value, known[flag])
    return words


def _flag(flag: str, value: Any, takes_value: bool) -> list[str]:
    if value is None or (value is False and (not takes_value or flag == "lora")):
        return []
    if value is True:
        return [f"--{flag}"]
    if not takes_value:
        raise KudosError(f"{flag.replace('-', '_')}={value!r}: expected True or False")
    if isinstance(value, Mapping):
        return [f"--{flag}={to}={of}" for to, of in value.items()]
    if isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable):
        return [f"--{flag}={_word(value)}"]
    return [f"--{flag}={_word(item)}" for item in value]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _without(folder: str, text: str) -> str:
    """The text with frames under their own name: their files were written for the call alone."""
    for name in ("frame.arrow", "frame.jsonl"):
        text = text.replace(os.path.join(folder, name), "frame")
    return text


def _run(
    command: str,
    words: Sequence[str],
    files: Sequence[str],
    threads: int | None,
    progress: bool | Progress | None,
    what: str,
    folder: str,
) -> str:
    """Runs a command; what it says goes to the log."""
    hear, finish = listener(progress, what)
    steps: Callable[[int, int | None, str, str], object] | None = None
    if isinstance(getattr(hear, "__self__", None), Bar):
        bar = hear
        steps = lambda done, total, _, message: bar(done, total, message)  # type: ignore[misc,call-arg] # noqa: E731
    elif hear is not None:
        call = hear
        steps = lambda done, total, _what, _message: call(done, total)  # noqa: E731
    if files and any(path == "-" for path in files):
        raise DataError("expected files or a frame, found `-`: a function has no standard input")
    try:
        return _kudos.call(
            [command, *words, "--", *files] if files else [command, *words],
            threads=_kudos.default_threads() if threads is None else threads,
            say=lambda line: log.info("%s", _without(folder, line)),
            progress=steps,
        )
    except KudosError as error:
        error.args = (_without(folder, str(error)),)
        raise
    finally:
        finish()
