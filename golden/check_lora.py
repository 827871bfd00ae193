"""Checks that LoRA adapters go both ways between Kudos and PEFT with the same scores.

    python golden/check_lora.py BASE_DIR --kudos target/release/kudos
    python golden/check_lora.py BASE_DIR --kudos BIN --data PAIRS.jsonl --rank 8 --train-args "--rslora"

BASE_DIR is a judge, or a model without a head, with its tokenizer. Three things are checked, in this order:

to PEFT      `kudos train PAIRS --base BASE --lora RANK` writes an adapter. PEFT loads it over the base, twice, after
             different seeds: both times it gives the scores of `kudos score --judge ADAPTER`. A part of the head
             that the adapter lacks would be random each time.
merged       `kudos merge ADAPTER -o JUDGE` gives a judge with the same scores in transformers and in Kudos.
from PEFT    PEFT trains an adapter for a few steps and saves it. `kudos score --judge` gives PEFT's scores.

`base_model_name_or_path` of an adapter is looked for beside the adapter, and then from the working directory.
Exits with 1 if a score differs by more than --tolerance.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import check_judges
import tiny

PAIRS = tiny.HERE / "models" / "trl_text" / "pairs.jsonl"
STEPS = 5
# What PEFT must save beside the adapter, so that a head that the base lacks is restored.
HEADS = {"bert": ["classifier", "pooler"], "deberta-v2": ["classifier", "pooler"], "modernbert": ["classifier", "head"],
         "distilbert": ["classifier", "pre_classifier"], "roberta": ["classifier"], "xlm-roberta": ["classifier"],
         "mpnet": ["classifier"]}


def load_base(directory, seed=0):
    """The base with one label. What it lacks is random, by `seed`."""
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=1, dtype=torch.float32, attn_implementation="eager").eval()


def base_of(adapter):
    """The directory of an adapter's base."""
    named = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    for directory in (adapter / named, Path(named)):
        if (directory / "config.json").exists():
            return directory
    raise SystemExit(f"{adapter}: its base {named!r} is neither beside it nor in the working directory")


def run(kudos, *arguments):
    subprocess.run([kudos, *map(str, arguments)], check=True)


def judge_of(adapter, seed):
    """An adapter in PEFT, as a judge that `check_judges` can compare."""
    model = PeftModel.from_pretrained(load_base(base_of(adapter), seed), adapter).eval()
    return check_judges.Judge(tokenizer_of(adapter), model=model, settings=adapter)


def tokenizer_of(adapter):
    """Adapters may carry the tokenizer, or leave it to the base."""
    return adapter if (adapter / "tokenizer_config.json").exists() else base_of(adapter)


def to_peft(arguments, adapter):
    """An adapter that Kudos wrote, in PEFT after two seeds."""
    # Without held-out prompts the last step is kept. With them, it could be the head alone, and the adapter at 0.
    run(arguments.kudos, "train", arguments.data, "--base", arguments.base, "--lora", arguments.rank, "--lora-alpha",
        2 * arguments.rank, "--max-steps", STEPS, "--eval-fraction", 0, "--quiet", "-o", adapter,
        *arguments.train_args.split())
    good = moved(adapter)
    judge = judge_of(adapter, seed=1)
    rows = check_judges.renderable(judge, arguments.rows)
    scored = check_judges.kudos_rows(arguments.kudos, adapter, rows)
    for seed, one in ((1, judge), (2, judge_of(adapter, seed=2))):
        good &= check_judges.report(one, rows, scored, arguments.tolerance, f"to PEFT, seed {seed}")
    return good


def moved(adapter):
    """An adapter that is not trained would pass every comparison."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    largest = [value.abs().max().item() for key, value in tensors.items() if "lora_B" in key]
    good = bool(largest) and min(largest) > 0
    print(f"adapter: {len(tensors)} tensors, {len(largest)} adapted modules {'ok' if good else 'FAILED: B is 0'}")
    return good


def merged(arguments, adapter, judge_directory):
    """The merged judge against the adapter, both in Kudos, and against transformers."""
    run(arguments.kudos, "merge", adapter, "-o", judge_directory)
    judge = check_judges.Judge(judge_directory)
    rows = check_judges.renderable(judge, arguments.rows)
    good = True
    for directory, what in ((judge_directory, "merged"), (adapter, "merged, against the adapter")):
        scored = check_judges.kudos_rows(arguments.kudos, directory, rows)
        good &= check_judges.report(judge, rows, scored, arguments.tolerance, what)
    return good


def train_in_peft(arguments, adapter):
    """An adapter that PEFT trains for a few steps, one pair a step, saved with the base's tokenizer."""
    base = load_base(arguments.base)
    targets = arguments.targets.split(",") if "," in arguments.targets else arguments.targets
    config = LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=targets, task_type="SEQ_CLS",
                        modules_to_save=HEADS.get(base.config.model_type, ["score"]))
    model = get_peft_model(base, config)
    judge = check_judges.Judge(arguments.base, model=model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for row in [row for row in check_judges.read_rows(arguments.data) if "chosen" in row][:STEPS]:
        chosen, rejected = (output(judge, row["prompt"], row[side]) for side in ("chosen", "rejected"))
        optimizer.zero_grad()
        (-torch.nn.functional.logsigmoid(chosen - rejected)).backward()
        optimizer.step()
    model.save_pretrained(adapter)
    AutoTokenizer.from_pretrained(arguments.base).save_pretrained(adapter)
    name_base(adapter, arguments.base)
    return model.eval()


def output(judge, prompt, response):
    ids = torch.tensor([judge.ids.cut(prompt, response)])
    return judge.model(input_ids=ids, **judge.ids.segments(prompt, response)).logits[0, 0]


def name_base(adapter, base):
    """The base by its whole path, because the adapter lies in a temporary directory."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = str(base.resolve())
    file.write_text(json.dumps(config, indent=2, default=sorted) + "\n")


def from_peft(arguments, adapter):
    """An adapter that PEFT trained, in Kudos. It has no reward.json: its texts become ids as the base's do."""
    model = train_in_peft(arguments, adapter)
    good = moved(adapter)
    judge = check_judges.Judge(arguments.base, model=model)
    rows = check_judges.renderable(judge, arguments.rows)
    scored = check_judges.kudos_rows(arguments.kudos, adapter, rows)
    return check_judges.report(judge, rows, scored, arguments.tolerance, "from PEFT") and good


def main():
    parser = argparse.ArgumentParser(description="LoRA adapters between Kudos and PEFT, both ways.")
    parser.add_argument("base", type=Path, help="directory of a judge or a model, with its tokenizer")
    parser.add_argument("--kudos", required=True, help="the kudos program")
    parser.add_argument("--data", type=Path, default=PAIRS, help="JSONL of pairs to train and score")
    parser.add_argument("--rank", type=int, default=4, help="rank of the adapters (4)")
    parser.add_argument("--targets", default="all-linear", help="what PEFT adapts: all-linear, a list or a regex")
    parser.add_argument("--train-args", default="", help="more flags for `kudos train`, in one string")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (1e-4)")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "peft")
    tiny.deterministic()
    warnings.simplefilter("ignore")
    arguments.rows = check_judges.read_rows(arguments.data, 20)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        good = to_peft(arguments, root / "adapter")
        good &= merged(arguments, root / "adapter", root / "merged")
        good &= from_peft(arguments, root / "from_peft")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
