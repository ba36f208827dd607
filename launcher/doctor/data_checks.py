"""What `doctor` looks at before data can flow: shards, room for batches, their pace, the cache."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.start.topology import World, topology
from cluster.watch import heartbeat
from launcher.doctor.file_systems import OF_A_NETWORK, file_system
from launcher.doctor.finding import Finding
from launcher.recipe import epochs
from launcher.recipe.building import check_networks, micro_batch_of, recipe_of
from launcher.recipe.config import Config
from launcher.recipe.data_fit import check_data, preprocess_of
from launcher.recipe.errors import config_errors
from launcher.recipe.storage_options import cache_of
from launcher.run import run_folder
from launcher.run.sources import sources_of
from launcher.status import run_state
from shards.read.draws import Drawer
from shards.read.sources import Source, epoch_size, fingerprint
from shards.read.stream import shared_memory_needed
from shards.storage.copies import Copies

TIMED_SAMPLES = 6
"""Samples that are decoded to learn how long it takes; the first warms up."""
IDLE = 0.1
"""Share of a worker's time that the trainer may wait for: nobody would notice."""


def data(config: Config) -> Iterator[Finding]:
    """Shards that fit manifest and recipe, and what this machine needs to feed them."""
    world = topology().world
    with config_errors():
        check_networks(config)
        sources = sources_of(config)
        number = epoch_size(sources)
        resolved = epochs.resolve(config, number)
        recipe = recipe_of(resolved, world.size)
        micro_batch = micro_batch_of(recipe, world.size)
        check_data(resolved, sources, micro_batch)
        run_folder.examine(resolved, fingerprint(sources))
    shards = config.data.shards
    lie = f"{shards} (on {file_system(shards)})" if isinstance(shards, Path) else shards
    found = f"{number} samples an epoch, fingerprint {fingerprint(sources)[:16]}"
    yield Finding("shards", f"{lie}: {found}")
    yield shared_memory(config, sources, micro_batch, world)
    yield decoding(config, sources)
    yield processors(config, world)


def shared_memory(
    config: Config, sources: Sequence[Source], micro_batch: int, world: World
) -> Finding:
    """Room for the finished batches of all workers of this node."""
    status = os.statvfs("/dev/shm")
    free = status.f_bavail * status.f_frsize
    preprocess = preprocess_of(config)
    needed = world.local_size * shared_memory_needed(
        sources, preprocess, micro_batch, config.data.workers
    )
    gib = math.ceil(needed / 2**30)
    return Finding(
        "/dev/shm",
        f"{free / 2**20:.0f} MiB free, the workers of {world.local_size} ranks need "
        f"{needed / 2**20:.0f}",
        f"enlarge /dev/shm (docker run --shm-size={gib}g), or lower data.workers or batch.micro"
        if needed > free
        else "",
    )


def decoding(config: Config, sources: Sequence[Source]) -> Finding:
    """The pace of a worker, held against that of the training as far as a run has shown it."""
    seconds = seconds_per_sample(config, sources)
    workers, feeds = config.data.workers, config.data.workers / seconds
    found = f"{seconds * 1e3:.1f} ms a sample"
    if workers:
        found += f": data.workers={workers} feed {feeds:.1f} a second to each rank"
    wanted = samples_per_second(config.run_dir)
    if wanted is None:
        return Finding("decoding", found)
    least = math.ceil(wanted * seconds - IDLE)
    return Finding(
        "decoding",
        f"{found}, which takes {wanted:.1f}",
        f"set data.workers={least}: the GPUs wait for data" if workers < least else "",
    )


def seconds_per_sample(config: Config, sources: Sequence[Source]) -> float:
    """Median time to read, decode and augment one."""
    preprocess = preprocess_of(config)
    drawers = [Drawer(source, preprocess, config.seed, substituting=False) for source in sources]
    times = []
    for position in range(TIMED_SAMPLES):
        started = time.perf_counter()
        for drawer in drawers:
            drawer.draw(position)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def samples_per_second(run_dir: Path) -> float | None:
    """What a rank of this run would take if it never waited for data; None before it has run."""
    row = run_state.last_row(run_dir)
    ranks = len(heartbeat.read(run_dir / "heartbeats"))
    if "speed/images_per_s" not in row or not ranks:
        return None
    working = max(1 - row.get("speed/data_wait_share", 0.0), 0.01)
    return row["speed/images_per_s"] / working / ranks


def processors(config: Config, world: World) -> Finding:
    """Enough of them for the workers."""
    usable = len(os.sched_getaffinity(0))
    # srun gives each task processors of its own, other launchers all of them to all ranks.
    ranks = world.local_size if usable == os.cpu_count() else 1
    few = ranks * config.data.workers > usable
    return Finding(
        "processors",
        f"{usable} for {ranks} ranks with {config.data.workers} workers each",
        f"ask for {ranks * config.data.workers} (SLURM: --cpus-per-task) or lower data.workers"
        if few
        else "",
    )


def cache(config: Config) -> Iterator[Finding]:
    """Room for the copies of shards, on a disk of the node's own."""
    with config_errors():
        wanted = cache_of(config.data.cache)
    if wanted is None:
        return
    copies = Copies(wanted.folder, wanted.limit)
    copies.prepare()
    kept = sum(path.stat().st_size for path in copies.folder.glob("*.tar"))
    room = shutil.disk_usage(copies.folder).free + kept
    kind = file_system(copies.folder)
    remedy = ""
    if room < wanted.limit:
        remedy = f"make room, or lower data.cache.limit_gib to {room / 2**30:.1f}"
    if kind in OF_A_NETWORK:
        remedy = f"choose a data.cache.folder on each node's own disk: {kind} is a network's"
    found = f"{wanted.folder} on {kind}, {kept / 2**30:.1f} GiB kept, room for {room / 2**30:.1f}"
    yield Finding("cache", f"{found} of {wanted.limit / 2**30:.1f}", remedy)
