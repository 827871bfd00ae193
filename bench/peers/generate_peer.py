"""llama.cpp or transformers, generating: fixed work on demand, or a file of prompts from start to end.

    python bench/peers/generate_peer.py --peer llama.cpp --model FILE.gguf --work decode:16:200
    python bench/peers/generate_peer.py --peer transformers-f32 --model FILE.gguf --work prefill:512
    python bench/peers/generate_peer.py --peer llama.cpp --model FILE.gguf --prompts P.jsonl -n 4 -o responses.jsonl

--work: loads, warms up, prints `{"ready": true}`, then answers each line `run` with `{"ms": ...}`, and the end of the
input with `{"maxrss_kib": ...}`, so that several programs can be loaded once and take turns. `prefill:T` is one prompt
of T tokens up to the logits of its last. `decode:N:T` is T steps of N sequences with a prompt of 32 tokens each, which is
processed outside the time; every step takes the most probable token, whatever it is.

--prompts: JSONL of {"prompt": ...}, each put into the model's chat template and answered n times, one response
after the other, with temperature 0.8 and top-p 0.95; rows {"prompt", "text", "tokens"} come out.

llama.cpp: its low-level batches (one token of each sequence a step), flash attention as it decides, memory-mapped
weights; its high-level interface for prompts, which keeps the prompt between responses. transformers: the
dequantised model, scaled-dot-product attention, a dynamic cache.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

PROMPT = 32
SAMPLING = {"temperature": 0.8, "top_p": 0.95}


def settings():
    parser = argparse.ArgumentParser(description="llama.cpp or transformers, generating.")
    parser.add_argument("--peer", required=True, choices=["llama.cpp", "transformers-f32", "transformers-bf16"])
    parser.add_argument("--model", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--work", help="prefill:TOKENS or decode:SEQUENCES:STEPS")
    what.add_argument("--prompts", type=Path, help="JSONL of prompt")
    parser.add_argument("-n", type=int, default=4, help="responses to each prompt")
    parser.add_argument("-o", dest="out", type=Path)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def random_ids(sequences, length):
    """Random ids, the same for every program. [sequences, length]"""
    return np.random.default_rng(0).integers(1000, 40000, (sequences, length), dtype=np.int64)


class LlamaCpp:
    """llama.cpp through its low-level functions."""

    def __init__(self, args, sequences, length):
        import llama_cpp

        self.lib = llama_cpp
        llama_cpp.llama_backend_init()
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, None)
        model = llama_cpp.llama_model_load_from_file(str(args.model).encode(), llama_cpp.llama_model_default_params())
        asked = llama_cpp.llama_context_default_params()
        asked.n_ctx, asked.n_seq_max, asked.kv_unified = sequences * length, sequences, False
        asked.n_batch = asked.n_ubatch = 512
        asked.n_threads = asked.n_threads_batch = args.threads
        self.context = llama_cpp.llama_init_from_model(model, asked)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.kept = silent, model  # as long as the context lives

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, tokens):
        """One batch of (id, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if self.lib.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")

    def best(self, i):
        """The most probable token after the `i`-th of the batch."""
        logits = self.lib.llama_get_logits_ith(self.context, i)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def prefill(self, ids):
        self.clear()
        start = time.perf_counter()
        self.decode([(int(token), i, 0, i == len(ids[0]) - 1) for i, token in enumerate(ids[0])])
        self.best(len(ids[0]) - 1)
        return time.perf_counter() - start

    def generate(self, ids, steps):
        self.clear()
        last = []
        for sequence, prompt in enumerate(ids):
            self.decode([(int(token), i, sequence, i == len(prompt) - 1) for i, token in enumerate(prompt)])
            last.append(self.best(len(prompt) - 1))
        start = time.perf_counter()
        for step in range(steps):
            self.decode([(token, PROMPT + step, sequence, True) for sequence, token in enumerate(last)])
            last = [self.best(i) for i in range(len(last))]
        return time.perf_counter() - start


class Transformers:
    """The dequantised model in PyTorch."""

    def __init__(self, args, *_):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        torch.set_num_threads(args.threads)
        self.model = AutoModelForCausalLM.from_pretrained(
            args.model.parent, gguf_file=args.model.name, attn_implementation="sdpa",
            dtype=torch.bfloat16 if args.peer.endswith("bf16") else torch.float32).eval()

    def run(self, ids, past=None):
        with self.torch.inference_mode():
            return self.model(input_ids=self.torch.as_tensor(ids), past_key_values=past, use_cache=True,
                              logits_to_keep=1)

    def prefill(self, ids):
        start = time.perf_counter()
        self.run(ids).logits[:, -1].argmax(-1)
        return time.perf_counter() - start

    def generate(self, ids, steps):
        output = self.run(ids)
        start = time.perf_counter()
        for _ in range(steps):
            output = self.run(output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values)
        output.logits[:, -1].argmax(-1)
        return time.perf_counter() - start


def serve(args):
    kind, *numbers = args.work.split(":")
    sequences, steps = (1, 0) if kind == "prefill" else map(int, numbers)
    length = int(numbers[0]) if kind == "prefill" else PROMPT
    # Cells of the cache come in steps of 256.
    peer = (LlamaCpp if args.peer == "llama.cpp" else Transformers)(args, sequences, -(-(length + steps) // 256) * 256)
    ids = random_ids(sequences, length)
    work = (lambda: peer.prefill(ids)) if kind == "prefill" else (lambda: peer.generate(ids, steps))
    for _ in range(2 if kind == "prefill" else 1):
        work()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip() == "run":
            print(json.dumps({"ms": 1e3 * work()}), flush=True)
    print(json.dumps({"maxrss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)


def llama_responder(args):
    """prompt → (text, tokens), with llama.cpp's high-level interface."""
    from llama_cpp import Llama

    model = Llama(str(args.model), n_ctx=2048, n_threads=args.threads, n_threads_batch=args.threads, verbose=False)

    def respond(prompt):
        answer = model.create_chat_completion([{"role": "user", "content": prompt}], max_tokens=args.max_new_tokens,
                                              top_k=0, min_p=0.0, repeat_penalty=1.0, **SAMPLING)
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]
    return respond


def transformers_responder(args):
    """prompt → (text, tokens), with `generate`."""
    import torch
    import transformers
    from transformers import AutoTokenizer

    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.model.parent, gguf_file=args.model.name)
    model = Transformers(args).model

    def respond(prompt):
        inputs = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                               return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            whole = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=args.max_new_tokens,
                                   pad_token_id=0, **SAMPLING)[0]
        new = whole[inputs["input_ids"].shape[1]:]
        return tokenizer.decode(new, skip_special_tokens=True), len(new)
    return respond


def answer_all(args):
    respond = (llama_responder if args.peer == "llama.cpp" else transformers_responder)(args)
    with open(args.out, "w") as out:
        for line in args.prompts.read_text().splitlines():
            prompt = json.loads(line)["prompt"]
            for _ in range(args.n):
                text, tokens = respond(prompt)
                out.write(json.dumps({"prompt": prompt, "text": text, "tokens": tokens}) + "\n")


def main():
    args = settings()
    if args.prompts:
        answer_all(args)
    else:
        serve(args)


if __name__ == "__main__":
    main()
