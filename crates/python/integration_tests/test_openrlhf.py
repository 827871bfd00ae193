"""OpenRLHF's own executor of single turns: it loads the printed file, and asks for one sample at a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from openrlhf.trainer.ppo_utils import Experience
from openrlhf.utils.agent import SingleTurnAgentExecutor

import kudos
from kudos.integrations.openrlhf import reward_function
from kudos.integrations._templates import prompt_of, response_of

from conftest import ANSWERS, PROMPTS


class Engine:
    """Stands for vLLM: it answers with the tokens of a known text."""

    def __init__(self, tokenizer: Any, answer: str) -> None:
        self.ids = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]

    async def generate(self, prompt_token_ids: Any, params: Any, multi_modal_data: Any = None) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)])


def printed(path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "kudos.integrations.openrlhf", *words]
    path.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return str(path)


def rollout(executor: Any, tokenizer: Any, pairs: list[tuple[str, str]], max_length: int = 500) -> list[Any]:
    params = SimpleNamespace(max_tokens=64, logprobs=None)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(
            *(executor.execute(p, "", params, max_length, tokenizer, Engine(tokenizer, a)) for p, a in pairs)
        )

    return asyncio.run(all_of_them())


PAIRS = [(prompt, f"{answer} {n}") for n in range(6) for prompt in PROMPTS for answer in ANSWERS]


def test_rewards_are_those_of_prompt_and_response_as_they_were_written(
    judge: kudos.RewardModel, trained: Path, url: str, tokenizer: Any, tmp_path: Path
) -> None:
    system = {"role": "system", "content": "You are kind."}
    asked = [
        tokenizer.apply_chat_template(
            [system, {"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt, _ in PAIRS
    ]
    expected = judge.score(*map(list, zip(*PAIRS)))
    for judge_words in (str(trained), url):
        executor = SingleTurnAgentExecutor([printed(tmp_path / "reward.py", "--judge", judge_words)])
        found = rollout(executor, tokenizer, [(prompt, answer) for prompt, (_, answer) in zip(asked, PAIRS)])
        rewards = numpy.array([one["reward"].item() for one in found], numpy.float32)
        assert rewards.tobytes() == expected.tobytes()
        assert [one["scores"].item() for one in found] == rewards.tolist()


def test_plain_prompts_and_an_input_template(
    judge: kudos.RewardModel, trained: Path, tokenizer: Any, tmp_path: Path
) -> None:
    expected = judge.score(*map(list, zip(*PAIRS))).tolist()
    plain = SingleTurnAgentExecutor(printed(tmp_path / "plain.py", "--judge", str(trained)))
    assert [one["reward"].item() for one in rollout(plain, tokenizer, PAIRS)] == expected
    template = "User: {}\nAssistant: "
    written = printed(tmp_path / "written.py", "--judge", str(trained), "--template", template)
    pairs = [(template.format(prompt), answer) for prompt, answer in PAIRS]
    found = rollout(SingleTurnAgentExecutor([written]), tokenizer, pairs)
    assert [one["reward"].item() for one in found] == expected


def test_rewards_go_into_their_experiences(trained: Path, tokenizer: Any, tmp_path: Path) -> None:
    import torch

    executor = SingleTurnAgentExecutor([printed(tmp_path / "reward.py", "--judge", str(trained))])
    found = rollout(executor, tokenizer, PAIRS[:4])
    # As samples_generator.py, which cannot be imported without vLLM, makes tensors of them.
    each = [Experience(rewards=torch.tensor([one["reward"]]), info={"reward": torch.tensor([one["reward"]])}) for one in found]
    together = Experience.concat_experiences(each, 0)
    assert together.rewards.shape == (4,) and together.info["reward"].shape == (4,)


def test_a_prompt_that_was_cut_has_no_reward_and_the_log_says_so(
    trained: Path, tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor = SingleTurnAgentExecutor([printed(tmp_path / "reward.py", "--judge", str(trained))])
    found = rollout(executor, tokenizer, [("Why? " * 200, "Because."), (PROMPTS[0], ANSWERS[0])], max_length=100)
    assert found[0]["reward"] is None and found[1]["reward"] is not None
    errors = [record for record in caplog.records if record.levelname == "ERROR" and record.name == "kudos"]
    assert len(errors) == 1 and "begins with its prompt" in errors[0].getMessage()


LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA = "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"
TURNS = (
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nHm?<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Why?", "Why?"),
        ("<s>Why?", "Why?"),
        (LLAMA, "Why?"),
        (GEMMA, "Why?"),
        (TURNS, [("user", "Why?"), ("assistant", "So."), ("user", "Hm?")]),
        ("<|im_start|>user\nWhy?<|im_end|>\nand more", "<|im_start|>user\nWhy?<|im_end|>\nand more"),
        ("", ""),
    ],
)
def test_templates_come_off(prompt: str, expected: Any) -> None:
    found: Any = prompt_of(prompt, None, False)
    assert (found if isinstance(found, str) else [(one["role"], one["content"]) for one in found]) == expected


def test_system_turns_can_be_kept() -> None:
    assert prompt_of(LLAMA, None, True) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]


@pytest.mark.parametrize("ends", ["", "</s>", "<|im_end|>\n", "<|eot_id|>", "<end_of_turn>\n<eos>", "<|endoftext|>" * 9])
def test_tokens_that_end_a_response_come_off(ends: str) -> None:
    assert response_of(f"Why? <b>So</b> {{x}}\n```\n{ends}", "Why?") == (
        " <b>So</b> {x}\n```" + ("" if ends else "\n")
    )


def test_a_prompt_in_another_template_is_refused() -> None:
    with pytest.raises(kudos.DataError, match="in the template"):
        prompt_of("Why?", "User: {}", False)


def test_lists_that_do_not_fit_are_refused(trained: Path) -> None:
    function = reward_function(str(trained))
    assert function(["Why? So.", "Why? Oh."], ["Why?", "Why?"], ["", ""])["rewards"].shape == (2,)
    assert function([], [], [])["rewards"].shape == (0,)
    for queries, prompts in ((["Why? So."], []), (["Why? So."], ["Why?"] * 2), (["So."], ["Why?"])):
        with pytest.raises(kudos.DataError):
            function(queries, prompts, [])
