"""Names of folders -> how a source is arranged.

    labels        SOURCE/{split}_label/  SOURCE/{split}_inst/ and SOURCE/{split}_feat/ (optional)
                  SOURCE/{split}_img/,
                  or gtFine/{split}/ (label and inst) leftImg8bit/{split}/ (Cityscapes),
                  or annotations/{split}/ (ADE20K) or stuffthingmaps/{split}/ (COCO) and
                  images/{split}/
    pairs         SOURCE/{split}_A/ SOURCE/{split}_B/, or A/{split}/ B/{split}/, or A/ B/
    unpaired      SOURCE/{split}A/ SOURCE/{split}B/, or as pairs
    side-by-side  SOURCE/{split}/, or SOURCE: each file holds A on the left and B on the right
    images        SOURCE/{split}/, or SOURCE
    classes       SOURCE/{split}/CLASS/, or SOURCE/CLASS/: one domain a class
    labelled      the same folders: one set, whose samples know their class

Below annotations/, stuffthingmaps/ and images/ a split may be called as ADE20K (training) or COCO
(train2017) call it. A source without folders of splits (A/ B/, SOURCE, SOURCE/CLASS/) is its own
split train. The first arrangement of a layout whose folders are there is taken.
"""

from __future__ import annotations

from pathlib import Path

from shards.records import OPTIONAL_MEMBERS, DataError
from shards.sets.domains import check_domain_name
from shards.source.source_files import image_files, sub_folders

Folders = dict[str, Path]
"""By member or, in layouts unpaired, classes and labelled, by domain or class."""

DOMAIN_LAYOUTS = frozenset({"unpaired", "classes"})
"""They give one set for each of several domains."""
AUTO_LAYOUTS = ("labels", "pairs", "unpaired")
"""Told by names of folders alone; in all others any folder will do."""
SOURCE_LAYOUTS = (*AUTO_LAYOUTS, "side-by-side", "images", "classes", "labelled")
_WHOLE_FOLDERS = {"side-by-side": "ab", "images": "image"}
"""Layout of one folder a split -> the member that its files are."""
_SPLITS = frozenset({"train", "val", "test"})
_SPLIT_NAMES = {
    "train": ("training", "train2017"),
    "val": ("validation", "val2017"),
    "test": ("testing", "test2017"),
}
"""What ADE20K and COCO call the splits."""


def choose_layout(source: Path, layout: str, split: str) -> str:
    """`layout`, or for "auto" the one whose folders are there.

    Raises DataError if it is unknown, or if the folders fit none or several."""
    if layout != "auto":
        if layout not in SOURCE_LAYOUTS:
            raise DataError(
                f"layout {layout!r} is unknown: choose auto, {', '.join(SOURCE_LAYOUTS)}."
            )
        return layout
    candidates = {name: arrangements(source, name, split) for name in AUTO_LAYOUTS}
    # The folders of pairs may hold unpaired pictures too; auto takes them for pairs.
    candidates["unpaired"] = candidates["unpaired"][:1]
    found = [name for name, choices in candidates.items() if any(map(_is_there, choices))]
    if len(found) > 1:
        raise DataError(
            f"{source} holds folders of several layouts: choose --layout={' or '.join(found)}."
        )
    if not found:
        tried = [folders for choices in candidates.values() for folders in choices]
        raise DataError(
            f"{source} {_looked_for(source, tried)}; for other folders choose "
            f"--layout=side-by-side, images, classes or labelled."
        )
    return found[0]


def arrangement(source: Path, layout: str, split: str) -> Folders:
    """The folders of a layout, "auto" excepted, that are there; DataError if some are not."""
    choices = arrangements(source, layout, split)
    for folders in choices:
        if _is_there(folders):
            return {name: folder for name, folder in folders.items() if folder.is_dir()}
    raise DataError(f"{source} {_looked_for(source, choices)}.")


def arrangements(source: Path, layout: str, split: str) -> list[Folders]:
    """Where a layout's folders may be, the first choice first."""
    if layout == "labels":
        return _label_folders(source, split)
    if layout == "pairs":
        return [{"a": a, "b": b} for a, b in _two_sides(source, split)]
    if layout == "unpaired":
        own = (source / f"{split}A", source / f"{split}B")
        return [{"A": a, "B": b} for a, b in (own, *_two_sides(source, split))]
    whole = source / split
    if not whole.is_dir() and split == "train" and _has_no_splits(source):
        whole = source
    if layout in _WHOLE_FOLDERS:
        return [{_WHOLE_FOLDERS[layout]: whole}]
    classes = _classes(whole)
    for name in classes if layout == "classes" else ():
        check_domain_name(name, f"{whole}/{name}")
    return [classes]


def _label_folders(source: Path, split: str) -> list[Folders]:
    ends = {"label": "label", "inst": "inst", "feat": "feat", "image": "img"}
    own = {member: f"{split}_{end}" for member, end in ends.items()}
    cityscapes = {"label": source / "gtFine" / split, "image": source / "leftImg8bit" / split}
    if _holds(source, cityscapes["label"], "_gtFine_instanceIds.png"):
        cityscapes = {"label": cityscapes["label"], "inst": cityscapes["label"], **cityscapes}
    photos = _split_folder(source / "images", split)
    return [
        {member: source / name for member, name in own.items()},
        cityscapes,
        *(
            {"label": _split_folder(source / maps, split), "image": photos}
            for maps in ("annotations", "stuffthingmaps")
        ),
    ]


def _holds(source: Path, folder: Path, ending: str) -> bool:
    """Whether some file below `folder` is called so; DataError if a part cannot be looked into."""
    return folder.is_dir() and any(p.name.endswith(ending) for p in image_files(source, folder))


def _split_folder(folder: Path, split: str) -> Path:
    """The folder of a split by any of its names; by its own where there is none."""
    names = (split, *_SPLIT_NAMES.get(split, ()))
    return next((folder / name for name in names if (folder / name).is_dir()), folder / split)


def _two_sides(source: Path, split: str) -> list[tuple[Path, Path]]:
    sides = [(f"{split}_A", f"{split}_B"), (f"A/{split}", f"B/{split}")]
    if split == "train" and _has_no_splits(source / "A"):
        sides.append(("A", "B"))
    return [(source / a, source / b) for a, b in sides]


def _has_no_splits(folder: Path) -> bool:
    return not any((folder / split).is_dir() for split in _SPLITS)


def _classes(folder: Path) -> Folders:
    names = sub_folders(folder) if folder.is_dir() else []
    loose = next(image_files(folder, folder, recursive=False), None) if names else None
    if loose is not None:
        raise DataError(f"{loose} lies beside the folders of the classes: move it into one.")
    # Where there are none, the folder that messages say is missing.
    return {name: folder / name for name in names or ["CLASS"]}


def _is_there(folders: Folders) -> bool:
    return all(name in OPTIONAL_MEMBERS or folder.is_dir() for name, folder in folders.items())


def _looked_for(source: Path, choices: list[Folders]) -> str:
    texts = [
        " + ".join(
            f"{folder.relative_to(source)}/"
            for name, folder in folders.items()
            if name not in OPTIONAL_MEMBERS
        )
        for folders in choices
    ]
    return (
        f"does not hold the folders looked for ({', or '.join(dict.fromkeys(texts))}); "
        f"it holds {listed_folders(source)}"
    )


def listed_folders(source: Path) -> str:
    """The first folders of a source, for messages."""
    return ", ".join(sub_folders(source)[:8]) or "no folders"
