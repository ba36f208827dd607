"""`pack` and `verify`: the shards floor with a progress bar and a closing line."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.terminal import progress_bar

EARTH = "earth"


def pack(
    source: Path, out: Path, layout: str, split: str, num_labels: int, workers: int
) -> None:
    """Pack one split of a source folder; the word `earth` builds the sample data set."""
    if str(source) == EARTH:
        pack_earth(out, workers)
    else:
        pack_folder(source, out, layout, split, num_labels, workers)


def pack_folder(
    source: Path, out: Path, layout: str, split: str, num_labels: int, workers: int
) -> None:
    from shards.pack import pack

    bar, move = progress_bar(f"packing {split}")
    with bar:
        manifest = pack(
            source,
            out,
            layout=layout,
            split=split,
            num_labels=num_labels or None,
            workers=workers or os.cpu_count() or 1,
            progress=move,
        )
    print(f"{out}: {manifest.num_samples} samples in {len(manifest.shards)} shards.")


def pack_earth(out: Path, workers: int) -> None:
    """OUT/images: the pictures as a user would have them; OUT/train, test, tiles-*: shards."""
    from shards.samples import earth

    images = out / "images"
    bar, move = progress_bar("drawing the earth")
    with bar:
        earth.build(images, progress=move)
    for split in ("train", "test"):
        pack_folder(images, out / split, "labels", split, earth.NUM_LABELS, workers)
        pack_folder(images / "tiles", out / f"tiles-{split}", "pairs", split, 0, workers)


def verify(shards: Path) -> int:
    """Print what was read and every problem; the exit status."""
    from shards.verify import verify as verify_shards

    bar, move = progress_bar("verifying")
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
    return 1 if summary.problems else 0
