"""Checks that a judge gives the same scores in Kudos, in transformers and in sentence-transformers.

    python golden/check_transformers.py JUDGE_DIR --kudos target/release/kudos
    python golden/check_transformers.py JUDGE_DIR --kudos BIN --data FILE.jsonl --limit 200

Without --data it scores made-up pairs, comparisons and groups: very short and very long texts, emoji, accents,
Chinese, markup. Only judges that render texts as `pair` (encoders) and rows of plain text are compared.
Of a judge of attributes, all outputs are compared.
Prints the largest absolute differences; exits with 1 if one is above --tolerance.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny

LONG = "The tide came in, the boats went out, and nobody on the pier could say which was first. " * 120
TEXTS = [
    "Yes.", "no", ".", "It depends 🙂 on the weather ☔️ — and on you 👩‍👩‍👧.", "Café, naïve, Åse, straße, ŁÓDŹ.",
    "我觉得第二个更好。", "def f(x):\n    return x ** 2  # squared", "<b>bold</b> &amp; [SEP] [MASK] </s> <unk>",
    "1,000.50 € + 20 % = ?", "e\u0301 is two code points, \u00e9 is one;\u200bzero width, \ttab\r\nnewline", "a" * 300,
    "Because a short answer is easier to read than a long one.", LONG[:900], LONG,
]


def sample_files(directory):
    """The made-up rows, as one JSONL file of each kind."""
    prompts = ["Which is better?", "?", "¿Qué hora es? 🕐", LONG[:2000], "Explain it to a child."]
    texts = [(prompt, TEXTS[i], TEXTS[(i + j + 1) % len(TEXTS)])
             for j, prompt in enumerate(prompts) for i in range(len(TEXTS)) if i % len(prompts) != j]
    kinds = {
        "pairs": [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in texts],
        "comparisons": [{"prompt": p, "response_a": a, "response_b": b, "label": "tie"} for p, a, b in texts[::5]],
        "groups": [{"prompt": p, "responses": [{"text": a, "rank": 1}, {"text": b, "rank": 2},
                                               {"text": "Both are fine.", "rank": 3}]} for p, a, b in texts[::7]],
    }
    files = []
    for kind, rows in kinds.items():
        files.append(directory / f"{kind}.jsonl")
        files[-1].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return files


def read_rows(file, limit=None):
    with open(file, encoding="utf-8-sig") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return rows[:limit]


def responses_of(row):
    """The responses that a row asks to score, in order."""
    if "chosen" in row:
        texts = [row["chosen"], row["rejected"]]
    elif "response_a" in row:
        texts = [row["response_a"], row["response_b"]]
    elif "responses" in row:
        texts = [one if isinstance(one, str) else one["text"] for one in row["responses"]]
    else:
        texts = [row["response"] if "response" in row else row["answer"]]
    if not all(isinstance(text, str) for text in [row["prompt"], *texts]):
        raise SystemExit("only rows of plain text with a prompt can be compared")
    return texts


def scores_in(row, attributes):
    """The outputs that Kudos wrote into a row, a list for each of responses_of: the score, or one output an attribute."""
    names = [f"_{name}" for name in attributes] or [""]
    for keys in (["score_chosen", "score_rejected"], ["score_a", "score_b"], ["score"]):
        if keys[0] in row:
            return [[row[key + name] for name in names] for key in keys]
    return [list(outputs) for outputs in zip(*(row["scores" + name] for name in names))]


class Judge:
    """The judge in transformers (float32, one text at a time) and in sentence-transformers."""

    def __init__(self, directory):
        settings = directory / "reward.json"
        reward = json.loads(settings.read_text()) if settings.exists() else {}
        if reward.get("render", "pair") != "pair":
            raise SystemExit(f"{settings}: render is {reward['render']!r}, only \"pair\" can be compared")
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
        config = self.model.config
        # RoBERTa's positions start after the padding id.
        skipped = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        positions = config.max_position_embeddings - skipped
        self.max_length = min(reward.get("max_length", 512), positions)
        self.keeps_response = reward.get("truncation") == "keep_response"
        self.attributes = reward.get("attributes", {}).get("names", [])
        named = [config.id2label[i] for i in range(config.num_labels)]
        if self.attributes and named != self.attributes:
            raise SystemExit(f"config.json calls the outputs {named}, reward.json {self.attributes}")
        self.has_settings = "sentence_transformers" in config.to_dict()
        self.cross_encoder = CrossEncoder(str(directory), device="cpu", max_length=self.max_length)

    def comparable(self, prompt, response):
        """False for texts cut by a rule that transformers does not have."""
        return not self.keeps_response or len(self.tokenizer(prompt, response)["input_ids"]) <= self.max_length

    @torch.no_grad()
    def score(self, prompt, response):
        ids = self.tokenizer(prompt, response, truncation=True, max_length=self.max_length, return_tensors="pt")
        return self.model(**ids).logits[0].tolist()

    def score_cross_encoder(self, prompt, response):
        outputs = self.cross_encoder.predict([(prompt, response)], show_progress_bar=False)[0]
        return [float(output) for output in outputs] if self.attributes[1:] else [float(outputs)]


def kudos_rows(kudos, judge, file, rows, extra):
    """`rows` with the scores that `kudos score` gives them."""
    with tempfile.TemporaryDirectory() as temporary:
        given, out = Path(temporary) / file.name, Path(temporary) / "out.jsonl"
        given.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        subprocess.run([kudos, "score", "--precision", "f32", given, "--judge", judge, "-o", out, *extra], check=True)
        scored = read_rows(out)
    if len(scored) != len(rows):
        raise SystemExit(f"{file.name}: {len(rows)} rows in, {len(scored)} rows out")
    return scored


def largest_difference(found, expected):
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


def compare(judge, rows, scored):
    """(texts compared, largest |kudos - transformers|, largest |sentence-transformers - transformers|)"""
    count = kudos_worst = cross_worst = 0
    for row, answer in zip(rows, scored):
        found = scores_in(answer, judge.attributes)
        for response, outputs in zip(responses_of(row), found, strict=True):
            if not judge.comparable(row["prompt"], response):
                continue
            expected = judge.score(row["prompt"], response)
            count += 1
            kudos_worst = max(kudos_worst, largest_difference(outputs, expected))
            cross_worst = max(cross_worst, largest_difference(judge.score_cross_encoder(row["prompt"], response), expected))
    return count, kudos_worst, cross_worst


def main():
    parser = argparse.ArgumentParser(description="Compare a judge's scores: Kudos, transformers, CrossEncoder.")
    parser.add_argument("judge", type=Path, help="judge directory")
    parser.add_argument("--kudos", required=True, help="the kudos program")
    parser.add_argument("--data", type=Path, help="JSONL of pairs, comparisons, groups or single responses")
    parser.add_argument("--limit", type=int, help="only the first N rows")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (1e-4)")
    parser.add_argument("--score-args", default="", help="more flags for `kudos score`, in one string")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "sentence-transformers")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    judge, failed = Judge(arguments.judge), False
    if not judge.has_settings:
        print("config.json has no sentence_transformers.activation_fn: CrossEncoder applies a sigmoid")
        failed = True
    with tempfile.TemporaryDirectory() as temporary:
        files = [arguments.data] if arguments.data else sample_files(Path(temporary))
        for file in files:
            rows = read_rows(file, arguments.limit)
            scored = kudos_rows(arguments.kudos, arguments.judge, file, rows, arguments.score_args.split())
            count, kudos_worst, cross_worst = compare(judge, rows, scored)
            good = max(kudos_worst, cross_worst) <= arguments.tolerance and count > 0
            failed |= not good
            print(f"{file.name}: {count} texts, largest difference from transformers: kudos {kudos_worst:.1e}, "
                  f"CrossEncoder {cross_worst:.1e} {'ok' if good else 'FAILED'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
