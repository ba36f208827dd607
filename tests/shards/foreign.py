"""Tars as other programs write them: stock webdataset, and headers by hand."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import webdataset

from tests.shards.sources import encoded


def photo(seed: int, size: tuple[int, int] = (16, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return encoded(pixels, "JPEG")


def label(seed: int, size: tuple[int, int] = (16, 8), num_labels: int = 9) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, num_labels, size[::-1], dtype=np.uint8))


def street_tars(folder: Path, num_shards: int = 2, num_samples: int = 3) -> Path:
    """train-0000.tar, ...: photo, label map and notes a sample, written by stock webdataset."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        with webdataset.TarWriter(str(folder / f"train-{shard:04d}.tar")) as writer:
            for number in range(shard * num_samples, (shard + 1) * num_samples):
                writer.write(
                    {
                        "__key__": f"city/{number:03d}",
                        "jpg": photo(number),
                        "seg.png": label(number),
                        "json": {"number": number},
                    }
                )
    return folder


def write_tar(
    path: Path, files: Iterable[tuple[str | tarfile.TarInfo, bytes]], **options: int
) -> Path:
    """A tar of these (name or header, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(name, tarfile.TarInfo):
                header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path
