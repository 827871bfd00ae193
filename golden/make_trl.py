"""Makes golden/models/trl_*: ten steps of TRL's RewardTrainer, to be matched step by step.

    python golden/make_trl.py            write every directory again (trl_text/pairs.jsonl is its input)
    python golden/make_trl.py --check    compare with what is committed, write nothing

trl_distilbert, trl_bert    pairs of random ids, 4 to 40 tokens a sequence
trl_distilbert_margin       the same base and ids as trl_distilbert, with a `margin` on each pair
trl_text                    a WordPiece tokenizer and 40 pairs of short texts, encoded with
                            tokenizer(prompt, response, truncation=True, max_length=512)

Each directory holds the initial checkpoint (the margin one borrows trl_distilbert's) and

expected.safetensors
    chosen_ids, rejected_ids            i64 [T]   the sequences of the 40 pairs laid end to end
    chosen_offsets, rejected_offsets    i64 [41]
    margin                              f32 [40]  (trl_distilbert_margin)
    final.<parameter>                   f32       weights after the ten steps (not for the margins)
    final_score.chosen, .rejected       f32 [40]  the pairs scored by the final model, each sequence alone
expected.json
    settings, noise and float32_error as in make_golden.py, and for each step
    loss, grad_norm (before clipping), learning_rate (used by that step), accuracy, margin,
    min_reward, mean_reward, max_reward (before the update, over chosen and rejected), num_tokens (cumulative).
    The head's bias is noise (see tiny.noise): all rewards of a step may be shifted together by up to the sum of
    the learning rates so far, while max_reward - mean_reward and mean_reward - min_reward can be compared closely.

The settings are TRL's own, except: float32 on the CPU, no gradient checkpointing, learning rate 1e-3 with a
linear decay to 0 over max_steps=10, 4 pairs a step in file order (train_sampling_strategy="sequential").
What TRL 1.16 does with them, on transformers 5.23:

- loss = mean over the batch of -log sigmoid(chosen - rejected - margin); all chosen first, then all rejected,
  in one batch padded to its longest sequence; no token type ids are sent, so BERT sees type 0 everywhere.
- Dropout is off: every nn.Dropout gets p=0 although the model is in training mode.
- Fused AdamW (0.9, 0.999, 1e-8); weight decay would apply to all but biases and norm weights, and is 0.
- The gradient is scaled by min(1, 1 / (norm + 1e-6)), the norm being over all parameters together.
- Step i of n (from 0) uses the rate lr * (n - i) / n; there is no warm-up, and no step uses 0.
- Logged values are not rounded. A `margin` column is kept; metrics ignore it (`margin` is chosen - rejected).
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

import tiny

STEPS, BATCH, LEARNING_RATE = 10, 4, 1e-3
TEXT_POSITIONS = 80  # longer than any pair of trl_text
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}
# name: (class, random stream of the weights); None borrows the checkpoint of trl_distilbert. The streams
# are chosen (of twelve tried) so that rounding noise moves the losses by 1e-6 instead of up to 1e-4.
CASES = {
    "trl_distilbert": ("DistilBertForSequenceClassification", "trl_distilbert 6"),
    "trl_bert": ("BertForSequenceClassification", "trl_bert"),
    "trl_distilbert_margin": None,
    "trl_text": ("DistilBertForSequenceClassification", "trl_text 6"),
}


class RecordingTrainer(RewardTrainer):
    """RewardTrainer that keeps each loss as computed, and the gradients of each step before clipping."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.losses, self.gradients = [], []

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.item())
        return loss

    def training_step(self, model, *args, **kwargs):
        loss = super().training_step(model, *args, **kwargs)
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        return loss


def random_pairs(name):
    """40 pairs of sequences of 4 to 40 random ids, and margins in [0, 1) if the name asks for them."""
    random = tiny.generator(f"pairs of {name.removesuffix('_margin')}")

    def sequence():
        length = torch.randint(4, 41, (), generator=random)
        return torch.randint(tiny.FIRST_ID, 61, (length,), generator=random).tolist()

    pairs = [{"chosen_ids": sequence(), "rejected_ids": sequence()} for _ in range(STEPS * BATCH)]
    if name.endswith("_margin"):
        for pair in pairs:
            pair["margin"] = torch.rand((), generator=random).item()
    return pairs


def read_pairs(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def wordpiece(texts):
    """An uncased BERT tokenizer with the common words, endings and letters of `texts`.

    Counted here because tokenizers' WordPieceTrainer gives another vocabulary on each run. Letters seen
    once are left out, so that [UNK] occurs.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words, endings, letters = Counter(), Counter(), Counter()
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += 1
            letters.update(word)
            endings.update(word[-n:] for n in (2, 3) if len(word) > n)
    letters = sorted(letter for letter, count in letters.items() if count > 1)
    pieces = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    pieces += [f"##{ending}" for ending, _ in sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))[:40]]
    pieces += [word for word, count in sorted(words.items()) if count > 1 and len(word) > 1]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends)
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TEXT_POSITIONS, **SPECIAL)


def ids_tokenizer():
    """The least that RewardTrainer accepts beside ids: a tokenizer with a padding token (id 0)."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def prepare(name, directory):
    """Write the base of one case; returns (base directory, tokenizer, pairs of ids)."""
    if name == "trl_text":
        texts = read_pairs(tiny.MODELS / name / "pairs.jsonl")
        wordpiece([text for pair in texts for text in pair.values()]).save_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)

        def encode(pair, side):
            return tokenizer(pair["prompt"], pair[side], truncation=True, max_length=512)["input_ids"]

        pairs = [{f"{side}_ids": encode(pair, side) for side in ("chosen", "rejected")} for pair in texts]
        shape = {"vocab": len(tokenizer), "positions": TEXT_POSITIONS}
    else:
        tokenizer, pairs = ids_tokenizer(), random_pairs(name)
        shape = {}
    if CASES[name] is None:
        return directory.parent / "trl_distilbert", tokenizer, pairs
    kind, stream = CASES[name]
    tiny.build(kind, stream, **shape).save_pretrained(directory)
    return directory, tokenizer, pairs


def train(base, tokenizer, pairs, dtype):
    """Ten steps of TRL in `dtype`: (trainer, one dict of metrics a step)."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    with tempfile.TemporaryDirectory() as output:
        trainer = RecordingTrainer(
            model=model, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer,
            args=RewardConfig(
                output_dir=output, use_cpu=True, bf16=False, gradient_checkpointing=False,
                max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE,
                train_sampling_strategy="sequential", logging_steps=1, save_strategy="no",
                report_to="none", disable_tqdm=True, dataloader_pin_memory=False))
        trainer.train()
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout)), "dropout must be off"
    steps = [{key: value for key, value in log.items() if key not in ("epoch", "step")}
             for log in trainer.state.log_history if "loss" in log]
    for step, loss in zip(steps, trainer.losses, strict=True):
        assert dtype != torch.float32 or step["loss"] == loss, "TRL rounds the loss it logs"
    return trainer, steps


def settings(trainer):
    """The settings that decide the numbers, as the trainer ended up with them."""
    keys = ["learning_rate", "lr_scheduler_type", "warmup_steps", "max_steps", "per_device_train_batch_size",
            "gradient_accumulation_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay",
            "max_grad_norm", "disable_dropout", "center_rewards_coefficient", "train_sampling_strategy"]
    found = {key: getattr(trainer.args, key) for key in keys}
    return {key: getattr(value, "value", value) for key, value in found.items()}


@torch.no_grad()
def score(model, sequences):
    """Scores of lists of ids, each run alone. [n]"""
    model.eval()
    return torch.cat([model(input_ids=torch.tensor([ids])).logits[:, 0] for ids in sequences])


def packed(name, pairs):
    """The ids of one side of the pairs laid end to end, with offsets."""
    sequences = [pair[f"{name}_ids"] for pair in pairs]
    offsets = torch.tensor([0, *map(len, sequences)]).cumsum(0)
    return {f"{name}_ids": torch.tensor(sum(sequences, [])), f"{name}_offsets": offsets}


def differences(steps, other_steps, final, other_final, noise):
    """Largest difference of each metric and of the final weights, without noise."""
    largest = {key: max(abs(a[key] - b[key]) for a, b in zip(steps, other_steps)) for key in steps[0]}
    largest["final"] = max((tiny.largest_difference(key, final[key], other_final[key], noise) for key in final),
                           default=0.0)
    return {key: float(f"{value:.1e}") for key, value in largest.items()}


def make(name, directory):
    """Write one case into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    base, tokenizer, pairs = prepare(name, directory)
    trainer, steps = train(base, tokenizer, pairs, torch.float32)
    exact, exact_steps = train(base, tokenizer, pairs, torch.float64)
    noise = tiny.noise(exact.gradients, trainer.gradients)
    final, exact_final = (dict(one.model.state_dict()) for one in (trainer, exact))
    tensors = packed("chosen", pairs) | packed("rejected", pairs)
    if "margin" in pairs[0]:
        tensors["margin"] = torch.tensor([pair["margin"] for pair in pairs])
    else:
        tensors |= {f"final.{key}": value for key, value in final.items()}
    for side in ("chosen", "rejected"):
        tensors[f"final_score.{side}"] = score(trainer.model, [pair[f"{side}_ids"] for pair in pairs])
    facts = {"kind": type(trainer.model).__name__, "base": base.name if base != directory else ".",
             "settings": settings(trainer), "noise": noise,
             "float32_error": differences(steps, exact_steps, final, exact_final, noise),
             "steps": steps}
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "expected.safetensors")
    tiny.write_json(directory / "expected.json", facts)
    return facts


def check(name, root):
    """Regenerate one case under `root`; the largest difference of a metric, an input or a final weight."""
    facts, old = make(name, root / name), json.loads((tiny.MODELS / name / "expected.json").read_text())
    new, committed = (load_file(path / name / "expected.safetensors") for path in (root, tiny.MODELS))
    assert new.keys() == committed.keys(), f"{name}: other tensors than committed"
    finals = [{key[6:]: value for key, value in one.items() if key.startswith("final.")} for one in (new, committed)]
    found = differences(facts["steps"], old["steps"], *finals, facts["noise"])
    same_ids = all(torch.equal(new[key], committed[key]) for key in new if "_ids" in key or "_offsets" in key)
    assert same_ids, f"{name}: other pairs than committed"
    return max(found.values())


def main():
    parser = argparse.ArgumentParser(description="Ten steps of TRL's RewardTrainer on tiny checkpoints.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "tokenizers", "trl", "accelerate", "datasets", "safetensors")
    tiny.deterministic()
    disable_progress_bars()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for name in CASES:
            if arguments.check:
                worst = check(name, Path(temporary))
                failed |= worst > 1e-4
                print(f"{name}: largest difference {worst:.1e}")
            else:
                print(name, json.dumps(make(name, tiny.MODELS / name)["float32_error"]))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
