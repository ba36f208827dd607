"""What must be equal on all nodes before they train together. Free of torch: it is asked first."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.start.reports import code_fingerprint
from cluster.text_files import read_bytes

FLOORS = ("launcher", "trainers", "nets", "shards", "cluster")


def facts() -> dict[str, str]:
    """Versions and fingerprints, by the names under which `preflight` reports a difference."""
    root = Path(__file__).parents[2]
    return {
        "organza": installed("organza"),
        "torch": installed("torch"),
        "python": platform.python_version(),
        "code": code_fingerprint(*(root / floor for floor in FLOORS)),
    }


def installed(package: str) -> str:
    """The version of a package, without importing it; "absent" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def config_fingerprint(config: Path) -> str:
    """One short word for the file's content; "absent" on a node that does not see it."""
    try:
        return text_fingerprint(read_bytes(config))
    except FileNotFoundError:
        return "absent"


def text_fingerprint(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
