"""What counts as data: files, frames of any library, rows and columns of plain Python; and as texts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

from . import _kudos
from .errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Protocol

    class ArrowStream(Protocol):
        """Anything with Arrow's stream interface: a frame of pyarrow, polars or pandas."""

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

    class ArrowArray(Protocol):
        """Anything with Arrow's array interface: a column of pyarrow, a record batch."""

        def __arrow_c_array__(self, requested_schema: object | None = None) -> object: ...


#: The messages of a conversation: `{"role": "user", "content": "…"}`.
Messages: TypeAlias = Sequence[Mapping[str, Any]]
#: A text: a string, or the messages of a conversation.
Text: TypeAlias = Union[str, Messages]
#: Many texts: an iterable, or a column of Arrow data.
Texts: TypeAlias = Union[Iterable[Text], "ArrowStream", "ArrowArray"]
#: The name of a file.
FilePath: TypeAlias = Union[str, "os.PathLike[str]"]
#: Many rows: a frame of pandas, polars, pyarrow or datasets, a list of dictionaries, a dictionary of lists.
Frame: TypeAlias = Union["ArrowStream", "ArrowArray", Iterable[Mapping[str, Any]], Mapping[str, Sequence[Any]]]
#: Files, or a frame.
Data: TypeAlias = Union[FilePath, Sequence[FilePath], Frame]


def is_path(value: object) -> TypeGuard[FilePath]:
    """True for the name of a file."""
    return isinstance(value, (str, os.PathLike))


def is_messages(value: object) -> TypeGuard[Messages]:
    """True for a list of messages, and for a lone message."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping)


def is_text(value: object) -> TypeGuard[Text]:
    """True for one text, which is not many."""
    return isinstance(value, str) or is_messages(value)


def is_frame(value: object) -> bool:
    """True for rows with named columns."""
    if isinstance(value, Mapping):
        return True
    if hasattr(value, "columns") or hasattr(value, "column_names"):
        return True
    if hasattr(value, "__arrow_c_stream__"):
        return True
    return is_messages(value)


def length_of(value: object) -> int | None:
    """How many there are, where that is known."""
    try:
        return len(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def rows_in(frame: object) -> int | None:
    """How many rows a frame has, where that is known."""
    if isinstance(frame, Mapping):
        return max((length_of(column) or 0 for column in frame.values()), default=0)
    rows = getattr(frame, "num_rows", None)
    return rows if isinstance(rows, int) else length_of(frame)


def source(frame: object) -> object:
    """The frame as the native module takes it: with an Arrow interface, or as lines of JSON."""
    if _is_dataset(frame):
        return _of_dataset(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        return _exportable(frame)
    return json_lines(rows_of(frame))


def rows_of(frame: object) -> Iterator[Mapping[str, Any]]:
    """The rows of plain Python data."""
    if isinstance(frame, Mapping):
        columns = {str(name): list(values) for name, values in frame.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"expected columns of one length, found {lengths}")
        return iter([dict(zip(columns, row)) for row in zip(*columns.values())])
    if isinstance(frame, Iterable) and not isinstance(frame, (str, bytes)):
        return _checked_rows(frame)
    raise DataError(f"expected files, a frame, or rows as dictionaries, found a value of type {type(frame).__name__}")


def _checked_rows(rows: Iterable[object]) -> Iterator[Mapping[str, Any]]:
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            found = type(row).__name__
            raise DataError(f"row {place}: expected a dictionary with named columns, found {found}", row=place)
        yield row


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON, one a line."""
    return b"".join(_line(place, row) for place, row in enumerate(rows))


def _line(place: int, row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(dict(row), ensure_ascii=False, default=_plain).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DataError(f"row {place}: expected text, found half of a surrogate pair: {error}", row=place) from None
    except (TypeError, ValueError) as error:
        raise DataError(f"row {place}: expected plain values: {error}", row=place) from None


def _plain(value: Any) -> object:
    """The plain value of numpy's numbers and arrays, and of other mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        plain: dict[object, object] = dict(value)
        return plain
    raise TypeError(f"a value of type {type(value).__name__}")


def _is_dataset(frame: object) -> bool:
    return type(frame).__module__.split(".")[0] == "datasets" and hasattr(frame, "with_format")


def _of_dataset(frame: Any) -> object:
    """The rows in the order that the data set has them, whatever was shuffled or selected, a thousand at a time."""
    import pyarrow  # datasets needs it

    tables = frame.with_format("arrow").iter(batch_size=1000)
    first = next(iter(tables), None)
    if first is None:
        raise DataError("expected at least one row, found an empty data set")

    def batches() -> Iterator[Any]:
        yield from first.to_batches()
        for table in tables:
            yield from table.to_batches()

    return pyarrow.RecordBatchReader.from_batches(first.schema, batches())


def _exportable(frame: Any) -> object:
    """The frame itself. pandas needs pyarrow to export; without it, its rows are taken one by one."""
    if type(frame).__module__.split(".")[0] != "pandas":
        return frame
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return json_lines(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    # Without its index, which may be anything.
    return frame.reset_index(drop=True)


def column_names(frame: object) -> list[str]:
    """The names of all columns of a frame."""
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    for attribute in ("column_names", "columns"):
        names = getattr(frame, attribute, None)
        if isinstance(names, Iterable) and not isinstance(names, (str, bytes)):
            return [str(name) for name in names]
    schema = getattr(frame, "schema", None)
    if schema is not None and hasattr(schema, "names"):
        return [str(name) for name in schema.names]
    if isinstance(frame, (list, tuple)):
        found = {str(name): None for row in frame if isinstance(row, Mapping) for name in row}
        return list(found)
    return []


@contextmanager
def files(data: object) -> Iterator[tuple[list[str], str]]:
    """The files of `data`, and the folder of those that were written for it, which go at the end."""
    with tempfile.TemporaryDirectory(prefix="kudos-") as folder:
        yield _files(data, Path(folder)), folder


def _files(data: object, folder: Path) -> list[str]:
    if is_path(data):
        return [os.fspath(data)]
    if isinstance(data, (list, tuple)) and data and all(map(is_path, data)):
        return [os.fspath(path) for path in data]
    if isinstance(data, (list, tuple)) and not data:
        raise DataError("expected files or rows, found an empty list")
    found = source(data) if is_frame(data) else json_lines(rows_of(data))
    if isinstance(found, bytes):
        path = folder / "frame.jsonl"
        path.write_bytes(found)
    else:
        path = folder / "frame.arrow"
        _kudos.write_arrow(found, path)
    return [str(path)]
