"""What the integrations share: texts in, a score for each; by a judge in this process, or by `kudos serve`."""

from __future__ import annotations

import itertools
import json
import logging
import os
import statistics
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .._data import FilePath, Text
from .._model import RewardModel
from ..errors import DataError, JudgeError

log = logging.getLogger("kudos")

#: Texts of one request.
_TEXTS = 64
_LOGGED = "it cannot be scored; the log says why"


@dataclass(frozen=True)
class Scored:
    """What became of one response."""

    #: Its score; None for one that cannot be scored.
    score: float | None
    #: Whether it was too long, and was cut as in training.
    truncated: bool = False
    #: Why it has no score.
    reason: str = ""


class Judge(Protocol):
    """Scores texts, wherever it runs."""

    #: What logs call it.
    name: str

    def scored(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[Scored]:
        """A result for each response, in order."""
        ...


class Local:
    """A judge in this process."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self.name = Path(model._name).resolve().name

    def scored(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[Scored]:
        """A result for each response. One that fails costs the others nothing."""
        rows = _rows(prompts, responses)
        try:
            rated = self.model.annotate(rows, progress=False) if rows else []
        except DataError as error:
            if len(rows) == 1:
                log.warning("a response was not scored: %s", error)
                return [Scored(None, reason=str(error))]
            return [one for row in rows for one in self.scored([row["prompt"]], [row["response"]])]
        return [
            Scored(row["score"], bool(row["truncated"]), _LOGGED if row["score"] is None else "") for row in rated
        ]


class Remote:
    """A judge behind `kudos serve`. `URL?judge=NAME` names one of several."""

    def __init__(self, url: str, key: str | None = None, tries: int = 8, timeout: float = 300) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url = parts._replace(query="", fragment="").geturl().rstrip("/")
        self.judge = urllib.parse.parse_qs(parts.query).get("judge", [None])[0]
        self.key, self.tries, self.timeout = key, tries, timeout
        self.name = self.judge or str(self._ask("/v1/models")["data"][0]["id"])

    def scored(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[Scored]:
        """A result for each response."""
        rows = _rows(prompts, responses)
        return [one for start in range(0, len(rows), _TEXTS) for one in self._some(rows[start : start + _TEXTS])]

    def _some(self, rows: list[dict[str, Any]]) -> list[Scored]:
        faults = list(map(_unsendable, rows))
        pairs = [row for row, fault in zip(rows, faults) if fault is None]
        asked = {"pairs": pairs, **({"judge": self.judge} if self.judge else {})}
        results = iter(self._ask("/v1/score", asked)["results"] if pairs else [])
        found: list[dict[str, Any]] = [{"error": fault} if fault else next(results) for fault in faults]
        for fault in (one["error"] for one in found if "error" in one):
            log.warning("a response was not scored: %s", fault)
        return [Scored(_float32(one.get("score")), one.get("truncated", False), one.get("error", "")) for one in found]

    def _ask(self, route: str, body: dict[str, Any] | None = None) -> Any:
        """The answer. A server that is busy or starting anew is asked again."""
        key = self.key or os.environ.get("KUDOS_API_KEY")
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        data = None if body is None else json.dumps(body).encode()
        fault = ""
        for place in range(self.tries):
            try:
                request = urllib.request.Request(self.url + route, data, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                fault, wait = f"{error.code}: {error.read().decode(errors='replace')}", error.headers.get("retry-after")
                if error.code not in (429, 503):
                    raise JudgeError(f"{self.url}{route} answered {fault}") from None
            except OSError as error:
                fault, wait = str(error), None
            if place + 1 < self.tries:
                time.sleep(float(wait or 1))
        raise JudgeError(f"{self.url}{route} gave no answer in {self.tries} tries: {fault}")


def _rows(prompts: Sequence[Text], responses: Sequence[Text]) -> list[dict[str, Any]]:
    if len(prompts) != len(responses):
        raise DataError(
            f"expected a prompt for each response, found {len(prompts)} prompts and {len(responses)} responses"
        )
    return [{"prompt": prompt, "response": response} for prompt, response in zip(prompts, responses)]


def pairs_apart(pairs: Sequence[Any]) -> tuple[list[Text], list[Text]]:
    """Prompts and responses of pairs."""
    for row, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            raise DataError(f"row {row}: expected a pair of prompt and response, found {pair!r}", row=row)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _unsendable(row: dict[str, Any]) -> str | None:
    """Why a row cannot be sent: half of a surrogate pair is no text, and a server refuses all that comes with it."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        return f"expected a text or a list of messages: {error}"
    return None


def _float32(score: float | None) -> float | None:
    """The number that was sent, as the judge computed it."""
    import numpy

    return None if score is None else float(numpy.float32(score))


def scores(judge: Judge, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
    """A score for each response; an error names the first without one."""
    found = judge.scored(prompts, responses)
    for row, one in enumerate(found):
        if one.score is None:
            raise DataError(f"row {row}: {one.reason}", row=row)
    return [one.score for one in found if one.score is not None]


def spread(prompts: Sequence[Text], found: Sequence[Scored]) -> float:
    """The standard deviation of the scores of one prompt, on average. 0 teaches nothing."""
    groups = itertools.groupby(zip(prompts, found), key=lambda pair: pair[0])
    scores = [[one.score for _, one in group if one.score is not None] for _, group in groups]
    spreads = [statistics.stdev(group) for group in scores if len(group) > 1]
    return statistics.fmean(spreads) if spreads else 0.0


def open_judge(judge: RewardModel | FilePath | None, key: str | None = None) -> Judge:
    """The judge of this name, directory or address; None is the judge in the box."""
    if isinstance(judge, RewardModel):
        return Local(judge)
    if judge is not None and os.fspath(judge).startswith(("http://", "https://")):
        return Remote(os.fspath(judge), key)
    return Local(RewardModel.from_pretrained(judge))


_opened: dict[str | None, Judge] = {}
_lock = threading.Lock()


def opened(judge: FilePath | None) -> Judge:
    """As `open_judge`, once in a process, whoever asks at the same time."""
    name = None if judge is None else os.fspath(judge)
    with _lock:
        if name not in _opened:
            _opened[name] = open_judge(name)
        return _opened[name]


def _after_fork() -> None:
    """In a child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
