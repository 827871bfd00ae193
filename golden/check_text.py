"""Compares Kudos' ids with those of transformers, on a real model directory and real texts.

    cargo build --release --example encode
    python golden/check_text.py MODEL_DIR [--encode target/release/examples/encode] [FILE.jsonl ...]

Without files, 400 made-up pairs; files are JSONL with `prompt` and `response`, `chosen`/`rejected` or `responses`.
Every text is checked at several token limits. Needs transformers 5 (written against 5.23.0).
"""

import argparse
import collections
import json
import subprocess
import sys

from transformers import AutoTokenizer

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


def kudos(encode, model, limit, texts):
    lines = "".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in texts)
    command = [encode, model, "pair", str(limit), "longest_first"]
    run = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def transformers(tokenizer, limit, prompt, response):
    texts = (response,) if prompt is None else (prompt, response)
    encoded = tokenizer(*texts, truncation=True, max_length=limit)
    ids = encoded["input_ids"]
    return ids, encoded.get("token_type_ids", [0] * len(ids))


def check(arguments, tokenizer, name, texts):
    """Number of mismatches; prints the first few."""
    bad, truncated = 0, 0
    for limit in LIMITS:
        for (prompt, response), ours in zip(texts, kudos(arguments.encode, arguments.model, limit, texts), strict=True):
            ids, type_ids = transformers(tokenizer, limit, prompt, response)
            truncated += ours["truncated"]
            if (ours["ids"], ours["type_ids"]) != (ids, type_ids):
                bad += 1
                if bad <= 3:
                    print(f"{name}, limit {limit}: {prompt!r:.200} | {response!r:.200}\n  expected {ids[:40]}\n  found    {ours['ids'][:40]}")
    print(f"{name}: {len(texts)} texts x {len(LIMITS)} limits, {truncated} truncated, {bad} mismatches")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--encode", default="target/release/examples/encode")
    parser.add_argument("--most", type=int, default=2000, help="texts of each file")
    arguments = parser.parse_intermixed_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    sources = collections.OrderedDict((path, rows(path, arguments.most)) for path in arguments.files)
    if not sources:
        sources["made-up pairs"] = pairs(400, seed=7)
    mismatches = sum(check(arguments, tokenizer, name, texts) for name, texts in sources.items())
    sys.exit(1 if mismatches else 0)


if __name__ == "__main__":
    main()
