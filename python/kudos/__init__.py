"""Reward models on a CPU: score, compare, rank, train and measure, without torch and without a GPU.

>>> import kudos
>>> judge = kudos.RewardModel.from_pretrained()
>>> judge.score(["What is 2 + 2?"], ["4"]).shape
(1,)
"""

from __future__ import annotations

from ._functions import Evaluation, check, evaluate, generate, pairs, train
from ._kudos import __version__
from ._model import Ranked, RewardModel
from .errors import DataError, JudgeError, KudosError

__all__ = [
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
