"""Makes golden/judges/{variants.json,chat,refused}: other configs, a judge with a chat template, broken judges.

    python golden/make_judge_cases.py             write all of them again
    python golden/make_judge_cases.py --check     compare with what is committed, write nothing

variants.json       configs beside those of the families: which keys change, and transformers' scores of the same texts
chat/               a Qwen3 judge with a byte-level tokenizer and a template that writes the BOS, and its scores
refused/<name>/     one-layer judges with one thing wrong each, and refused/sound, which has nothing wrong
refused.json        for each: what is wrong, and what transformers makes of it
"""

import argparse
import copy
import filecmp
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import make_judges_golden as judges
import tiny

LLAMA_LINEAR = dict(rope_type="linear", rope_theta=500.0, factor=4.0)
# name: (base, keys of config.json that are set, keys that are removed)
VARIANTS = {
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=16, max_window_layers=1), ["layer_types"]),
    "qwen3_window": ("qwen3", dict(use_sliding_window=True, sliding_window=16, max_window_layers=2), ["layer_types"]),
    "qwen3_without_pad": ("qwen3", dict(pad_token_id=None), []),
    "qwen3_pad_is_a_word": ("qwen3", dict(pad_token_id=judges.VOCAB - 1), []),
    "qwen3_pad_beyond_the_vocabulary": ("qwen3", dict(pad_token_id=judges.VOCAB), []),
    "llama_unscaled": ("llama", dict(rope_parameters=dict(rope_type="default", rope_theta=500.0)), []),
    "llama_linear": ("llama", dict(rope_parameters=LLAMA_LINEAR), []),
    "mistral_without_window": ("mistral", dict(sliding_window=None), []),
    "gemma2_layer_types": ("gemma2", dict(
        layer_types=["full_attention", "full_attention", "sliding_attention"]), []),
    "gemma2_without_caps": ("gemma2", dict(attn_logit_softcapping=None, final_logit_softcapping=None), []),
    "gemma3_linear": ("gemma3_text", dict(rope_parameters={
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}), []),
    "gpt2_scaled_by_layer": ("gpt2", dict(scale_attn_by_inverse_layer_idx=True), []),
    "gpt2_relu": ("gpt2", dict(activation_function="relu"), []),
    "modernbert_layer_types": ("modernbert", dict(layer_types=[
        "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]), []),
    "deberta_v3_c2p": ("deberta_v3", dict(pos_att_type=["c2p"]), []),
    "deberta_v3_p2c": ("deberta_v3", dict(pos_att_type=["p2c"]), []),
    "deberta_v3_without_norm": ("deberta_v3", dict(norm_rel_ebd="none"), []),
}

WORDS = ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<unk>", "yes", "no", "what", "is", "it", "a", "good",
         "day", "?", "."]
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] }}"
            "{{ ' ' + eos_token }}{% endfor %}")
ENDS_IN_PAD = TEMPLATE.replace("{% endfor %}", "{% endfor %}{{ ' ' + pad_token }}")
REFUSES = "{{ raise_exception('System role not supported') }}"
LOOPS = "{% for i in range(100000000) %}{% for j in range(100000000) %}{% endfor %}{% endfor %}x"
SMALL = dict(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
             head_dim=4, intermediate_size=12, max_position_embeddings=64, num_labels=1, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)


def vocabulary_of(tensors, rows):
    key = "model.embed_tokens.weight"
    return {key: tensors[key][:rows].clone()}


def with_nan(tensors, key):
    changed = tensors[key].clone()
    changed.view(-1)[1] = float("nan")
    return {key: changed}


LABELS = dict(id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
DOWN = "model.layers.0.mlp.down_proj.weight"
AUTO_MAP = {"AutoModelForSequenceClassification": "modeling_judge.JudgeForSequenceClassification"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}


def broken(t):
    """name: (what is wrong, keys of config.json (None: removed), tensors (None: removed), template)"""
    two = {"score.weight": torch.cat([t["score.weight"]] * 2)}
    body = {key: None for key in t if key.startswith("model.layers.0.self_attn.k_proj")}
    wide = {"score.weight": torch.cat([t["score.weight"]] * 2, 1)}
    return {
        "sound": ("nothing", {}, {}, TEMPLATE),
        "two_labels": ("two outputs where one score is asked", LABELS, two, TEMPLATE),
        "labels_unsaid": ("no id2label, which means two outputs, and a head of one", dict(id2label=None, label2id=None),
                          {}, TEMPLATE),
        "head_of_two": ("one label in the config, and a head of two", {}, two, TEMPLATE),
        "missing_head": ("no score.weight", {}, {"score.weight": None}, TEMPLATE),
        "head_too_wide": ("score.weight of another width", {}, wide, TEMPLATE),
        "head_bias": ("a score.bias, which these classes never have", {}, {"score.bias": torch.ones(1)}, TEMPLATE),
        "missing_matrix": ("no k_proj in layer 0", {}, body, TEMPLATE),
        "nan_body": ("a NaN in a matrix of the body", {}, with_nan(t, DOWN), TEMPLATE),
        "nan_head": ("a NaN in the head", {}, with_nan(t, "score.weight"), TEMPLATE),
        "vocabulary_too_small": ("ids of the tokenizer beyond the vocabulary", dict(vocab_size=12),
                                 vocabulary_of(t, 12), TEMPLATE),
        "pad_beyond_vocabulary": ("a pad id outside the vocabulary", dict(pad_token_id=16), {}, TEMPLATE),
        "pad_negative": ("a pad id of -1", dict(pad_token_id=-1), {}, TEMPLATE),
        "pad_is_last_token": ("a pad id equal to the rendering's last token", dict(pad_token_id=2), {}, TEMPLATE),
        "ends_in_pad": ("a template whose last token is the pad token", {}, {}, ENDS_IN_PAD),
        "unknown_architecture": ("an architecture that Kudos does not know",
                                 dict(architectures=["InternLM2ForRewardModel"], model_type="internlm2"), {}, TEMPLATE),
        "gating_architecture": ("the architecture of ArmoRM, whose model_type is a known one",
                                dict(architectures=["LlamaForRewardModelWithGating"], model_type="llama"), {},
                                TEMPLATE),
        "token_classification": ("a classifier of tokens", dict(architectures=["Qwen3ForTokenClassification"]), {},
                                 TEMPLATE),
        "auto_map": ("code of its own", dict(auto_map=AUTO_MAP), {}, TEMPLATE),
        "rope_yarn": ("a rotary scaling that Kudos does not know", dict(rope_parameters=dict(
            rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)), {}, TEMPLATE),
        "unknown_activation": ("an activation that nobody knows", dict(hidden_act="swish9"), {}, TEMPLATE),
        "layer_types_disagree": ("two layer types for one layer", dict(layer_types=["full_attention"] * 2), {},
                                 TEMPLATE),
        "quantized": ("weights said to be packed by GPTQ", dict(quantization_config=GPTQ), {}, TEMPLATE),
        "template_refuses": ("a template that refuses every chat", {}, {}, REFUSES),
        "template_loops": ("a template that would run for years", {}, {}, LOOPS),
        "template_renders_nothing": ("a template that renders nothing", {}, {}, "{% if false %}x{% endif %}"),
    }


@torch.no_grad()
def variant(name):
    """The entry of one variant, with the weights of its base."""
    base, changes, removed = VARIANTS[name]
    settings = judges.CASES[base][1]
    model, pad = judges.build(base), settings.get("pad_token_id", 1)
    every = judges.texts(base, pad)
    entry = {"base": base, "set": changes, "removed": removed}
    try:
        other = judges.build(base, **changes)
    except (ValueError, AssertionError, IndexError) as error:
        return entry | {"transformers": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    found = judges.scores(other, every)
    assert judges.spread(found, judges.scores(model, every)) > 1e-3, f"{name} changes nothing"
    return entry | {"scores": found}


def words_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:5])
    # As Llama's and Gemma's: who renders to text and then adds special tokens has two.
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return tokenizer


def write_tokenizer(directory, template):
    words_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
         "pad_token": "<pad>", "unk_token": "<unk>", "chat_template": template}, indent=2) + "\n")


CHAT = [{"role": "user", "content": "what is it ?"}, {"role": "assistant", "content": "a good day ."}]


def outcome(directory, loops):
    """What transformers makes of a judge directory: the ids and scores of CHAT, or its error's first line."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        ids = [] if loops else tokenizer.apply_chat_template(CHAT, tokenize=True)["input_ids"]
        model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        if loops:
            return {"error": "not run: it would not end"}
        if info["missing_keys"]:
            return {"random": sorted(info["missing_keys"])}
        with torch.no_grad():
            scores = model.eval()(input_ids=torch.tensor([ids])).logits[0].tolist()
        return {"ids": ids, "scores": [None if score != score else score for score in scores]}
    except Exception as error:  # whatever it is, it is what a user of transformers would see
        first = next((line for line in str(error).splitlines() if line.strip()), "").replace(str(directory), "DIR")
        return {"error": f"{type(error).__name__}: {first}"[:300]}


def write_broken(root, name, wrong, base):
    """One directory of refused/, and its entry."""
    reason, keys, changed, template = wrong
    directory = root / name
    directory.mkdir(parents=True)
    config = copy.deepcopy(base[0]) | keys
    config = {key: value for key, value in config.items() if not (key in keys and value is None)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {key: value for key, value in (base[1] | changed).items() if value is not None}
    save_file(dict(sorted(tensors.items())), directory / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(directory, template)
    return {"wrong": reason, "transformers": outcome(directory, name == "template_loops")}


def small_model():
    config = transformers.Qwen3Config(**SMALL, **judges.theta(1e4))
    config._attn_implementation = "eager"
    return judges.fill(transformers.Qwen3ForSequenceClassification(config), "refused").eval()


def small_judge():
    """config.json and tensors of the judge that everything in refused/ starts from."""
    model = small_model()
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.float32
    with tempfile.TemporaryDirectory() as temporary:
        model.config.save_pretrained(temporary)
        config = json.loads((Path(temporary) / "config.json").read_text())
    return config, {key: value.contiguous() for key, value in model.state_dict().items()}


def write_chat(directory):
    """A Qwen3 judge of whole chats: a byte-level tokenizer, a template that writes BOS and ends in a newline."""
    directory.mkdir(parents=True)
    source = tiny.HERE / "text" / "chatml"
    shutil.copy(source / "tokenizer.json", directory)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["pad_token"] = "<|endoftext|>"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    config = transformers.Qwen3Config(**SMALL | judges.theta(1e6) | dict(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    config._attn_implementation = "eager"
    model = judges.fill(transformers.Qwen3ForSequenceClassification(config), "chat").eval()
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.float32
    model.config.save_pretrained(directory)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, directory / "model.safetensors",
              metadata={"format": "pt"})
    chats = [chat("What is it?", "A good day."), chat(" hi \n", "\n ok. "), chat("Caf\u00e9 \U0001f642?", ""),
             [{"role": "system", "content": "Be brief."}, *chat("One?", "1"), *chat("Two?", "<|im_end|> 2")]]
    rows = []
    for messages in chats:
        ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
        rows.append({"messages": messages, "ids": ids, "score": judges.scores(model, [ids])[0]})
    text = ",\n ".join(json.dumps(row) for row in rows)
    (directory / "expected.json").write_text('{"chats": [\n ' + text + "\n]}\n")


def chat(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def make(root):
    """Write everything under `root`."""
    for name in ("chat", "refused"):
        shutil.rmtree(root / name, ignore_errors=True)
    tiny.write_json(root / "variants.json", {name: variant(name) for name in VARIANTS})
    base = small_judge()
    entries = {name: write_broken(root / "refused", name, wrong, base) for name, wrong in broken(base[1]).items()}
    tiny.write_json(root / "refused.json", {"chat": CHAT} | entries)
    write_chat(root / "chat")


def different(fresh, committed):
    """The files that are not the same, bit for bit but for the last bits of floats in JSON."""
    found = []
    for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
        other = committed / file.relative_to(fresh)
        same = other.exists() and (filecmp.cmp(file, other, shallow=False) or close(file, other))
        found += [] if same else [str(file.relative_to(fresh))]
    return found


def close(file, other):
    if file.suffix == ".json":
        return near(json.loads(file.read_text()), json.loads(other.read_text()))
    new, old = load_file(file), load_file(other)
    return new.keys() == old.keys() and all(torch.allclose(new[key], old[key], atol=1e-6) for key in new)


def near(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-5
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == other


def main():
    parser = argparse.ArgumentParser(description="Variants, a chat judge and broken judges.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    arguments = parser.parse_args()
    tiny.assert_pinned("torch", "transformers", "tokenizers", "safetensors")
    tiny.deterministic()
    if not arguments.check:
        return make(judges.JUDGES)
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary))
        found = different(Path(temporary), judges.JUDGES)
    print("\n".join(found) or "all as committed")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
