"""The examples of docs/integrations.md run as they stand, with the judge in the box as `judge`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from trl import GRPOConfig

import kudos

from conftest import PROMPTS
from test_trl import tiny

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs/integrations.md").read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", BLOCKS, ids=[re.split(r"[\s.]", re.sub(r"from kudos\.integrations\.", "", b))[0] for b in BLOCKS])
def test_examples(block: str, tokenizer: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    boxed = kudos.RewardModel.from_pretrained().path
    # sentence-transformers reads no weights in 8 bits.
    shutil.copytree(trained if "import sentence_transformers" in block else boxed, "judge")
    model = tiny(tokenizer)
    tokenizer.save_pretrained("model")
    model.save_pretrained("model")
    args = GRPOConfig(
        output_dir="out",
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
    )
    answer = ModelOutput.from_content("mockllm", "Red.")
    answer.usage = ModelUsage()
    given = {
        "model": "model",
        "args": args,
        "dataset": Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        "answering_model": get_model("mockllm/model", custom_outputs=[answer]),
    }
    exec(compile(block, "docs/integrations.md", "exec"), {"__name__": "__main__", **given})


def test_every_library_has_an_example() -> None:
    assert len(BLOCKS) == 7
