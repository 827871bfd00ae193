"""Texts of 512 tokens in 8 bits: `kudos score --precision int8` beside llama.cpp's processing of prompts (Q8_0).

    python bench/peers/llama_prefill.py make --judge JUDGE --gguf judge.q8_0.gguf
    python bench/peers/llama_prefill.py run --kudos target/release/kudos --judge JUDGE --gguf judge.q8_0.gguf \\
        --llama-python VENV/bin/python --json bench/results/int8.json

`make` writes the weights of a Llama or Qwen2 judge as GGUF, its matrices and its table in Q8_0 (package `gguf`). The
head is no part of it: llama.cpp computes the logits of each prompt's last token. Its build is llama-cpp-python for this
processor, with flash attention as it decides.

`run`: llama.cpp is loaded and warm, one prompt of 512 tokens a call; Kudos' time is the whole process, less that of
the same program with one text. Kudos' texts have no common beginning, so that nothing is shared. Both have two threads
and take turns; a row is the median over the rounds, and its ratio the median of the ratios within a round.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TOKENS = 512
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def settings():
    parser = argparse.ArgumentParser(description="8 bits beside llama.cpp.")
    parser.add_argument("what", choices=["make", "run", "peer"])
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--kudos", type=Path)
    parser.add_argument("--llama-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def stored_name(name):
    """llama.cpp's name of a tensor; None of what it does not need."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    parts = name.split(".")
    if parts[:2] != ["model", "layers"]:
        return None
    return f"blk.{parts[2]}.{NAMES['.'.join(parts[3:-1])]}.{parts[-1]}"


def turned(name, tensor, config):
    """Queries and keys of Llama with the halves of each head interleaved, as llama.cpp turns them."""
    if config["model_type"] != "llama" or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(tensor.shape)


def add_facts(writer, config):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")  # Prompts are ids.


def make(args):
    import gguf
    import torch
    from safetensors.torch import load_file

    config = json.loads((args.judge / "config.json").read_text())
    writer = gguf.GGUFWriter(args.gguf, config["model_type"])
    add_facts(writer, config)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in load_file(args.judge / "model.safetensors").items():
        stored = stored_name(name)
        if stored is None:
            continue
        values = turned(name, tensor.to(torch.float32).numpy(), config)
        if values.ndim == 2:
            writer.add_tensor(stored, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def peer(args):
    """llama.cpp, loaded: answers each line `run` with the seconds of one prompt and the likeliest next token."""
    import llama_cpp
    import numpy as np

    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    model = llama_cpp.llama_model_load_from_file(str(args.gguf).encode(), llama_cpp.llama_model_default_params())
    asked = llama_cpp.llama_context_default_params()
    asked.n_ctx = asked.n_batch = asked.n_ubatch = TOKENS
    asked.n_threads = asked.n_threads_batch = 2
    context = llama_cpp.llama_init_from_model(model, asked)
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    ids = np.random.default_rng(0).integers(1000, 40000, TOKENS)
    batch = llama_cpp.llama_batch_init(TOKENS, 0, 1)

    def run():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        batch.n_tokens = TOKENS
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, i == TOKENS - 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if llama_cpp.llama_decode(context, batch) != 0:
            sys.exit("llama_decode failed")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, TOKENS - 1), shape=(words,))
        return time.perf_counter() - start, int(logits.argmax())

    run()
    info = llama_cpp.llama_print_system_info().decode()
    print(json.dumps({"ready": True, "info": info}), flush=True)
    for line in sys.stdin:
        seconds, token = run()
        print(json.dumps({"seconds": seconds, "token": token}), flush=True)


def texts(count):
    """Texts that fill 512 tokens and begin differently."""
    words = "river stone window garden music paper silver orange people number system market".split()
    draw = random.Random(0)
    text = lambda: " ".join(draw.choice(words) for _ in range(TOKENS))
    return [{"prompt": f"{draw.choice(words)} {i}", "response": text()} for i in range(count)]


def whole(args, judge, file):
    start = time.perf_counter()
    command = [args.kudos, "score", file, "--judge", judge, "--precision", "int8", "--quiet"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return seconds, len(done.stdout.splitlines())


def short_judge(judge, folder):
    """The judge with links to its files, a limit of 512 tokens, and no template, whose beginning all texts share."""
    copy = folder / "judge"
    copy.mkdir()
    for file in judge.iterdir():
        (copy / file.name).symlink_to(file.resolve())
    reward = json.loads((judge / "reward.json").read_text())
    (copy / "reward.json").unlink()
    (copy / "reward.json").write_text(json.dumps({**reward, "max_length": TOKENS, "render": "concat"}))
    return copy


def run(args):
    from machine import facts, row

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = short_judge(args.judge, folder)
        files = [folder / "one.jsonl", folder / "all.jsonl"]
        for file, count in zip(files, [1, 1 + args.texts]):
            file.write_text("".join(json.dumps(text) + "\n" for text in texts(count)))
        other = subprocess.Popen([args.llama_python, __file__, "peer", "--gguf", args.gguf], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        print(json.loads(other.stdout.readline())["info"])

        def theirs():
            other.stdin.write("run\n")
            other.stdin.flush()
            return json.loads(other.stdout.readline())["seconds"]

        ours, peers = [], []
        for _ in range(args.rounds):
            one, _ = whole(args, judge, files[0])
            everything, rows = whole(args, judge, files[1])
            ours.append((rows - 1) * TOKENS / (everything - one))
            peers.append(3 * TOKENS / sum(theirs() for _ in range(3)))
        other.stdin.close()
        found = row(f"texts of {TOKENS} tokens, int8, {args.judge.name}", "llama.cpp Q8_0", "tokens/s", ours, peers, 1.5)
    if args.json:
        args.json.write_text(json.dumps({"machine": facts(), "rows": [found]}, indent=1) + "\n")


if __name__ == "__main__":
    options = settings()
    {"make": make, "run": run, "peer": peer}[options.what](options)
