"""The memory at hand on this machine, for a process of this run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")


def memory_at_hand(device: torch.device, num_processes: int) -> int:
    """Free bytes of the GPU; on the CPU, this process's share of what `num_processes` have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return min([available(), *room_in_cgroups()]) // num_processes


def available() -> int:
    """Bytes of the machine that new processes can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not tell MemAvailable: set backend.memory_gib")


def room_in_cgroups() -> Iterator[int]:
    """Bytes left under each memory limit that this process lives under (SLURM, containers)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield from room(CGROUPS / "memory", path, "limit_in_bytes", "usage_in_bytes")
        elif controllers == "":
            yield from room(CGROUPS, path, "max", "current")


def room(root: Path, path: str, limit: str, usage: str) -> Iterator[int]:
    """Of a group and those above it; files of disks that the system would drop do not count."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder == root.parent:
            return
        most = folder / f"memory.{limit}"
        if not most.is_file() or most.read_text().strip() == "max":
            continue
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        droppable = int(stat.get("total_inactive_file", stat["inactive_file"]))
        used = int((folder / f"memory.{usage}").read_text())
        yield int(most.read_text()) - used + droppable
