"""The tables of bench/results/*.json as markdown: `to_markdown.py [--targets] [--write README.md]`.

With `--write`, what stands between `<!-- bench:begin -->` and `<!-- bench:end -->` in that file is replaced. With
`--targets`, a column says which ratio was aimed at, and whether it was missed: for bench/README.md.
"""

import argparse
import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def table(found, targets):
    """One file's machine line and rows, with the ratios aimed at if `targets`."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "python")
    lines = [f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['instructions'])}; {versions}.", "",
             "| work | against | Kudos | peer | ratio |" + " target |" * targets, "|---|---|---|---|---|" + "---|" * targets]
    for row in found["rows"]:
        line = (f"| {row['work']} | {row['peer']} | {row['kudos']:.4g} {row['unit']} | "
                f"{row['peer_value']:.4g} {row['unit']} | {row['ratio']:.2f}× |")
        lines.append(line + f" {target(row)} |" * targets)
    return "\n".join(lines)


def target(row):
    """The ratio that was aimed at, and whether it was missed; empty if there was none."""
    if row["target"] is None:
        return ""
    return f"≥ {row['target']:.3g}×{' (missed)' * (row['ratio'] < row['target'])}"


def main():
    parser = argparse.ArgumentParser(description="Benchmark tables as markdown.")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--targets", action="store_true", help="with the ratios aimed at")
    args = parser.parse_args()
    files = [RESULTS / name for name in ("training.json", "scoring.json", "generation.json")]
    text = "\n\n".join(table(json.loads(file.read_text()), args.targets) for file in files if file.exists())
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
