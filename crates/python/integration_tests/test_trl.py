"""TRL's own trainers, for a few steps each."""

from __future__ import annotations

import asyncio
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

import kudos
from kudos.integrations.trl import reward

from conftest import PROMPTS

PLAIN = [{"prompt": prompt, "topic": "any", "score": 7} for prompt in PROMPTS]
CHAT = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS]


def tiny(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Seen:
    """Passes on to a reward function, and keeps what went through."""

    def __init__(self, function: Any) -> None:
        self.function, self.__name__ = function, function.__name__
        self.seen: list[tuple[Any, Any, float | None]] = []

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        rewards = self.function(prompts, completions, **columns)
        self.seen += zip(prompts, completions, rewards)
        return rewards


class SeenLater(Seen):
    async def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        rewards = await self.function(prompts, completions, **columns)
        self.seen += zip(prompts, completions, rewards)
        return rewards


def run(kind: Any, config: Any, rows: Any, function: Any, tokenizer: Any, scratch: Path) -> Any:
    settings: dict[str, Any] = {"num_generations": 4, "max_completion_length": 8}
    if config is OnlineDPOConfig:
        settings = {"max_new_tokens": 8, "max_length": 128}
    if config is RLOOConfig:
        settings["beta"] = 0.0  # otherwise it looks for a reference model by name
    args = config(
        output_dir=str(scratch),
        max_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
        **settings,
    )
    trainer = kind(
        model=tiny(tokenizer),
        reward_funcs=function,
        args=args,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    return trainer.state.log_history


@pytest.mark.parametrize("rows", [PLAIN, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize(("kind", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_rewards_are_the_judge_s(
    kind: Any, config: Any, rows: Any, judge: kudos.RewardModel, tokenizer: Any, tmp_path: Path
) -> None:
    function = Seen(reward(judge))
    logged = run(kind, config, rows, function, tokenizer, tmp_path)
    assert len(function.seen) == 8
    prompts, completions, rewards = zip(*function.seen)
    assert numpy.array(rewards, numpy.float32).tobytes() == judge.score(list(prompts), list(completions)).tobytes()
    entry = logged[0]
    assert numpy.isclose(entry["rewards/trained/mean"], numpy.mean(rewards[:4]))
    assert entry["trained/spread"] > 0 and entry["trained/failed"] == entry["trained/truncated"] == 0
    assert 0 < entry["trained/seconds"] < 60


@pytest.mark.parametrize("rows", [PLAIN, CHAT], ids=["plain", "chat"])
def test_a_server_gives_the_same_rewards(
    rows: Any, judge: kudos.RewardModel, url: str, tokenizer: Any, tmp_path: Path
) -> None:
    here, there = Seen(reward(judge)), SeenLater(reward(url))
    assert there.__name__ == "trained"
    run(GRPOTrainer, GRPOConfig, rows, here, tokenizer, tmp_path)
    logged = run(GRPOTrainer, GRPOConfig, rows, there, tokenizer, tmp_path)
    assert here.seen == there.seen and len(here.seen) == 8
    assert logged[0]["trained/spread"] > 0


@pytest.mark.parametrize("rows", [PLAIN, CHAT], ids=["plain", "chat"])
def test_online_dpo(rows: Any, judge: kudos.RewardModel, url: str, tokenizer: Any, tmp_path: Path) -> None:
    here, there = Seen(reward(judge)), Seen(reward(url, blocking=True))
    run(OnlineDPOTrainer, OnlineDPOConfig, rows, here, tokenizer, tmp_path)
    run(OnlineDPOTrainer, OnlineDPOConfig, rows, there, tokenizer, tmp_path)
    assert here.seen == there.seen and len(here.seen) >= 8
    prompts, completions, rewards = zip(*here.seen)
    assert numpy.array(rewards, numpy.float32).tobytes() == judge.score(list(prompts), list(completions)).tobytes()


def test_an_item_that_fails_is_none_and_costs_the_others_nothing(judge: kudos.RewardModel, url: str) -> None:
    bad: Any = ["It scatters.", None, "", "\ud800", [{"role": "assistant", "content": "It scatters."}], 7]
    expected = judge.score("p", ["It scatters.", "", "It scatters."]).tolist()
    for function in (reward(judge), reward(url)):
        noted: dict[str, float] = {}
        found: Any = function(["p"] * 6, bad, log_metric=noted.__setitem__, other=[1] * 6)
        found = asyncio.run(found) if asyncio.iscoroutine(found) else found
        assert found == [expected[0], None, expected[1], None, expected[2], None]
        assert noted["trained/failed"] == 0.5
    assert reward(judge)(["p"], bad[1:2]) == [None]
    assert reward(judge)([], []) == []
    with pytest.raises(kudos.DataError, match="2 prompts and 1 responses"):
        reward(judge)(["p", "q"], ["r"])


def test_rewards_that_are_all_equal_have_no_spread(judge: kudos.RewardModel) -> None:
    noted: dict[str, float] = {}
    reward(judge)(["p"] * 4, ["same"] * 4, log_metric=noted.__setitem__)
    assert noted["trained/spread"] == 0


def test_a_cut_completion_is_counted(judge: kudos.RewardModel) -> None:
    noted: dict[str, float] = {}
    reward(judge, name="other")(["p"] * 2, ["short", "long " * 3000], log_metric=noted.__setitem__)
    assert noted["other/truncated"] == 0.5


def test_a_function_can_be_sent_to_another_process(judge: kudos.RewardModel, url: str) -> None:
    for function in (reward(judge), reward(url, blocking=True)):
        again = pickle.loads(pickle.dumps(function))
        assert again.__name__ == "trained" and again(["p"], ["r"]) == [float(judge.score("p", ["r"])[0])]


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from kudos.integrations import _judge

    monkeypatch.setattr(_judge.time, "sleep", lambda seconds: None)
    with pytest.raises(kudos.JudgeError, match="127.0.0.1:9/v1/models gave no answer in 8 tries"):
        reward("http://127.0.0.1:9")


def test_a_judge_that_the_server_does_not_have(url: str) -> None:
    function: Any = reward(f"{url}?judge=another")
    with pytest.raises(kudos.JudgeError, match="another"):
        asyncio.run(function(["p"], ["r"]))


def test_a_judge_that_was_replaced_meanwhile(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    function: Any = reward(str(copy))
    before, sent = function(["p"], ["r"]), pickle.dumps(function)
    (copy / "reward.json").write_text((copy / "reward.json").read_text() + " ")
    assert function(["p"], ["r"]) == before, "what is loaded goes on"
    with pytest.raises(kudos.JudgeError, match="another"):
        pickle.loads(sent)
    shutil.rmtree(copy)
    assert function(["p"], ["r"]) == before
    with pytest.raises(kudos.JudgeError, match="copy"):
        reward(str(copy))
