"""A judge as OpenRLHF's reward function: `--reward.remote_url` takes the file that this module prints.

    python -m kudos.integrations.openrlhf --judge judge > reward.py

OpenRLHF asks for one sample at a time, from many threads. They are scored together.
"""

# The library is installed where it is used, and where `.ci/integrations` checks this.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DataError
from ._judge import log, opened, scores
from ._templates import prompt_of, response_of

__all__ = ["main", "reward_function"]


def reward_function(
    judge: str | None = None, *, template: str | None = None, keep_system: bool = False
) -> Callable[..., dict[str, Any]]:
    """The function `reward_func` that OpenRLHF calls.

    Args:
        judge: The judge's directory or name, or the address of `kudos serve`. Without it, the judge in the box.
        template: What was given as `--data.input_template`; it is taken off the prompt.
        keep_system: Show the judge the system turns of a chat template too. Most judges were trained without.
    """

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: object = None, **_: Any) -> dict[str, Any]:
        import torch

        try:
            if len(queries) != len(prompts):
                raise DataError(f"expected a query for each prompt, found {len(queries)} and {len(prompts)}")
            asked = [prompt_of(prompt, template, keep_system) for prompt in prompts]
            answered = [response_of(query, prompt) for query, prompt in zip(queries, prompts)]
            rewards = torch.tensor(scores(opened(judge), asked, answered), dtype=torch.float32)
        except Exception as error:
            log.error("a sample has no reward: %s", error)  # OpenRLHF says so at the level INFO alone
            raise
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return reward_func


def main() -> None:
    """Prints the file."""
    parser = argparse.ArgumentParser(prog="python -m kudos.integrations.openrlhf", description="Prints reward.py")
    parser.add_argument("--judge", help="directory, name, or address of `kudos serve`; else the judge in the box")
    parser.add_argument("--template", help="the value of --data.input_template, if you give one")
    parser.add_argument("--keep-system", action="store_true", help="show the judge system turns too")
    asked = parser.parse_args()
    # Ray's workers run in a folder of their own.
    judge = os.path.abspath(asked.judge) if asked.judge and os.path.isdir(asked.judge) else asked.judge
    words = f"{judge!r}, template={asked.template!r}, keep_system={asked.keep_system!r}"
    sys.stdout.write(
        '"""Rewards by Kudos, for OpenRLHF: --reward.remote_url FILE."""\n\n'
        f"from kudos.integrations.openrlhf import reward_function\n\nreward_func = reward_function({words})\n"
    )


if __name__ == "__main__":
    main()
