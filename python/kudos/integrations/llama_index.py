"""A judge as LlamaIndex' node postprocessor: it sorts what was retrieved.

    index.as_query_engine(node_postprocessors=[JudgeRerank("judge", top_n=3)])
"""

# The library is installed where it is used, and where `.ci/integrations` checks this.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from .._data import FilePath
from .._model import RewardModel
from ..errors import DataError
from ._judge import Judge, open_judge, scores

__all__ = ["JudgeRerank"]


class JudgeRerank(BaseNodePostprocessor):
    """Gives each node the judge's raw score, and keeps the best."""

    judge: str = Field(description="The judge's name.")
    top_n: int = Field(description="How many nodes are kept.")
    keep_retrieval_score: bool = Field(description="Keep the retriever's score as `retrieval_score` in the metadata.")
    _judge: Judge = PrivateAttr()

    def __init__(
        self,
        judge: RewardModel | FilePath | None = None,
        top_n: int = 2,
        keep_retrieval_score: bool = False,
        *,
        key: str | None = None,
        **settings: Any,
    ) -> None:
        """Loads a judge: one of yours, a directory or name, or the address of `kudos serve` with its key."""
        opened = open_judge(judge, key)
        settings |= {"judge": opened.name, "top_n": top_n, "keep_retrieval_score": keep_retrieval_score}
        super().__init__(**settings)
        self._judge = opened

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "JudgeRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise DataError("JudgeRerank: expected a query, found none; give query_bundle or query_str")
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        found = scores(self._judge, [query_bundle.query_str] * len(texts), texts)
        for node, score in zip(nodes, found):
            if self.keep_retrieval_score:
                node.node.metadata["retrieval_score"] = node.score
            node.score = score
        order = sorted(range(len(nodes)), key=lambda place: -found[place])
        return [nodes[place] for place in order[: self.top_n]]
