"""verl's own reward managers, with the function that it loads by its address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import ray
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager

import kudos
from kudos.integrations.verl import compute_score

from conftest import ANSWERS, PROMPTS

PAIRS = [(prompt, f"{answer} {n}") for n in range(6) for prompt in PROMPTS for answer in ANSWERS]


def config(judge: object, manager: str = "naive", **more: object) -> Any:
    function = {
        "path": "pkg://kudos.integrations.verl",
        "name": "compute_score",
        "reward_kwargs": {"judge": str(judge), **more},
    }
    reward_manager = {"source": "register", "name": manager}
    return OmegaConf.create(
        {"reward": {"custom_reward_function": function, "reward_manager": reward_manager, "num_workers": 1}}
    )


def sample(tokenizer: Any, answer: str, extra_info: Any) -> DataProto:
    """One sample, as the agent loop hands it over: tokens that end the response, then padding."""
    ids = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
    padded = ids + [tokenizer.pad_token_id] * 3
    mask = [1, 1] + [1] * len(ids) + [0] * 3
    texts = {"data_source": "any", "reward_model": {"ground_truth": ""}, "extra_info": extra_info}
    return DataProto.from_dict(
        tensors={"responses": torch.tensor([padded]), "attention_mask": torch.tensor([mask])},
        non_tensors={key: numpy.array([value], dtype=object) for key, value in texts.items()},
    )


def scores_of(settings: Any, tokenizer: Any, samples: list[DataProto]) -> list[float]:
    async def all_of_them() -> list[Any]:
        manager = load_reward_manager(settings, tokenizer)
        return await asyncio.gather(*(manager.run_single(one) for one in samples))

    return [one["reward_score"] for one in asyncio.run(all_of_them())]


def test_rewards_of_the_naive_manager_are_the_judge_s(
    judge: kudos.RewardModel, trained: Path, url: str, tokenizer: Any
) -> None:
    expected = judge.score(*map(list, zip(*PAIRS))).tolist()
    for place in (trained, url):
        samples = [sample(tokenizer, answer, {"prompt": prompt, "index": 0}) for prompt, answer in PAIRS]
        assert scores_of(config(place), tokenizer, samples) == expected


def test_prompts_as_messages_and_under_another_name(judge: kudos.RewardModel, trained: Path, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": PROMPTS[0]}]
    # Rows of a Parquet file: lists have become arrays.
    info = {"asked": numpy.array(messages, dtype=object)}
    found = scores_of(config(trained, prompt_key="asked"), tokenizer, [sample(tokenizer, ANSWERS[0], info)])
    assert found == judge.score([messages], [ANSWERS[0]]).tolist()


def test_a_missing_prompt_names_the_key_and_the_fix(trained: Path, tokenizer: Any) -> None:
    with pytest.raises(kudos.DataError, match=r"extra_info\['prompt'\].*\['num_turns', 'question'.*prompt_key=KEY"):
        scores_of(config(trained), tokenizer, [sample(tokenizer, "So.", {"question": "Why?"})])
    with pytest.raises(kudos.DataError, match="found the keys"):
        compute_score("any", "So.", None, None, judge=str(trained))


def test_a_response_that_is_none_is_refused(trained: Path) -> None:
    with pytest.raises(kudos.DataError):
        compute_score("any", None, None, {"prompt": "Why?"}, judge=str(trained))  # type: ignore[arg-type]


def test_what_verl_adds_for_reward_models_of_its_own_is_not_read(trained: Path, judge: kudos.RewardModel) -> None:
    found = compute_score(
        "any",
        "",
        None,
        {"prompt": "Why?"},
        judge=str(trained),
        reward_router_address="127.0.0.1:1",
        reward_model_tokenizer=None,
    )
    assert found == float(judge.score("Why?", [""])[0])


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_the_function_goes_to_processes_of_the_remote_manager(
    judge: kudos.RewardModel, trained: Path, tokenizer: Any
) -> None:
    samples = [sample(tokenizer, answer, {"prompt": prompt}) for prompt, answer in PAIRS[:4]]
    found = scores_of(config(trained, "remote"), tokenizer, samples)
    assert found == judge.score(*map(list, zip(*PAIRS[:4]))).tolist()


def test_rows_of_the_example_reach_the_judge(
    judge: kudos.RewardModel, trained: Path, tokenizer: Any, tmp_path: Path
) -> None:
    import subprocess
    import sys

    import pandas

    rlhf = Path(__file__).parents[3] / "examples/rlhf"
    prompts = (rlhf / "prompts.txt").read_text().splitlines()
    subprocess.run(
        [sys.executable, rlhf / "prepare_verl.py", rlhf / "prompts.txt", tmp_path / "train.parquet"], check=True
    )
    rows = pandas.read_parquet(tmp_path / "train.parquet")
    assert len(rows) == len(prompts)
    samples = [sample(tokenizer, ANSWERS[0], info) for info in rows["extra_info"][:4]]
    expected = judge.score([[{"role": "user", "content": prompt}] for prompt in prompts[:4]], [ANSWERS[0]] * 4)
    assert scores_of(config(trained), tokenizer, samples) == expected.tolist()
