"""The tables of bench/results/*.json as markdown: `to_markdown.py [--write README.md]`.

With `--write`, what stands between `<!-- bench:begin -->` and `<!-- bench:end -->` in that file is replaced.
"""

import argparse
import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def table(found):
    """One file's machine line and rows."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "python")
    lines = [f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['instructions'])}; {versions}.", "",
             "| work | against | Kudos | peer | ratio | target |", "|---|---|---|---|---|---|"]
    for row in found["rows"]:
        target = "" if row["target"] is None else f"≥ {row['target']:.3g}×"
        missed = row["target"] is not None and row["ratio"] < row["target"]
        lines.append(f"| {row['work']} | {row['peer']} | {row['kudos']:.4g} {row['unit']} | "
                     f"{row['peer_value']:.4g} {row['unit']} | {row['ratio']:.2f}×{' (missed)' * missed} | {target} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Benchmark tables as markdown.")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    files = [RESULTS / name for name in ("training.json", "scoring.json", "generation.json")]
    text = "\n\n".join(table(json.loads(file.read_text())) for file in files if file.exists())
    if not args.write:
        print(text)
        return
    page = args.write.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{args.write}: expected the markers {BEGIN} and {END}")
    before, rest = page.split(BEGIN, 1)
    args.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
