"""What the tests share: a judge that was trained here, the same judge behind a server, and a tiny language model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

import kudos  # noqa: E402

PROMPTS = ["Why is the sky blue?", "Name three rivers of Europe.", "How do I boil an egg?"]
ANSWERS = ["It scatters light.", "The Rhine, the Seine and the Po.", "Nine minutes in boiling water.", ""]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a judge with weights in f32."""
    rows = [{"prompt": p, "chosen": f"{a}.", "rejected": "No."} for p, a in zip(PROMPTS * 4, ANSWERS * 3)]
    path = tmp_path_factory.mktemp("judges") / "trained"
    kudos.train(rows, output=path, max_steps=2, head_first=False)
    return path


@pytest.fixture(scope="session")
def judge(trained: Path) -> kudos.RewardModel:
    return kudos.RewardModel.from_pretrained(trained)


@pytest.fixture(scope="session")
def url(trained: Path) -> Iterator[str]:
    """The address of a server with the judge."""
    command = [sys.executable, "-m", "kudos", "serve", "--judge", str(trained), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("listening at "), line
        yield line.split()[2].rstrip(":")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer of a few hundred tokens with ChatML's template."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        PROMPTS + ANSWERS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
