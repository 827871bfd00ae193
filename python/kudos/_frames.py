"""Columns of scores, as an array and beside the columns of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import _data
from .errors import DataError, KudosError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Scores = numpy.typing.NDArray[numpy.float32]

Kind = Literal["f4", "i8", "?", "O"]
_Frame = TypeVar("_Frame")


def _library(frame: object) -> str:
    return type(frame).__module__.split(".")[0]


def check_kind(frame: object) -> None:
    """Refuses what columns cannot be put beside, before anything is computed."""
    known = ("pandas", "polars", "pyarrow", "datasets")
    plain = isinstance(frame, (list, tuple, Mapping))
    if not plain and not (_library(frame) in known and (hasattr(frame, "columns") or hasattr(frame, "column_names"))):
        raise DataError(
            "annotate: expected a frame of pandas, polars, pyarrow or datasets, a list of dictionaries, or a dictionary "
            f"of lists, found a value of type {type(frame).__name__}"
        )


class Columns:
    """What scoring adds to a frame, and the rows that have no score."""

    def __init__(self, made: Sequence[tuple[str, str, Kind, Any]], missing: list[int]) -> None:
        self.made = made
        self.missing = missing

    def _array(self, own: str) -> Any:
        import numpy

        for name, _, kind, values in self.made:
            if name == own:
                return values if kind == "O" else numpy.frombuffer(values, kind)
        return None

    def scores(self) -> Scores | list[Scores]:
        """The scores alone, as arrays."""
        import numpy

        for pair in (("score_chosen", "score_rejected"), ("score_a", "score_b")):
            first, second = map(self._array, pair)
            if first is not None and second is not None:
                both: Scores = numpy.stack([first, second], axis=1)
                return both
        groups = self._array("scores")
        if groups is not None:
            return [numpy.asarray(scores, numpy.float32) for scores in groups]
        single = self._array("score")
        if single is None:
            raise KudosError("expected rows of one kind, found a frame that mixes them; score each kind by itself")
        scores: Scores = single
        return scores

    def beside(self, frame: Any) -> Any:
        """The frame with the columns."""
        if isinstance(frame, (list, tuple, Mapping)):
            return self._beside_plain(frame)
        library = _library(frame)
        if library == "pandas":
            return frame.assign(**{name: self._plain(kind, values) for _, name, kind, values in self.made})
        if library == "polars":
            return self._beside_polars(frame)
        if library == "pyarrow":
            return self._beside_pyarrow(frame)
        if library == "datasets":
            for _, name, kind, values in self.made:
                frame = frame.add_column(name, self._with_nulls(kind, values))
            return frame
        raise KudosError(f"expected a known frame, found a value of type {type(frame).__name__}")

    def _beside_plain(self, frame: Any) -> Any:
        columns = {name: self._list(kind, values) for _, name, kind, values in self.made}
        if isinstance(frame, Mapping):
            return {**frame, **columns}
        rows = zip(*columns.values())
        return [{**row, **dict(zip(columns, values))} for row, values in zip(frame, rows)]

    def _plain(self, kind: Kind, values: Any) -> Any:
        """An array; missing scores are NaN."""
        import numpy

        return values if kind == "O" else numpy.frombuffer(values, kind)

    def _list(self, kind: Kind, values: Any) -> list[Any]:
        """A list; missing values are None."""
        plain = list(values) if kind == "O" else self._plain(kind, values).tolist()
        for row in self.missing:
            plain[row] = None
        return plain

    def _with_nulls(self, kind: Kind, values: Any) -> Any:
        """An array, or a list where values are missing."""
        return self._list(kind, values) if self.missing or kind == "O" else self._plain(kind, values)

    def _beside_polars(self, frame: Any) -> Any:
        import polars

        kinds: dict[str, Any] = {"f4": polars.Float32, "i8": polars.Int64, "?": polars.Boolean}
        kinds["O"] = polars.List(polars.Float32)
        return frame.with_columns(
            polars.Series(name, self._with_nulls(kind, values), kinds[kind]) for _, name, kind, values in self.made
        )

    def _beside_pyarrow(self, frame: Any) -> Any:
        import pyarrow

        kinds: dict[str, Any] = {"f4": pyarrow.float32(), "i8": pyarrow.int64(), "?": pyarrow.bool_()}
        for _, name, kind, values in self.made:
            type_ = kinds.get(kind) or pyarrow.list_(pyarrow.float32())
            frame = frame.append_column(name, pyarrow.array(self._with_nulls(kind, values), type_))
        return frame
