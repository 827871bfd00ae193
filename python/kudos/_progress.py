"""What a person sees of a long call: a bar in a terminal or a notebook, or what the caller's function makes of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

#: Hears how many texts, rows or steps are done, and of how many, where that is known.
Progress = Callable[[int, "int | None"], object]

#: Calls that are over sooner show no bar.
_SECONDS = 1.0
_WIDTH = 30


def listener(progress: bool | Progress | None, what: str) -> tuple[Progress | None, Callable[[], None]]:
    """The function that hears of progress, and one to call at the end.

    `None` shows a bar where someone can see it, `True` in any case, `False` never.
    """
    if callable(progress):
        return progress, _nothing
    if progress is False or (progress is None and not _is_seen()):
        return None, _nothing
    bar = Bar(what)
    return bar.show, bar.finish


def _nothing() -> None:
    pass


def _is_seen() -> bool:
    stream = sys.stderr
    in_notebook = "ipykernel" in sys.modules
    return in_notebook or bool(stream and stream.isatty())


class Bar:
    """A bar on standard error."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = time.monotonic()
        self.shown = 0.0
        self.width = 0

    def show(self, done: int, total: int | None, message: str = "") -> None:
        """Draws it anew, a few times a second."""
        now = time.monotonic()
        if now - self.started < _SECONDS or now - self.shown < 0.1:
            return
        self.shown = now
        rate = done / (now - self.started)
        if total:
            filled = min(_WIDTH, _WIDTH * done // total)
            left = (total - done) / rate if rate else 0.0
            line = f"{'█' * filled}{'░' * (_WIDTH - filled)} {done}/{total} {self.what}, {left:.0f} s left  {message}"
        else:
            line = f"{done} {self.what}, {rate:.0f}/s  {message}"
        self._write(line)

    def finish(self) -> None:
        """Takes it away."""
        if self.width:
            self._write("")
            self._write("")

    def _write(self, line: str) -> None:
        padding = " " * (self.width - len(line))
        sys.stderr.write(f"\r{line}{padding}" + ("" if line else "\r"))
        sys.stderr.flush()
        self.width = len(line)
