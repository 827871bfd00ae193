"""Scores of a decoder judge by transformers, measured: prompts and responses through the chat template, by length, padded.

    python bench/peers/decoder_score_peer.py --model JUDGE --texts texts.jsonl --precision bf16 --batch-size 8

Texts are JSONL {prompt, response}. The time is that of rendering, tokenising and computing, without loading: what the
program is at its best. The same weights are converted to bf16 once, when loading (`torch_dtype`).
"""

import argparse
import json
import os
import time


def settings():
    parser = argparse.ArgumentParser(description="transformers on a decoder judge.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--precision", choices=["bf16", "f32"], required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main():
    options = settings()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    pad = model.config.pad_token_id
    with open(options.texts) as lines:
        rows = [json.loads(line) for line in lines]

    start = time.perf_counter()
    chats = [[{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
             for row in rows]
    encoded = tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True)["input_ids"]
    encoded = [ids[:options.max_length] for ids in encoded]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i]))
    scores = [0.0] * len(rows)
    with torch.inference_mode():
        for at in range(0, len(order), options.batch_size):
            batch = order[at:at + options.batch_size]
            length = max(len(encoded[i]) for i in batch)
            ids = torch.tensor([encoded[i] + [pad] * (length - len(encoded[i])) for i in batch])
            mask = torch.tensor([[1] * len(encoded[i]) + [0] * (length - len(encoded[i])) for i in batch])
            for i, value in zip(batch, model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()):
                scores[i] = value
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": sum(map(len, encoded)), "scores": scores}))


if __name__ == "__main__":
    main()
