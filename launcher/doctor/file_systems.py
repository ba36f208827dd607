"""On what kind of file system a folder lies."""

from __future__ import annotations

import re
from pathlib import Path

OF_A_NODE = ("tmpfs", "ramfs", "overlay")
"""Each node has such a file system for itself."""
OF_A_NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb3",
    "9p",
    "afs",
    "fuse.sshfs",
)
"""All nodes may see the same, through a network."""


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Its kind, from the system's list of mounts (`man 5 proc`): the deepest holds, and of several
    on one point the last."""
    folder, depth, kind = folder.resolve(), 0, "an unknown file system"
    for line in mounts.read_text().splitlines():
        place, _, source = line.partition(" - ")
        escaped = place.split()[4]
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), escaped))
        if folder.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), source.split()[0]
    return kind
