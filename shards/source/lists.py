"""A list of files -> records: a CSV table with a header (its columns parted by commas, semicolons
or tabs), or JSON objects line by line.

Its columns are the members of one layout (label, inst, feat, image | a, b | ab | image), paths
relative to the list's folder, beside image maybe `class` (a name) or `attributes` (names parted by
blanks, of JSON a list of names); optionally `key` and `split`. All lines have the same columns.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from shards.records import KINDS, LAYOUTS, DataError, Names, Record, Samples, fits, pictures
from shards.sets.annotations import attribute_bytes, class_bytes, normal_name, sorted_names
from shards.source.source_files import check_contained, check_regular, normal_key, path_key
from shards.text_files import open_text

_SUFFIXES = (".csv", ".jsonl")
_OTHER_COLUMNS = ("key", "split")
_ANNOTATIONS = {"class": "cls", "attributes": "attributes"}
"""Column -> the member that is made of it."""
_COLUMNS = (
    "label, inst and feat (optional) and image, or a and b, or ab, or image, or image and class, "
    "or image and attributes; optionally key, split"
)
Row = tuple[int, dict[str, Any]]
"""Number of a line, from 1, and its texts by column; a list of them for attributes."""


def is_list(source: Path) -> bool:
    """Whether a source is a list of files rather than a folder."""
    return source.suffix.lower() in _SUFFIXES and not source.is_dir()


def read_list(file: Path, layout: str, split: str) -> Samples:
    """The samples of one split of a list.

    layout: what it must be, or "auto". A list without the column `split` is its own split train;
    classes and attributes are numbered alike in all splits of a list.
    Raises DataError with file and line for whatever is wrong."""
    rows = list(_rows(file))
    if not rows:
        raise DataError(f"{file} lists no files: give each sample a line.")
    columns = rows[0][1].keys()
    found = _layout_of(columns, f"{file}, line {rows[0][0]}")
    if layout not in ("auto", found):
        raise DataError(
            f"{file} has the columns of layout {found}, not of {layout}: leave out --layout."
        )
    members = [member for member in pictures(LAYOUTS[found]) if member in columns]
    names = _names(rows, file)
    folder = file.parent.resolve()
    records: dict[str, Record] = {}
    lines: dict[str, int] = {}
    for line, row in _rows_of(file, rows, split):
        record = _record(folder, row, members, names, f"{file}, line {line}")
        if record.key in records:
            raise DataError(
                f"{file}, line {line}: the key {record.key!r} is that of line "
                f"{lines[record.key]} (extensions are dropped, dots become underscores): give the "
                f"lines different keys."
            )
        records[record.key], lines[record.key] = record, line
    return Samples(found, [records[key] for key in sorted(records)], names)


def _rows(file: Path) -> Iterator[Row]:
    """All lines, with texts in the columns of the first."""
    read = _csv_rows if file.suffix.lower() == ".csv" else _json_rows
    columns: set[str] = set()
    try:
        for line, row in read(file):
            columns = columns or set(row)
            if set(row) != columns:
                raise DataError(
                    f"{file}, line {line} has the columns {', '.join(row) or 'none'}, but the "
                    f"first line has {', '.join(sorted(columns))}: give all lines the same."
                )
            for name, cell in row.items():
                _check_cell(name, cell, f"{file}, line {line}")
            yield line, row
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text ({error.reason}): save it as that.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _check_cell(name: str, cell: Any, where: str) -> None:
    if name == "attributes" and not isinstance(cell, list):
        raise DataError(f"{where}: {cell!r} is no list: give the names of the attributes in [].")
    for text in cell if name == "attributes" else [cell]:
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise DataError(f"{where}: {text!r} is no {name}: give a text without line breaks.")


def _csv_rows(file: Path) -> Iterator[Row]:
    with open_text(file, newline="") as text:
        reader = csv.reader(text, strict=True, delimiter=delimiter(text))
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise DataError(f"{file}, line 1 names a column twice: rename or remove one.")
            for cells in filter(None, reader):
                if len(cells) != len(header):
                    raise DataError(
                        f"{file}, line {reader.line_num} has {len(cells)} cells, but the header "
                        f"has {len(header)}: give each column one (quote what holds a comma)."
                    )
                row: dict[str, Any] = dict(zip(header, cells, strict=True))
                if "attributes" in row:
                    row["attributes"] = row["attributes"].split()
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num} is broken: {error}.") from error


def delimiter(text: TextIO) -> str:
    """What parts the columns of the header: a comma, or what spreadsheets write in its place."""
    header = text.readline()
    text.seek(0)
    return next((sign for sign in (",", ";", "\t") if sign in header), ",")


def _json_rows(file: Path) -> Iterator[Row]:
    with open_text(file) as text:
        for line, content in enumerate(text, 1):
            if not content.strip():
                continue
            try:
                row = json.loads(content, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {line} is no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {line} is no JSON object: write {{...}}.")
            yield line, row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name is given twice")
    return dict(pairs)


def _layout_of(columns: Collection[str], where: str) -> str:
    """The layout whose members these columns are."""
    for column in columns:
        if column not in KINDS and column not in (*_ANNOTATIONS, *_OTHER_COLUMNS):
            raise DataError(f"{where}: the column {column!r} is unknown; columns are {_COLUMNS}.")
    given = {_ANNOTATIONS.get(column, column) for column in columns} - set(_OTHER_COLUMNS)
    for layout in LAYOUTS:
        if fits(given, layout):
            return layout
    raise DataError(
        f"{where}: the columns {', '.join(columns)} make no sample, some are missing or too many; "
        f"columns are {_COLUMNS}."
    )


def _rows_of(file: Path, rows: list[Row], split: str) -> list[Row]:
    if "split" not in rows[0][1]:
        if split != "train":
            raise DataError(
                f"{file} has no column split, so it is all train: add the column, or leave out "
                f"--split={split}."
            )
        return rows
    taken = [(line, row) for line, row in rows if row["split"] == split]
    if not taken:
        names = sorted({row["split"] for _, row in rows})
        raise DataError(f"{file} has no line of split {split}, but of {', '.join(names[:8])}.")
    return taken


def _names(rows: list[Row], file: Path) -> Names:
    """All classes, or attributes, of a list by what a sample has of them."""
    names = {}
    for column, member in _ANNOTATIONS.items():
        if column in rows[0][1]:
            own = {name for _, row in rows for name in _own_names(row, column)}
            names[member] = sorted_names(own, member, file)
    if names == {"attributes": ()}:
        raise DataError(f"{file} names no attribute in any line: fill the column, or remove it.")
    return names


def _own_names(row: dict[str, Any], column: str) -> list[str]:
    cell = row[column]
    return [normal_name(name) for name in (cell if isinstance(cell, list) else [cell])]


def _record(
    folder: Path, row: dict[str, Any], members: list[str], names: Names, where: str
) -> Record:
    files = {member: _listed_file(folder, row[member], where) for member in members}
    key = row.get("key") or path_key(files[members[0]], folder)
    if not all(key.split("/")):
        raise DataError(f"{where}: the key {key!r} has an empty part: give a relative name.")
    return Record(normal_key(key), files, _annotations(row, names))


def _annotations(row: dict[str, Any], names: Names) -> dict[str, bytes]:
    """What is packed of a line beside its files."""
    if "cls" in names:
        (name,) = _own_names(row, "class")
        return {"cls": class_bytes(name, names["cls"])}
    if "attributes" in names:
        own = _own_names(row, "attributes")
        return {"attributes": attribute_bytes(own, names["attributes"])}
    return {}


def _listed_file(folder: Path, name: str, where: str) -> Path:
    """The file that a line names, if it is a regular one below the list's folder."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{where}: {name!r} may lead out of the list's folder: give a path below it."
        )
    try:
        check_contained(folder, path)
        if not path.exists():
            raise DataError(f"there is no file {name!r} in {folder}: correct the line.")
        check_regular(path)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle
        raise DataError(f"{where}: {name!r} cannot be followed: {error}.") from error
    return path
