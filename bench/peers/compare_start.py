"""From the start of the process to one score: `kudos score` beside transformers, and `kudos serve` until it is ready.

    python bench/peers/compare_start.py --kudos target/release/kudos --judge DIR[:bf16] [--judge DIR:f32 ...] \\
        --rounds 7 --json bench/results/start.json

Each judge is a directory and the precision of both programs. The files are in the cache of the system, since a run of
each comes before those that count. Programs take turns; a row is the median over the rounds, and its ratio the median
of the ratios within a round. The scores of both are printed, so that equal work is compared.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from machine import facts, row

HERE = Path(__file__).parent
TEXT = {"prompt": "What is it?", "response": "A good day."}


def settings():
    parser = argparse.ArgumentParser(description="Process start to one score.")
    parser.add_argument("--kudos", type=lambda name: Path(name).resolve(), required=True)
    parser.add_argument("--judge", action="append", required=True, help="DIR, or DIR:bf16, DIR:int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help="time `kudos serve` until it is ready, without a peer")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run(command):
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def kudos(args, judge, precision):
    asked = ["--precision", precision] if precision else []
    seconds, out = run([args.kudos, "score", "--judge", judge, *asked, "--prompt", TEXT["prompt"], "--response",
                        TEXT["response"], "--quiet"])
    return seconds, float(out)


def transformers(judge, precision, texts):
    precision = precision if precision == "bf16" else "f32"
    seconds, out = run([sys.executable, HERE / "decoder_score_peer.py", "--model", judge, "--texts", texts,
                        "--precision", precision])
    return seconds, json.loads(out)["scores"][0]


def is_up(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def ready(args, judge, precision):
    """Seconds until `kudos serve` says that it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = ["--precision", precision] if precision else []
    command = [args.kudos, "serve", "--judge", judge, "--port", port, *asked]
    start = time.perf_counter()
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_up(f"http://127.0.0.1:{port}/health/ready"):
            if server.poll() is not None:
                sys.exit(f"{' '.join(map(str, command))} ended before it was ready")
            time.sleep(0.002)
        return time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()


def start_rows(args, judge, precision):
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "one.jsonl"
        texts.write_text(json.dumps(TEXT) + "\n")
        runs = [(kudos(args, judge, precision), transformers(judge, precision, texts)) for _ in range(args.rounds + 1)]
    (_, own), (_, peer) = runs[0]
    print(f"{judge}: scores {own} and {peer}", flush=True)
    ours, theirs = ([run[side][0] for run in runs[1:]] for side in (0, 1))
    return row(f"process start to one score, {Path(judge).name}, {precision or 'default'}", "transformers", "s", ours,
               theirs, 5, higher_is_better=False)


def main():
    args = settings()
    found = {"machine": facts(), "rows": []}
    for named in args.judge:
        judge, _, precision = named.partition(":")
        if args.serve:
            times = sorted(ready(args, judge, precision) for _ in range(args.rounds + 1))
            print(f"serve until ready, {judge} {precision}: {1e3 * times[len(times) // 2]:.0f} ms of {times}")
            found.setdefault("ready", {})[named] = times
        else:
            found["rows"].append(start_rows(args, judge, precision))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
