"""Scoring with PyTorch or ONNX Runtime at their best, one measurement per line `run` on standard input.

    python bench/peers/score_peer.py --peer onnxruntime-int8 --model DIR --shape 8x512
    python bench/peers/score_peer.py --peer pytorch-bf16 --model DIR --texts texts.jsonl --order sorted

Loads, warms up, prints `{"ready": true}`, then answers each `run` with `{"ms": ...}`, and the end of the input with
`{"maxrss_kib": ...}`. So several programs can be loaded once and take turns.

PyTorch: inference mode, scaled-dot-product attention, bf16 by autocast. ONNX Runtime: exported once, all graph
optimisations and its transformer optimizer; int8 is dynamic quantization of the fused graph, per channel. Texts:
batches of 32 padded to the longest, in order of length or of the file; tokenising counts, loading does not.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 32
LIMIT = 512


def settings():
    parser = argparse.ArgumentParser(description="PyTorch or ONNX Runtime, scoring.")
    parser.add_argument("--peer", required=True,
                        choices=["pytorch-f32", "pytorch-bf16", "onnxruntime-f32", "onnxruntime-int8"])
    parser.add_argument("--model", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", help="BATCHxLENGTH of random ids")
    what.add_argument("--texts", type=Path, help="JSONL of prompt, response")
    parser.add_argument("--order", choices=["sorted", "file"], default="sorted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/kudos-bench")
    return parser.parse_args()


def pytorch(args, bf16):
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(args.threads)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, attn_implementation="sdpa").eval()

    def scores(ids, mask):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            # Without a mask the fastest attention runs; a batch of equal lengths needs none.
            mask = None if mask.all() else torch.from_numpy(mask)
            return model(input_ids=torch.from_numpy(ids), attention_mask=mask).logits.float().numpy()[:, 0]
    return scores


def export(args):
    """The model as fused ONNX; written once."""
    fused = args.cache / f"{args.model.resolve().name}.fused.onnx"
    if not fused.exists():
        import torch
        from onnxruntime.transformers import optimizer
        from transformers import AutoModelForSequenceClassification

        args.cache.mkdir(parents=True, exist_ok=True)
        model = AutoModelForSequenceClassification.from_pretrained(args.model, attn_implementation="eager").eval()
        plain = args.cache / f"{args.model.resolve().name}.onnx"
        example = torch.ones(2, 16, dtype=torch.int64)
        axes = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
        torch.onnx.export(model, (example, example), str(plain), input_names=list(axes), output_names=["logits"],
                          dynamic_axes=axes, opset_version=17, dynamo=False)
        config = model.config
        better = optimizer.optimize_model(str(plain), model_type="bert", num_heads=config.num_attention_heads,
                                          hidden_size=config.hidden_size, opt_level=99, use_gpu=False)
        print("fused:", better.get_fused_operator_statistics(), file=sys.stderr)
        better.save_model_to_file(str(fused))
    return fused


def onnxruntime(args, int8):
    import onnxruntime as ort

    path = export(args)
    if int8:
        small = path.with_suffix(".int8.onnx")
        if not small.exists():
            from onnx import TensorProto
            from onnxruntime.quantization import QuantType, quantize_dynamic
            # The fused operators hide the types from shape inference.
            quantize_dynamic(str(path), str(small), per_channel=True, weight_type=QuantType.QInt8,
                             extra_options={"DefaultTensorType": TensorProto.FLOAT})
        path = small
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0][:, 0]


def fixed(shape):
    batch, length = map(int, shape.split("x"))
    ids = np.random.default_rng(0).integers(1000, 21000, (batch, length), dtype=np.int64)
    return lambda scores: scores(ids, np.ones_like(ids))


def real(args):
    """Tokenises and scores all texts; scores come back in the order of the file."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.enable_truncation(LIMIT)
    tokenizer.no_padding()
    rows = [json.loads(line) for line in args.texts.read_text().splitlines()]
    texts = [(row["prompt"], row["response"]) for row in rows]

    def run(scores):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = range(len(ids)) if args.order == "file" else sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found = np.zeros(len(ids), np.float32)
        order = list(order)
        for at in range(0, len(order), BATCH):
            own = order[at:at + BATCH]
            longest = max(len(ids[i]) for i in own)
            padded = np.array([ids[i] + [0] * (longest - len(ids[i])) for i in own], np.int64)
            mask = np.array([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in own], np.int64)
            found[own] = scores(padded, mask)
        return found
    return run


def main():
    args = settings()
    library, precision = args.peer.split("-")
    scores = (pytorch if library == "pytorch" else onnxruntime)(args, precision in ("bf16", "int8"))
    work = fixed(args.shape) if args.shape else real(args)
    if args.shape:
        for _ in range(3):
            work(scores)
    else:
        fixed("32x128")(scores)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip() == "run":
            start = time.perf_counter()
            work(scores)
            print(json.dumps({"ms": 1e3 * (time.perf_counter() - start)}), flush=True)
    print(json.dumps({"maxrss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)


if __name__ == "__main__":
    main()
