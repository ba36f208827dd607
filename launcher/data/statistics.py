"""`stats`: what a set holds, what of it may hurt training, and a picture of some samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from launcher.data.packing import conversion_lines
from launcher.recipe.config import ConfigError
from launcher.text.tables import table
from shards.pixels.made_pictures import check_replaceable, save
from shards.records import size_text
from shards.sets.annotations import NAMED
from shards.sets.shard_set import ShardSet, open_all

RARE = 1e-4
"""Share of all pixels below which a network hardly meets a label."""
MANY_SIZES = 3
"""Image sizes that are listed; more are counted."""
MAX_ID = 255
"""Of 8-bit label maps; by custom, pixels that were not labelled."""


def stats(location: str, out: Path | None) -> None:
    """Print a table for each set at `location`, and write the contact sheet of all to `out`, a PNG
    file or a folder; None: beside the set."""
    picture = picture_of(location, out)
    check_replaceable([picture])
    sets = open_all(location)
    for name, shard_set in sets.items():
        attention = [("attention", sentence) for sentence in concerns(shard_set)]
        print(table([name, ""], [*facts(shard_set), *attention]))
        if shard_set.label_ids:
            print(table(["label id", "pixels", "first in"], label_rows(shard_set)))
        for member, names in shard_set.manifest.annotations.items():
            rows = [(str(n), name, str(names[name])) for n, name in enumerate(names)]
            print(table(["", NAMED[member], "samples"], rows))
        print()
    from launcher.data.contact_sheet import contact_sheet

    save(contact_sheet(list(sets.values())), picture)
    print(f"Samples: {picture}")


def picture_of(location: str, out: Path | None) -> Path:
    """Where the contact sheet goes."""
    if out is None and "://" in location:
        raise ConfigError(f"stats: {location} is a URL: choose a place with --out=FILE.png.")
    place = Path(location).resolve()
    out = out or place.parent
    if out.is_dir():
        return out / f"{place.name}-samples.png"
    if out.suffix != ".png":
        raise ConfigError(f"stats: --out={out} is no folder, so it must end in .png.")
    return out


def facts(shard_set: ShardSet) -> list[tuple[str, str]]:
    """What there is, and how much of it."""
    manifest = shard_set.manifest
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    commonest = ", ".join(
        f"{size_text((width, height))} ({count})"
        for width, height, count in manifest.sizes[:MANY_SIZES]
    )
    return [
        ("layout", manifest.layout),
        ("samples", str(manifest.num_samples)),
        ("shards", str(len(manifest.shards))),
        ("size", bytes_text(num_bytes)),
        *((member, member_text(shard_set, member)) for member in manifest.members),
        ("commonest sizes", commonest),
        ("least sides", size_text(manifest.min_size)),
        ("greatest sides", size_text(manifest.max_size)),
        *(("converted", line) for line in conversion_lines(shard_set)),
    ]


def member_text(shard_set: ShardSet, member: str) -> str:
    """Formats of a member's files, and their mean size."""
    column = shard_set.index[member]
    formats = Counter(suffix.rpartition(".")[2] for suffix in column.suffixes)
    listed = ", ".join(f"{count} {name}" for name, count in formats.most_common())
    return f"{listed}; {bytes_text(column.sizes.mean())} each"


def label_rows(shard_set: ShardSet) -> list[tuple[str, str, str]]:
    """Each label id present with its share of all pixels and the first key that has it."""
    return [
        (str(label_id), f"{100 * share:.3g} %", shard_set.label_ids[label_id].first_key)
        for label_id, share in label_shares(shard_set).items()
    ]


def label_shares(shard_set: ShardSet) -> dict[int, float]:
    total = sum(use.num_pixels for use in shard_set.label_ids.values())
    return {i: use.num_pixels / total for i, use in sorted(shard_set.label_ids.items())}


def concerns(shard_set: ShardSet) -> list[str]:
    """Sentences about what may hurt training."""
    found = [*label_concerns(label_shares(shard_set))]
    if len(shard_set.sizes) > 1:
        found.append(
            f"{len(shard_set.sizes)} sizes: micro-batches of 2 and more need a "
            f"data.preprocess.mode that crops"
        )
    for member, kinds in shard_set.manifest.conversions.items():
        num_grey = sum(count for kind, count in kinds.items() if "grey" in kind)
        if num_grey:
            found.append(
                f"{num_grey} of {shard_set.num_samples} pictures ({member}) are grey: a network "
                f"learns to paint grey from them"
            )
    return found


def label_concerns(shares: dict[int, float]) -> list[str]:
    """What is wrong with label ids of these shares of pixels."""
    found = []
    ids = [label_id for label_id in shares if label_id != MAX_ID]
    absent = sorted(set(range(max(ids, default=0))) - set(ids))
    rare = [label_id for label_id, share in shares.items() if share < RARE]
    if absent:
        found.append(f"label ids {listed(absent)} are nowhere, though higher ones are: renumber?")
    if rare:
        found.append(f"label ids {listed(rare)} have less than {RARE:.2%} of the pixels each")
    if MAX_ID in shares:
        found.append(
            f"label id {MAX_ID} is there: if it means unlabelled, give it the next free id, for "
            f"num_labels counts up to it"
        )
    return found


def listed(ids: list[int]) -> str:
    """The first few of them."""
    rest = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return ", ".join(map(str, ids[:8])) + rest


def bytes_text(size: float) -> str:
    """A number of bytes as users read it."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
