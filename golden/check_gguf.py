"""Compares what Kudos reads in a real GGUF file with transformers and with llama.cpp.

    cargo build --release -p kudos --example gguf
    python golden/check_gguf.py MODEL.gguf [--gguf target/release/examples/gguf] [--llama PYTHON]

Every parameter of transformers' model must have the same bits here, the config's keys the same values, chats the same
text, and texts the same ids, decoded again to the same text. PYTHON is an interpreter with llama-cpp-python: with it,
ids are compared with llama.cpp's too, and for every way to split text that both know (on copies of the vocabulary that
name another). Needs torch, transformers and gguf (written against 2.15.0, 5.23.0 and 0.19.0; llama-cpp-python 0.3.36).
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from text_samples import EDGES, ODD, pairs

SPLITS = ["default", "gpt-2", "phi-2", "smollm", "starcoder", "llama-bpe", "dbrx", "qwen2", "deepseek-r1-qwen"]

LLAMA = """
import json, sys
from llama_cpp import Llama
model = Llama(model_path=sys.argv[1], vocab_only=True, verbose=False)
for line in sys.stdin:
    text, special = json.loads(line)
    print(json.dumps(model.tokenize(text.encode(), add_bos=special, special=True)))
"""

CHATS = [
    [("user", "What is a river?")],
    [("system", "Answer in one word."), ("user", "2 + 2?"), ("assistant", "4"), ("user", " and\\n3 + 3? 🙂")],
    [("user", "<|im_end|>"), ("assistant", ""), ("user", "")],
]


def ask(arguments, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [arguments.gguf, "text", str(arguments.model)]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.rstrip("\n").split("\n")]


def llama(arguments, model, texts):
    lines = "".join(json.dumps([text, special]) + "\n" for text, special in texts)
    run = subprocess.run([arguments.llama, "-c", LLAMA, model], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.rstrip("\n").split("\n")]


def texts():
    """A few hundred texts, each alone and with special tokens."""
    rng = random.Random(11)
    made = [text for pair in pairs(250, seed=5) for text in pair] + EDGES + ODD
    made += ["".join(rng.choices(ODD, k=4)) for _ in range(60)]
    made += [f"for i in range({n}):\n\tprint(i ** {n % 7})  # {n / 3:.4f}\r\n\r\n" for n in range(20)]
    return [(text, special) for text in dict.fromkeys(made) for special in (False, True)]


def report(name, count, wrong):
    print(f"{name}: {count} compared, {len(wrong)} differ")
    for line in wrong[:3]:
        print("   ", line)
    return len(wrong)


def check_tensors(arguments, model):
    """Bits of every parameter; a tied head stands once in the file."""
    state = model.state_dict()
    names = [name for name in state if not (name == "lm_head.weight" and model.config.tie_word_embeddings)]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "values"
        command = [arguments.gguf, "tensors", str(arguments.model), str(out)]
        run = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"{' '.join(command)}: {run.stderr}")
        values = np.fromfile(out, dtype="<u4")
    shapes = [tuple(json.loads(line)) for line in run.stdout.rstrip("\n").split("\n")]
    wrong, at = [], 0
    for name, shape in zip(names, shapes, strict=True):
        expected = state[name].float().contiguous().numpy()
        found = values[at : at + expected.size]
        at += expected.size
        if shape != expected.shape or not np.array_equal(found, expected.view(np.uint32).ravel()):
            wrong.append(f"{name}: shape {shape}, expected {expected.shape}")
    print(f"{at} values")
    return report("parameters", len(names), wrong)


def check_config(arguments, config):
    ours = json.loads(subprocess.run([arguments.gguf, "config", str(arguments.model)], capture_output=True, text=True, check=True).stdout)
    theirs = config.to_dict()
    rope = theirs.get("rope_parameters") or {}
    theirs["rope_theta"] = rope.get("rope_theta")
    wrong = []
    for key, value in ours.items():
        if key == "architectures":
            continue
        other = theirs.get(key, "missing")
        same = abs(other - value) <= 1e-6 * abs(value) if isinstance(value, float) and isinstance(other, float) else other == value
        if not same:
            wrong.append(f"{key}: {value!r}, transformers {other!r}")
    return report("config keys", len(ours), wrong)


def check_chats(arguments, tokenizer):
    wrong, asked = [], []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        asked += [{"messages": messages, "add_generation_prompt": flag} for flag in (False, True)]
    for question, answer in zip(asked, ask(arguments, asked), strict=True):
        expected = tokenizer.apply_chat_template(question["messages"], tokenize=False, add_generation_prompt=question["add_generation_prompt"])
        if answer["text"] != expected:
            wrong.append(f"{answer['text']!r}, expected {expected!r}")
    return report("chats", len(asked), wrong)


def check_ids(arguments, name, expected, answers, asked):
    wrong = []
    for (text, special), ids, answer in zip(asked, expected, answers, strict=True):
        if answer["ids"] != ids:
            wrong.append(f"{text!r:.120} {special}: {answer['ids'][:24]}, expected {ids[:24]}")
    return report(name, len(asked), wrong)


def has_number(text):
    return any(unicodedata.category(letter).startswith("N") for letter in text)


def check_texts(arguments, tokenizer):
    asked = texts()
    answers = ask(arguments, [{"text": text, "add_special": special} for text, special in asked])
    # transformers takes a split it does not know for GPT-2's; `smollm` differs from that in its numbers alone.
    split = GGUFReader(arguments.model).fields["tokenizer.ggml.pre"].contents()
    kept = [at for at, (text, _) in enumerate(asked) if split != "smollm" or not has_number(text)]
    plain, plain_answers = [asked[at] for at in kept], [answers[at] for at in kept]
    expected = [tokenizer(text, add_special_tokens=special).input_ids for text, special in plain]
    bad = check_ids(arguments, "ids of transformers", expected, plain_answers, plain)
    wrong = []
    for answer in answers:
        for key, skip in [("decoded", False), ("skipped", True)]:
            expected = tokenizer.decode(answer["ids"], skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            if answer[key] != expected:
                wrong.append(f"{answer[key]!r:.120}, expected {expected!r:.120}")
    bad += report("texts decoded", 2 * len(answers), wrong)
    if arguments.llama:
        bad += check_ids(arguments, "ids of llama.cpp", llama(arguments, arguments.model, asked), answers, asked)
    return bad


def with_split(model, name, path):
    """The same settings without tensors, and another `tokenizer.ggml.pre`."""
    reader = GGUFReader(model)
    writer = GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = name if key == "tokenizer.ggml.pre" else field.contents()
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_key_value(key, value, field.types[0], sub_type=field.types[-1])
        else:
            writer.add_key_value(key, value, field.types[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def check_splits(arguments):
    bad = 0
    # Composing (NFC) is the models' own rule and not llama.cpp's, so texts that it changes are left out.
    asked = [(text, False) for text, special in texts() if special and unicodedata.is_normalized("NFC", text)]
    with tempfile.TemporaryDirectory() as folder:
        for name in SPLITS:
            path = f"{folder}/{name}.gguf"
            with_split(arguments.model, name, path)
            copy = argparse.Namespace(gguf=arguments.gguf, model=path)
            answers = ask(copy, [{"text": text, "add_special": special} for text, special in asked])
            bad += check_ids(copy, f"split {name}, ids of llama.cpp", llama(arguments, path, asked), answers, asked)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--gguf", default="target/release/examples/gguf")
    parser.add_argument("--llama", help="interpreter with llama-cpp-python")
    parser.add_argument("--splits-only", action="store_true")
    arguments = parser.parse_args()
    arguments.model = str(arguments.model)
    bad = 0
    if not arguments.splits_only:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        where = pathlib.Path(arguments.model)
        tokenizer = AutoTokenizer.from_pretrained(where.parent, gguf_file=where.name)
        model = AutoModelForCausalLM.from_pretrained(where.parent, gguf_file=where.name, dtype=torch.float32)
        bad += check_config(arguments, model.config)
        bad += check_tensors(arguments, model)
        bad += check_chats(arguments, tokenizer)
        bad += check_texts(arguments, tokenizer)
    if arguments.llama:
        bad += check_splits(arguments)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
