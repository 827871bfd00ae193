"""Compares Kudos' ids with those of transformers, on a real model directory and real texts.

    cargo build --release --example encode
    python golden/check_text.py MODEL_DIR [--encode target/release/examples/encode] [FILE.jsonl ...]

    python golden/check_text.py golden/text/chatml --templates FOLDER_OF_JINJA_FILES

Without files, 400 made-up pairs; files are JSONL with `prompt` and `response`, `chosen`/`rejected` or `responses`.
Every text is checked at several token limits. With `--templates`, each template of the folder (TRL ships seventy) is
laid over the model directory and renders a few conversations instead. Needs transformers 5 (written against 5.23.0).
"""

import argparse
import collections
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from transformers import AutoTokenizer

from make_text_golden import CONVERSATIONS, NO_LIMIT, Judge
from text_samples import pairs

LIMITS = [8, 17, 64, 127, 512]


def as_text(value):
    return value["text"] if isinstance(value, dict) else value


def rows(path, most):
    """(prompt, response) texts of a JSONL file; rows with message lists are left out."""
    found = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            responses = [row[key] for key in ("response", "answer", "chosen", "rejected", "response_a", "response_b") if key in row]
            responses += row.get("responses", [])
            for response in map(as_text, responses):
                if isinstance(response, str) and isinstance(row.get("prompt"), (str, type(None))):
                    found.append((row.get("prompt"), response))
    return found[:most]


def kudos(encode, model, render, limit, texts):
    """What the example prints for the texts; None if it refuses one of them."""
    lines = "".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in texts)
    command = [encode, str(model), render, str(limit), "longest_first", datetime.date.today().isoformat()]
    run = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if run.returncode != 0 and render == "pair":
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()] if run.returncode == 0 else None


def transformers(tokenizer, limit, prompt, response):
    texts = (response,) if prompt is None else (prompt, response)
    encoded = tokenizer(*texts, truncation=True, max_length=limit)
    ids = encoded["input_ids"]
    return ids, encoded.get("token_type_ids", [0] * len(ids))


def check(arguments, tokenizer, name, texts):
    """Number of mismatches; prints the first few."""
    bad, truncated = 0, 0
    for limit in LIMITS:
        encoded = kudos(arguments.encode, arguments.model, "pair", limit, texts)
        for (prompt, response), ours in zip(texts, encoded, strict=True):
            ids, type_ids = transformers(tokenizer, limit, prompt, response)
            truncated += ours["truncated"]
            if (ours["ids"], ours["type_ids"]) != (ids, type_ids):
                bad += 1
                if bad <= 3:
                    print(f"{name}, limit {limit}: {prompt!r:.200} | {response!r:.200}\n  expected {ids[:40]}\n  found    {ours['ids'][:40]}")
    print(f"{name}: {len(texts)} texts x {len(LIMITS)} limits, {truncated} truncated, {bad} mismatches")
    return bad


def check_template(arguments, template):
    """Number of conversations that the template renders otherwise, or that only one of the two refuses."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(arguments.model, folder, dirs_exist_ok=True)
        shutil.copy(template, pathlib.Path(folder) / "chat_template.jinja")
        judge = Judge(folder)
        for prompt, response in CONVERSATIONS:
            ours = kudos(arguments.encode, folder, "chat", NO_LIMIT, [(prompt, response)])
            try:
                expected, _ = judge.encode("chat", "longest_first", NO_LIMIT, prompt, response)
            except Exception:  # a template may refuse by any exception
                expected = None
            if (ours and ours[0]["ids"]) != expected:
                bad += 1
                print(f"{template.name}: {prompt!r:.200} | {response!r:.200}")
    return bad


def check_templates(arguments):
    templates = sorted(arguments.templates.glob("*.jinja"))
    bad = sum(check_template(arguments, template) for template in templates)
    print(f"{len(templates)} templates x {len(CONVERSATIONS)} conversations, {bad} mismatches")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--encode", default="target/release/examples/encode")
    parser.add_argument("--most", type=int, default=2000, help="texts of each file")
    parser.add_argument("--templates", type=pathlib.Path, help="folder of chat templates to check instead")
    arguments = parser.parse_intermixed_args()
    if arguments.templates:
        sys.exit(1 if check_templates(arguments) else 0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    sources = collections.OrderedDict((path, rows(path, arguments.most)) for path in arguments.files)
    if not sources:
        sources["made-up pairs"] = pairs(400, seed=7)
    mismatches = sum(check(arguments, tokenizer, name, texts) for name, texts in sources.items())
    sys.exit(1 if mismatches else 0)


if __name__ == "__main__":
    main()
