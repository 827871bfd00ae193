"""The perplexity of a text under Kudos' precisions and under the dequantised model in transformers f32.

    python bench/peers/perplexity.py --perplexity-bin target/release/examples/perplexity --model FILE.gguf \\
        --json bench/results/perplexity.json

The text is tokenised without special tokens and cut into consecutive windows of --context tokens; each window is scored
on its own, from its second token on. The text is prose.txt, written for this purpose, so no model was trained on it.
Prints both perplexities, their ratio, and the mean difference per token in nats.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from machine import facts

HERE = Path(__file__).parent


def settings():
    parser = argparse.ArgumentParser(description="Perplexity beside transformers.")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file or a checkpoint directory")
    parser.add_argument("--perplexity-bin", type=Path, help="without it, transformers alone")
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16", "int8"])
    parser.add_argument("--text", type=Path, default=HERE / "prose.txt")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--bound", type=float, help="fail if a perplexity differs from transformers' by more than this share")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def transformers_f32(args):
    """{nll_sum, tokens} of the text, in nats."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    source = {"pretrained_model_name_or_path": args.model}
    if args.model.suffix == ".gguf":
        source = {"pretrained_model_name_or_path": args.model.parent, "gguf_file": args.model.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    ids = torch.tensor(tokenizer(args.text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
    total, tokens = 0.0, 0
    for window in ids.split(args.context):
        if len(window) < 2:
            continue
        with torch.inference_mode():
            logits = model(input_ids=window[None]).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
        tokens += len(window) - 1
    return {"nll_sum": total, "tokens": tokens}


def kudos(args, precision):
    command = [args.perplexity_bin, args.model, precision, args.text, args.context]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"failed: {command}\n{run.stderr[-2000:]}")
    return json.loads(run.stdout)


def main():
    args = settings()
    results = {"transformers f32": transformers_f32(args)}
    if args.perplexity_bin:
        results |= {f"Kudos {precision}": kudos(args, precision) for precision in args.precisions}
    expected = results["transformers f32"]
    for name, result in results.items():
        if result["tokens"] != expected["tokens"]:
            sys.exit(f"{name} scored {result['tokens']} tokens, transformers {expected['tokens']}")
        mean = result["nll_sum"] / result["tokens"]
        result["perplexity"] = math.exp(mean)
        result["nats_above"] = mean - expected["nll_sum"] / expected["tokens"]
        ratio = result["perplexity"] / math.exp(expected["nll_sum"] / expected["tokens"])
        print(f"{name}: perplexity {result['perplexity']:.4f}, {ratio:.5f} of transformers', "
              f"{result['nats_above']:+.6f} nats a token, {result['tokens']} tokens")
        if args.bound is not None and abs(ratio - 1) > args.bound:
            sys.exit(f"{name}: expected a perplexity within {args.bound:.1%} of transformers'")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": facts(), "model": args.model.name, "context": args.context, "results": results}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
