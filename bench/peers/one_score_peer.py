"""One score with PyTorch and transformers, from process start: `one_score_peer.py MODEL PROMPT RESPONSE`."""

import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(2)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    inputs = tokenizer(sys.argv[2], sys.argv[3], truncation=True, max_length=512, return_tensors="pt")
    print(model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0, 0].item())
