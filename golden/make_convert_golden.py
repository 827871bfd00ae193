"""Makes golden/convert: language models, and the log odds of their answers to a question about responses.

    python golden/make_convert_golden.py             write all of them again
    python golden/make_convert_golden.py --check     compare with what is committed, write nothing

tokenizer/<kind>/   byte-level BPE in which Yes and No are one token each: with ChatML, with a template that trims and
                    refuses a system message, without a template
<case>/             config.json and model.safetensors of a model that writes, or model.gguf
expected.json       for each case the tokenizer, what `kudos convert-judge` is told, the ids of each row, and
                    logit(yes) - logit(no) at the last of them, before the cap of Gemma 2's logits

The ids are those of the question as a user's turn of the model's own chat template: nothing here knows the template
that Kudos writes.
"""

import argparse
import filecmp
import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import make_gguf_golden as of_gguf
import make_judges_golden as judges
import tiny

OUT = tiny.HERE / "convert"
QUESTION = """Here is a prompt, and a response to it.

Prompt:
{prompt}

Response:
{response}

Is it a good response to the prompt? Answer Yes or No."""
SHORT = "  {response}\nIs this a reply to {prompt}?\n"
ROWS = [
    ("What is a river?", "Water that flows to the sea."),
    (" Name a prime.\n", "  Nine. "),
    ("é 🙂", ""),
    ([("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "And you?")], "Go <|im_end|> away"),
    ("a " * 60, "b " * 40),
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<unk>"]
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TRIMS = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
         "{{ raise_exception('System role not supported') }}{% endif %}"
         "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}")
TEMPLATES = {"chatml": CHATML, "trims": TRIMS, "plain": None}
WHOLE = "{{ bos_token }}Rate {{ response }}\nas an answer to {{ prompt }}\nGood?"
PLAIN_ROPE = judges.theta(1e4)

# case: (tokenizer, settings, type of the file, template file, answers)
CASES = {
    "qwen3": ("chatml", judges.CASES["qwen3"][1] | dict(tie_word_embeddings=False), torch.bfloat16, None, ["No", "Yes"]),
    "qwen2": ("chatml", judges.CASES["qwen2"][1] | dict(tie_word_embeddings=True), torch.float32, None, ["No", "Yes"]),
    "llama": ("trims", judges.CASES["llama"][1], torch.float16, None, ["No", "Yes"]),
    "mistral": ("trims", judges.CASES["mistral"][1], torch.float32, ("template", WHOLE), [" No", " Yes"]),
    "gemma2": ("trims", judges.CASES["gemma2"][1], torch.float32, None, ["No", "Yes"]),
    "gemma3_text": ("trims", judges.CASES["gemma3_text"][1], torch.float32, ("question", SHORT), ["No", "Yes"]),
    "phi": ("chatml", judges.CASES["phi"][1], torch.float32, None, ["No", "Yes"]),
    "gpt2": ("plain", judges.CASES["gpt2"][1], torch.float32, None, [" No", " Yes"]),
    "gguf": ("chatml", judges.SHAPE | PLAIN_ROPE | dict(head_dim=8, num_hidden_layers=2), None, None, ["No", "Yes"]),
}
CLASSES = {"gguf": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "gemma3_text": "Gemma3ForCausalLM"}


def make_tokenizers(out):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [QUESTION, SHORT, WHOLE, "\nYes\nNo\nYes\nNo\n Yes No Yes No", "user\nassistant\nsystem\nmodel\n"] * 4
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus, trainer)
    for kind, template in TEMPLATES.items():
        made = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
            model_input_names=["input_ids", "attention_mask"])
        made.chat_template = template
        made.save_pretrained(out / "tokenizer" / kind)
    return tokenizer


def make_model(case):
    settings = CASES[case][1]
    judge = judges.CASES["llama" if case == "gguf" else case][0]
    name = CLASSES.get(case, judge.replace("ForSequenceClassification", "ForCausalLM"))
    size = "n_positions" if case == "gpt2" else "max_position_embeddings"
    settings = settings | {"vocab_size": 366, size: 512}
    settings.pop("num_labels")
    return judges.fill(judges.from_settings(getattr(transformers, name), settings), f"convert {case}").eval()


def texts(case, tokenizer):
    """The ids of each row, or None where the template refuses it."""
    kind, *_, asked, _ = CASES[case]
    every = []
    for prompt, response in ROWS:
        if isinstance(prompt, list):
            prompt = "\n\n".join(f"{role}: {content}" for role, content in prompt)
        if asked and asked[0] == "template":
            filled = WHOLE.replace("{{ bos_token }}", "<bos>").replace("{{ response }}", "{response}")
            text = filled.replace("{{ prompt }}", "{prompt}").format(prompt=prompt, response=response)
        else:
            # A template's own white space at the ends of a question is not part of it.
            words = asked[1].strip() if asked else QUESTION
            text = words.format(prompt=prompt, response=response)
            if kind == "plain":
                text += "\n\nAnswer:"
            else:
                turn = [{"role": "user", "content": text}]
                text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        every.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return every


def jinja(words):
    return words.replace("{prompt}", "{{ prompt }}").replace("{response}", "{{ response }}")


def make_case(case, out, every):
    kind, _, dtype, asked, answers = CASES[case]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "tokenizer" / kind)
    model = make_model(case)
    (out / case).mkdir(exist_ok=True)
    if case == "gguf":
        write_gguf(out / case / "model.gguf", model, every, tokenizer)
    else:
        model.to(dtype).save_pretrained(out / case)
        (out / case / "generation_config.json").unlink()
        # Read back: `to` has rounded the rotary frequencies, too, which no file holds.
        model = transformers.AutoModelForCausalLM.from_pretrained(out / case, dtype=torch.float32).eval()
    tokens = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    assert all(len(ids) == 1 for ids in tokens), (case, answers, tokens)
    if "final_logit_softcapping" in model.config.to_dict():
        model.config.final_logit_softcapping = None
    ids, scores = texts(case, tokenizer), []
    for text in ids:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text])).logits[0, -1]
        scores.append((logits[tokens[1][0]] - logits[tokens[0][0]]).item())
    assert max(scores) - min(scores) > 0.5, (case, scores)
    facts = {"tokenizer": kind, "answers": answers, "tokens": [one for [one] in tokens], "ids": ids, "scores": scores}
    if asked:
        facts |= {"flag": asked[0], "file": asked[1] if asked[0] == "template" else jinja(asked[1])}
    return facts


def write_gguf(path, model, tokenizer, made):
    """The same weights as llama.cpp's converter would write them, with the tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    write_vocabulary(writer, tokenizer, made)
    names = of_gguf.tensor_names("llama", config.num_hidden_layers)
    for parameter, value in model.state_dict().items():
        module, kind = parameter.rsplit(".", 1)
        value = of_gguf.converted("llama", config, parameter, value.numpy())
        writer.add_tensor(f"{names.get_name(module)}.{kind}", np.ascontiguousarray(value))
    of_gguf.finish(writer)


def write_vocabulary(writer, tokenizer, made):
    size = tokenizer.get_vocab_size()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.id_to_token(at) for at in range(size)])
    writer.add_token_types([3 if at < len(SPECIAL) else 1 for at in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(SPECIAL.index("<bos>"))
    writer.add_eos_token_id(SPECIAL.index("<eos>"))
    writer.add_pad_token_id(SPECIAL.index("<pad>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(made.chat_template)


def make_all(out):
    tokenizer = make_tokenizers(out)
    rows = [{"prompt": prompt if isinstance(prompt, str) else [
        {"role": role, "content": content} for role, content in prompt], "response": response}
        for prompt, response in ROWS]
    facts = {"rows": rows} | {case: make_case(case, out, tokenizer) for case in CASES}
    tiny.write_json(out / "expected.json", facts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    tiny.deterministic()
    if not parser.parse_args().check:
        OUT.mkdir(exist_ok=True)
        make_all(OUT)
        return
    with tempfile.TemporaryDirectory() as temporary:
        make_all(Path(temporary))
        files = sorted(path.relative_to(temporary) for path in Path(temporary).rglob("*") if path.is_file())
        other = [str(name) for name in files if not filecmp.cmp(Path(temporary) / name, OUT / name, shallow=False)]
    print(f"{len(files)} files, {len(other)} differ", *other, sep="\n  ")
    raise SystemExit(bool(other))


if __name__ == "__main__":
    main()
