"""What the tests share: the judge in the box, and a small data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import kudos

PROMPTS = [f"What is {n} + {n}?" for n in range(12)]
RESPONSES = [f"It is {2 * n}. " + "Surely. " * (n % 5) for n in range(12)]


@pytest.fixture(scope="session")
def judge() -> kudos.RewardModel:
    return kudos.RewardModel.from_pretrained(threads=2)


@pytest.fixture(scope="session")
def rows() -> Sequence[dict[str, Any]]:
    return [{"prompt": p, "response": r, "id": i} for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES))]


@pytest.fixture(scope="session")
def pairs_rows() -> Sequence[dict[str, str]]:
    return [{"prompt": p, "chosen": r, "rejected": "No."} for p, r in zip(PROMPTS, RESPONSES)]
