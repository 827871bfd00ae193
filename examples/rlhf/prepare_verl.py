"""Prompts, one a line → the rows that verl reads, with the prompt in `extra_info` for the judge.

python examples/rlhf/prepare_verl.py prompts.txt train.parquet
"""

import sys

from datasets import Dataset


def row(place, prompt):
    messages = [{"role": "user", "content": prompt}]
    return {
        "data_source": "prompts",
        "prompt": messages,
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"index": place, "prompt": messages},
    }


prompts_file, output = sys.argv[1:]
with open(prompts_file, encoding="utf-8") as lines:
    Dataset.from_list([row(place, line.strip()) for place, line in enumerate(lines)]).to_parquet(output)
