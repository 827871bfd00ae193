"""What can go wrong. Each message is one sentence: where, what was expected, what was found, what to do."""

from __future__ import annotations

import re

__all__ = ["DataError", "JudgeError", "KudosError"]


class KudosError(Exception):
    """Anything that Kudos refuses or cannot do."""

    #: The row at fault, where there is one: its place from 0 in lists and frames, its line from 1 in files.
    row: int | None
    #: The tensor at fault, where there is one.
    tensor: str | None

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        found = re.search(r"tensor `([^`]+)`", message)
        self.tensor = found.group(1) if found else None

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, {"row": self.row, "tensor": self.tensor})


class DataError(KudosError, ValueError):
    """The data are at fault: a row, a column, a file, or texts that do not fit together."""


class JudgeError(KudosError):
    """The judge is at fault: it is missing, damaged, of another kind, or gives no number."""
