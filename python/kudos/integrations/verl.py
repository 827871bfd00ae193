"""A judge as verl's reward function:

    reward.custom_reward_function.path=pkg://kudos.integrations.verl
    +reward.custom_reward_function.reward_kwargs.judge=judge

verl asks for one sample at a time, from many threads. They are scored together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DataError
from ._judge import opened, scores

__all__ = ["compute_score"]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    *,
    judge: str | None = None,
    prompt_key: str = "prompt",
    **unused: Any,
) -> float:
    """The score of one response.

    Args:
        data_source: Not read, nor is `ground_truth`.
        solution_str: The response, without special tokens.
        extra_info: The row's column of that name. Its `prompt` is the prompt: a string, or a list of messages.
        judge: The judge's directory or name, or the address of `kudos serve`. Without it, the judge in the box.
        prompt_key: The key of the prompt in `extra_info`.

    Raises:
        DataError: If there is no prompt, or the response cannot be scored.
    """
    prompt = (extra_info or {}).get(prompt_key)
    if prompt is None:
        raise DataError(
            f"expected the prompt in extra_info[{prompt_key!r}], found the keys {sorted(extra_info or {})}: verl gives "
            f"a reward function no other prompt. Add it where the data are prepared "
            f"(row['extra_info'][{prompt_key!r}] = …), or name the key that has it: "
            f"+reward.custom_reward_function.reward_kwargs.prompt_key=KEY"
        )
    # Parquet makes an array of a list.
    messages = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    return scores(opened(judge), [messages], [solution_str])[0]
