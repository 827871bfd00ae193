"""`kudos generate` beside llama.cpp and transformers: the same model and work, runs interleaved.

    python bench/peers/compare_generation.py --kudos target/release/kudos --speed-bin target/release/examples/generate_speed \\
        --model FILE.gguf --llama-python .venv-llama/bin/python --json bench/results/generation.json

Fixed work: every program is loaded and warm, and takes turns; N sequences from prompts of 32 tokens, each step the most
probable token whatever it is, and prompts of 512 tokens. The peers run in f32 or in the file's own precision; the Kudos
precisions are --precisions. The whole command: 12 prompts with 4 responses of up to 200 tokens each, from the start
of the process to its end. Responses end where the model ends them, so what is compared is tokens a second. The peers
answer one at a time. Peak memory is the process's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_scoring import Server
from machine import facts, measured, row

HERE = Path(__file__).parent
RESPONSES, TOKENS = 4, 200
QUESTIONS = [
    "Why is the sky blue?", "Write a short letter to a neighbour about a noisy dog.", "How do I boil an egg?",
    "Explain what a compiler does to someone who has never programmed.", "Give three reasons to walk to work.",
    "What is the difference between weather and climate?", "Tell a story about a lighthouse keeper.",
    "How does a bicycle stay upright?", "Suggest a name for a small bakery and say why.",
    "What should I look at when I buy a used car?", "Describe the sound of rain on a tin roof.",
    "Summarise what happens when water freezes.",
]
PEERS = {"llama.cpp": "llama.cpp", "transformers-f32": "transformers f32, dequantised"}
WHOLE = {"llama.cpp": 3, "transformers-f32": 10}


def settings():
    parser = argparse.ArgumentParser(description="kudos generate beside its peers.")
    for name in ["kudos", "speed-bin", "model"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--llama-python", type=Path, default=Path(sys.executable),
                        help="the Python that has llama-cpp-python, if it is another")
    parser.add_argument("--precisions", nargs="+", default=["int8", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole-rounds", type=int, default=2)
    parser.add_argument("--slow-prompts", type=int, default=3,
                        help="prompts that transformers gets in the whole command: its tokens a second are what counts")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def peer(args, name, *what):
    python = args.llama_python if name == "llama.cpp" else sys.executable
    return [python, HERE / "generate_peer.py", "--peer", name, "--model", args.model, *what]


def llama_version(args):
    command = [args.llama_python, "-c", "import llama_cpp; print(llama_cpp.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def speed_rows(args, work, tokens, label, targets):
    """Tokens a second of each Kudos precision against each peer of `targets`, all taking turns; then their memory."""
    servers = {name: Server(peer(args, name, "--work", work)) for name in targets}
    servers |= {precision: Server([args.speed_bin, args.model, precision, work], announces=False)
                for precision in args.precisions}
    speeds = {name: [] for name in servers}
    for _ in range(args.rounds):
        for name, server in servers.items():
            speeds[name].append(tokens / server.run() * 1e3)
    memory = {name: server.close() for name, server in servers.items()}
    for precision in args.precisions:
        for name, target in targets.items():
            yield row(f"{label}, {precision}", PEERS[name], "tokens/s", speeds[precision], speeds[name], target)
            yield row(f"peak memory, {label}, {precision}", PEERS[name], "MiB", [memory[precision]], [memory[name]],
                      None, higher_is_better=False)


def tokens_in(file):
    """Tokens that were drawn for the responses of an output file."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    responses = [response for one in rows for response in one.get("responses", [one])]
    if not all(isinstance(response, dict) and "tokens" in response for response in responses):
        sys.exit(f"{file}: expected the number of tokens of each response")
    return sum(response["tokens"] for response in responses)


def timed(command, out):
    """Tokens a second over the whole command, and its peak memory."""
    start = time.perf_counter()
    memory = measured([*command, "-o", out])
    return tokens_in(out) / (time.perf_counter() - start), memory


def whole_rows(args, folder):
    """The whole command, one after the other in each round."""
    def asked(count):
        prompts = folder / f"prompts.{count}.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in QUESTIONS[:count]))
        return ["--prompts", prompts, "-n", RESPONSES, "--max-new-tokens", TOKENS, "--threads", 2]
    commands = {precision: [args.kudos, "generate", "--model", args.model, *asked(len(QUESTIONS)), "--temperature", 0.8, "--top-p", 0.95,
                            "--seed", 1, "--precision", precision, "--quiet"] for precision in args.precisions}
    commands |= {name: peer(args, name, *asked(args.slow_prompts if "transformers" in name else len(QUESTIONS)))
                 for name in PEERS}
    results = {name: [] for name in commands}
    for turn in range(args.whole_rounds):
        for name, command in commands.items():
            results[name].append(timed(command, folder / f"{name}.{turn}.jsonl"))
    label = f"whole command, {len(QUESTIONS)} prompts x {RESPONSES} responses"
    for precision in args.precisions:
        for name, words in PEERS.items():
            speeds, memory = ([[one[i] for one in results[key]] for key in (precision, name)] for i in (0, 1))
            yield row(f"{label}, {precision}", f"{words}, one at a time", "tokens/s", *speeds, WHOLE[name])
            yield row(f"peak memory, {label}, {precision}", f"{words}, one at a time", "MiB", *memory, None, False)


def main():
    args = settings()
    found = {"machine": facts(), "model": args.model.name, "rows": []}
    found["machine"]["versions"]["llama-cpp-python"] = llama_version(args)
    with tempfile.TemporaryDirectory() as name:
        work = [speed_rows(args, f"decode:16:{TOKENS}", 16 * TOKENS, "16 sequences at once", {"llama.cpp": 2.5}),
                speed_rows(args, f"decode:1:{TOKENS}", TOKENS, "one sequence", {"llama.cpp": 1.0}),
                speed_rows(args, "prefill:512", 512, "prompt of 512 tokens", {"llama.cpp": 1.5}),
                whole_rows(args, Path(name))]
        for rows in work:
            for one in rows:
                found["rows"].append(one)
                if args.json:
                    args.json.parent.mkdir(parents=True, exist_ok=True)
                    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
