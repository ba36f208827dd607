"""Times the reading of triplets by us and by others, side by side in one run.

    python -m tests.benchmarks.reading [--size=2048x1024] [--triplets=24] [--rounds=5] [--batch=4]
        [--workers=2] [--pictures=jpg,png] [--folder=FOLDER] [--json=FILE]

The triplets are crops of the earth sample: label (8-bit PNG), instances (16-bit PNG) and satellite
picture. Measured is the CPU time that a sample takes in one process to read, to read and decode,
and to read, decode and collate into a batch; and, with so many workers (0 leaves this out), the
throughput end to end and the CPU time of all processes. The loaders take turns, the medians of
some rounds count, and files come from the page cache. On a busy machine trust the CPU times alone.
--folder keeps the triplets for the next run.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from zlib_ng import zlib_ng

from launcher.text.tables import table
from shards.pack.packing import pack
from shards.read.stream import PREFETCH
from shards.samples.earth import NUM_LABELS, Geometry, build
from shards.samples.rasters import HEIGHT, WIDTH
from tests.benchmarks.loaders import FOLDERS, LOADERS, Loader, Ours, Sample, installed
from tests.shards.sources import descendants

Row = dict[str, Any]
T = TypeVar("T")
TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = {
    "read_cpu_ms": "read",
    "decode_cpu_ms": "+ decode",
    "collate_cpu_ms": "+ collate",
    "end_to_end_cpu_ms": "with workers",
    "end_to_end_samples_per_s": "samples/s",
}
"""What is measured -> its head in the table."""


@dataclass(frozen=True)
class Options:
    size: str = "2048x1024"
    triplets: int = 24
    rounds: int = 5
    batch: int = 4
    workers: int = 2
    pictures: str = "jpg,png"
    folder: str = ""
    json: str = ""


def main(arguments: list[str]) -> None:
    options = parsed(arguments, Options)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for suffix in options.pictures.split(","):
            name = f"{suffix}-{options.size}-{options.triplets}"
            folder = Path(options.folder or temporary) / name
            make_material(folder, suffix, options.size, options.triplets)
            # A process each: some loaders cannot start workers once they have read here.
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                rows += alone.submit(compared, folder, suffix, options).result()
    print(as_table(rows, options))
    for row in rows:
        if row["loader"] == Ours.name:
            print(notes(row))
    if options.json:
        facts = {"options": vars(options), "torch": torch.__version__, "rows": rows}
        Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")


def parsed(arguments: list[str], kind: type[T]) -> T:
    """The dataclass of options from --name=value."""
    given = dict(a.removeprefix("--").split("=", 1) for a in arguments)
    kinds = {field.name: type(field.default) for field in fields(kind)}
    if unknown := given.keys() - kinds.keys():
        raise SystemExit(f"unknown option --{min(unknown)}: choose {', '.join(kinds)}")
    return kind(**{name: kinds[name](value) for name, value in given.items()})


def make_material(folder: Path, suffix: str, size: str, num_triplets: int) -> None:
    """The triplets as pix2pixHD's folders in FOLDER/source, packed in FOLDER/shards."""
    if (folder / "shards").exists():
        return
    width, height = map(int, size.split("x"))
    num_rows = min(4, num_triplets)
    columns = np.linspace(0, WIDTH - width, num_triplets // num_rows, dtype=int).tolist()
    rows = np.linspace(0, HEIGHT - height, num_rows, dtype=int).tolist()
    build(folder / "source", geometry=Geometry(width, height, tuple(columns), (), tuple(rows), 0))
    if suffix == "png":
        for photo in (folder / "source" / FOLDERS["image"]).iterdir():
            Image.open(photo).save(photo.with_suffix(".png"))
            photo.unlink()
    # By this process alone: a server of packing processes would be in the way of later forks.
    pack(folder / "source", folder / "shards", layout="labels", shard_mib=4, workers=1)


def compared(folder: Path, suffix: str, options: Options) -> list[Row]:
    """A row for each loader, with its ratios to ours, the first."""
    torch.set_num_threads(1)
    loaders = [kind(folder) if installed(kind) else None for kind in LOADERS]
    rows: list[Row] = [{"pictures": suffix, "loader": kind.name} for kind in LOADERS]
    present = [(loader, row) for loader, row in zip(loaders, rows, strict=True) if loader]
    for measure in measures(options):
        times: list[list[Row]] = [[] for _ in present]
        for _ in range(1 + options.rounds):
            for (loader, _), measured in zip(present, times, strict=True):
                measured.append(measure(loader))
        for (_, row), (_warm_up, *measured) in zip(present, times, strict=True):
            for name in measured[0]:
                row[name] = round(statistics.median(time[name] for time in measured), 3)
    ours, first = present[0]
    check_equal([loader for loader, _ in present])
    for _, row in present:
        row["ratios"] = {name: round(row[name] / first[name], 2) for name in COLUMNS if name in row}
    first |= transfer(next(ours.batches(options.batch, workers=0)), options)
    first["crc32_cpu_ms"] = crc32_cpu_ms(ours)
    return rows


def check_equal(loaders: list[Loader]) -> None:
    """What gives other pixels cannot be compared."""
    wanted = Counter(map(digest, loaders[0].pixels()))
    for loader in loaders[1:]:
        assert Counter(map(digest, loader.pixels())) == wanted, f"{loader.name} gives other pixels"


def digest(sample: Sample) -> tuple[object, ...]:
    return tuple(
        (sample[m].dtype, sample[m].shape, zlib_ng.crc32(sample[m].tobytes())) for m in FOLDERS
    )


def measures(options: Options) -> list[Callable[[Loader], Row]]:
    """Functions of a loader, each with one or more columns of the table."""
    size, num_batches = options.batch, options.triplets // options.batch

    def collated(loader: Loader) -> Iterable[Sample]:
        return islice(loader.batches(size, workers=0), num_batches)

    found: list[Callable[[Loader], Row]] = [
        lambda loader: {"read_cpu_ms": in_process(loader.files())},
        lambda loader: {"decode_cpu_ms": in_process(loader.pixels())},
        lambda loader: {"collate_cpu_ms": in_process(collated(loader)) / size},
    ]
    return [lambda loader: end_to_end(loader, options)] * (options.workers > 0) + found


def in_process(items: Iterable[Any]) -> float:
    """CPU milliseconds an item, of all threads of this process."""
    started = time.process_time()
    num_items = sum(1 for _ in items)
    return (time.process_time() - started) / num_items * 1e3


def end_to_end(loader: Loader, options: Options) -> Row:
    """Samples a second through the workers, and CPU milliseconds a sample of all processes."""
    batches = loader.batches(options.batch, options.workers)
    in_flight = options.workers * PREFETCH
    for _ in islice(batches, 2 * in_flight):
        pass  # until the workers have started, and none of what they had ready is left
    num_batches = 8 * in_flight
    cpu, clock = cpu_seconds(), time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    clock, cpu = time.perf_counter() - clock, cpu_seconds() - cpu
    batches.close()
    num_samples = num_batches * options.batch
    return {
        "end_to_end_samples_per_s": num_samples / clock,
        "end_to_end_cpu_ms": cpu / num_samples * 1e3,
    }


def cpu_seconds() -> float:
    """Of this process and all that it has started, those that have ended included."""
    ticks = 0
    for pid in {os.getpid()} | descendants(os.getpid()):
        fields_after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields_after_name[11:15]))  # utime stime cutime cstime
    return ticks / TICKS


def transfer(batch: Sample, options: Options) -> Row:
    """Bytes that go to the GPU, and what keeps them ready for it."""
    num_bytes = sum(batch[member].nbytes for member in FOLDERS)
    num_pixels = batch["label"].numel()
    as_floats = num_pixels * 4 * (NUM_LABELS + 1 + 3)  # one-hot labels, edges, picture
    in_flight = max(1, options.workers * PREFETCH)
    return {
        "sample_bytes": num_bytes // options.batch,
        "sample_bytes_one_hot": as_floats // options.batch,
        "pinned_bytes_at_most": num_bytes * (in_flight + 1),
        "pinned": batch["label"].is_pinned(),
    }


def crc32_cpu_ms(loader: Loader) -> float:
    """What our check of every byte takes: a part of `read`."""
    samples = list(loader.files())
    started = time.process_time()
    for files in samples:
        for data in files.values():
            zlib_ng.crc32(data)
    return round((time.process_time() - started) / len(samples) * 1e3, 3)


def as_table(rows: list[Row], options: Options) -> str:
    """CPU ms a sample, and its ratio to ours."""
    names = [name for name in COLUMNS if name in rows[0]]
    lines = []
    for row in rows:
        cells = ["not installed", *[""] * len(names)]
        if "ratios" in row:
            cells = [f"{row[name]:.2f} ({row['ratios'][name]:.2f})" for name in names]
            cells.append(f"{1e3 / row['collate_cpu_ms']:.1f}")
        lines.append([row["pictures"], row["loader"], *cells])
    head = ["pictures", "loader", *(COLUMNS[name] for name in names), "samples/s/core"]
    title = f"{options.size}, batches of {options.batch}, {options.workers} workers"
    return f"{title}: CPU ms a sample (ratio to ours)\n{table(head, lines)}"


def notes(row: Row) -> str:
    mib = {name: row[name] / 2**20 for name in row if "bytes" in name}
    return (
        f"{row['pictures']}: {row['crc32_cpu_ms']:.2f} ms of our reading check the crc32 of all "
        f"bytes. To the GPU go {mib['sample_bytes']:.1f} MiB a sample, "
        f"{mib['sample_bytes_one_hot']:.1f} as a float one-hot; pinned are at most "
        f"{mib['pinned_bytes_at_most']:.0f} MiB{'' if row['pinned'] else ' (with a GPU)'}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
