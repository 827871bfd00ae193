"""Draws responses from llama-cpp-python's server on loopback and checks them against the model itself.

    pip install "llama-cpp-python[server]==0.3.36"
    cargo build --release --example endpoint
    python golden/check_endpoint.py MODEL.gguf [--program target/release/examples/endpoint]

For both routes: every prompt has its n responses, they differ, their seeds differ, text and number of tokens are what the server says
to the same request, the number of tokens fits the text, and a run that is killed twice and started again gives the same file.
"""

import argparse
import csv
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PROMPTS = ["Name a fruit and say why you like it.", "Write a sentence about the sea.", "What is a prime number?"]
N = 3
SECONDS_TO_START = 120


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(model):
    """The server's process and address, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    log = tempfile.TemporaryFile()
    server = subprocess.Popen([*command, "--model_alias", "m", "--n_ctx", "512"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(SECONDS_TO_START):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
            return server, url
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    server.kill()
    log.seek(0)
    sys.exit(f"the server did not start: {log.read().decode(errors='replace')[-2000:]}")


def command_of(program, url, folder, route, output):
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return [program, url, "m", str(prompts), str(N), str(output), route, "exact"]


def draw(program, url, folder, route, name):
    """Runs the program; the rows of its output and what it says of them."""
    output = folder / name
    command = command_of(program, url, folder, route, output)
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    with open(output, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), json.loads(run.stdout)


def kill_after(program, url, folder, route, name, lines):
    """Starts the program and kills it once its progress file has so many lines; false if it was done before."""
    output = folder / name
    progress = folder / f"{name}.progress.jsonl"
    command = command_of(program, url, folder, route, output)
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(60_000):
        if run.poll() is not None:
            return False
        if progress.exists() and progress.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.01)
    run.kill()
    run.wait()
    return not output.exists()


def check_kills(program, url, folder, route, rows):
    """The mistakes of a run that is killed after two responses, and again after five."""
    name = f"{route}-killed.csv"
    wrong = [f"not killed at line {lines}" for lines in (3, 6) if not kill_after(program, url, folder, route, name, lines)]
    again, _ = draw(program, url, folder, route, name)
    if again != rows:
        wrong.append("a killed run that was continued gives another file")
    if (folder / f"{name}.progress.jsonl").exists():
        wrong.append("the progress file is left over")
    return wrong


def ask(url, route, row):
    """The server's own answer to the same request."""
    what = {"messages": [{"role": "user", "content": row["prompt"]}]} if route == "chat" else {"prompt": row["prompt"]}
    body = {"model": "m", "temperature": 0.8, "top_p": 0.95, "top_k": 40, "max_tokens": 48, "seed": int(row["seed"]), **what}
    path = "chat/completions" if route == "chat" else "completions"
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def check(url, route, rows, summary):
    """The mistakes found."""
    wrong = []
    if [row["prompt"] for row in rows] != [prompt for prompt in PROMPTS for _ in range(N)]:
        wrong.append("the rows are not n a prompt, in order")
    if summary["failed"] or "error" in rows[0]:
        wrong.append("some responses failed")
    for prompt in PROMPTS:
        texts = {" ".join(row["answer"].split()) for row in rows if row["prompt"] == prompt}
        if len(texts) != N:
            wrong.append(f"{prompt!r}: {len(texts)} different responses of {N}")
    if len({row["seed"] for row in rows}) != len(rows):
        wrong.append("seeds repeat")
    for row in rows:
        choice, usage = (answer := ask(url, route, row))["choices"][0], answer["usage"]
        text = choice["message"]["content"] if route == "chat" else choice["text"]
        if (text, choice["finish_reason"]) != (row["answer"], row["finish_reason"]):
            wrong.append(f"seed {row['seed']}: {row['answer']!r} ({row['finish_reason']}), but the server says {text!r}")
        elif usage["completion_tokens"] != int(row["tokens"]):
            wrong.append(f"seed {row['seed']}: {row['tokens']} tokens, but the server says {usage['completion_tokens']}")
    return wrong


def check_counts(model, rows):
    """Token counts against the tokenizer: a token may end the text, and sampled tokens may differ from how the text would be cut."""
    from llama_cpp import Llama

    tokenizer = Llama(model_path=str(model), vocab_only=True, verbose=False)
    wrong = []
    for row in rows:
        tokens = len(tokenizer.tokenize(row["answer"].encode(), add_bos=False))
        if not tokens <= int(row["tokens"]) <= tokens + 2:
            wrong.append(f"seed {row['seed']}: {row['tokens']} tokens, but the text has {tokens}")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--program", default="target/release/examples/endpoint")
    arguments = parser.parse_args()
    server, url = start(arguments.model)
    wrong = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for route in ["chat", "completions"]:
                rows, summary = draw(arguments.program, url, pathlib.Path(folder), route, f"{route}.csv")
                print(f"{route}: {json.dumps(summary)}")
                found = check(url, route, rows, summary) + check_counts(arguments.model, rows)
                found += check_kills(arguments.program, url, pathlib.Path(folder), route, rows)
                wrong += [f"{route}: {words}" for words in found]
    finally:
        server.terminate()
        server.wait()
    print("\n".join(wrong) or "all responses are right")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
