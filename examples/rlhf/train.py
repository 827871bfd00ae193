"""Makes a small language model better by a judge: TRL's GRPO, rewarded by Kudos, on a CPU.

    python examples/rlhf/train.py                  # SmolLM2-135M-Instruct, 24 steps of 8 samples of 32 tokens
    python examples/rlhf/train.py --check-http     # also by `kudos serve`, and the rewards must be the same
    python examples/rlhf/train.py --tiny --steps 2 # a model of random weights, in seconds

Every second prompt is held out: the model answers these before and after, and the judge scores both. Needs torch,
transformers, gguf, trl and datasets; SmolLM2 is fetched by `kudos pull`.
"""

import argparse
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

import kudos
from kudos.integrations.trl import AsyncReward, reward

#: Student's t for 95 %, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 7: 2.365, 11: 2.201, 15: 2.131, 23: 2.069}


def main():
    args = settings()
    prompts = args.prompts.read_text("utf-8").splitlines()
    judge = kudos.RewardModel.from_pretrained(args.judge)
    here, result = run(args, judge, reward(judge), prompts)
    result["judge"], result["settings"] = judge.path.name, {k: str(v) for k, v in vars(args).items()}
    print(summary(result))
    if args.check_http:
        with served(str(judge.path)) as url:
            there, _ = run(args, None, reward(url), prompts)
        assert here == there, f"rewards over HTTP differ: {here} and {there}"
        print(f"over HTTP: the same {len(there)} rewards, step for step")
        result["http"] = "the same rewards, step for step"
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def settings():
    parser = argparse.ArgumentParser(description="GRPO with a Kudos judge.")
    parser.add_argument("--judge", help="a directory or a name; else the judge in the box")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name that `kudos pull` knows")
    parser.add_argument("--prompts", type=Path, default=Path(__file__).parent / "prompts.txt")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--held-out-samples", type=int, default=4)
    parser.add_argument("--tiny", action="store_true", help="random weights, and few tokens")
    parser.add_argument("--check-http", action="store_true")
    parser.add_argument("--json", type=Path, help="where the result is written")
    return parser.parse_args()


def run(args, judge, function, prompts):
    """Trains, and gives every reward, and what was measured on the held-out prompts if there is a judge to do it."""
    torch.manual_seed(42)
    model, tokenizer = tiny_model(prompts) if args.tiny else smollm2(args.model)
    held_out = prompts[1::2] if not args.tiny else prompts[1:17:2]
    before = answers(model, tokenizer, held_out, args) if judge else None
    recorded = recorder(function)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=recorded,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": chat(prompt)} for prompt in prompts[::2]]),
            args=config(args, scratch),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    if not judge:
        return recorded.rewards, None
    after = answers(model, tokenizer, held_out, args)
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    return recorded.rewards, measured(judge, held_out, before, after, log, seconds)


def config(args, scratch):
    return GRPOConfig(
        output_dir=scratch,
        max_steps=args.steps,
        per_device_train_batch_size=args.samples,
        num_generations=args.samples,
        max_completion_length=8 if args.tiny else args.tokens,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=42,
    )


def recorder(function):
    """Passes on to the reward function, and keeps the rewards."""
    if isinstance(function, AsyncReward):

        async def recorded(**columns):
            rewards = await function(**columns)
            recorded.rewards += rewards
            return rewards
    else:

        def recorded(**columns):
            rewards = function(**columns)
            recorded.rewards += rewards
            return rewards

    recorded.rewards, recorded.__name__ = [], function.__name__
    return recorded


def measured(judge, prompts, before, after, log, seconds):
    """The gain of each prompt, its mean over the samples; and the 95 % interval of the mean over the prompts."""
    count = len(before) // len(prompts)
    repeated = [chat(prompt) for prompt in prompts for _ in range(count)]
    first, last = (judge.score(repeated, texts).reshape(-1, count) for texts in (before, after))
    gains = (last - first).mean(1).tolist()
    free = len(gains) - 1
    half = T95[free] * statistics.stdev(gains) / math.sqrt(len(gains))
    name = next(key for key in log[0] if key.endswith("/seconds")).removesuffix("/seconds")
    judging = statistics.fmean(entry[f"{name}/seconds"] for entry in log)
    order = sorted(range(len(prompts)), key=lambda place: gains[place])
    return {
        "before": float(first.mean()),
        "after": float(last.mean()),
        "gain": statistics.fmean(gains),
        "half_interval_95": half,
        "held_out_prompts": len(prompts),
        "seconds_a_step": seconds / len(log),
        "judging_seconds_a_step": judging,
        "judging_share": judging * len(log) / seconds,
        "reward": [entry["reward"] for entry in log],
        "spread": [entry[f"{name}/spread"] for entry in log],
        "words_before": statistics.fmean(len(text.split()) for text in before),
        "words_after": statistics.fmean(len(text.split()) for text in after),
        "samples": [
            {"prompt": prompts[p], "gain": gains[p], "before": before[p * count], "after": after[p * count]}
            for p in (order[-1], order[len(order) // 2], order[0])
        ],
    }


def summary(result):
    gain, half = result["gain"], result["half_interval_95"]
    return (
        f"held out, {result['held_out_prompts']} prompts: {result['before']:.3f} before, {result['after']:.3f} after, "
        f"gain {gain:+.3f}, 95 % interval {gain - half:+.3f} to {gain + half:+.3f}\n"
        f"a step takes {result['seconds_a_step']:.1f} s, {100 * result['judging_share']:.1f} % of it judging\n"
        f"words a response: {result['words_before']:.1f} before, {result['words_after']:.1f} after"
    )


def answers(model, tokenizer, prompts, args):
    """Sampled responses, those of one prompt together. The random numbers are the same each time."""
    torch.manual_seed(7)
    texts = []
    for prompt in prompts:
        rendered = tokenizer.apply_chat_template(chat(prompt), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(rendered, return_tensors="pt", add_special_tokens=False).input_ids
        sampled = model.generate(
            ids.repeat(args.held_out_samples, 1),
            attention_mask=torch.ones_like(ids).repeat(args.held_out_samples, 1),
            do_sample=True,
            max_new_tokens=8 if args.tiny else args.tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts += tokenizer.batch_decode(sampled[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def chat(prompt):
    return [{"role": "user", "content": prompt}]


def smollm2(name):
    """The model of a GGUF file, in f32."""
    pulled = subprocess.run(
        [sys.executable, "-m", "kudos", "pull", name, "--json"], check=True, capture_output=True, text=True
    )
    path = Path(json.loads(pulled.stdout)["path"])
    file = path if path.is_file() else next(path.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # Its weights are f32 now. What says that they are packed would keep TRL from training them.
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    plain = LlamaForCausalLM(model.config).to(torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return plain, tokenizer


def tiny_model(prompts):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = bytes_, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(prompts, trainer)
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", chat_template=template
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(fast), num_key_value_heads=2, eos_token_id=1, pad_token_id=0, **sizes)
    return LlamaForCausalLM(config), fast


@contextmanager
def served(judge):
    """The address of `kudos serve` with this judge."""
    command = [sys.executable, "-m", "kudos", "serve", "--judge", judge, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().split()[2].rstrip(":")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
