"""Many short texts in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """What a tuple of str gives, in 8 bytes a text beside its own: there may be millions, and every
    worker has a copy."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode() for text in texts]
        self._ends = np.cumsum([0, *map(len, encoded)])
        self._data = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> Texts: ...

    def __getitem__(self, number: int | slice) -> str | Texts:
        if isinstance(number, slice):
            return Texts(self[i] for i in range(*number.indices(len(self))))
        number = range(len(self))[number]  # IndexError beyond the end, which ends iterations
        return self._data[self._ends[number] : self._ends[number + 1]].decode()
