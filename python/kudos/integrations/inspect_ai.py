"""A judge as a scorer of Inspect:

    Task(dataset=..., solver=generate(), scorer=judge_score("judge"))
"""

# The library is installed where it is used, and where `.ci/integrations` checks this.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inspect_ai.model import ChatMessage
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from .._data import Text
from ._judge import opened

__all__ = ["judge_score"]


@scorer(metrics=[mean(), stderr()])
def judge_score(judge: str | None = None) -> Scorer:
    """Scores what the model answered, given what it was asked.

    Args:
        judge: The judge's directory or name, or the address of `kudos serve`. Without it, the judge in the box.
    """

    async def score(state: TaskState, target: Target) -> Score:
        prompt, answer = _prompt(state), state.output.completion
        scored = (await asyncio.to_thread(lambda: opened(judge).scored([prompt], [answer])))[0]
        if scored.score is None:
            return Score.unscored(answer=answer, explanation=scored.reason)
        return Score(value=scored.score, answer=answer, metadata={"truncated": scored.truncated})

    return score


def _prompt(state: TaskState) -> Text:
    """The conversation before the answer: one question as text, more as messages."""
    before = list(state.messages)
    while before and before[-1].role == "assistant":
        before.pop()
    if not before:
        return str(state.input_text)
    return _text(before)


def _text(messages: Sequence[ChatMessage]) -> Text:
    if len(messages) == 1 and messages[0].role == "user":
        return str(messages[0].text)
    return [{"role": message.role, "content": message.text} for message in messages]
