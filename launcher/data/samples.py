"""`pack earth` and `pack digits`: pictures of a sample, and the sets that are packed of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from launcher.data.packing import pack_folder
from launcher.recipe.config import ConfigError
from launcher.text.progress_bar import progress_bar
from shards.pixels.storing import Storing

Progress = Callable[[int, int], None]
Sets = dict[str, tuple[str, str, str, int]]
"""Folder of a set -> folder of its source below the pictures, layout, split, number of labels."""


def pack_sample(
    name: str,
    out: Path,
    layout: str,
    split: str,
    num_labels: int,
    shard_mib: int,
    workers: int,
    storing: Storing,
    replace: bool,
    leave_out_bad: bool,
) -> None:
    """OUT/images: the pictures of a sample as a user would have them; beside it its sets."""
    asked = (layout, split, num_labels, storing, replace, leave_out_bad)
    if asked != ("auto", "train", 0, Storing(), False, False):
        raise ConfigError(
            f"pack {name} builds all its splits: leave out all options but --shard_mib and "
            f"--workers, or write ./{name} for a folder of that name."
        )
    images = out / "images"
    bar, move = progress_bar(f"drawing the {name}")
    with bar:
        sets = SAMPLES[name](images, move)
    for place, (source, own_layout, part, labels) in sets.items():
        pack_folder(images / source, out / place, own_layout, part, labels, shard_mib, workers)


def _earth(images: Path, progress: Progress) -> Sets:
    """train, test; tiles-* of pairs, tiles-unpaired the same as two domains; covers-* with
    classes."""
    from shards.samples import earth

    earth.build(images, progress)
    sets: Sets = {}
    for split in ("train", "test"):
        sets[split] = ("", "labels", split, earth.NUM_LABELS)
        sets[f"tiles-{split}"] = ("tiles", "pairs", split, 0)
        for side in earth.EARTH.covers:
            sets[f"covers-{side}-{split}"] = (f"covers-{side}", "labelled", split, 0)
    return sets | {"tiles-unpaired": ("tiles", "unpaired", "train", 0)}


def _digits(images: Path, progress: Progress) -> Sets:
    from shards.samples import digits

    digits.build(images, progress)
    return {split: ("", "labelled", split, 0) for split in ("train", "test")}


SAMPLES = {"earth": _earth, "digits": _digits}
"""What `pack` makes by itself: draws the pictures, and tells the sets."""
