"""The source folder of a sample: there whole or not at all, and known again by its record."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.records import DataError
from shards.storage.sealed import named

Progress = Callable[[int, int], None]
"""Called after each image with (done, total)."""
Drawn = Sequence[tuple[str, np.ndarray]]
"""Every image: its path below the folder, and its pixels."""


def build_folder(
    out: Path,
    name: str,
    wanted: dict[str, Any],
    draw: Callable[[], tuple[str, Drawn]],
    progress: Progress | None,
) -> dict[str, int]:
    """Write what `draw` gives, its origin and its images, to `out`, and return the number of images
    in each folder.

    name: that of the sample, whose record NAME.json is written last; wanted: what tells this set
    from others of its name. A second call finds the set and does nothing. Raises DataError when
    `out` holds something else."""
    out, record = Path(out).absolute(), f"{name}.json"
    if out.exists() and any(out.iterdir()):
        return _finished(out, record, wanted)
    source, images = draw()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for done, (file, pixels) in enumerate(images, start=1):
        _save(part / file, pixels)
        if progress:
            progress(done, len(images))
    num_images = dict(Counter(str(Path(file).parent) for file, _ in images))
    content = {"source": source, "num_images": num_images, **wanted}
    (part / record).write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, out)
    return num_images


def _finished(out: Path, record: str, wanted: dict[str, Any]) -> dict[str, int]:
    """The counts of the set that already lies in `out`, if it is the one that is wanted."""
    if (out / record).is_file():
        content = json.loads((out / record).read_text())
        # Through JSON once, so that tuples compare equal to the lists they were saved as.
        if {key: content.get(key) for key in wanted} == json.loads(json.dumps(wanted)):
            return content["num_images"]
    raise DataError(
        f"{out} is not empty and holds something other than this {record.removesuffix('.json')} "
        "set: remove it or choose another folder."
    )


def _save(path: Path, pixels: np.ndarray) -> None:
    """PNG for ids and grey (8 or 16 bits), JPEG with full chroma for colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    with named(path):
        if path.suffix == ".png":
            image.save(path, compress_level=1)
        else:
            image.save(path, quality=95, subsampling=0)
