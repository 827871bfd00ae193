"""Texts for checking tokenisation: made up by code, the same for the same seed.

Plain sentences are not what breaks an encoder. Every text here mixes words with some of what does: emoji and
their joiners, scripts with and without spaces, marks, controls, other directions, strings that look like special
tokens, very long words, nothing at all.
"""

import random

WORDS = (
    "the a one some every my your this that old new small large quiet bright slow quick honest kind river garden "
    "window teacher question answer reason number letter mountain train kitchen music paper model reward judge "
    "walks writes reads explains asks counts repairs paints finds carries remembers because although while and or "
    "but then never always often maybe today tomorrow slowly clearly again seven twelve hundred it's don't we'll "
    "unbelievable reorganisation tokenizer preferences Kudos London Anna"
).split()

ODD = [
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷🇯🇵", "❤️", "\u200d", "\ufe0f", "🫠🫠🫠",
    "你好,世界。", "日本語のテキスト", "한국어 문장", "漢字かな交じり文", "ไทยไม่มีช่องว่าง", "नमस्ते दुनिया",
    "e\u0301 n\u0303 o\u0308", "Z\u0351\u0327\u035ba\u0334l\u0335g\u0336o", "\u0301", "ñandú crème brûlée Ångström", "İstanbul ıIiİ", "ﬁne ﬂow ½ ² Ⅷ", "ＦＵＬＬ ｗｉｄｔｈ",
    "\x00", "\x01\x02\x7f", "tab\tand\nline\r\nend", "\u200b\u200e\u202e", "\ufeff", "\ufffd", "\uffff", "\U000e0001", "\ue000", "\x85 \u2028 \u2029",
    "שלום עולם", "مرحبا بالعالم ١٢٣", "\u0627\u0651\u064e",
    "[SEP]", "[CLS] [PAD]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<mask> ", " <mask>", "<unk>", "<|endoftext|>", "<|im_start|>user", "<|im_end|>", "##ing", "▁the", "Ġthe",
    "   ", "\n\n\n", "\u00a0\u3000", "  two  spaces  ", "x" * 120, "ab" * 90, "1234567890", "3.14159 1e-7 $12,345.67", "https://example.org/a_b?c=d&e=%20#f", "def f(x):\n    return x**2  # ok",
    "``quoted'' – \u2014 … “curly” ‘s", "ALLCAPS CamelCase snake_case kebab-case", "!!!???...", "()[]{}<>", "a.b.c", "'s 't 're", "don\u2019t",
]

EDGES = ["", " ", "\n", "\t \n", "a", "[SEP]", "</s>", "\x00", "\u200d", "\u0301", "😀", "你", "<|im_end|>", "\ufeff", "x" * 300]


def sentence(rng):
    words = [rng.choice(WORDS) for _ in range(rng.randint(3, 14))]
    if rng.random() < 0.5:
        words[0] = words[0].capitalize()
    return " ".join(words) + rng.choice([".", "?", "!", "", ":", " ."])


def corpus(seed=1, sentences=3000):
    """Sentences to train small tokenizers on, with a little of everything else."""
    rng = random.Random(seed)
    return [sentence(rng) + (" " + rng.choice(ODD) if rng.random() < 0.15 else "") for _ in range(sentences)]


def text(rng):
    """One text: sentences with odd pieces between and inside them; now and then very long or very short."""
    if rng.random() < 0.08:
        return rng.choice(EDGES)
    size = rng.choice([1, 1, 1, 2, 3, 5, 24]) if rng.random() < 0.9 else 0
    pieces = []
    for _ in range(size):
        pieces.append(sentence(rng))
        if rng.random() < 0.5:
            pieces.append(rng.choice(ODD))
    if not pieces:
        pieces = [rng.choice(ODD) for _ in range(rng.randint(1, 6))]
    return rng.choice([" ", " ", "", "\n"]).join(pieces)


def pairs(count, seed=2):
    """`count` pairs (prompt, response); among the first are all short edge cases against each other."""
    rng = random.Random(seed)
    edges = [(EDGES[i], EDGES[(i * 7 + 3) % len(EDGES)]) for i in range(len(EDGES))]
    edges += [(EDGES[i], text(rng)) for i in range(len(EDGES))]
    rest = [(text(rng), text(rng)) for _ in range(count - len(edges))]
    return (edges + rest)[:count]
