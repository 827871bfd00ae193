"""A few steps of TRL's GRPO with a tiny language model, rewarded by `kudos serve`.

    python examples/clients/run_trl.py --kudos target/release/kudos [--judge DIR] [--steps 4]

Starts the server on a free port of this machine, trains a random Llama of two layers on three prompts, once as plain
text and once as chat, and checks each reward that TRL got against `kudos score`. Needs torch, transformers, trl and
datasets; no network.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from trl_reward import kudos_reward  # noqa: E402

PROMPTS = ["Why is the sky blue?", "Name three rivers of Europe.", "How do I boil an egg?"]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def settings():
    parser = argparse.ArgumentParser(description="GRPO against kudos serve, for a few steps.")
    parser.add_argument("--kudos", type=Path, required=True)
    parser.add_argument("--judge", default="kudos-judge")
    parser.add_argument("--steps", type=int, default=4)
    return parser.parse_args()


def tiny_model():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(PROMPTS * 3, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>", chat_template=TEMPLATE)
    config = LlamaConfig(vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
                         bos_token_id=1, eos_token_id=2, pad_token_id=3)
    return LlamaForCausalLM(config), fast


class Recorder:
    """Passes on to the reward function, and keeps what went through."""

    __name__ = "kudos"

    def __init__(self, function):
        self.function, self.seen = function, []

    def __call__(self, prompts, completions, **columns):
        rewards = self.function(prompts, completions, **columns)
        self.seen += zip(prompts, completions, rewards)
        return rewards


def train(rows, url, judge, steps, scratch):
    model, tokenizer = tiny_model()
    reward = Recorder(kudos_reward(url, judge))
    config = GRPOConfig(output_dir=str(scratch), max_steps=steps, per_device_train_batch_size=4, num_generations=4,
                        max_completion_length=16, report_to=[], use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
                        disable_tqdm=True)
    trainer = GRPOTrainer(model=model, reward_funcs=reward, args=config, processing_class=tokenizer,
                          train_dataset=Dataset.from_list(rows))
    trainer.train()
    logged = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == steps and len(reward.seen) == 4 * steps, (logged, len(reward.seen))
    return reward.seen


def check(kudos, judge, seen, scratch):
    """Every reward is the score of the command, to the last digit that it prints."""
    file = scratch / "seen.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "response": c}) + "\n" for p, c, _ in seen))
    command = [str(kudos), "score", str(file), "--judge", judge, "--quiet"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = [json.loads(line)["score"] for line in lines]
    assert [reward for _, _, reward in seen] == expected, "rewards differ from kudos score"


def wait_until_ready(url, server):
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(f"kudos serve ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    sys.exit("kudos serve was not ready after 30 seconds")


def main():
    args = settings()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(args.kudos), "serve", "--judge", args.judge, "--port", str(port)])
    try:
        wait_until_ready(url, server)
        plain = [{"prompt": prompt, "topic": "any"} for prompt in PROMPTS]
        chat = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS]
        with tempfile.TemporaryDirectory() as scratch:
            for name, rows in [("plain", plain), ("chat", chat)]:
                seen = train(rows, url, None, args.steps, Path(scratch))
                check(args.kudos, args.judge, seen, Path(scratch))
                print(f"{name}: {len(seen)} rewards over {args.steps} steps, each equal to kudos score's")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
