"""What every process says of itself before it joins the others, and what must be equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.standard_streams import visible


@dataclass(frozen=True)
class Report:
    """What a rank says of itself."""

    run: str
    rank: int
    world: int
    host: str
    clock: float
    """Seconds since 1970, as sent; in the reports that `preflight` returns, by how many seconds
    the node's clock is ahead of rank 0's."""
    facts: dict[str, str]
    """What must be equal everywhere: versions, fingerprints of code and configuration."""

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def parse_report(line: bytes) -> Report | None:
    """A report as it came over the network; None for whatever else was sent."""
    try:
        report = Report(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = type(report.rank) is int and type(report.world) is int
    texts = isinstance(report.run, str) and isinstance(report.host, str)
    facts = isinstance(report.facts, dict) and isinstance(report.clock, float)
    facts = facts and all(isinstance(value, str) for value in report.facts.values())
    if not (numbers and texts and facts and report.rank >= 0):
        return None
    return replace(report, host=visible(report.host))


def mismatch(own: Report, other: Report, before: Report | None) -> str | None:
    """The sentence about a rank that does not fit rank 0, or that is there already."""
    if other.world != own.world:
        return (
            f"Rank {other.rank} on {other.host} counts {other.world} processes, but {own} counts "
            f"{own.world}: start all nodes by one command."
        )
    if before is not None or other.rank >= own.world:
        there = f"on {before.host} too" if before else f"one of {own.world} only"
        return f"Rank {other.rank} on {other.host} is {there}: start each node once."
    for name in (*own.facts, *other.facts):
        ours, theirs = own.facts.get(name, "nothing"), other.facts.get(name, "nothing")
        if ours != theirs:
            return (
                f"Rank {other.rank} on {other.host} has {visible(name)} {visible(theirs)}, but "
                f"{own} has {ours}: "
                "give all nodes one installation and one configuration, on a shared file system."
            )
    return None


def code_fingerprint(*folders: Path) -> str:
    """One short word for all .py files below `folders`: equal code, equal word."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder.parent)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]
