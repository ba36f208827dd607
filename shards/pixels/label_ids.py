"""Label ids with other numbers: those of a list, and one for what nobody labelled."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.records import DataError
from shards.text_files import open_text

VOID = 255
"""What COCO, ADE20K and others write where no label is meant."""


@dataclass(frozen=True)
class VoidLabel:
    """The id of unlabelled pixels, which becomes the last of `num_labels`: a channel of its own,
    that the networks learn to paint like any other."""

    label_id: int
    num_labels: int

    @property
    def becomes(self) -> int:
        return self.num_labels - 1

    @property
    def note(self) -> str:
        return f"label maps whose id {self.label_id} (no label) is stored as {self.becomes}"

    @property
    def own_note(self) -> str:
        return f"label maps that use id {self.becomes} themselves"

    def applied(self, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """uint8 [H, W] with the void id renumbered, and notes of what was met."""
        notes = [self.own_note] if (ids == self.becomes).any() else []
        if not (ids == self.label_id).any():
            return ids, notes
        return np.where(ids == self.label_id, np.uint8(self.becomes), ids), [*notes, self.note]

    def check(self, notes: Collection[str], where: object) -> None:
        """DataError where what nobody labelled would be mixed with a label."""
        if self.note in notes and self.own_note in notes:
            raise DataError(
                f"{where}: label maps use id {self.becomes}, and {self.label_id} for no label, "
                f"which is to become the last of num_labels={self.num_labels}: give num_labels one "
                f"more, or --ignore_label=none to refuse {self.label_id}."
            )


def void_label(text: str, num_labels: int | None) -> VoidLabel | None:
    """--ignore_label: "" for 255 where num_labels leaves it no place, an id, or none.

    Raises DataError for an id that cannot be meant."""
    if text == "none" or (not text and (num_labels is None or num_labels > VOID)):
        return None
    if num_labels is None:
        raise DataError(f"ignore_label={text} needs num_labels, whose last id it becomes.")
    label_id = VOID if not text else int(text) if text.isdecimal() else -1
    if not 0 <= label_id <= VOID:
        raise DataError(f"ignore_label={text}: give an id from 0 to {VOID}, or none.")
    return None if label_id == num_labels - 1 else VoidLabel(label_id, num_labels)


@dataclass(frozen=True)
class Remap:
    """Old id -> new id, as sorted pairs; any other id is refused."""

    pairs: tuple[tuple[int, int], ...]
    file: str = ""
    """Where they were read, for messages."""

    def applied(self, ids: np.ndarray, where: str) -> np.ndarray:
        """uint8 [H, W] -> the same with the new ids; DataError for an id that is not listed."""
        table = np.full(256, -1, np.int16)
        for old, new in self.pairs:
            table[old] = new
        found = table[ids]
        if (found < 0).any():
            missing = int(ids[found < 0].min())
            raise DataError(
                f"{where} has label id {missing}, which {self.file} does not list: add it."
            )
        return found.astype(np.uint8)

    def to_json(self) -> dict[str, int]:
        return {str(old): new for old, new in self.pairs}


def read_remap(file: Path) -> Remap:
    """A JSON object {"old": new}, or a CSV of two columns, old and new, with or without a header.

    Raises DataError, naming the file, for whatever is wrong."""
    try:
        with open_text(file) as lines:
            text = lines.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"remap={file} cannot be read: {error}.") from error
    try:
        rows = _json_rows(text) if file.suffix.lower() == ".json" else _csv_rows(text)
        pairs = [(_id(old), _id(new)) for old, new in rows]
    except ValueError as error:
        raise DataError(
            f'remap={file} must list old and new ids from 0 to 255, as JSON {{"7": 0}} or as CSV '
            f"lines `7,0`: {error}."
        ) from error
    if not pairs or len({old for old, _ in pairs}) < len(pairs):
        raise DataError(f"remap={file} lists no id, or one twice: give each old id one line.")
    return Remap(tuple(sorted(pairs)), str(file))


def _json_rows(text: str) -> list[tuple[Any, Any]]:
    content = json.loads(text, object_pairs_hook=list)
    if not isinstance(content, list) or not all(isinstance(pair, tuple) for pair in content):
        raise ValueError("it is no JSON object")
    return content


def _csv_rows(text: str) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and not any(cell.strip().isdecimal() for cell in rows[0]):
        rows = rows[1:]  # the header
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"{','.join(row)!r} has {len(row)} cells")
    return [(old.strip(), new.strip()) for old, new in rows]


def _id(value: object) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) > VOID:
        raise ValueError(f"{value!r} is no id")
    return int(str(value))
