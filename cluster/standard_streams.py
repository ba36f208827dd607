"""Standard output and error as the rest may rely on them: there, able to say any name, and showing
what names and words of others hold, instead of doing it."""

from __future__ import annotations

import os
import re
import sys
from io import TextIOWrapper
from typing import IO

_PERHAPS_HIDDEN = re.compile(r"[^ -~]")


def prepare() -> None:
    """Before anything is opened: a file in the place of a closed stream would get its words."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or open(number, "w")
        assert isinstance(stream, TextIOWrapper)  # Python's own
        stream.flush()
        setattr(sys, name, Visible(stream))


class Visible(TextIOWrapper):
    """A stream of text that shows control characters escaped, but for the ends of lines and tabs.

    Names of files, keys of foreign tars, words of other processes and logs may hold codes that move
    the cursor, colour or overwrite what stands there, or turn the direction of reading; they may
    also be beyond the terminal's alphabet, or no text at all."""

    def __init__(self, stream: TextIOWrapper):
        """Beside `stream`, one of Python's own, which writes to the same."""
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self.beside = stream  # whose end would close what both write to

    def write(self, text: str) -> int:
        return super().write(visible(text, but="\n\t"))


def visible(text: str, but: str = "") -> str:
    """`text` with what cannot be printed escaped, but for the characters in `but`."""
    return _PERHAPS_HIDDEN.sub(
        lambda found: found[0] if found[0] in but else _shown(found[0]), text
    )


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def for_bars() -> IO[str]:
    """Standard error for progress bars, whose codes move the cursor of a terminal."""
    if not isinstance(sys.stderr, Visible):
        return sys.stderr
    return open(sys.stderr.fileno(), "w", encoding=sys.stderr.encoding, closefd=False)
