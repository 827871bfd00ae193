"""The reward model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _data, _frames, _kudos
from ._data import FilePath, Text, Texts
from ._progress import Progress, listener
from .errors import DataError, JudgeError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Scores = numpy.typing.NDArray[numpy.float32]

__all__ = ["Ranked", "RewardModel"]

log = logging.getLogger("kudos")

_Frame = TypeVar("_Frame")
_models: weakref.WeakSet[RewardModel] = weakref.WeakSet()


@dataclass(frozen=True)
class Ranked:
    """A response in its place of a ranking."""

    #: Its place among the responses that were given, from 0.
    index: int
    #: Its score.
    score: float
    #: The response itself.
    response: Any


class RewardModel:
    """A judge: it gives each response to a prompt a score.

    A score has no unit and no zero. Compare it with that of another response to the same prompt.
    Threads share a judge, and their texts are scored together. It can be pickled, and used after `fork`.

    >>> judge = RewardModel.from_pretrained()
    >>> judge.best("Name a colour.", ["Red.", "I cannot say."])[0].response
    'Red.'
    """

    def __init__(self) -> None:
        raise TypeError("use RewardModel.from_pretrained(path), or kudos.train")

    @classmethod
    def from_pretrained(
        cls,
        path: FilePath | None = None,
        *,
        precision: str | None = None,
        literal: bool = False,
        threads: int | None = None,
    ) -> RewardModel:
        """Loads a judge.

        Args:
            path: A judge's directory, or a name that `kudos pull` knows. Without it, the judge in the box.
            precision: `f32`, `bf16` or `int8`; by default `int8` if the judge is stored so, else the fastest here.
            literal: Read control tokens inside texts as plain text.
            threads: Threads to compute with. By default `KUDOS_THREADS`, else `OMP_NUM_THREADS`, else the processors
                that this process may use.

        Raises:
            JudgeError: If there is no such judge, or it cannot be used.

        >>> RewardModel.from_pretrained(threads=1).threads
        1
        """
        name = _kudos.BOXED_JUDGE if path is None else os.fspath(path)
        model = cls.__new__(cls)
        model._name, model._asked = name, (precision, literal, threads)
        model._native = _kudos.Judge.load(name, precision, literal, _threads(threads), _say)
        model._stamps = _stamps(model._native.dir)
        _models.add(model)
        return model

    _name: str
    _asked: tuple[str | None, bool, int | None]
    _native: _kudos.Judge
    _stamps: dict[str, tuple[int, int]]

    @property
    def path(self) -> Path:
        """The judge's directory."""
        return self._native.dir

    @property
    def threads(self) -> int:
        """Threads it computes with."""
        return self._native.threads

    @property
    def precision(self) -> str:
        """The arithmetic it scores in: `f32`, `bf16` or `int8`."""
        return self._native.precision

    @property
    def max_length(self) -> int:
        """Tokens of prompt and response together; longer texts are cut."""
        return self._native.max_length

    @property
    def attributes(self) -> list[str]:
        """What its outputs rate; nothing for a judge with one score."""
        return self._native.attributes

    @property
    def history(self) -> list[dict[str, Any]]:
        """A dictionary for each training step, as `run/metrics.jsonl` has them; nothing for a judge without a run.

        >>> RewardModel.from_pretrained().history
        []
        """
        path = self.path / "run" / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]

    @overload
    def score(
        self,
        prompts: Text | Texts | None,
        responses: Text | Texts,
        *,
        progress: bool | Progress | None = None,
    ) -> Scores: ...

    @overload
    def score(
        self, prompts: object, *, progress: bool | Progress | None = None, **options: Any
    ) -> Scores | list[Scores]: ...

    def score(
        self,
        prompts: Any,
        responses: Any = None,
        *,
        progress: bool | Progress | None = None,
        **options: Any,
    ) -> Scores | list[Scores]:
        """Scores responses.

        Args:
            prompts: As many prompts as responses; or one prompt (a string, or a list of messages) for all responses; or
                None, where each response is a whole transcript. Or, alone, a frame with Kudos' columns.
            responses: Strings or lists of messages: in a list, an iterator, or a column of numpy, pandas, polars,
                pyarrow or datasets.
            progress: A function of (done, total), whose exception stops the work; or True or False for a bar.
            **options: For a frame, how its columns are read, as on the command line: `columns`, `labels`, `rating`,
                `rank`, `group_by`.

        Returns:
            One score (float32, no unit) for each response, in order: shape `[responses]`. Of pairs and comparisons
            `[rows, 2]`, the chosen one or `a` first. Of groups a list of arrays.

        Raises:
            DataError: For what is not text, or does not fit together. `row` says where.

        >>> judge = RewardModel.from_pretrained()
        >>> scores = judge.score("Name a colour.", ["Red.", "I cannot say.", ""])
        >>> scores.shape, str(scores.dtype)
        ((3,), 'float32')
        """
        if responses is None:
            return self._score_frame(prompts, progress, options)
        if options:
            raise TypeError(f"score() of texts has no argument {next(iter(options))!r}")
        if _data.is_text(responses):
            responses = [responses]
        single = prompts is not None and _data.is_text(prompts)
        total = _data.length_of(responses)
        if prompts is not None and not single:
            given = _data.length_of(prompts)
            if given is not None and total is not None and given != total:
                raise DataError(f"expected a prompt for each response, found {given} prompts and {total} responses")
        hear, finish = listener(progress, "texts")
        try:
            found = self._native.score(
                prompts, responses, single=single, is_main=_is_main(), progress=hear, total=total
            )
        finally:
            finish()
        import numpy

        return numpy.frombuffer(found, numpy.float32)

    def _score_frame(
        self, frame: object, progress: bool | Progress | None, options: Mapping[str, Any]
    ) -> Scores | list[Scores]:
        columns = self._columns(frame, progress, options, strict=True)
        return columns.scores()

    def annotate(
        self,
        frame: _Frame,
        *,
        prefix: str | None = None,
        strict: bool = False,
        progress: bool | Progress | None = None,
        **options: Any,
    ) -> _Frame:
        """Gives a frame the columns that `kudos score` adds.

        Args:
            frame: A frame of pandas, polars, pyarrow or datasets, a list of dictionaries, or a dictionary of lists.
            prefix: Stands before the name of every column that is added. Without it, `kudos_` does where the frame has
                the name already.
            strict: Raise on the first row that cannot be used. Otherwise its score is missing, and a warning is logged.
            progress: As for `score`.
            **options: As for `score`.

        Returns:
            The same kind of frame with `score`, `tokens` and `truncated`; for pairs `score_chosen` and
            `score_rejected`, for comparisons `score_a` and `score_b`, for groups `scores`.

        >>> judge = RewardModel.from_pretrained()
        >>> list(judge.annotate([{"prompt": "Name a colour.", "response": "Red."}])[0])
        ['prompt', 'response', 'score', 'tokens', 'truncated']
        """
        _frames.check_kind(frame)
        columns = self._columns(frame, progress, options, strict=strict, prefix=prefix)
        annotated: _Frame = columns.beside(frame)
        return annotated

    def _columns(
        self,
        frame: object,
        progress: bool | Progress | None,
        options: Mapping[str, Any],
        *,
        strict: bool,
        prefix: str | None = None,
    ) -> _frames.Columns:
        known = ("columns", "labels", "rating", "rank", "group_by")
        for name in options:
            if name not in known:
                raise TypeError(f"expected one of {', '.join(known)}, found the argument {name!r}")
        said = {name: _words(value) if name in ("columns", "labels") else value for name, value in options.items()}
        if _data.is_path(frame):
            name = os.fspath(frame)
            raise DataError(f"{name}: expected a frame, found the name of a file; `kudos score` scores files")
        if not _data.is_frame(frame):
            frame = list(_data.rows_of(frame))
        hear, finish = listener(progress, "texts")
        try:
            found = self._native.columns(
                _data.source(frame),
                taken=_data.column_names(frame),
                prefix=prefix,
                strict=strict,
                options={name: value for name, value in said.items() if value is not None},
                is_main=_is_main(),
                progress=hear,
                rows=_data.rows_in(frame),
            )
        finally:
            finish()
        made, missing, problems, notes = found
        for note in notes:
            log.info("%s", note)
        for row, why in problems[:20]:
            log.warning("row %d was not scored: %s", row, why)
        if len(problems) > 20:
            log.warning("%d more rows were not scored", len(problems) - 20)
        return _frames.Columns(made, missing)

    async def ascore(
        self,
        prompts: Text | Texts | None,
        responses: Text | Texts,
        *,
        progress: bool | Progress | None = None,
    ) -> Scores:
        """As `score`, without blocking the event loop. Scores that are awaited together are computed together.

        >>> import asyncio
        >>> judge = RewardModel.from_pretrained()
        >>> asyncio.run(judge.ascore("Name a colour.", ["Red.", "Blue."])).shape
        (2,)
        """
        import asyncio

        return await asyncio.to_thread(self.score, prompts, responses, progress=progress)

    def compare(self, prompt: Text | None, a: Text, b: Text) -> float:
        """The probability that `a` is the better response, by this judge: 0 to 1.

        It is as good as the judge's calibration (`kudos eval --calibrate`).

        >>> judge = RewardModel.from_pretrained()
        >>> p = judge.compare("Name a colour.", "Red.", "I cannot say.")
        >>> abs(p + judge.compare("Name a colour.", "I cannot say.", "Red.") - 1) < 1e-9
        True
        """
        import math

        first, second = (float(score) for score in self._of_prompt(prompt, [a, b]))
        margin = (first - second) / self._native.temperature
        return 1 / (1 + math.exp(-margin)) if margin >= 0 else 1 - 1 / (1 + math.exp(margin))

    def rank(self, prompt: Text | None, responses: Iterable[Text]) -> list[Ranked]:
        """The responses to a prompt, the best first; equal ones in the order they were given.

        >>> judge = RewardModel.from_pretrained()
        >>> [ranked.index for ranked in judge.rank("Name a colour.", ["I cannot say.", "Red."])]
        [1, 0]
        """
        responses = list(responses)
        scores = [float(score) for score in self._of_prompt(prompt, responses)]
        order = sorted(range(len(responses)), key=lambda index: -scores[index])
        return [Ranked(index, scores[index], responses[index]) for index in order]

    def best(self, prompt: Text | None, responses: Iterable[Text], k: int = 1) -> list[Ranked]:
        """The `k` best responses to a prompt, the best first.

        >>> judge = RewardModel.from_pretrained()
        >>> len(judge.best("Name a colour.", ["Red.", "Blue.", "I cannot say."], k=2))
        2
        """
        if k < 1:
            raise DataError(f"k={k}: expected at least 1")
        return self.rank(prompt, responses)[:k]

    def _of_prompt(self, prompt: Text | None, responses: Sequence[Text]) -> Scores:
        """Scores of responses to one prompt."""
        if prompt is not None and not _data.is_text(prompt):
            raise DataError(f"expected one prompt, found a value of type {type(prompt).__name__}")
        return self.score(prompt, responses, progress=False)

    def __repr__(self) -> str:
        return f"RewardModel({self._name!r}, precision={self.precision!r}, threads={self.threads})"

    def __reduce__(self) -> tuple[Callable[..., RewardModel], tuple[object, ...]]:
        return (_unpickled, (self._name, self._hash(), self._asked))

    def check_unchanged(self) -> None:
        """Raises `JudgeError` if the judge's files are not those it was loaded from."""
        if _stamps(self.path) != self._stamps:
            raise JudgeError(f"{self.path}: expected the judge that was loaded, found other files; load it again")

    def _hash(self) -> str:
        """A hash of the files that scores depend on."""
        self.check_unchanged()
        return _hash_of(self.path)


def _unpickled(name: str, expected: str, asked: tuple[str | None, bool, int | None]) -> RewardModel:
    precision, literal, threads = asked
    model = RewardModel.from_pretrained(name, precision=precision, literal=literal, threads=threads)
    found = _hash_of(model.path)
    if found != expected:
        hashes = f"expected the judge that was pickled ({expected[:12]}…), found another ({found[:12]}…)"
        raise JudgeError(f"{model.path}: {hashes}")
    return model


def _hash_of(path: Path) -> str:
    files = _kudos.file_hashes(path)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of a judge's files: cheap to take, and enough to see that one was replaced."""
    try:
        with os.scandir(path) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError as error:
        raise JudgeError(f"{path}: expected the judge's directory, found none: {error}") from None
    parts = (".safetensors", ".json", ".txt", ".model")
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in files if name.endswith(parts)}


def _words(value: Any) -> object:
    """`{"prompt": "question"}` as the command line has it: `prompt=question`."""
    return [f"{to}={of}" for to, of in value.items()] if isinstance(value, Mapping) else value


def _say(line: str) -> None:
    log.info("%s", line)


def _threads(asked: int | None) -> int:
    return _kudos.default_threads() if asked is None else asked


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _after_fork() -> None:
    """In a child: the pools and queues of the parent have lost their threads."""
    _kudos.forked()
    for model in list(_models):
        model._native = model._native.reborn()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
