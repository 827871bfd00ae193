"""A judge as LangChain's cross encoder, for its rerankers:

    CrossEncoderReranker(model=JudgeCrossEncoder("judge"), top_n=3)
"""

# The library is installed where it is used, and where `.ci/integrations` checks this.
# pyright: reportMissingImports=false

from __future__ import annotations

from langchain_core.cross_encoders import BaseCrossEncoder

from .._data import FilePath
from .._model import RewardModel
from ._judge import open_judge, pairs_apart, scores

__all__ = ["JudgeCrossEncoder"]


class JudgeCrossEncoder(BaseCrossEncoder):
    """Scores pairs of query and text."""

    def __init__(self, judge: RewardModel | FilePath | None = None, *, key: str | None = None) -> None:
        """Loads a judge: one of yours, a directory or name, or the address of `kudos serve` with its key."""
        self._judge = open_judge(judge, key)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The raw score of each pair."""
        return scores(self._judge, *pairs_apart(text_pairs))
