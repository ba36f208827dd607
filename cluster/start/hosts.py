"""Names of nodes: SLURM's hostlists ("n[1-3,07]-ib[0-1],gpu5") and DeepSpeed's hostfiles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product

from cluster.errors import ClusterError

MAX_HOSTS = 65536
"""As many as SLURM expands from one range; more is a typing error and would only fill memory."""
NAME = re.compile(r"(.*?)(\d+)", re.ASCII)
SLOTS = re.compile(r"(\S+)\s+slots=(\d+)", re.ASCII)


def expand(hostlist: str) -> list[str]:
    """All names of a hostlist, in its order: "n[08-10],gpu5" -> n08, n09, n10, gpu5.

    As `scontrol show hostnames`: a range is as wide as its first number is written, and of several
    brackets in one name the last counts fastest. Names may also go on after the last bracket."""
    names: list[str] = []
    for item in re.split(r",(?![^\[]*\])", hostlist):
        parts = re.split(r"(\[[^\[\]]*\])", item)
        if any(sign in part for part in parts[::2] for sign in "[]") or " " in item:
            raise ClusterError(f"The hostlist {hostlist!r} has a bracket or a space too many.")
        choices = [_numbers(p[1:-1], hostlist) if p.startswith("[") else [p] for p in parts]
        num_names = 1
        for choice in choices:
            num_names *= len(choice)
        if len(names) + num_names > MAX_HOSTS:
            raise ClusterError(f"The hostlist {hostlist!r} has more than {MAX_HOSTS} names.")
        names += ["".join(name) for name in product(*choices)] if item else []
    return names


def _numbers(ranges: str, hostlist: str) -> list[str]:
    """ "1-3,07" -> 1, 2, 3, 07."""
    numbers: list[str] = []
    for part in ranges.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or not 0 <= last - first < MAX_HOSTS:
            raise ClusterError(
                f"The range {part!r} in the hostlist {hostlist!r} must read FIRST-LAST, with at "
                f"most {MAX_HOSTS} numbers that go up."
            )
        numbers += [str(n).zfill(len(match[1])) for n in range(first, last + 1)]
    return numbers


def compress(hosts: Sequence[str]) -> str:
    """A short hostlist that expands to exactly these names: n1, n2, n3 -> "n[1-3]".

    As `scontrol show hostlist`: only the number at a name's end is folded, the order is kept."""
    names = []
    for prefix, ranges in _folded(hosts):
        alone = len(ranges) == 1 and "-" not in ranges[0]
        names.append(prefix + (ranges[0] if alone else f"[{','.join(ranges)}]"))
    return ",".join(names)


def _folded(hosts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Neighbours with the same prefix, as (prefix, ["1-3", "07"])."""
    groups: list[tuple[str, list[list[str]]]] = []
    for host in hosts:
        match = NAME.fullmatch(host)
        prefix, number = (match[1], match[2]) if match else (host, "")
        if not number or not groups or groups[-1][0] != prefix or groups[-1][1][-1] == [""]:
            groups.append((prefix, [[number]]))
            continue
        runs = groups[-1][1]
        # A run is written FIRST-LAST and expands with the width of FIRST.
        if number == str(int(runs[-1][-1]) + 1).zfill(len(runs[-1][0])):
            runs[-1].append(number)
        else:
            runs.append([number])
    for prefix, runs in groups:
        yield prefix, [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def read_hostfile(text: str) -> dict[str, int]:
    """DeepSpeed's hostfile, a line "n1 slots=2" for each node -> processes by node, in order."""
    slots: dict[str, int] = {}
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = SLOTS.fullmatch(entry)
        if match is None or int(match[2]) == 0:
            raise ClusterError(f"The hostfile's line {line!r} must read NAME slots=NUMBER.")
        if match[1] in slots:
            raise ClusterError(f"The hostfile names {match[1]} twice: keep one line of them.")
        slots[match[1]] = int(match[2])
    if not slots:
        raise ClusterError("The hostfile names no node: write a line NAME slots=NUMBER for each.")
    return slots
