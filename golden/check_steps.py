"""Checks that the ten steps of golden/judges and golden/lora/train_* are those of TRL's RewardTrainer.

    python golden/check_steps.py

The goldens come from a loop of a few lines (`make_judges_golden.adamw`), each text alone. Here TRL makes the same steps
from the same pairs, in padded batches. Prints the largest differences; exits with 1 if one is above a bound.
"""

import json
import sys
import tempfile
import warnings

from datasets import Dataset, disable_progress_bars
from trl import RewardConfig, RewardTrainer

import make_judges_golden as judges
import make_lora_golden as lora
import make_trl
import tiny

BOUNDS = {"losses": 1e-5, "grad_norms": 2e-4, "scores_beyond_first": 5e-5}
# All but MPNet, whose pad id is not the 0 of the tokenizer that TRL is given.
JUDGES = [name for name in judges.CASES if name != "mpnet"]


class Trainer(RewardTrainer):
    """RewardTrainer that keeps each loss as computed."""

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def trained(model, expected):
    """What TRL makes of the pairs of one golden, in its terms."""
    texts, pairs = expected["texts"], expected["pairs"]
    rows = [{"chosen_ids": texts[a], "rejected_ids": texts[b]}
            for step in range(judges.STEPS) for a, b in pairs[step % 2]]
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model, train_dataset=Dataset.from_list(rows), processing_class=make_trl.ids_tokenizer(),
            args=RewardConfig(
                output_dir=output, use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=judges.STEPS,
                per_device_train_batch_size=2, learning_rate=judges.LEARNING_RATE, logging_steps=1,
                train_sampling_strategy="sequential", save_strategy="no", report_to="none", disable_tqdm=True,
                dataloader_pin_memory=False))
        trainer.log = lambda logs, *_: trainer.state.log_history.append(logs)
        trainer.train()
    logged = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    return {"losses": trainer.losses, "grad_norms": logged,
            "scores_beyond_first": judges.beyond_first(judges.scores(trainer.model.eval(), texts))}


def compare(name, model, file):
    expected = json.loads(file.read_text())
    found = trained(model, expected)
    distances = {key: judges.spread(found[key], expected["adamw"][key]) for key in BOUNDS}
    good = all(distances[key] <= bound for key, bound in BOUNDS.items())
    print(name, {key: f"{value:.1e}" for key, value in distances.items()}, "ok" if good else "FAILED", flush=True)
    return good


def main():
    tiny.assert_pinned("torch", "transformers", "trl", "peft", "datasets")
    tiny.deterministic()
    disable_progress_bars()
    warnings.simplefilter("ignore")
    good = [compare(name, judges.build(name), judges.JUDGES / name / "expected.json") for name in JUDGES]
    for name, (base, stream, zero_b) in lora.TRAININGS.items():
        model = lora.adapted(stream, base, lora.TRAINED, zero_b)
        good.append(compare(name, model, lora.LORA / name / "expected.json"))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
