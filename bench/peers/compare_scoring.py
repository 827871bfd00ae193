"""`kudos score` beside PyTorch, ONNX Runtime and candle: the same model and inputs, runs interleaved.

    python bench/peers/compare_scoring.py --kudos target/release/kudos --shapes-bin target/release/examples/fixed_shapes \\
        --model DIR --texts data/*.jsonl --json bench/results/scoring.json [--candle BIN]

Fixed shapes: every program is loaded and warm, and takes turns. Texts: all (prompt, response) of the files; for
Kudos the time is that of the whole process, loading and writing included; for the peers it is tokenising and
computing alone, which favours them. Peak memory is the process's. One score: from process start to the printed number.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import facts, has_low_precision, measured, row

HERE = Path(__file__).parent


def settings():
    parser = argparse.ArgumentParser(description="kudos score beside its peers.")
    for name in ["kudos", "shapes-bin", "model"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--candle", type=Path, help="the binary of bench/peers/candle")
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--text-rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, default=10**9, help="only so many texts, evenly spread")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Server:
    """A loaded program that measures once for each line `run`."""

    def __init__(self, command, announces=True):
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        if announces:
            self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} stopped")
        return json.loads(line)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self):
        """Ends the program; its peak memory in MiB."""
        self.process.stdin.close()
        peak = self.answer()["maxrss_kib"] / 1024
        self.process.wait()
        return peak


def peer(args, name, *what):
    return Server([sys.executable, HERE / "score_peer.py", "--peer", name, "--model", args.model, *what])


def shape_rows(args, shape, precision, name, target):
    """Kudos and one peer on one shape; the peaks of memory come along."""
    own = Server([args.shapes_bin, args.model, precision, shape], announces=False)
    other = Server([args.candle, args.model, shape], announces=False) if name == "candle" \
        else peer(args, name, "--shape", shape)
    kudos, theirs = [], []
    for _ in range(args.rounds):
        kudos.append(own.run())
        theirs.append(other.run())
    memory = own.close(), other.close()
    yield row(f"score {shape}, {precision}", name, "ms", kudos, theirs, target, higher_is_better=False)
    if name == "onnxruntime-f32":
        yield row(f"peak memory, score {shape}, {precision}", name, "MiB", [memory[0]], [memory[1]], 1 / 0.6, False)


def flatten(files, limit, out):
    """All texts of some files as {prompt, response}."""
    texts = []
    for file in files:
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            one = json.loads(line)
            found = [one[key] for key in ("chosen", "rejected", "response_a", "response_b") if key in one]
            found += [response["text"] for response in one.get("responses", [])]
            texts += [{"prompt": one["prompt"], "response": text} for text in found]
    texts = texts[::max(1, len(texts) // limit)]
    out.write_text("".join(json.dumps(text) + "\n" for text in texts))


def text_rows(args, texts, folder, low_precision):
    def kudos(precision):
        start = time.perf_counter()
        memory = measured([args.kudos, "score", texts, "--judge", args.model, "--precision", precision, "--threads", 2,
                           "--quiet", "-o", folder / "scored.jsonl"])
        return time.perf_counter() - start, memory
    peers = {(name, order): peer(args, name, "--texts", texts, "--order", order)
             for name in (["onnxruntime-int8", "pytorch-bf16"] if low_precision else ["onnxruntime-f32", "onnxruntime-int8"])
             for order in ["sorted", "file"]}
    own = {precision: [] for precision in (["int8", "bf16"] if low_precision else ["int8", "f32"])}
    theirs = {key: [] for key in peers}
    for _ in range(args.text_rounds):
        for precision, seconds in own.items():
            seconds.append(kudos(precision)[0])
        for key, server in peers.items():
            theirs[key].append(server.run() / 1e3)
    for server in peers.values():
        server.close()
    pairs = [("int8", "onnxruntime-int8", "sorted", 1.5), ("int8", "onnxruntime-int8", "file", 2.5),
             ("bf16", "pytorch-bf16", "sorted", None), ("bf16", "pytorch-bf16", "file", None)]
    if not low_precision:
        pairs = [("f32", "onnxruntime-f32", "sorted", 1.5), ("f32", "onnxruntime-f32", "file", 2.5),
                 ("int8", "onnxruntime-int8", "sorted", 1.2), ("int8", "onnxruntime-int8", "file", 2.5)]
        yield row("score real texts, int8", "kudos f32", "s", own["int8"], own["f32"], 1.7, False)
    for precision, name, order, target in pairs:
        words = "sorted by length" if order == "sorted" else "in file order"
        yield row(f"score real texts, {precision}", f"{name}, {words}", "s", own[precision], theirs[name, order],
                  target, False)


def start_rows(args):
    def seconds(command):
        start = time.perf_counter()
        measured(command)
        return 1e3 * (time.perf_counter() - start)
    words = ["Why is the sky blue?", "Because the air scatters blue light more than red."]
    kudos, theirs = [], []
    for _ in range(args.rounds):
        kudos.append(seconds([args.kudos, "score", "--judge", args.model, "--prompt", words[0], "--response", words[1]]))
        theirs.append(seconds([sys.executable, HERE / "one_score_peer.py", args.model, *words]))
    yield row("one score, process start to answer", "PyTorch + transformers", "ms", kudos, theirs, 30, False)


def main():
    args = settings()
    found = {"machine": facts(), "rows": []}
    comparisons = [("f32", "onnxruntime-f32", 1.1), ("bf16", "pytorch-bf16", 1.25), ("int8", "onnxruntime-int8", 1.4)]
    low_precision = has_low_precision(found["machine"])
    if not low_precision:
        print("this processor has no AVX-512 BF16 and VNNI: f32 and int8 rows alone")
        comparisons = [c for c in comparisons if c[0] != "bf16"]
    if args.candle:
        comparisons.append(("f32", "candle", None))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flatten(args.texts, args.limit, folder / "texts.jsonl")
        work = [shape_rows(args, shape, *comparison) for shape in ("8x512", "32x128") for comparison in comparisons]
        for rows in [*work, start_rows(args), text_rows(args, folder / "texts.jsonl", folder, low_precision)]:
            found["rows"].extend(rows)
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
