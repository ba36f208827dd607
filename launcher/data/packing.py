"""`pack` and `verify`: the shards floor with a progress bar and a closing line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.recipe.arguments import integers, one_of
from launcher.recipe.config import ConfigError
from launcher.text.progress_bar import pace, progress_bar
from shards.pixels.census import FEW_LEVELS, SHALLOW
from shards.pixels.label_ids import read_remap, void_label
from shards.pixels.photos import FORMATS, Photos
from shards.pixels.storing import Storing
from shards.records import KINDS
from shards.sets.shard_set import ShardSet


def pack_folder(
    source: Path,
    out: Path,
    layout: str,
    split: str,
    num_labels: int,
    shard_mib: int,
    workers: int,
    storing: Storing = Storing(),
    replace: bool = False,
    leave_out_bad: bool = False,
) -> None:
    """Pack one split of a source folder or list and say which pictures were converted; 0 labels:
    any, 0 workers: one per core."""
    from shards.pack.packing import LEFT_OUT_FILE, pack

    bar, move = progress_bar(f"packing {split}")
    since = time.monotonic()
    with bar:
        sets = pack(
            source,
            out,
            layout=layout,
            split=split,
            num_labels=num_labels or None,
            shard_mib=shard_mib,
            storing=storing,
            replace=replace,
            leave_out_bad=leave_out_bad,
            workers=workers or None,
            progress=move,
        )
    for shard_set in sets:
        num_shards = len(shard_set.manifest.shards)
        print(f"{shard_set.store}: {shard_set.num_samples} samples in {num_shards} shards.")
        left_out = shard_set.manifest.left_out
        if left_out:
            print(f"{len(left_out)} samples left out: see {LEFT_OUT_FILE} there.")
        for line in conversion_lines(shard_set):
            print(line)
    print(f"{out}: {pace_of(sets, time.monotonic() - since)}.")


def pace_of(sets: Sequence[ShardSet], seconds: float) -> str:
    """How fast whole sets were handled."""
    shards = [shard for shard_set in sets for shard in shard_set.manifest.shards]
    num_bytes = sum(shard.num_bytes for shard in shards)
    return pace(sum(shard.num_samples for shard in shards), num_bytes, seconds)


def photos_of(name: str, quality: str) -> Photos | None:
    """The options --photos and --quality ("": 95)."""
    one_of("pack", "photos", name, ("keep", *FORMATS))
    if name == "keep":
        if quality:
            raise ConfigError(f"pack: --quality={quality} needs --photos=jpeg or webp.")
        return None
    return Photos(name, **integers("pack", quality=quality or "95"))


def storing_of(
    photos: Photos | None, background: str, num_labels: str, ignore_label: str, remap: str
) -> Storing:
    """What the options of `pack` have stored anew."""
    void = void_label(ignore_label, int(num_labels) if num_labels.isdecimal() else None)
    return Storing(photos, background, read_remap(Path(remap)) if remap else None, void)


def conversion_lines(shard_set: ShardSet) -> Iterator[str]:
    """What reading makes of pictures that are not 8-bit RGB, by member or for the domain, and what
    was stored anew."""
    for member, kinds in shard_set.manifest.conversions.items():
        name = Path(str(shard_set.store)).name if shard_set.layout == "images" else member
        (kind, count), *others = kinds.items()
        more = "".join(f", {other_count} are {other}" for other, other_count in others)
        colours = "RGBA" if shard_set.manifest.channels else "RGB"
        read = "upright" if KINDS[member] != "rgb" else f"as upright 8-bit {colours}"
        yield (
            f"{name}: {count} of {shard_set.num_samples} pictures are {kind}{more}; they are read "
            f"{read}."
        )
    for member, notes in shard_set.manifest.notes.items():
        yield from (f"{member}: {count} {words}." for words, count in notes.items())
        deep = sum(
            count
            for kind, count in shard_set.manifest.conversions.get(member, {}).items()
            if kind.startswith("16-bit")
        )
        if notes.get(SHALLOW) == deep:  # no single dark picture
            yield (
                f"ATTENTION: all 16-bit pictures of {member} use the lower part of their range "
                f"alone, and 8 bits keep the upper half of 16: fewer than {FEW_LEVELS} grey levels "
                "are left of them. Scale them to the full range (0 to 65535) and pack them again."
            )


def verify(shards: str) -> int:
    """Print what was read and every problem; the exit status."""
    from shards.sets.verify import verify as verify_shards

    bar, move = progress_bar("verifying")
    since = time.monotonic()
    with bar:
        summary = verify_shards(shards, progress=move)
    for problem in summary.problems:
        print(problem)
    verdict = f"{len(summary.problems)} problems" if summary.problems else "all is well"
    gib = summary.num_bytes / 2**30
    print(
        f"{shards}: {summary.num_samples} samples in {summary.num_shards} shards, "
        f"{gib:.2f} GiB: {verdict}."
    )
    seconds = time.monotonic() - since
    print(f"{shards}: {pace(summary.num_samples, summary.num_bytes, seconds)}.")
    return 1 if summary.problems else 0
