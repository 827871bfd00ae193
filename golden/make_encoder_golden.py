"""Makes golden/encoders: a tiny checkpoint of each encoder family with the tokenizer files that such checkpoints carry.

    python golden/make_encoder_golden.py            write everything again
    python golden/make_encoder_golden.py --check    compare with what is committed, write nothing

Each directory is a judge as it is published: config.json, model.safetensors (f16), tokenizer.json with the family's
own post-processor (BERT's and DistilBERT's give the second text segment 1), and the short tokenizer_config.json of
the first checkpoints of the family. The vocabularies are those of golden/text.

checks.json has one entry for each form of the tokenizer files: the checkpoint, the files laid over it, and for each
of the texts what transformers makes of it:

ids         `tokenizer(prompt, response)["input_ids"]`
segments    where segment 1 begins in what the model reads: DistilBERT reads none, whatever the tokenizer hands over
logit       `model(**tokenizer(prompt, response)).logits`
error       instead of all three, the exception that transformers ends with
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny

OUT = tiny.HERE / "encoders"
TEXT = tiny.HERE / "text"
SHORT = {"model_max_length": 512}
UNCASED = {"do_lower_case": True, **SHORT}

# name: (class, tokenizer of golden/text, tokenizer_config.json as first published, rows of the table of segments)
CHECKPOINTS = {
    "bert": ("BertForSequenceClassification", "wordpiece", UNCASED, 2),
    "bert_one_segment": ("BertForSequenceClassification", "wordpiece", UNCASED, 1),
    "distilbert": ("DistilBertForSequenceClassification", "wordpiece", UNCASED, None),
    "roberta": ("RobertaForSequenceClassification", "byte_level", SHORT, 1),
    "roberta_wordpiece": ("RobertaForSequenceClassification", "wordpiece", {**UNCASED, "tokenizer_class": "BertTokenizer"}, 1),
    "xlm_roberta": ("XLMRobertaForSequenceClassification", "unigram", SHORT, 1),
}
TEXTS = [
    ("How do I keep bread fresh?", "In a paper bag."),
    ("What is 17 + 25?", "42"),
    ("Name a river.", "The Danube, which is long, and wide, and slow."),
    ("one", ""),
    ("", "one"),
]
BERT_SPECIAL = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
NO_SEGMENTS = {"model_input_names": ["input_ids", "attention_mask"]}
SEGMENTS = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}


def added(tokens, lstrip=()):
    """`added_tokens_decoder` as transformers 4 wrote it."""
    plain = {"normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(i): {"content": token, "lstrip": token in lstrip, **plain} for i, token in enumerate(tokens)}


def saved_by_4(name):
    """tokenizer_config.json as transformers 4 saves it for a family."""
    if name in ("bert", "distilbert"):
        order = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        kind = {"bert": "BertTokenizer", "distilbert": "DistilBertTokenizer"}[name]
        return {"added_tokens_decoder": added(order), "clean_up_tokenization_spaces": True, **BERT_SPECIAL, **UNCASED,
                "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": kind}
    order = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    kind = {"roberta": "RobertaTokenizer", "xlm_roberta": "XLMRobertaTokenizerFast"}[name]
    return {"added_tokens_decoder": added(order, ["<mask>"]), "bos_token": "<s>", "clean_up_tokenization_spaces": True,
            "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>", "sep_token": "</s>",
            "unk_token": "<unk>", **SHORT, "tokenizer_class": kind}


def saved_by_5(name):
    """tokenizer_config.json as the installed transformers 5 saves it."""
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(OUT / name).save_pretrained(folder)
        return json.loads((Path(folder) / "tokenizer_config.json").read_text())


def template_with_segments(name):
    """The family's template with the second text in segment 1, as BERT has it."""
    document = json.loads((OUT / name / "tokenizer.json").read_text())
    piece = lambda kind, id, segment: {kind: {"id": id, "type_id": segment}}
    first = [piece("SpecialToken", "<s>", 0), piece("Sequence", "A", 0), piece("SpecialToken", "</s>", 0)]
    second = [piece("SpecialToken", "</s>", 1), piece("Sequence", "B", 1), piece("SpecialToken", "</s>", 1)]
    special = {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in (("<s>", 0), ("</s>", 2))}
    document["post_processor"] = {"type": "TemplateProcessing", "single": first, "pair": first + second, "special_tokens": special}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def words(name):
    """vocab.txt: a word a line, in the order of the ids."""
    vocabulary = json.loads((OUT / name / "tokenizer.json").read_text())["model"]["vocab"]
    return "".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.get))


def forms():
    """(name, checkpoint, files laid over it): a text replaces a file, None removes it."""
    config = lambda fields: {"tokenizer_config.json": json.dumps(fields)}
    yield from ((f"{name}: as published", name, {}) for name in CHECKPOINTS)
    for name in ("bert", "distilbert", "roberta", "xlm_roberta"):
        yield f"{name}: saved by transformers 4", name, config(saved_by_4(name))
        yield f"{name}: saved by transformers 5", name, config(saved_by_5(name))
        generic = {**saved_by_4(name), "tokenizer_class": "PreTrainedTokenizerFast"}
        yield f"{name}: generic class", name, config(generic)
        yield f"{name}: TokenizersBackend", name, config({**generic, "tokenizer_class": "TokenizersBackend", "backend": "tokenizers"})
        yield f"{name}: no tokenizer_config.json at all", name, config({})
    for name in ("bert", "distilbert"):
        yield f"{name}: vocab.txt alone", name, {"tokenizer.json": None, "vocab.txt": words(name)}
    yield "distilbert: saved with BERT's class", "distilbert", config({**saved_by_4("distilbert"), "tokenizer_class": "BertTokenizerFast"})
    yield "distilbert: segments asked for", "distilbert", config({**UNCASED, **SEGMENTS})
    yield "bert: no segments asked for", "bert", config({**UNCASED, **NO_SEGMENTS})
    yield "bert_one_segment: no segments asked for", "bert_one_segment", config({**UNCASED, **NO_SEGMENTS})
    yield "roberta_wordpiece: no segments asked for", "roberta_wordpiece", config({**UNCASED, **NO_SEGMENTS, "tokenizer_class": "BertTokenizer"})
    for name in ("roberta", "xlm_roberta"):
        generic = {**saved_by_4(name), "tokenizer_class": "PreTrainedTokenizerFast"}
        template = {"tokenizer.json": template_with_segments(name)}
        yield f"{name}: a template with segments", name, template | config(generic)
        yield f"{name}: segments asked for", name, template | config({**generic, **SEGMENTS})


def make_checkpoint(name):
    kind, tokenizer, config, segments = CHECKPOINTS[name]
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = Tokenizer.from_file(str(TEXT / tokenizer / "tokenizer.json")).get_vocab_size()
    model = tiny.build(kind, f"encoders {name}", vocab=rows)
    if segments is not None and model.config.type_vocab_size != segments:
        model.config.type_vocab_size = segments
        model = tiny.fill(type(model)(model.config), f"encoders {name}").eval()
    if name == "roberta_wordpiece":
        model.config.pad_token_id = 0
        model = tiny.fill(type(model)(model.config), f"encoders {name}").eval()
    model.half().save_pretrained(folder)
    shutil.copy(TEXT / tokenizer / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def lay_over(folder, files):
    for name, change in files.items():
        if change is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(change)


def row(tokenizer, model, prompt, response):
    encoded = tokenizer(prompt, response, return_tensors="pt")
    with torch.no_grad():
        logit = model(**encoded).logits.item()
    ids = encoded["input_ids"][0].tolist()
    types = encoded.get("token_type_ids", torch.zeros(1, len(ids), dtype=torch.long))[0].tolist()
    if model.config.model_type == "distilbert":
        types = [0] * len(ids)
    second = types.index(1) if 1 in types else len(ids)
    assert types == [0] * second + [1] * (len(ids) - second), types
    return {"ids": ids, "segments": second, "logit": logit}


def check_of(name, checkpoint, files):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "judge"
        shutil.copytree(OUT / checkpoint, folder)
        lay_over(folder, files)
        facts = {"form": name, "checkpoint": checkpoint, "over": files}
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        try:
            return facts | {"class": type(tokenizer).__name__, "rows": [row(tokenizer, model, *texts) for texts in TEXTS]}
        except IndexError as error:
            return facts | {"error": type(error).__name__}


def main():
    parser = argparse.ArgumentParser(description="Encoders with the tokenizer files that published checkpoints carry.")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    check = parser.parse_args().check
    tiny.assert_pinned("torch", "transformers", "tokenizers", "safetensors")
    tiny.deterministic()
    if not check:
        for name in CHECKPOINTS:
            make_checkpoint(name)
    checks = [check_of(*form) for form in forms()]
    for entry in checks:
        print(entry["form"], "->", entry.get("error") or entry["class"])
    lines = ",\n ".join(json.dumps(entry, ensure_ascii=False) for entry in checks)
    text = '{"texts": ' + json.dumps(TEXTS) + ',\n"checks": [\n ' + lines + "\n]}\n"
    if check:
        raise SystemExit(0 if same(json.loads(text), json.loads((OUT / "checks.json").read_text())) else "other than committed")
    (OUT / "checks.json").write_text(text)


def same(new, old):
    """Equal but for the last bits of the logits."""
    if isinstance(new, float) and isinstance(old, float):
        return abs(new - old) < 1e-5
    if isinstance(new, dict) and isinstance(old, dict):
        return new.keys() == old.keys() and all(same(new[key], old[key]) for key in new)
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(same, new, old))
    return new == old


if __name__ == "__main__":
    main()
