"""A judge with the methods of sentence-transformers' `CrossEncoder`, without torch:

    from kudos.integrations.sentence_transformers import CrossEncoder
    CrossEncoder("judge").rank("Why is the sky blue?", ["It scatters.", "It is painted."])
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._data import FilePath
from .._model import RewardModel
from ..errors import KudosError
from ._judge import open_judge, pairs_apart, scores

__all__ = ["CrossEncoder"]

#: How the work is done. It changes no score, and Kudos decides it.
_HOW = {"batch_size", "show_progress_bar", "device", "pool", "chunk_size"}


class CrossEncoder:
    """Scores pairs. Scores are raw, as sentence-transformers has them of a judge that Kudos wrote."""

    def __init__(self, judge: RewardModel | FilePath | None = None, *, key: str | None = None) -> None:
        """Loads a judge: one of yours, a directory or name, or the address of `kudos serve` with its key."""
        self._judge = open_judge(judge, key)

    def predict(
        self,
        inputs: Sequence[Any],
        *,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **how: Any,
    ) -> Any:
        """The score of a pair, or of each of many: float32. `activation_fn` gets a tensor, so it needs torch."""
        for name, value in how.items():
            if name not in _HOW and not (name in ("prompt", "prompt_name") and value is None):
                raise KudosError(f"{name}={value!r}: a judge scores as it was trained; leave it out")
        single = len(inputs) == 2 and isinstance(inputs[0], str)
        pairs = [inputs] if single else inputs
        import numpy

        raw = scores(self._judge, *pairs_apart(pairs))
        found: Any = numpy.array(raw, numpy.float32)
        as_array = convert_to_numpy and not convert_to_tensor
        if activation_fn or not as_array:
            import torch

            tensor = torch.from_numpy(found)
            tensor = activation_fn(tensor) if activation_fn else tensor
            found = tensor.numpy() if as_array else tensor
        if single:
            return found[0]
        return found if convert_to_numpy or convert_to_tensor else list(found)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        activation_fn: Callable[[Any], Any] | None = None,
        **how: Any,
    ) -> list[dict[str, Any]]:
        """The documents, the best first: `corpus_id`, `score`, and `text` if asked for."""
        found = self.predict([(query, text) for text in documents], activation_fn=activation_fn, **how).tolist()
        order = sorted(range(len(found)), key=lambda place: -found[place])[:top_k]
        texts = [{"text": documents[place]} if return_documents else {} for place in order]
        return [{"corpus_id": place, "score": found[place], **text} for place, text in zip(order, texts)]
