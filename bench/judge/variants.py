"""Variants of the default recipe side by side: the same small parts of four sets, one row of flags a variant.

    python bench/judge/variants.py --kudos target/release/kudos --data DATA/train --base MINILM --work DIR [--seeds 11,12] -- "" "--learning-rate 3e-5" …

What is trained on and measured on is drawn as compare_trl.py draws it, by seeds that it does not use, so that what is chosen here is
compared there on other draws. Adds each run to bench/results/variants.json, leaves out those that are there, and prints a table of means over the seeds.
"""

import statistics
from functools import partial
from pathlib import Path

from compare_trl import arguments, earlier, parts, run, side_by_side

RESULTS = Path(__file__).parent.parent / "results" / "variants.json"


def table(rows: list[dict], variants: list[str], sets: list[str], seeds: list[int]) -> str:
    """Accuracy and log loss of each variant on each set, and their means over the sets."""
    lines = [f"| flags | {' | '.join(sets)} | mean |", "|---" * (len(sets) + 2) + "|"]
    for flags in variants:
        cells = []
        for name in sets:
            own = [row for row in rows if (row["set"], row["flags"]) == (name, flags) and row["seed"] in seeds]
            if own:
                cells.append([statistics.mean(row[key] for row in own) for key in ("accuracy", "log_loss")])
        means = [statistics.mean(column) for column in zip(*cells)]
        shown = [f"{accuracy:.3f}, {loss:.3f}" for accuracy, loss in [*cells, means]]
        lines.append(f"| `{flags}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "11,12")
    parser.add_argument("variants", nargs="*", help="the flags of a variant, as one word each")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sets, seeds = args.sets.split(","), [int(seed) for seed in args.seeds.split(",")]
    rows = earlier(RESULTS)
    done = {(row["flags"], row["set"], row["seed"], row["epochs"]) for row in rows}

    def job(flags: str, name: str, seed: int) -> dict:
        train, test = parts(args, name, seed)
        judge = args.work / f"{name}.{seed}.{'_'.join(flags.split())}"
        return {"set": name, "flags": flags, **run(args, flags, train, test, seed, judge)}

    wanted = [(flags, name, seed) for seed in seeds for flags in args.variants for name in sets]
    side_by_side([partial(job, *each) for each in wanted if (*each, args.epochs) not in done], RESULTS, rows)
    print(table([row for row in rows if row["epochs"] == args.epochs], args.variants, sets, seeds))


if __name__ == "__main__":
    main()
