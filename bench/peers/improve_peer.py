"""TRL's GRPO with a judge behind `kudos serve`: one run, and what it took.

    python bench/peers/improve_peer.py --model DIR --prompts P.jsonl --url http://127.0.0.1:8080 --out DIR [--f32]

Settings as `kudos improve` has them: one prompt a step, one update a batch, AdamW, the learning rate straight down to 0,
loss over all tokens of the step, no KL penalty. The last line is {"steps": seconds of each, "maxrss_mb": …}.
"""

import argparse
import json
import os
import resource
import time
import urllib.request
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def settings():
    parser = argparse.ArgumentParser(description="TRL's GRPO with a judge behind `kudos serve`.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--f32", action="store_true", help="without bf16 autocast")
    return parser.parse_args()


def judge(url):
    """A reward function. Its time is the judge's and HTTP's."""
    def reward(prompts, completions, **_):
        pairs = [{"prompt": p[-1]["content"], "response": c[0]["content"]} for p, c in zip(prompts, completions)]
        request = urllib.request.Request(f"{url}/v1/score", json.dumps({"pairs": pairs}).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return [row["score"] for row in json.load(answer)["results"]]
    return reward


def main():
    args = settings()
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(args.threads)
    rows = [json.loads(line)["prompt"] for line in args.prompts.open()]
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}]} for prompt in rows])
    steps = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.begun = time.perf_counter()

        def on_step_end(self, *_, **__):
            steps.append(time.perf_counter() - self.begun)

    config = GRPOConfig(
        output_dir=str(args.out), use_cpu=True, bf16=not args.f32, gradient_checkpointing=False, max_steps=args.steps,
        per_device_train_batch_size=args.n, num_generations=args.n, max_completion_length=args.max_new_tokens,
        learning_rate=args.learning_rate, temperature=1.0, beta=0.0, seed=args.seed, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True)
    trainer = GRPOTrainer(model=str(args.model), reward_funcs=judge(args.url), args=config, train_dataset=data,
                          callbacks=[Clock()])
    trainer.train()
    trainer.save_model(str(args.out))
    print(json.dumps({"steps": steps, "maxrss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
