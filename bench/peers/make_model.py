"""A checkpoint of DistilBERT's size with random weights and one output, for speed comparisons.

    python bench/peers/make_model.py --tokenizer DIR --out DIR

`--tokenizer` is a directory with a BERT tokenizer of 30522 entries, whose files are copied.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]


def main():
    parser = argparse.ArgumentParser(description="A random checkpoint of DistilBERT's size.")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    DistilBertForSequenceClassification(DistilBertConfig(num_labels=1)).save_pretrained(args.out)
    for name in TOKENIZER_FILES:
        if (args.tokenizer / name).exists():
            shutil.copy(args.tokenizer / name, args.out / name)


if __name__ == "__main__":
    main()
