from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, final

__all__ = [
    "BOXED_JUDGE",
    "Job",
    "Judge",
    "__version__",
    "call",
    "default_threads",
    "fault_for_tests",
    "file_hashes",
    "flags",
    "forked",
    "main",
    "write_arrow",
]

__version__: str
BOXED_JUDGE: str

@final
class Judge:
    @staticmethod
    def load(
        name: str, precision: str | None, literal: bool, threads: int, say: Callable[[str], object]
    ) -> Judge: ...
    def reborn(self) -> Judge: ...
    @property
    def dir(self) -> Path: ...
    @property
    def threads(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def attributes(self) -> list[str]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_length(self) -> int: ...
    def score(
        self,
        prompts: object,
        responses: object,
        *,
        single: bool,
        is_main: bool,
        progress: Callable[[int, int | None], object] | None,
        total: int | None,
    ) -> bytearray: ...
    def columns(
        self,
        source: object,
        *,
        taken: Sequence[str],
        prefix: str | None,
        strict: bool,
        options: Mapping[str, Any],
        is_main: bool,
        progress: Callable[[int, int | None], object] | None,
        rows: int | None,
    ) -> tuple[
        list[tuple[str, str, Literal["f4", "i8", "?", "O"], Any]],
        list[int],
        list[tuple[int, str]],
        list[str],
    ]: ...

@final
class Job:
    @staticmethod
    def begin(
        words: Sequence[str | PathLike[str]],
        *,
        threads: int,
        joins: bool,
        say: Callable[[str], object],
        progress: Callable[[int, int | None], object] | None,
    ) -> Job: ...
    @property
    def rows(self) -> list[int]: ...
    def missing(self, say: Callable[[str], object]) -> list[int]: ...
    def score(
        self, unit: int, beside: bool, say: Callable[[str], object]
    ) -> Literal["now", "before", "elsewhere"]: ...

def call(
    words: Sequence[str | PathLike[str]],
    *,
    threads: int,
    say: Callable[[str], object],
    progress: Callable[[int, int | None, str, str], object] | None,
) -> str: ...
def main(words: Sequence[str]) -> int: ...
def flags(command: str) -> list[tuple[str, bool]]: ...
def write_arrow(source: object, path: str | PathLike[str]) -> int: ...
def file_hashes(dir: str | PathLike[str]) -> list[tuple[str, str]]: ...
def default_threads() -> int: ...
def forked() -> None: ...
def fault_for_tests() -> None: ...
