"""Makes golden/text: tiny tokenizers of four kinds, and the ids transformers makes with them.

    python golden/make_text_golden.py            # writes texts.json and checks.json, for the tokenizers that are there
    python golden/make_text_golden.py --train    # trains the tokenizers anew first (ties make each training different)

Versions: transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6. Another version may give other ids, which would be
worth knowing; the script refuses to hide that.

`crates/kudos/tests/text_golden.rs` reads the result: `texts.json` has the texts, `checks.json` the tokenizers (a
directory here, with files to lay over it) and groups of checks, each one rendering at one token limit. Rows are
[prompt, response] as indices into the texts, or null, or lists of messages; `expected` has for each row the ids and
where type id 1 begins.
"""

import base64
import json
import pathlib
import shutil
import sys
import tempfile
import zlib
from importlib.metadata import version

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from text_samples import corpus, pairs

VERSIONS = {"transformers": "5.23.0", "tokenizers": "0.23.3", "jinja2": "3.1.6"}
OUT = pathlib.Path(__file__).parent / "text"
NO_LIMIT = 4096
LIMITS = [NO_LIMIT, 256, 65, 33, 16, 7]
# Of conversations: the template's own tokens fit all of them.
CHAT_LIMITS = [NO_LIMIT, 256, 97, 65, 55, 50]

# A SentencePiece normalization table of a dozen rules (fi ligature, fractions, wide spaces, full-width letters, …).
CHARSMAP = zlib.decompress(base64.b64decode(
    "eNol02dsT1EYx/HfvXjRJiIiIpEaiYoVt2krtUftUXur2kqJvSnuv1apUWqUlpYabdUqtUupndp7jxIk9t58T7343Oe555zce06e"
    "56iwpPKSl5fkXUSyJJcRtyh5nmx5akvJ1aXSZgwsc11fW0y7MVV4RNpy20qFSKNY4CkjlSLPniIVIxZHCZREZnDBd8QS+aAcymL9"
    "bSkjz1YF8s0HpIpEX1Qy78ckfqPKqIaqYDvKuC75ER3443COrUBiALKypBrEmggCR1At1EUd1Ec9NEQDsC01QhM0RjM0RQs0Ryu0"
    "RBu0BsdVCNqjHTqiAzqjE7qiC7qjG3qiB0LRC2Hojb7og/7oh4EYgMEYhCEIRwSGYjiGYYRZk2hrFHEkxmA0xmEsJmA8JmEiKIUm"
    "YxqmYjoiMRMz4NH/os9CFOZgNuZhLuYjGjFYgEVYiCVYjKWIRRyWYQWWYxVWYjXikYA1WItEJGGdqT+SkYIN2ISN2GLqjzSkYivS"
    "sc3UHzuwHbuwE7uRaeqPPdiHvaCltB+HcBDZpl9wFEdAiykHuTiOkziB0ziFszhj5qItnSOel7kb0kVcwGVcwlVcAa2pa7iJG6C9"
    "dQt3cQf3cQ8P8QCP8Qj5eIJneIrneJtq6SXxhZmLt5Qfa+k1+Sszhzd4j3f4iA/4jE/4ii/4jm/4iR/4jV/4iz8quP+OHMeRv18A"
    "FyiYpg+hicMjlJumf0rqnss="
))

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a judge.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# What chat templates in the wild do, each thing at least once.
TEMPLATES = {
    "headers": """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{%- if tools is not none %}{{- "Tools: " }}{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{%- endif %}
{{- system_message }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim }}
    {# a comment #}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
""",
    "alternating": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set first = messages[0]['content'] + '\n\n' %}{% else %}{% set loop_messages = messages %}{% set first = '' %}{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}
[INST] {{ first if loop.index0 == 0 else '' }}{{ message['content'].strip() }} [/INST]
    {%- elif message['role'] == 'assistant' %}
        {%- generation -%}
 {{ message.content }}{{ eos_token }}
        {%- endgeneration %}
    {% endif %}
{% endfor %}""",
    "namespaces": """{%- set ns = namespace(turns=0, last=-1) -%}
{%- macro shown(text) -%}
{%- if text is string %}{{ text.lstrip('\n') }}{% else %}{{ text | tojson }}{% endif -%}
{%- endmacro -%}
{%- for m in messages -%}
    {%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif -%}
{%- endfor -%}
{%- for m in messages -%}
    {%- if m.role not in ['user', 'assistant'] -%}
        {{ m | tojson }}{{ '\n' }}
        {%- continue -%}
    {%- endif -%}
    {%- set ns.turns = ns.turns + 1 -%}
    {%- set text = m.content.split('</think>')[-1] if '</think>' in m.content else m.content -%}
    {{ '%s' | replace('%s', m.role.upper()) ~ ns.turns ~ ': ' }}{{ shown(text) }}
    {%- if loop.last %}{{ eos_token or '' }}{% elif loop.index0 == ns.last %}{{ '\n>>' }}{% else %}{{ '\n' }}{% endif -%}
{%- endfor -%}
{{- none }}{{ missing is defined }}{{ {'b': 1, 'a': [true, none, 'é<>&']} | tojson }}{{ messages | length }}{{ (messages | map(attribute='role') | list)[0] }}
""",
}

CONVERSATIONS = [
    ("Hi", "Hello."),
    ([{"role": "user", "content": "Hi"}], "Hello.  "),
    ([{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "1234 + 1?"}], "1235"),
    (
        [
            {"role": "user", "content": "Tell me a secret"},
            {"role": "assistant", "content": "<think>hm</think>No."},
            {"role": "user", "content": "\nPlease 🥺 <|im_end|>"},
        ],
        [{"role": "assistant", "content": "<think>\nstill no\n</think>\n\nNo means no."}],
    ),
    (None, [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": ""}]),
    ("", ""),
    ([{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]),
]


def check_versions():
    for package, expected in VERSIONS.items():
        if version(package) != expected:
            raise SystemExit(f"{package}: expected version {expected}, found {version(package)}; adjust VERSIONS and look at the diff")


def save(name, tokenizer, config, model, edit=lambda document: document):
    """Writes a tokenizer directory, compactly."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    document = edit(json.loads(tokenizer.to_str()))
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    (folder / "config.json").write_text(json.dumps(model) + "\n")


def make_wordpiece():
    """As all-MiniLM-L6-v2: BERT uncased, with somebody's padding and truncation left in the file."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=800, special_tokens=tokens, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(24)
    tokenizer.enable_padding(length=24)
    config = {"do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
              "mask_token": "[MASK]", "tokenize_chinese_chars": True, "strip_accents": None, "tokenizer_class": "BertTokenizer",
              "model_max_length": 512}
    save("wordpiece", tokenizer, config, {"model_type": "bert", "vocab_size": tokenizer.get_vocab_size() + 11})


def make_byte_level():
    """As RoBERTa, legacy style: special tokens in special_tokens_map.json."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=tokens, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))

    def lstrip_mask(document):
        document["added_tokens"][4]["lstrip"] = True
        return document

    save("byte_level", tokenizer, {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}, {"model_type": "roberta"}, lstrip_mask)
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": mask}
    (OUT / "byte_level" / "special_tokens_map.json").write_text(json.dumps(names) + "\n")


def make_unigram():
    """As XLM-RoBERTa, current style: added tokens in tokenizer_config.json."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(CHARSMAP)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=tokens, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    added = {str(i): {"content": t, "lstrip": t == "<mask>", "normalized": False, "rstrip": False, "single_word": False, "special": True} for i, t in enumerate(tokens)}
    config = {"added_tokens_decoder": added, "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>",
              "sep_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 512}
    save("unigram", tokenizer, config, {"model_type": "xlm-roberta"})


def make_chatml():
    """As SmolLM2: GPT-2's class over a tokenizer.json that splits digits, and a ChatML template."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=tokens, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)

    def digit_merge(document):  # so that it shows whether digits were split
        model = document["model"]
        model["vocab"]["12"] = len(model["vocab"])
        model["merges"].append(["1", "2"])
        return document

    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
              "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "chat_template": CHATML, "tokenizer_class": "GPT2Tokenizer"}
    save("chatml", tokenizer, config, {"model_type": "llama"}, digit_merge)


def make_metaspace():
    """As Llama 2: SentencePiece BPE with byte fallback, and a bos token before each sequence."""
    tokens = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=tokens + bytes_, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(corpus(sentences=400), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])

    def plain_bytes(document):
        document["added_tokens"] = document["added_tokens"][:3]
        return document

    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "legacy": False, "tokenizer_class": "LlamaTokenizer"}
    save("metaspace", tokenizer, config, {"model_type": "llama"}, plain_bytes)


# What transformers makes of configs that contradict tokenizer.json. None removes a key.
VARIANTS = {
    "wordpiece_cased": ("wordpiece", {"tokenizer_config.json": {"do_lower_case": False, "tokenize_chinese_chars": False}}),
    "wordpiece_accents": ("wordpiece", {"tokenizer_config.json": {"do_lower_case": False, "strip_accents": True}}),
    "wordpiece_left": ("wordpiece", {"tokenizer_config.json": {"truncation_side": "left", "tokenizer_class": "DistilBertTokenizer"}}),
    "wordpiece_as_is": ("wordpiece", {"tokenizer_config.json": {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": ["[EXTRA]", "##ing"]}}),
    "wordpiece_type_ids": ("wordpiece", {"tokenizer_config.json": {"tokenizer_class": None, "model_input_names": ["input_ids", "token_type_ids"]}, "config.json": {"model_type": None}}),
    "wordpiece_no_class": ("wordpiece", {"tokenizer_config.json": {"tokenizer_class": None}}),
    "wordpiece_modernbert": ("wordpiece", {"tokenizer_config.json": {"do_lower_case": False}, "config.json": {"model_type": "modernbert"}}),
    "byte_level_prefix": ("byte_level", {"tokenizer_config.json": {"add_prefix_space": True, "image_token": "<image>"}}),
    "byte_level_split": ("byte_level", {"tokenizer_config.json": {"split_special_tokens": True}}),
    "unigram_deberta": ("unigram", {"tokenizer_config.json": {"tokenizer_class": "DebertaV2Tokenizer", "added_tokens_decoder": None, "do_lower_case": True, "split_by_punct": True}, "config.json": {"model_type": "deberta-v2"}}),
    "unigram_never": ("unigram", {"tokenizer_config.json": {"add_prefix_space": False}}),
    "chatml_as_is": ("chatml", {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": None, "extra_special_tokens": {"own_token": "the"}}}),
    "chatml_qwen2": ("chatml", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}, "config.json": {"model_type": "qwen2"}}),
    "chatml_llama": ("chatml", {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizerFast"}}),
    "metaspace_legacy": ("metaspace", {"tokenizer_config.json": {"legacy": True, "add_eos_token": True}}),
}
VARIANTS |= {f"chat_{name}": ("chatml", {"chat_template.jinja": source}) for name, source in TEMPLATES.items()}


def lay_over(folder, files):
    for name, change in files.items():
        path = folder / name
        if isinstance(change, str):
            path.write_text(change)
            continue
        fields = json.loads(path.read_text()) | change
        path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


class Judge:
    """What Kudos' encoder should do, in terms of transformers."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.engine = self.tokenizer.backend_tokenizer

    def encode(self, render, truncation, limit, prompt, response):
        if render == "chat":
            return self.chat(truncation, limit, prompt, response)
        if truncation == "keep_response":
            return self.keep_response(render, limit, prompt, response)
        options = {"truncation": True, "max_length": limit}
        if render == "pair":
            texts = (response,) if prompt is None else (prompt, response)
            return self.result(self.tokenizer(*texts, **options))
        text, _ = self.single(prompt, response)
        return self.result(self.tokenizer(text, **options))

    def result(self, encoded):
        ids = encoded["input_ids"]
        types = encoded.get("token_type_ids", [0] * len(ids))
        second = types.index(1) if 1 in types else len(ids)
        # The second sequence's ids run to the end: one number says it all.
        assert types == [0] * second + [1] * (len(ids) - second), types
        return ids, second

    def single(self, prompt, response):
        """The one text that is tokenised, and how many characters of it are the prompt's."""
        eos = self.tokenizer.eos_token
        if eos is not None and not response.endswith(eos):
            response += eos
        return (prompt or "") + response, len(prompt or "")

    def chat(self, truncation, limit, prompt, response):
        """The ids of apply_chat_template; of too many, only those go that hold words of messages alone."""
        before = self.messages(prompt, "user")
        messages = before + self.messages(response, "assistant")
        judged = len(before) if prompt is not None else len(messages) - 1
        ids = self.tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
        if len(ids) > limit:
            self.engine.no_truncation()
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
            spans = self.engine.encode(text, add_special_tokens=False).offsets
            ask, answer = (self.words(messages, text, spans, part) for part in (range(judged), range(judged, len(messages))))
            room = limit - (len(ids) - len(ask) - len(answer))
            if room <= 0:
                return None
            if truncation == "keep_response":
                kept = (max(0, room - len(answer)), min(room, len(answer)))
            else:
                kept = [len(ask), len(answer)]
                while sum(kept) > room:  # of two as long, the prompt's
                    kept[0 if kept[0] >= kept[1] else 1] -= 1
                if sum(map(len, (ask, answer))) > room and len(ask) > len(answer) and kept[1] > kept[0]:
                    kept = kept[::-1]  # the odd one is the longer's
            gone = set(ask[: len(ask) - kept[0]]) | set(answer[kept[1]:])
            ids = [token for place, token in enumerate(ids) if place not in gone]
        return ids, len(ids)

    def words(self, messages, text, spans, part):
        """The tokens that hold nothing but words of these messages."""
        if not part:
            return []
        marks = []
        for place in (part[0], part[-1]):
            other = [dict(message) for message in messages]
            other[place]["content"] = "\x02" if other[place]["content"].strip()[:1] == "\x01" or other[place]["content"].strip()[-1:] == "\x01" else "\x01"
            marks.append(self.tokenizer.apply_chat_template(other, tokenize=False))
        start = next((i for i, (a, b) in enumerate(zip(text, marks[0])) if a != b), min(len(text), len(marks[0])))
        end = next((i for i, (a, b) in enumerate(zip(text[::-1], marks[1][::-1])) if a != b), min(len(text), len(marks[1])))
        end = max(start, len(text) - end)
        return [i for i, (first, last) in enumerate(spans) if start <= first and last <= end]

    def messages(self, content, role):
        if content is None:
            return []
        return content if isinstance(content, list) else [{"role": role, "content": content}]

    def keep_response(self, render, limit, prompt, response):
        self.engine.no_truncation()
        self.engine.no_padding()
        if render == "pair" and prompt is not None and response:
            limit -= self.engine.num_special_tokens_to_add(True)
            first, second = (self.engine.encode(text, add_special_tokens=False) for text in (prompt, response))
            lengths = len(first.ids), len(second.ids)
            if sum(lengths) > limit:
                first.truncate(min(lengths[0], max(0, limit - lengths[1])), direction="left")
                second.truncate(min(lengths[1], limit), direction="right")
            whole = self.engine.post_process(first, second, True)
            types = whole.type_ids if "token_type_ids" in self.tokenizer.model_input_names else [0] * len(whole.ids)
            return self.result({"input_ids": whole.ids, "token_type_ids": types})
        text, prompt_chars = (prompt or "") + response, len(prompt or "")
        if render != "pair":
            text, prompt_chars = self.single(prompt, response)
        whole = self.engine.encode(text, add_special_tokens=False)
        limit -= self.engine.num_special_tokens_to_add(False)
        ids = whole.ids
        if len(ids) > limit:
            spans = whole.offsets
            mine = next((i for i, (start, end) in enumerate(spans) if not (start < prompt_chars and end <= prompt_chars)), len(ids))
            ids = ids[mine:][:limit] if len(ids) - mine > limit else ids[len(ids) - limit:]
        before, after = self.around()
        return self.result({"input_ids": before + ids + after})

    def around(self):
        """Special tokens before and after one sequence."""
        ids, inner = (self.engine.encode("the", add_special_tokens=special).ids for special in (True, False))
        at = next(i for i in range(len(ids)) if ids[i:i + len(inner)] == inner)
        return ids[:at], ids[at + len(inner):]


def groups(name, samples):
    """The checks of one tokenizer: (render, truncation, limit, rows)."""
    everything = list(range(len(samples)))
    main = name in ("wordpiece", "byte_level", "unigram", "chatml")
    pairs_of = lambda rows: [(2 * row, 2 * row + 1) for row in rows]
    if name.startswith("chat_"):
        for limit in (NO_LIMIT, 80):
            yield "chat", "longest_first", limit, [row for row in CONVERSATIONS if legal(name, row)]
        return
    step = len(LIMITS) if main else 3 * len(LIMITS)
    for offset, limit in enumerate(LIMITS):
        yield "pair", "longest_first", limit, pairs_of(everything[offset::step])
    if not main:
        yield "concat", "longest_first", 40, pairs_of(everything[5::25])
        return
    for offset, limit in enumerate(LIMITS):
        yield "pair", "keep_response", limit, pairs_of(everything[offset::4 * len(LIMITS)])
        yield "concat", "longest_first", limit, pairs_of(everything[offset::8 * len(LIMITS)])
        yield "concat", "keep_response", limit, pairs_of(everything[offset + 6::8 * len(LIMITS)])
    yield "pair", "longest_first", 31, [(None, 2 * row + 1) for row in everything[3::20]]
    yield "pair", "keep_response", 31, [(None, 2 * row + 1) for row in everything[4::20]]
    if name == "chatml":
        for offset, limit in enumerate(CHAT_LIMITS):
            yield "chat", "longest_first", limit, pairs_of(everything[offset::3 * len(LIMITS)])
            yield "chat", "keep_response", limit, pairs_of(everything[offset::3 * len(LIMITS)])
        yield "chat", "longest_first", NO_LIMIT, CONVERSATIONS


def legal(name, row):
    """The alternating template refuses what does not alternate."""
    return name != "chat_alternating" or row[0] is not None


def content(samples, index):
    return samples[index // 2][index % 2] if isinstance(index, int) else index


def checks(samples):
    for name, (base, files) in ({path.name: (path.name, {}) for path in sorted(OUT.iterdir()) if path.is_dir()} | VARIANTS).items():
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shutil.copytree(OUT / base, folder, dirs_exist_ok=True)
            lay_over(folder, files)
            judge = Judge(folder)
            for render, truncation, limit, rows in groups(name, samples):
                expected = [judge.encode(render, truncation, limit, content(samples, prompt), content(samples, response)) for prompt, response in rows]
                yield {"tokenizer": name, "render": render, "truncation": truncation, "max_length": limit, "rows": rows, "expected": expected}


def main():
    check_versions()
    if "--train" in sys.argv[1:]:
        shutil.rmtree(OUT, ignore_errors=True)
        for make in (make_wordpiece, make_byte_level, make_unigram, make_chatml, make_metaspace):
            make()
    samples = pairs(330)
    (OUT / "texts.json").write_text(json.dumps([text for pair in samples for text in pair], ensure_ascii=False, separators=(",", ":")) + "\n")
    variants = {name: {"files": base, "over": files} for name, (base, files) in VARIANTS.items()}
    document = {"versions": VERSIONS, "variants": variants, "checks": list(checks(samples))}
    (OUT / "checks.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    rows = sum(len(check["rows"]) for check in document["checks"])
    print(f"{rows} rows in {len(document['checks'])} checks")


if __name__ == "__main__":
    main()
