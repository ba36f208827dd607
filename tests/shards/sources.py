"""Real source folders for the tests: small PNG and JPEG files, drawn from a seed."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def encoded(pixels: np.ndarray, image_format: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, image_format)
    return buffer.getvalue()


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def label_source(
    folder: Path,
    num_samples: int,
    size: tuple[int, int] = (16, 8),
    suffix: str = ".png",
    inst: bool = True,
    seed: int = 0,
) -> Path:
    """pix2pixHD folders with keys 000, 001, ...; instance ids need 16 bits."""
    random = np.random.default_rng(seed)
    shape = size[::-1]
    for number in range(num_samples):
        label = random.integers(0, 30, shape, dtype=np.uint8)
        save(folder / "train_label" / f"{number:03d}.png", label)
        if inst:
            instances = label.astype(np.uint16) * 1000 + random.integers(0, 9)
            save(folder / "train_inst" / f"{number:03d}.png", instances.astype(np.uint16))
        photo = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        save(folder / "train_img" / f"{number:03d}{suffix}", photo)
    return folder


def pair_source(folder: Path, num_samples: int, size: tuple[int, int] = (16, 8)) -> Path:
    random = np.random.default_rng(1)
    for number in range(num_samples):
        for side in ("A", "B"):
            photo = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            save(folder / f"train_{side}" / f"{number}.jpg", photo)
    return folder


def domain_source(folder: Path, **sizes: int) -> Path:
    """By folder, that many pictures of 10 x 8 named FOLDER-N; every pixel of a picture differs."""
    random = np.random.default_rng(2)
    for name, num_pictures in sizes.items():
        for number in range(num_pictures):
            photo = random.permutation(240).astype(np.uint8).reshape(8, 10, 3)
            save(folder / name / f"{name}-{number}.png", photo)
    return folder


def uneven_source(folder: Path) -> Path:
    """Two domains; pictures with half a MiB of ballast fill shards of 1 MiB before their time."""
    random = np.random.default_rng(3)
    for name, num_pictures, heavy in (("A", 20, (2, 6, 7, 11, 14)), ("B", 11, (1, 3, 4))):
        (folder / f"train{name}").mkdir(parents=True)
        for number in range(num_pictures):
            ballast = bytes(600_000 if number in heavy else 0)
            row_bytes = random.permutation(240).astype(np.uint8).reshape(8, 30)
            picture = png(row_bytes, 8, 2, (b"baLa", ballast))
            (folder / f"train{name}" / f"{number:02d}.png").write_bytes(picture)
    return folder


def png(pixels: np.ndarray, bits: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG as the standard has it, in kinds that Pillow does not write.

    pixels: [height, bytes of a row], uint8, or uint16 for 16 bits; chunks: (name, data) that stand
    before the pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    width = pixels.shape[1] * max(1, 8 // bits) // channels
    header = struct.pack(">IIBBBBB", width, len(pixels), bits, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a packed set."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file or folder belong to another user than the one that we are from then on."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:  # who may give nothing away: the folders that we made belong to whom we were
        another = os.geteuid() + 1
        monkeypatch.setattr("os.geteuid", lambda: another)


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def descendants(pid: int) -> set[int]:
    """Process ids of the children of a process, and of theirs."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().split()[-49])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and _is_running(pid)}


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # empty for a zombie
    except (FileNotFoundError, ProcessLookupError):
        return False
