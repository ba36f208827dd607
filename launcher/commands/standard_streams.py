"""Standard output and error as the rest may rely on them: there, and able to say any name."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def prepare() -> None:
    """Before anything is opened: a file in the place of a closed stream would get its words."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w")
    sys.stderr = sys.stderr or open(2, "w")
    # Names of files may be beyond the terminal's alphabet, or no text at all.
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)  # Python's own
        stream.reconfigure(errors="backslashreplace")
