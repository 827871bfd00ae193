"""Texts of values as Python, numpy and pandas write them, for crates/kudos/src/data/literal.rs.

    pip install numpy==2.4.6 pandas==3.1.1     (and CPython 3.11)
    python golden/make_literal_golden.py       # writes golden/data/literals.json

`read` has the text, the value as JSON, and whether the text looks like a list of texts or objects, or an object.
`refused` has texts of values that JSON lacks, or that numpy has shortened.
A text is `repr` of the value, `str` of it as an array, or a cell of a CSV file that pandas has written.
"""

import csv
import datetime
import io
import json
import pathlib
import random
import sys

import numpy as np
import pandas as pd

PINS = {"numpy": (np.__version__, "2.4.6"), "pandas": (pd.__version__, "3.1.1")}
HERE = pathlib.Path(__file__).parent / "data"

# Every kind of character that repr treats in its own way: quotes, backslashes, escapes of each width, printable or not.
TEXTS = ["", "x", "it's", 'she said "no"', """both ' and " of them""", "\\", "\\n", "a\nb\r\tc",
         "\x00\x07\x08\x0c\x1b\x7f", "\xa0\xad\xe9", "\u200b\u2028\ufeff", "東京", "\U0001f600", "\U000e0001", "e\u0301",
         "[1, 2]", "{'a': 1}", "...", "['a' 'b']", "'", '"', "''", " padded ", "# no comment", "line\\\nnext", "%s {} $x"]


def array(values):
    """The values as an array of objects, whatever they are."""
    made = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        made[place] = value
    return made


def cell(value):
    """What `DataFrame.to_csv` makes of a value."""
    frame = pd.DataFrame({"prompt": ["p"], "chosen": array([value])})
    return list(csv.reader(io.StringIO(frame.to_csv(index=False))))[1][1]


def chat(texts):
    roles = ["system", "user", "assistant"]
    return [{"content": text, "role": roles[place % 3]} for place, text in enumerate(texts)]


def values():
    """(value as Python has it, value as JSON has it, whether it looks serialised)"""
    for text in TEXTS:
        yield chat([text]), chat([text]), True
        yield {text: text}, {text: text}, True
    yield chat(TEXTS), chat(TEXTS), True
    yield TEXTS, TEXTS, True
    yield [("user", "x"), ("assistant",), ()], [["user", "x"], ["assistant"], []], True
    yield ("a", "b"), ["a", "b"], False
    yield [None, True, "a"], [None, True, "a"], False
    yield [0, -1, 10**30, 0.1, -2.5e-07, 1e300, -0.0, 2.0], [0, -1, 10**30, 0.1, -2.5e-07, 1e300, -0.0, 2.0], False
    yield {"a": float("nan"), "b": {"c": [{}, []]}}, {"a": None, "b": {"c": [{}, []]}}, True
    yield [np.float64(1.5), np.int64(3), np.bool_(True)], [1.5, 3, True], False
    yield [np.str_("a"), np.str_("b's")], ["a", "b's"], True
    numbers = {"f": np.array([1.0, 2.5, np.nan]), "i": np.array([1, 2], dtype=np.int32), "b": np.array([True, False])}
    yield numbers, {"f": [1.0, 2.5, None], "i": [1, 2], "b": [True, False]}, True
    yield {"e": array([]), "m": array(chat(["x", "it's"]))}, {"e": [], "m": chat(["x", "it's"])}, True
    yield {"s": np.array(["a", "bc"]), "z": np.zeros((0, 3))}, {"s": ["a", "bc"], "z": []}, True


def arrays():
    """As `values`, of arrays: what a Parquet file's lists become when pandas reads them."""
    for text in TEXTS:
        yield array([text, text]), [text, text], True
        yield array(chat([text, "y"])), chat([text, "y"]), True
    yield array(chat(TEXTS)), chat(TEXTS), True
    yield array(["word"] * 200), ["word"] * 200, True
    yield array([array(chat(["x", "y"])), array(chat(["z"]))]), [chat(["x", "y"]), chat(["z"])], True
    yield array([{"content": array(["a", "b"]), "n": 1}]), [{"content": ["a", "b"], "n": 1}], True
    yield np.array([["a", "b"], ["c", "d"]], dtype=object), [["a", "b"], ["c", "d"]], True
    yield np.array(["a", "b's"]), ["a", "b's"], True
    yield np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], False
    yield np.array([1.0, 2.5, 1e10, np.nan]), [1.0, 2.5, 1e10, None], False
    yield array([None, "a"]), [None, "a"], False
    yield array([]), [], False


def random_chats(count):
    draw = random.Random(18)
    for _ in range(count):
        text = lambda: "".join(draw.choice(TEXTS) + draw.choice(["", " ", "'", '"']) for _ in range(draw.randint(0, 4)))
        yield chat([text() for _ in range(draw.randint(1, 3))])


def refused():
    many = [{"a": place} for place in range(1001)]
    yield str(array(many))
    yield repr(array(many))
    yield repr([{"m": array(many)}])
    for value in [b"bytes", {1, 2}, set(), frozenset(), 1j, ..., float("inf"), float("-inf"), "\ud83d", "\ud83d\ude00",
                  datetime.date(2026, 1, 2), pd.Timestamp("2026-01-02"), pd.NaT, pd.NA, np.datetime64("2026-01-02"),
                  {1: "x"}]:
        yield repr([value])
        yield repr({"a": value})


def main():
    for package, (found, pinned) in PINS.items():
        if found != pinned:
            sys.exit(f"{package} {found} is installed, the fixture needs {pinned}")
    texts = {}
    for value, as_json, looks in values():
        texts[repr(value)] = texts[cell(value)] = (as_json, looks)
    for value, as_json, looks in arrays():
        texts[str(value)] = texts[cell(value)] = (as_json, looks)
        texts[repr(value)] = (as_json, looks)
    for messages in random_chats(12):
        texts[cell(messages)] = texts[cell(array(messages))] = (messages, True)
    read = [{"text": text, "value": value, "looks": looks} for text, (value, looks) in texts.items()]
    rows = lambda cases: ",\n".join(json.dumps(case, allow_nan=False) for case in cases)
    HERE.mkdir(exist_ok=True)
    (HERE / "literals.json").write_text(f'{{"read": [\n{rows(read)}\n],\n"refused": [\n{rows(refused())}\n]}}\n')
    print(len(read), "read,", len(list(refused())), "refused")


if __name__ == "__main__":
    main()
