"""Few rankings: a judge that starts from the judge in the box beside one that starts from its base.

    python bench/judge/adapt.py --kudos target/release/kudos --base MINILM --train FILE --test FILE [--rankings 48] [--seeds 1,2,3]

`--train` are groups that the judge in the box has not seen (a held-out fifth); the first `--rankings` of them, in the
order of their SHA-1, are trained on with the default recipe. `--test` is scored once by each judge. Prints a row a seed and adds them
to bench/results/adapt.json.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results" / "adapt.json"


def cut(line: str, size: int) -> list[str]:
    """The group of a line in parts of at most `size` responses, in their order; 0 leaves it whole."""
    row = json.loads(line)
    if not size:
        return [line]
    responses = row["responses"]
    parts = [responses[start : start + size] for start in range(0, len(responses), size)]
    return [json.dumps({**row, "responses": part}) for part in parts]


def kudos(args, *words: str) -> str:
    return subprocess.run([args.kudos, *words, "--quiet"], check=True, stdout=subprocess.PIPE, text=True).stdout


def accuracy(args, judge: str) -> float:
    return json.loads(kudos(args, "eval", args.test, "--judge", judge, "--json"))["data"][0]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["--kudos", "--base", "--train", "--test"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--box", default="kudos-judge")
    parser.add_argument("--rankings", type=int, default=48)
    parser.add_argument("--responses", type=int, default=0, help="cut the groups to parts of as many; 0 leaves them whole")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--flags", default="", help="more flags of kudos train, the same for both")
    args = parser.parse_args()
    lines = Path(args.train).read_text(encoding="utf-8").splitlines()
    lines = [part for line in lines for part in cut(line, args.responses)]
    lines.sort(key=lambda line: hashlib.sha1(line.encode()).hexdigest())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rankings.jsonl"
        data.write_text("\n".join(lines[: args.rankings]) + "\n", encoding="utf-8")
        untrained = accuracy(args, args.box)
        for seed in args.seeds.split(","):
            row = {"data": Path(args.test).name, "rankings": args.rankings, "seed": int(seed), "box as it is": untrained}
            row["flags"] = args.flags
            for name, base in [("from the box", args.box), ("from MiniLM", args.base)]:
                judge = str(Path(folder) / "judge")
                words = ["train", str(data), "--base", base, "-o", judge, "--overwrite", "--seed", seed]
                kudos(args, *words, *args.flags.split())
                row[name] = accuracy(args, judge)
            print(row, flush=True)
            rows.append(row)
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps(old + rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
