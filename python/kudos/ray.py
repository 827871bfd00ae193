"""Files of rows scored by a Ray cluster, which may lose any process of it; and a judge for pipelines of Ray Data.

`score` does the units of `kudos score --shard`: each is one part of the output, which appears whole. Whatever dies, the same
call does the units that are missing, and so does the command. `docs/cluster.md` says what to set, and why.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import _kudos
from ._data import FilePath
from ._functions import DataSettings, _flags, _name
from ._model import RewardModel
from ._progress import Progress, listener
from .errors import KudosError

if TYPE_CHECKING:
    import pyarrow
    from typing_extensions import Unpack

__all__ = ["Scorer", "Summary", "score"]

log = logging.getLogger("kudos")

#: Processors of a worker, where nothing is said and every node has as many.
_CPUS = 4
#: Seconds after which the driver looks whether the cluster has grown.
_LOOK = 2.0
#: A unit that so many workers have died of is not tried again.
_DEATHS = 8


class ScoreSettings(DataSettings, total=False):
    """Settings of `score`. Each key is the flag of that name, with a dash for each underscore."""

    #: What stands before the name of every column that is added.
    prefix: str
    #: Read control tokens inside texts as plain text.
    literal: bool
    precision: Literal["f32", "bf16", "int8"]
    #: Responses of a unit, which is what the death of a process may cost.
    unit_size: int


@dataclass(frozen=True)
class Summary:
    """What a call of `score` has done."""

    #: The directory of the job.
    output: Path
    #: Units of the job, all of which are done.
    units: int
    #: Those that were done before this call.
    before: int
    #: Those that had to be done again, because the worker died that was at them.
    again: int


def score(
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    judge: RewardModel | FilePath | None = None,
    *,
    num_cpus: int | None = None,
    workers: int | None = None,
    progress: bool | Progress | None = None,
    **settings: Unpack[ScoreSettings],
) -> Summary:
    """Scores files on all nodes of the Ray cluster that this process is connected to.

    Inputs, output and judge must have the same names on every node. Nobody needs to watch the job: a worker or a node that
    dies is replaced, and the same call goes on where a driver has died. `kudos score --shard` may do some of the units, and
    `kudos collect` joins the parts.

    Args:
        inputs: Files in any layout that Kudos reads.
        output: The directory of the job.
        judge: A judge, its directory or its name; None is the judge in the box.
        num_cpus: Processors of one worker, and threads that it computes with. By default 4, or as many as the smallest node
            has. Each worker holds the judge in memory.
        workers: Workers at most. By default as many as the cluster has room for; the number follows the cluster.
        progress: A function of (done, total) rows, whose exception ends the call; or True or False for a bar.
        **settings: As the flags of `kudos score`, with an underscore for each dash.

    Raises:
        KudosError: If the output holds another job, or a unit cannot be done.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init()
    words = _words(inputs, output, judge, settings)
    num_cpus = _smallest(ray) if num_cpus is None else num_cpus
    hear, finish = listener(progress, "rows")
    try:
        job = _kudos.Job.begin(words, threads=num_cpus, joins=False, say=_say, progress=None)
        rows, missing = job.rows, job.missing(_say)
        del job  # and the judge with it
        pool = _Pool(ray, words, num_cpus, workers)
        try:
            again = _run(ray, pool, rows, missing, hear)
        finally:
            pool.close()
    finally:
        finish()
    return Summary(Path(output), len(rows), len(rows) - len(missing), again)


def _run(ray: Any, pool: _Pool, rows: Sequence[int], missing: Sequence[int], hear: Progress | None) -> int:
    """Does the units that are missing; how many were begun again after a death."""
    waiting, later = deque(missing), deque[int]()
    left, deaths, again = set(missing), dict[int, int](), 0
    total = sum(rows)
    while left:
        pool.grow(len(left))
        while pool.idle and (waiting or later):
            if waiting:
                pool.give(waiting.popleft(), beside=False)
            else:  # Other processes are at these: whoever is first has done them.
                pool.give(later.popleft(), beside=True)
        for unit, answer in pool.answers():
            if answer == "elsewhere":
                later.append(unit)
            elif answer == "died":
                again += 1
                deaths[unit] = deaths.get(unit, 0) + 1
                if deaths[unit] >= _DEATHS:
                    raise KudosError(
                        f"unit {unit}: {_DEATHS} workers died that were at it; if memory ran out, "
                        "set a smaller unit_size or fewer workers"
                    )
                waiting.appendleft(unit)
            else:
                left.discard(unit)
        if hear is not None:
            hear(total - sum(rows[unit] for unit in left), total)
    return again


class _Worker:
    """Does units in a process of its own. It is loaded by its first task, whose errors reach the driver."""

    _job: _kudos.Job

    def load(self, words: Sequence[str], threads: int) -> None:
        self._job = _kudos.Job.begin(words, threads=threads, joins=True, say=_say, progress=None)

    def score(self, unit: int, beside: bool) -> str:
        return self._job.score(unit, beside, _say)


class _Pool:
    """Workers, as many as there is room for."""

    def __init__(self, ray: Any, words: Sequence[str], num_cpus: int, most: int | None) -> None:
        self.ray, self.words, self.num_cpus, self.most = ray, words, num_cpus, most
        # A worker that died is replaced here: Ray would restart it without its job.
        self.worker = ray.remote(num_cpus=num_cpus, max_restarts=0, max_task_retries=0)(_Worker)
        self.idle: list[Any] = []
        #: What each worker was asked: a unit, or None where it loads.
        self.asked: dict[Any, tuple[Any, int | None]] = {}
        self.looked = 0.0
        self.room = 0
        #: Whether there was room once. If all nodes die, others may come.
        self.started = False

    def grow(self, units: int) -> None:
        """Starts workers where the cluster has room, and there are units for them."""
        if time.monotonic() - self.looked > _LOOK or not self.room:
            self.looked, self.room = time.monotonic(), _room(self.ray, self.num_cpus)
            if not self.room and not self.started:
                raise KudosError(f"num_cpus={self.num_cpus}: expected a node with so many processors, found none")
        most = min(units, self.room if self.most is None else min(self.room, self.most))
        while len(self.idle) + len(self.asked) < most:
            self.started = True
            worker = self.worker.remote()
            self.asked[worker.load.remote(self.words, self.num_cpus)] = (worker, None)

    def give(self, unit: int, *, beside: bool) -> None:
        """Has an idle worker do a unit."""
        worker = self.idle.pop()
        self.asked[worker.score.remote(unit, beside)] = (worker, unit)

    def answers(self) -> list[tuple[int, str]]:
        """Waits a moment for answers: units, each with how it was done, or `died`."""
        if not self.asked:
            time.sleep(_LOOK / 10)
            return []
        done, _ = self.ray.wait(list(self.asked), num_returns=1, timeout=_LOOK)
        answers = []
        for reference in done:
            worker, unit = self.asked.pop(reference)
            try:
                answer = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise (cause if isinstance(cause, KudosError) else error) from error
            except self.ray.exceptions.RayError as error:
                log.warning("a worker died%s: %s", "" if unit is None else f" at unit {unit}", _first_line(error))
                if unit is not None:
                    answers.append((unit, "died"))
                continue
            self.idle.append(worker)
            if unit is not None:
                answers.append((unit, answer))
        return answers

    def close(self) -> None:
        """Ends all workers."""
        for worker in [*self.idle, *(worker for worker, _ in self.asked.values())]:
            try:
                self.ray.kill(worker)
            except Exception:  # It is dead, or the cluster is gone.
                log.debug("a worker could not be ended", exc_info=True)


class Scorer:
    """A judge for `map_batches(…, batch_format="pyarrow")`: Arrow tables in, with the columns of `kudos score` added.

    Give Ray Data the class, so that each actor loads the judge once, or an instance. A RewardModel travels by its path and
    the hash of its files. Threads follow the processors that Ray gives the actor.

    >>> import pyarrow
    >>> scorer = Scorer()
    >>> scorer(pyarrow.table({"prompt": ["Name a colour."], "response": ["Red."]})).column_names
    ['prompt', 'response', 'score', 'tokens', 'truncated']
    """

    def __init__(
        self,
        judge: RewardModel | FilePath | None = None,
        *,
        precision: str | None = None,
        literal: bool = False,
        threads: int | None = None,
        prefix: str | None = None,
        strict: bool = False,
        **options: Any,
    ) -> None:
        """Loads the judge.

        Args:
            judge: A judge, its directory or its name; None is the judge in the box.
            precision: As for `RewardModel.from_pretrained`, where `judge` is not loaded yet; so are `literal` and `threads`.
            literal: Read control tokens inside texts as plain text.
            threads: Threads to compute with.
            prefix: As for `RewardModel.annotate`; so are `strict` and the other options.
            strict: Raise on the first row that cannot be used.
            **options: How columns are read: `columns`, `labels`, `rating`, `rank`, `group_by`.
        """
        if isinstance(judge, RewardModel):
            self.judge = judge
        else:
            self.judge = RewardModel.from_pretrained(judge, precision=precision, literal=literal, threads=threads)
        self.options = {**options, "prefix": prefix, "strict": strict}

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The rows with their score columns."""
        if batch.num_rows == 0:
            return batch
        return self.judge.annotate(batch, progress=False, **self.options)


def _words(
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    judge: RewardModel | FilePath | None,
    settings: Mapping[str, Any],
) -> list[str]:
    """The command line of the job, with names that hold in every directory."""
    files = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    if not files:
        raise KudosError("expected files to score, found none")
    name = _name(judge)
    name = os.path.abspath(name) if os.path.isdir(name) else name
    words = ["score", f"--output={os.path.abspath(output)}", f"--judge={name}", "--shard=1/1"]
    if isinstance(judge, RewardModel) and "precision" not in settings:
        words.append(f"--precision={judge.precision}")
    return [*words, *_flags("score", settings), "--", *(os.path.abspath(file) for file in files)]


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("kudos.ray needs Ray: pip install ray") from error
    return ray


def _processors(ray: Any) -> list[float]:
    """Processors of each living node that has any."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return [cpus for cpus in nodes if cpus >= 1]


def _smallest(ray: Any) -> int:
    return int(min([_CPUS, *_processors(ray)]))


def _room(ray: Any, num_cpus: int) -> int:
    return sum(int(cpus // num_cpus) for cpus in _processors(ray))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _say(line: str) -> None:
    log.info("%s", line)
