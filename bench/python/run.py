"""How fast the Python package is, beside its targets: `python bench/python/run.py --kudos target/release/kudos`.

Each figure is a median over rounds; what is compared runs in turns, so that a busy machine is busy for both. The data are
sentences made here, 10 to 120 words a response.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

WORDS = (
    "the of a judge prompt answer model number river stone because therefore light city train window paper green "
    "machine language history small large reason question under between morning water house work time"
).split()


def texts(count: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    sentence = lambda low, high: " ".join(rng.choices(WORDS, k=rng.randint(low, high))).capitalize() + "."
    return [sentence(5, 30) for _ in range(count)], [sentence(10, 120) for _ in range(count)]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def line(what: str, found: str, target: str) -> None:
    print(f"| {what} | {found} | {target} |", flush=True)


def import_time(rounds: int) -> None:
    code = "import time; t = time.perf_counter(); import kudos; print(time.perf_counter() - t)"
    found = statistics.median(float(python(code)) for _ in range(rounds))
    numpy = python("import kudos, sys; print('numpy' in sys.modules)")
    line("`import kudos`", f"{1000 * found:.0f} ms, numpy imported: {numpy}", "< 50 ms")


def throughput(kudos: str, count: int, rounds: int, threads: int) -> None:
    import kudos as package

    prompts, responses = texts(count, 1)
    judge = package.RewardModel.from_pretrained(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "d.jsonl", Path(folder) / "o.jsonl"
        data.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in zip(prompts, responses)))
        few = Path(folder) / "few.jsonl"
        few.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in zip(prompts[:1], responses)))
        command = [kudos, "score", "--quiet", "--threads", str(threads), "-o", str(out)]
        ratios = []
        judge.score(prompts[:64], responses[:64])
        for _ in range(rounds):
            start = seconds(lambda: subprocess.run([*command, str(few)], check=True))
            whole = seconds(lambda: subprocess.run([*command, str(data)], check=True))
            own = seconds(lambda: judge.score(prompts, responses))
            ratios.append((whole - start) / own)
        line(
            f"`score` of {count} texts over `kudos score`, without its start",
            f"{100 * statistics.median(ratios):.0f} % ({count / own:.0f} texts/s)",
            "≥ 97 %",
        )


def one_pair(rounds: int) -> None:
    import kudos as package

    judge = package.RewardModel.from_pretrained(threads=1)
    judge.score("Why?", ["Because."])
    single = statistics.median(seconds(lambda: judge.score("Why?", ["Because."])) for _ in range(20 * rounds))
    nothing = statistics.median(seconds(lambda: judge.score("Why?", [])) for _ in range(20 * rounds))
    line("one short pair", f"{1000 * single:.2f} ms in all; {1000 * nothing:.3f} ms of a call without texts", "≤ 0.2 ms over")


def many_threads(rounds: int, threads: int) -> None:
    import kudos as package

    judge = package.RewardModel.from_pretrained(threads=threads)
    prompts, responses = texts(64, 2)
    ratios = []
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        each = lambda: list(pool.map(lambda place: judge.score(prompts[place], [responses[place]]), range(64)))
        each()
        for _ in range(rounds):
            together = seconds(lambda: judge.score(prompts, responses))
            ratios.append(together / seconds(each))
    line("64 threads with one text each, of one call with 64", f"{100 * statistics.median(ratios):.0f} %", "≥ 80 %")


def other_threads() -> None:
    import kudos as package

    judge = package.RewardModel.from_pretrained(threads=1)
    prompts, responses = texts(2000, 3)

    def rate(work: Callable[[], object]) -> float:
        count, over = 0, threading.Event()

        def loop() -> None:
            nonlocal count
            while not over.is_set():
                count += 1

        thread = threading.Thread(target=loop)
        thread.start()
        took = seconds(work)
        over.set()
        thread.join()
        return count / took

    idle = rate(lambda: time.sleep(1))
    line("another thread's loop while scoring on one core", f"{100 * rate(lambda: judge.score(prompts, responses)) / idle:.0f} %", "≥ 90 %")


def ctrl_c(rounds: int, threads: int) -> None:
    import kudos as package

    judge = package.RewardModel.from_pretrained(threads=threads)
    prompts, responses = texts(20_000, 4)
    main = threading.main_thread().ident or 0
    found = []
    for _ in range(rounds):
        sent = [0.0]

        def send() -> None:
            sent[0] = time.perf_counter()
            signal.pthread_kill(main, signal.SIGINT)

        threading.Timer(0.5, send).start()
        try:
            judge.score(prompts, responses)
        except KeyboardInterrupt:
            found.append(time.perf_counter() - sent[0])
    line("Ctrl-C to exception", f"{1000 * statistics.median(found):.0f} ms, at most {1000 * max(found):.0f}", "≤ 200 ms")


MEMORY = """
import resource, pyarrow, kudos
prompt = pyarrow.array(["Why is the sky blue?"] * {rows})
text = "It scatters light. " * {words}
response = pyarrow.array([text] * {rows}, pyarrow.large_string())
table = pyarrow.table({{"prompt": prompt, "response": response}})
judge = kudos.RewardModel.from_pretrained(threads=2)
judge.score("p", ["a word " * 600] * 64)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
stop = {stop}
class Enough(Exception): pass
def progress(done, total):
    if stop and done >= stop: raise Enough
try: judge.score(table, progress=progress)
except Enough: pass
print(table.nbytes, peak() - before)
"""


def memory() -> None:
    rows, words = 10_000, 5_600
    bytes_, kilobytes = python(MEMORY.format(rows=rows, words=words, stop=1500)).split()
    line(
        f"memory added by an Arrow table of {int(bytes_) / 1e9:.2f} GB (its first 1,500 rows of {words * 19 // 1000} kB)",
        f"{int(kilobytes) / 1024:.0f} MB",
        "< 150 MB",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kudos", default="kudos", help="the command to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    print("| what | found | target |\n|---|---|---|")
    parts: dict[str, Callable[[], None]] = {
        "import": lambda: import_time(asked.rounds),
        "throughput": lambda: throughput(asked.kudos, asked.texts, asked.rounds, asked.threads),
        "pair": lambda: one_pair(asked.rounds),
        "threads": lambda: many_threads(asked.rounds, asked.threads),
        "loop": other_threads,
        "ctrl-c": lambda: ctrl_c(asked.rounds, asked.threads),
        "memory": memory,
    }
    for name, part in parts.items():
        if not asked.only or name in asked.only:
            part()


if __name__ == "__main__":
    main()
