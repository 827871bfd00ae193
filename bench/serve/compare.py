"""`kudos serve` under load, beside `kudos score` and beside a server in the manner of text-embeddings-inference.

    python bench/serve/compare.py WORK... --kudos target/release/kudos --load target/release/examples/load \\
        --model DIR --texts texts.jsonl [--precision f32] [--json bench/results/serve.json]

WORK is any of:
    throughput   64 clients, mixed real texts; `kudos score` on the same file; the peer; by turns, --rounds times
    lone         one client, one pair of about 64 tokens, against the bare scoring time
    overload     ten times the measured throughput for --seconds: accepted, refused, memory
    soak         64 clients for --seconds: errors, differing scores, memory, open files
    start        process start to the first 200 of /health/ready

The load generator shares the two cores with the server. Each score that a server of Kudos returns is compared with that
of `kudos score`, bit for bit. Every server that is started here is stopped by its process id.
"""

import argparse
import contextlib
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers"))
from machine import facts  # noqa: E402


def settings():
    parser = argparse.ArgumentParser(description="kudos serve under load.")
    parser.add_argument("work", nargs="+", choices=["throughput", "lone", "overload", "soak", "start"])
    for name in ["kudos", "load", "model", "texts"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--shapes-bin", type=Path, help="the example fixed_shapes, for lone")
    parser.add_argument("--precision", default=None, help="of Kudos [default: its own]")
    parser.add_argument("--peer", choices=["f32", "int8"], default="f32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--throughput", type=float, help="requests a second, for overload without throughput")
    parser.add_argument("--serve", nargs="*", default=[], help="further arguments of kudos serve, as name=value")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_up(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextlib.contextmanager
def stopped(command, **options):
    """The process, ended by its id."""
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Bench:
    def __init__(self, args, scratch):
        self.args, self.scored = args, scratch / "scored.jsonl"
        self.precision = ["--precision", args.precision] if args.precision else []
        self.seconds_of_score = []
        self.score()

    def score(self):
        """Scores the file with the command, and keeps the time."""
        began = time.perf_counter()
        subprocess.run([self.args.kudos, "score", self.args.texts, "--judge", self.args.model, "-o", self.scored,
                        "--quiet", *self.precision], check=True)
        self.seconds_of_score.append(time.perf_counter() - began)
        return self.rows() / self.seconds_of_score[-1]

    def rows(self):
        return len(self.scored.read_text().splitlines())

    @contextlib.contextmanager
    def server(self):
        port = free_port()
        further = [word for pair in self.args.serve for word in ("--" + pair).split("=", 1)]
        command = [self.args.kudos, "serve", "--judge", self.args.model, "--port", port, "--log", "off",
                   *self.precision, *further]
        with stopped(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while not is_up(f"http://127.0.0.1:{port}/health/ready"):
                if process.poll() is not None:
                    sys.exit(f"kudos serve ended with status {process.returncode}")
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}/predict", process.pid

    @contextlib.contextmanager
    def peer(self):
        port = free_port()
        command = [sys.executable, HERE / "peer.py", "--model", self.args.model, "--port", port,
                   "--precision", self.args.peer]
        with stopped(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            if process.stdout.readline().strip() != "ready":
                sys.exit("the peer did not start")
            yield f"http://127.0.0.1:{port}/predict", process.pid

    def load(self, url, pid, *more, texts=None, check=True):
        command = [self.args.load, "--url", url, "--texts", texts or self.scored, "--pid", pid, *more]
        if check:
            command.append("--check")
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if not done.stdout:
            sys.exit(f"the load generator failed: {done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def throughput(self):
        """All texts once each, by turns."""
        rounds = []
        with self.server() as (url, pid), self.peer() as (peer, peer_pid):
            for _ in range(self.args.rounds):
                for_all = ["--clients", self.args.clients, "--requests", self.rows(), "--seconds", 3600]
                rounds.append({"score_per_second": self.score(), "serve": self.load(url, pid, *for_all),
                               "peer": self.load(peer, peer_pid, *for_all, check=False)})
        of = lambda who: [r[who]["scored_per_second"] for r in rounds]
        score = [r["score_per_second"] for r in rounds]
        ratios = lambda a, b: statistics.median(x / y for x, y in zip(a, b))
        p99 = lambda who: [r[who]["by_status"]["200"]["p99"] for r in rounds]
        return {"rounds": rounds, "serve_over_score": ratios(of("serve"), score),
                "serve_over_peer": ratios(of("serve"), of("peer")), "p99_serve_over_peer": ratios(p99("serve"), p99("peer"))}

    def one_text(self, scratch):
        rows = [json.loads(line) for line in self.scored.read_text().splitlines()]
        text = scratch / "one.jsonl"
        row = min(rows, key=lambda row: abs(row["tokens"] - 64))
        text.write_text(json.dumps(row) + "\n")
        return text, row["tokens"]

    def lone(self, scratch):
        """One pair again and again, in turns with the bare forward pass of as many tokens in a loaded, warm program."""
        text, tokens = self.one_text(scratch)
        precision = self.args.precision or ("bf16" if "avx512_bf16" in facts()["instructions"] else "f32")
        shape = [str(word) for word in [self.args.shapes_bin, self.args.model, precision, f"1x{tokens}"]]
        rounds = []
        with self.server() as (url, pid), subprocess.Popen(shape, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                           text=True) as bare:
            def run():
                bare.stdin.write("run\n")
                bare.stdin.flush()
                return json.loads(bare.stdout.readline())["ms"]

            for _ in range(self.args.rounds):
                found = self.load(url, pid, "--clients", 1, "--requests", 200, "--seconds", 3600, texts=text)
                rounds.append({"request_p50_ms": found["by_status"]["200"]["p50"], "differing": found["differing"],
                               "bare_p50_ms": statistics.median(run() for _ in range(200))})
            bare.stdin.close()
        ratio = statistics.median(r["request_p50_ms"] / r["bare_p50_ms"] for r in rounds)
        return {"tokens": tokens, "rounds": rounds, "request_over_bare": ratio}

    def overload(self, throughput):
        with self.server() as (url, pid):
            self.load(url, pid, "--clients", self.args.clients, "--requests", 200, "--seconds", 3600)
            found = self.load(url, pid, "--rate", 10 * throughput, "--seconds", self.args.seconds)
            after = self.load(url, pid, "--clients", 8, "--requests", 100, "--seconds", 3600)
            metrics = urllib.request.urlopen(url.replace("/predict", "/metrics")).read().decode()
        lines = [line for line in metrics.splitlines() if re.match(r"kudos_(queue|reject)", line)]
        return {"rate": 10 * throughput, "during": found, "after": after, "metrics": lines}

    def soak(self):
        with self.server() as (url, pid):
            return self.load(url, pid, "--clients", self.args.clients, "--seconds", self.args.seconds)

    def start(self):
        times = []
        for _ in range(7):
            port = free_port()
            began = time.perf_counter()
            command = [self.args.kudos, "serve", "--judge", self.args.model, "--port", port, "--log", "off", *self.precision]
            with stopped(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
                while not is_up(f"http://127.0.0.1:{port}/health/ready"):
                    time.sleep(0.002)
                times.append(1e3 * (time.perf_counter() - began))
        return {"ms": times, "median": statistics.median(times)}


def main():
    args = settings()
    found = {"machine": facts(), "precision": args.precision or "default"}
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(args, Path(scratch))
        for work in args.work:
            if work == "throughput":
                found[work] = bench.throughput()
            elif work == "lone":
                found[work] = bench.lone(Path(scratch))
            elif work == "overload":
                rounds = found.get("throughput", {}).get("rounds", [])
                measured = args.throughput or statistics.median(r["serve"]["scored_per_second"] for r in rounds)
                found[work] = bench.overload(measured)
            else:
                found[work] = getattr(bench, work)()
            print(json.dumps({work: found[work]}, indent=1), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
