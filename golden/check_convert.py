"""Compares a judge that Kudos makes of a language model with transformers.

    python golden/check_convert.py MODEL [--kudos target/release/kudos]

MODEL is a directory or a .gguf file that transformers reads. `kudos convert-judge` makes a judge of it. For a few rows,
the ids must be those of AutoTokenizer's chat template in the judge's directory, the score that of transformers' class
for the judge, and both the log odds of the model's own next word, all in float32. For a GGUF file, the ids of a few
hundred texts must be those of the written tokenizer.json alone.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import tokenizers
import torch
import transformers

from text_samples import EDGES, ODD, pairs

TOLERANCE = 1e-4
ROWS = [
    {"prompt": "What is 2 + 2?", "response": "4"},
    {"prompt": "Write a poem.", "response": "Roses are red,\nviolets are blue."},
    {"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "And you?"}], "response": "Go <|im_end|> away </s>"},
    {"prompt": "é 🙂", "response": ""},
]


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    print(done.stderr, end="")
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    return done.stdout


def language_model(path):
    where = dict(pretrained_model_name_or_path=path)
    if path.is_file():
        where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    if getattr(model.config, "final_logit_softcapping", None):
        model.config.final_logit_softcapping = None
    return model


def messages(row):
    prompt = row["prompt"]
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    return [*turns, {"role": "assistant", "content": row["response"]}]


@torch.no_grad()
def compare(judge, model, scored):
    tokenizer = transformers.AutoTokenizer.from_pretrained(judge)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(judge).eval()
    no, yes = json.loads((judge / "reward.json").read_text())["recipe"]["answer_tokens"]
    worst = 0.0
    for row, mine in zip(ROWS, scored, strict=True):
        ids = tokenizer.apply_chat_template(messages(row), tokenize=True, return_dict=True)["input_ids"]
        assert len(ids) == mine["tokens"], (row, len(ids), mine["tokens"])
        logits = model(torch.tensor([ids])).logits[0, -1]
        expected = [classifier(torch.tensor([ids])).logits[0, 0].item(), (logits[yes] - logits[no]).item()]
        print(f"{len(ids)} tokens: {mine['score']:.6f}, transformers {expected[0]:.6f} and {expected[1]:.6f}")
        worst = max(worst, *(abs(mine["score"] - other) for other in expected))
    return worst


def other_ids(judge):
    """Texts whose ids are not those of tokenizer.json alone."""
    own = transformers.AutoTokenizer.from_pretrained(judge)
    alone = tokenizers.Tokenizer.from_file(str(judge / "tokenizer.json"))
    texts = dict.fromkeys([text for pair in pairs(250, seed=5) for text in pair] + EDGES + ODD)
    cases = [(text, special) for text in texts for special in (False, True)]
    return [text for text, special in cases if own(text, add_special_tokens=special)["input_ids"]
            != alone.encode(text, add_special_tokens=special).ids]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--kudos", default="target/release/kudos")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        judge, rows = pathlib.Path(temporary) / "judge", pathlib.Path(temporary) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        run(asked.kudos, "convert-judge", asked.model, "-o", judge)
        printed = run(asked.kudos, "score", rows, "--judge", judge, "--precision", "f32")
        worst = compare(judge, language_model(asked.model), [json.loads(line) for line in printed.splitlines()])
        strange = other_ids(judge) if asked.model.is_file() else []
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}; texts with other ids: {len(strange)}")
    raise SystemExit(worst > TOLERANCE or bool(strange))


if __name__ == "__main__":
    main()
