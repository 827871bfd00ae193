"""Texts in every container, and frames of every library: the same scores, and a typed error for what is none."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import numpy
import pandas
import polars
import pyarrow
import pytest

import kudos

from conftest import PROMPTS, RESPONSES


class Foreign:
    """Arrow data of a library that nobody knows."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.array.__arrow_c_array__(requested_schema)


class ForeignStream:
    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def _sliced(texts: Sequence[str]) -> object:
    return pyarrow.array(["before", *texts, "after"]).slice(1, len(texts))


CONTAINERS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda texts: (text for text in texts),
    "numpy object": lambda texts: numpy.array(texts, object),
    "numpy U": numpy.array,
    "pandas": pandas.Series,
    "pandas object": lambda texts: pandas.Series(texts, dtype=object),
    "pandas categories": lambda texts: pandas.Series(texts).astype("category"),
    "pandas with an index": lambda texts: pandas.Series(texts, index=range(len(texts), 0, -1)),
    "polars": polars.Series,
    "polars categories": lambda texts: polars.Series(texts, dtype=polars.Categorical),
    "pyarrow": pyarrow.array,
    "large_string": lambda texts: pyarrow.array(texts, pyarrow.large_string()),
    "string_view": lambda texts: pyarrow.array(texts, pyarrow.string_view()),
    "dictionary": lambda texts: pyarrow.array(texts).dictionary_encode(),
    "chunked": lambda texts: pyarrow.chunked_array([texts[:5], [], texts[5:]], pyarrow.string()),
    "sliced": _sliced,
    "datasets": lambda texts: datasets.Dataset.from_dict({"x": texts})["x"],
    "foreign": lambda texts: Foreign(pyarrow.array(texts)),
    "messages": lambda texts: [[{"role": "assistant", "content": text}] for text in texts],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_texts_in_any_container_score_the_same(judge: kudos.RewardModel, name: str) -> None:
    expected = judge.score(PROMPTS, RESPONSES)
    make = CONTAINERS[name]
    of_prompts = make if name != "messages" else list
    found = judge.score(of_prompts(PROMPTS), make(RESPONSES))
    assert found.tobytes() == expected.tobytes()
    of_one = judge.score(PROMPTS[0], make(RESPONSES))
    assert of_one[0] == expected[0] and len(of_one) == len(expected)


FRAMES: dict[str, Callable[[Sequence[dict[str, Any]]], Any]] = {
    "rows": list,
    "columns": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "pandas": pandas.DataFrame,
    "pandas with an index": lambda rows: pandas.DataFrame(rows, index=range(len(rows), 0, -1)),
    "polars": polars.DataFrame,
    "pyarrow": lambda rows: pyarrow.Table.from_pylist(list(rows)),
    "record batch": lambda rows: pyarrow.RecordBatch.from_pylist(list(rows)),
    "datasets": lambda rows: datasets.Dataset.from_list(list(rows)),
}


def _rows(frame: Any) -> list[dict[str, Any]]:
    if isinstance(frame, list):
        return frame
    if isinstance(frame, dict):
        return [dict(zip(frame, row)) for row in zip(*frame.values())]
    if isinstance(frame, pandas.DataFrame):
        return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    if isinstance(frame, polars.DataFrame):
        return frame.to_dicts()
    if isinstance(frame, datasets.Dataset):
        return list(frame)
    rows: list[dict[str, Any]] = frame.to_pylist()
    return rows


@pytest.mark.parametrize("name", FRAMES)
def test_frames_keep_their_kind(judge: kudos.RewardModel, rows: Sequence[dict[str, Any]], name: str) -> None:
    expected = judge.score(PROMPTS, RESPONSES)
    frame = FRAMES[name](rows)
    scores = judge.score(frame)
    assert isinstance(scores, numpy.ndarray) and scores.tobytes() == expected.tobytes()
    annotated = judge.annotate(frame)
    assert type(annotated) is type(frame)
    found = _rows(annotated)
    assert list(found[0]) == ["prompt", "response", "id", "score", "tokens", "truncated"]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [numpy.float32(row["score"]) for row in found] == list(expected)
    assert all(row["tokens"] > 3 and row["truncated"] in (False, numpy.False_) for row in found)


def test_a_frame_that_nobody_knows_is_scored(judge: kudos.RewardModel, rows: Sequence[dict[str, Any]]) -> None:
    frame = ForeignStream(pyarrow.Table.from_pylist(list(rows)))
    scores = judge.score(frame)
    assert isinstance(scores, numpy.ndarray) and scores.tobytes() == judge.score(PROMPTS, RESPONSES).tobytes()
    with pytest.raises(kudos.DataError, match="expected a frame of pandas"):
        judge.annotate(frame)


def test_a_shuffled_data_set_is_scored_in_its_order(judge: kudos.RewardModel, rows: Sequence[dict[str, Any]]) -> None:
    shuffled = datasets.Dataset.from_list(list(rows)).shuffle(seed=1).select(range(5))
    expected = judge.score(PROMPTS, RESPONSES)
    scores = judge.score(shuffled)
    assert [float(score) for score in scores] == [float(expected[i]) for i in shuffled["id"]]


def test_pairs_comparisons_and_groups_have_their_shapes(judge: kudos.RewardModel) -> None:
    pairs = judge.score([{"prompt": "p", "chosen": "a b", "rejected": "c"}] * 3)
    assert isinstance(pairs, numpy.ndarray) and pairs.shape == (3, 2)
    sides = judge.score({"prompt": ["p"], "response_a": ["a b"], "response_b": ["c"], "label": ["a"]})
    assert isinstance(sides, numpy.ndarray) and sides.tobytes() == pairs[:1].tobytes()
    responses = [[{"text": "a b"}, {"text": "c"}], [{"text": "c"}, {"text": "c"}]]
    groups = judge.score([{"prompt": "p", "responses": own} for own in responses])
    assert isinstance(groups, list) and groups[0].tobytes() == pairs[0].tobytes()
    assert groups[1][0] == pairs[0, 1]
    mapped = judge.score(pandas.DataFrame({"q": ["p"], "x": ["a b"]}), columns={"prompt": "q", "response": "x"})
    assert mapped[0] == pairs[0, 0]


def test_whole_transcripts_have_no_prompt(judge: kudos.RewardModel) -> None:
    assert judge.score(None, ["a", "b"]).shape == (2,)


def test_one_prompt_for_all_responses(judge: kudos.RewardModel) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    one = judge.score(messages, ["Because.", "No."])
    assert one.tobytes() == judge.score([messages, messages], ["Because.", "No."]).tobytes()
    assert judge.score("Why?", "Because.").shape == (1,)


def test_long_input_is_scored_in_windows(judge: kudos.RewardModel) -> None:
    texts = [f"{n}" for n in range(1100)]
    found = judge.score("p", iter(texts))
    assert found.tobytes() == judge.score("p", pyarrow.chunked_array([texts[:700], texts[700:]])).tobytes()
    assert len(found) == 1100 and found[600] == judge.score("p", texts[600])[0]


def _failing() -> Iterator[str]:
    yield "one"
    raise RuntimeError("half-way")


def _nested() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return [[{"role": "user", "content": inner}]]


BAD: list[tuple[str, Any, Any, int | None]] = [
    ("3 prompts and 2 responses", ["a"] * 3, ["b"] * 2, None),
    ("more responses", iter(["a"]), iter(["b"] * 2), None),
    ("more prompts", iter(["a"] * 3), iter(["b"] * 2), None),
    ("found None", "p", ["a", None], 1),
    ("type int", "p", ["a", "b", 7], 2),
    ("type bytes", "p", [b"a"], 0),
    ("surrogate", "p", ["a", "\ud800"], 1),
    ("surrogate", "\udfff", ["a"], 0),
    ("found nothing", "p", pyarrow.array(["a", None]), 1),
    ("found the number", "p", pyarrow.array([1, 2]), 0),
    ("found nothing", "p", pandas.Series(["a", None]), 1),
    ("found", "p", numpy.array([1.5]), 0),
    ("no text", "p", [[{"role": "user", "content": 3}]], 0),
    ("levels", "p", _nested(), 0),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_what_is_no_text_is_a_typed_error(judge: kudos.RewardModel, case: int) -> None:
    words, prompts, responses, row = BAD[case]
    with pytest.raises(kudos.DataError) as caught:
        judge.score(prompts, responses)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, kudos.KudosError)
    assert caught.value.row == row and (words in str(caught.value) or words == "no text")


def test_no_texts_are_no_scores(judge: kudos.RewardModel) -> None:
    assert judge.score("p", []).shape == (0,)
    assert judge.score([], []).shape == (0,)


def test_an_exception_of_the_caller_s_iterator_comes_back(judge: kudos.RewardModel) -> None:
    with pytest.raises(RuntimeError, match="half-way"):
        judge.score("p", _failing())
    assert judge.score("p", ["a"]).shape == (1,)


def test_frames_without_the_columns_or_rows(judge: kudos.RewardModel) -> None:
    for frame in [pandas.DataFrame({"x": ["a"]}), polars.DataFrame({"x": ["a"]}), [{"x": "a"}], {"x": ["a"]}]:
        with pytest.raises(kudos.DataError, match="expected"):
            judge.score(frame)
    with pytest.raises(kudos.DataError, match="at least one row"):
        judge.score(pandas.DataFrame({"prompt": [], "response": []}))
    with pytest.raises(kudos.DataError, match="one length"):
        judge.score({"prompt": ["a"], "response": []})
    with pytest.raises(kudos.DataError, match="dictionary"):
        judge.annotate([{"prompt": "p", "response": "r"}, "x"])
    with pytest.raises(kudos.DataError, match="expected"):
        judge.score(7)


def test_a_row_that_cannot_be_used_is_named(judge: kudos.RewardModel, caplog: pytest.LogCaptureFixture) -> None:
    frame = pandas.DataFrame({"prompt": ["p", None, "q"], "response": ["a", "b", "c"]})
    with pytest.raises(kudos.DataError) as caught:
        judge.score(frame)
    assert caught.value.row == 1
    with caplog.at_level("WARNING", logger="kudos"):
        annotated = judge.annotate(frame)
    assert list(numpy.isnan(annotated["score"])) == [False, True, False]
    assert "row 1 was not scored" in caplog.text
    assert polars.DataFrame(judge.annotate(polars.from_pandas(frame)))["score"].null_count() == 1
    with pytest.raises(kudos.DataError):
        judge.annotate(frame, strict=True)


def test_arrow_data_that_lie_are_refused(judge: kudos.RewardModel) -> None:
    array = pyarrow.array(["one", "two"])
    offsets = pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0")
    not_text = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, pyarrow.py_buffer(b"\xff\xfe")])
    offsets = pyarrow.py_buffer(b"\0\0\0\0\3\0\0\0\1\0\0\0")
    backwards = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, array.buffers()[2]])
    for lie in [not_text, backwards]:
        with pytest.raises(kudos.DataError, match="Arrow data that cannot be read"):
            judge.score("p", lie)
    table = pyarrow.table({"prompt": pyarrow.array(["p"]), "response": not_text})
    with pytest.raises(kudos.DataError):
        judge.score(table)


def test_a_stream_that_was_taken_is_refused(judge: kudos.RewardModel) -> None:
    capsules = pyarrow.array(["a"]).__arrow_c_array__()
    reader = pyarrow.chunked_array([["a"]]).__arrow_c_stream__()

    class Once:
        def __arrow_c_array__(self, requested_schema: object = None) -> object:
            return capsules

    class OnceStream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return reader

    class Wrong:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return "no capsule"

    sources: list[Any] = [Once(), OnceStream()]
    for source in sources:
        assert judge.score("p", source).shape == (1,)
        with pytest.raises(kudos.DataError):
            judge.score("p", source)
    with pytest.raises(kudos.DataError, match="capsule"):
        judge.score("p", Wrong())


def test_a_stream_that_fails_half_way_is_an_error(judge: kudos.RewardModel) -> None:
    schema = pyarrow.schema([("prompt", pyarrow.string()), ("response", pyarrow.string())])

    def batches() -> Iterator[Any]:
        yield pyarrow.RecordBatch.from_pylist([{"prompt": "p", "response": "r"}], schema)
        raise RuntimeError("the cable was cut")

    with pytest.raises(kudos.DataError, match="the cable was cut"):
        judge.score(pyarrow.RecordBatchReader.from_batches(schema, batches()))


def test_arrow_texts_are_given_back(judge: kudos.RewardModel) -> None:
    before = pyarrow.total_allocated_bytes()
    for _ in range(3):
        judge.score("p", pyarrow.array(["text " * 50] * 100))
    gc.collect()
    assert pyarrow.total_allocated_bytes() <= before
