"""A judge as the reward function of TRL's trainers: GRPO, RLOO, online DPO.

    trainer = GRPOTrainer(..., reward_funcs=kudos.integrations.trl.reward("judge"))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._data import FilePath, Text
from .._model import RewardModel
from ._judge import Judge, Remote, Scored, open_judge, spread

__all__ = ["AsyncReward", "Reward", "reward"]

LogMetric = Callable[[str, float], object]


def reward(
    judge: RewardModel | FilePath | None = None,
    *,
    name: str | None = None,
    key: str | None = None,
    blocking: bool = False,
) -> Reward | AsyncReward:
    """The reward function of a judge. A completion that cannot be scored is None, which TRL leaves out.

    Args:
        judge: A judge, its directory or name, or the address of `kudos serve`. Without it, the judge in the box.
        name: What the logs call it: `rewards/NAME/mean`. By default the judge's name.
        key: The server's key. By default the variable `KUDOS_API_KEY`.
        blocking: Wait for a server's answer. Online DPO needs it, since it awaits no function.
    """
    opened = open_judge(judge, key)
    kind = AsyncReward if isinstance(opened, Remote) and not blocking else Reward
    return kind(opened, name or opened.name)


class _Named:
    def __init__(self, judge: Judge, name: str) -> None:
        self.judge = judge
        self.__name__ = name

    def _rewards(
        self, started: float, prompts: Sequence[Text], found: Sequence[Scored], log: LogMetric | None
    ) -> list[float | None]:
        if log and found:
            log(f"{self.__name__}/spread", spread(prompts, found))
            log(f"{self.__name__}/truncated", sum(one.truncated for one in found) / len(found))
            log(f"{self.__name__}/failed", sum(one.score is None for one in found) / len(found))
            log(f"{self.__name__}/seconds", time.perf_counter() - started)
        return [one.score for one in found]


class Reward(_Named):
    """Scores completions before it returns."""

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        """A reward for each completion. Other columns of the data set are not read."""
        started = time.perf_counter()
        return self._rewards(started, prompts, self.judge.scored(prompts, completions), log_metric)


class AsyncReward(_Named):
    """The same, awaited: the trainer asks other reward functions meanwhile."""

    async def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        """A reward for each completion. Other columns of the data set are not read."""
        started = time.perf_counter()
        found = await asyncio.to_thread(self.judge.scored, prompts, completions)
        return self._rewards(started, prompts, found, log_metric)
