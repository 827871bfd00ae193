"""The command `kudos`: the native code has all of it."""

from __future__ import annotations

import sys

from . import _kudos


def main() -> int:
    """Runs the command line that was typed, and gives its exit status."""
    return _kudos.main(["kudos", *sys.argv[1:]])
