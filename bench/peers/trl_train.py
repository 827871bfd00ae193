"""TRL's RewardTrainer at its best on a CPU, for comparison with `kudos train --recipe trl`.

    python bench/peers/trl_train.py --base DIR --train-file train.jsonl --eval-file held_out.jsonl \\
        --max-steps 100 --precision bf16 --no-shuffle --json trl.json

Data are JSONL pairs {prompt, chosen, rejected[, margin]}. They are encoded beforehand with
tokenizer(prompt, response, truncation=True, max_length=...), outside the measured time: with texts and a BERT
tokenizer TRL 1.16 stops for want of an EOS token. `--precision bf16` is autocast, as TRL does it; the optimizer is
PyTorch's fused AdamW. Without --gradient-checkpointing TRL is faster (its default is on). TRL sends no token type
ids, so BERT is trained and evaluated here with type 0 everywhere.

Reported: seconds of `trainer.train()`; real tokens per second (non-padding tokens of both sides, over those
seconds, and over the steps after the first --warm-steps); peak resident memory of the process; the loss of each
step; accuracy on the held-out pairs (equal scores count one half), also as the mean over prompts.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def settings():
    parser = argparse.ArgumentParser(description="TRL's RewardTrainer on pairs, measured.")
    parser.add_argument("--base", required=True, help="checkpoint directory to start from")
    parser.add_argument("--train-file", "--data", dest="train_file", type=Path, required=True, help="JSONL of pairs")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--eval-file", type=Path, help="JSONL of held-out pairs")
    held_out.add_argument("--eval-fraction", type=float, default=0.0, help="hold out this share of the prompts")
    parser.add_argument("--limit", type=int, help="only the first N training pairs (before any split)")
    parser.add_argument("--max-steps", type=int, default=-1, help="default: one epoch")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=4, help="pairs a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--precision", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--lora", type=int, help="train a PEFT adapter of this rank on all linear layers, and the head")
    parser.add_argument("--chat", action="store_true", help="encode by the chat template, for decoders")
    parser.add_argument("--no-shuffle", action="store_true", help="pairs in file order")
    parser.add_argument("--seed", type=int, default=42, help="order of the pairs, and a head that the base lacks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base-dtype", choices=["bf16", "f32"], default="f32", help="how the base's weights are kept")
    parser.add_argument("--max-seconds", type=float, help="end after the step in which this is over, and a warm one")
    parser.add_argument("--warm-steps", type=int, default=2, help="steps left out of warm_tokens_per_second")
    parser.add_argument("--save", type=Path, help="write the trained model there")
    parser.add_argument("--json", type=Path, help="write the results there")
    return parser.parse_args()


def read_pairs(file, limit=None):
    with open(file, encoding="utf-8-sig") as lines:
        return [json.loads(line) for line in lines if line.strip()][:limit]


def split_by_prompt(pairs, fraction, seed):
    """(training pairs, held-out pairs): no prompt on both sides."""
    prompts = sorted({pair["prompt"] for pair in pairs})
    random.Random(seed).shuffle(prompts)
    held_out = set(prompts[:max(1, round(fraction * len(prompts)))])
    return ([pair for pair in pairs if pair["prompt"] not in held_out],
            [pair for pair in pairs if pair["prompt"] in held_out])


def encode(tokenizer, pairs, max_length, chat=False):
    """Rows of chosen_ids, rejected_ids and, if the first pair has one, margin."""
    def ids(pair, side):
        if not chat:
            return tokenizer(pair["prompt"], pair[side], truncation=True, max_length=max_length)["input_ids"]
        turns = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair[side]}]
        return tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"][:max_length]

    rows = []
    for pair in pairs:
        row = {f"{side}_ids": ids(pair, side) for side in ("chosen", "rejected")}
        if "margin" in pairs[0]:
            row["margin"] = pair["margin"]
        rows.append(row)
    return rows


def trainer_class(options):
    """RewardTrainer that records the loss, the real tokens and the end of each step, and ends in time."""
    from trl import RewardTrainer

    class MeasuredTrainer(RewardTrainer):
        losses, tokens, ends = [], [], []

        def compute_loss(self, model, inputs, *args, **kwargs):
            self.tokens.append(inputs["attention_mask"].sum())
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            self.losses.append(loss.detach())
            return loss

        def training_step(self, *args, **kwargs):
            self.ends.append(time.perf_counter())  # the start of this step, which ends the one before
            loss = super().training_step(*args, **kwargs)
            over = options.max_seconds and time.perf_counter() - self.ends[0] > options.max_seconds
            if over and len(self.ends) > options.warm_steps:
                self.control.should_training_stop = True
            return loss

    return MeasuredTrainer


def train(options, tokenizer, rows):
    """Run TRL; (trainer, seconds)."""
    from datasets import Dataset
    from trl import RewardConfig

    adapter = {}
    if options.lora:
        from peft import LoraConfig, TaskType
        adapter["peft_config"] = LoraConfig(task_type=TaskType.SEQ_CLS, r=options.lora, lora_alpha=2 * options.lora,
                                            target_modules="all-linear", modules_to_save=["score"])
    base_dtype = {"model_init_kwargs": {"dtype": "bfloat16"}} if options.base_dtype == "bf16" else {}
    with tempfile.TemporaryDirectory() as output:
        trainer = trainer_class(options)(
            model=options.base, processing_class=tokenizer, train_dataset=Dataset.from_list(rows), **adapter,
            args=RewardConfig(
                output_dir=output, **base_dtype, use_cpu=True, bf16=options.precision == "bf16", optim="adamw_torch_fused",
                gradient_checkpointing=options.gradient_checkpointing, max_length=None,
                max_steps=options.max_steps, num_train_epochs=options.epochs,
                per_device_train_batch_size=options.batch_size, learning_rate=options.learning_rate,
                train_sampling_strategy="sequential" if options.no_shuffle else "random", seed=options.seed,
                logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
                dataloader_pin_memory=False))
        start = time.perf_counter()
        trainer.train()
        end = time.perf_counter()
        trainer.ends.append(end)
    return trainer, end - start


def score(model, sequences, pad, precision, batch_size=32):
    """Scores of lists of ids, batched by length (the attention mask hides the padding)."""
    import torch

    model.eval()
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    scores = [0.0] * len(sequences)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(order), batch_size):
            batch = order[start:start + batch_size]
            length = max(len(sequences[i]) for i in batch)
            ids = torch.tensor([sequences[i] + [pad] * (length - len(sequences[i])) for i in batch])
            mask = torch.tensor([[1] * len(sequences[i]) + [0] * (length - len(sequences[i])) for i in batch])
            for i, value in zip(batch, model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()):
                scores[i] = value
    return scores


def accuracy(model, tokenizer, pairs, options):
    """Accuracy on `pairs`, over all pairs and as the mean over prompts."""
    rows = encode(tokenizer, pairs, options.max_length, options.chat)
    chosen, rejected = (score(model, [row[f"{side}_ids"] for row in rows], tokenizer.pad_token_id, options.precision)
                        for side in ("chosen", "rejected"))
    right = [(c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected)]
    prompts = {}
    for pair, value in zip(pairs, right):
        prompts.setdefault(pair["prompt"], []).append(value)
    return {"pairs": len(pairs), "prompts": len(prompts), "accuracy": sum(right) / len(right),
            "accuracy_mean_over_prompts": sum(sum(v) / len(v) for v in prompts.values()) / len(prompts)}


def main():
    options = settings()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)  # before torch is loaded
    import torch
    import transformers
    from transformers import AutoTokenizer

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average {load:.1f}: other work on this machine distorts the measurement (PyTorch's "
              "threads wait for each other, so 2 threads can be slower than 1)", file=sys.stderr)
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    pairs, held_out = read_pairs(options.train_file, options.limit), []
    if options.eval_file:
        held_out = read_pairs(options.eval_file)
    elif options.eval_fraction:
        pairs, held_out = split_by_prompt(pairs, options.eval_fraction, options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    trainer, seconds = train(options, tokenizer, encode(tokenizer, pairs, options.max_length, options.chat))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before the evaluation adds to it

    tokens = [int(count) for count in trainer.tokens]
    warm = min(options.warm_steps, len(tokens) - 1)
    result = {
        "program": "trl", "precision": options.precision, "gradient_checkpointing": options.gradient_checkpointing,
        "threads": options.threads, "batch_size": options.batch_size, "steps": len(tokens), "seconds": seconds,
        "tokens": sum(tokens), "tokens_per_second": sum(tokens) / seconds,
        "warm_tokens_per_second": sum(tokens[warm:]) / (trainer.ends[-1] - trainer.ends[warm]),
        "peak_memory_bytes": peak, "losses": [loss.item() for loss in trainer.losses],
        "held_out": accuracy(trainer.model, tokenizer, held_out, options) if held_out else None,
        "load_average_before": load,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }
    if options.save:
        trainer.model.save_pretrained(options.save)
        tokenizer.save_pretrained(options.save)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['steps']} steps, {seconds:.1f} s, {result['tokens_per_second']:.0f} real tokens/s "
          f"(warm {result['warm_tokens_per_second']:.0f}), peak {peak / 2**20:.0f} MiB, "
          f"loss {result['losses'][0]:.4f} -> {result['losses'][-1]:.4f}")
    if held_out:
        print("held out: {accuracy:.4f} of {pairs} pairs, {accuracy_mean_over_prompts:.4f} over {prompts} prompts"
              .format(**result["held_out"]))


if __name__ == "__main__":
    main()
