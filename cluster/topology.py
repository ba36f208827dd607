"""Where this process stands among its peers, as the launcher's environment tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """rank: index of this process; size: number of processes over all nodes."""

    rank: int = 0
    size: int = 1


def world(environment: Mapping[str, str] = os.environ) -> World:
    """Read what torchrun, accelerate and deepspeed set (RANK, WORLD_SIZE).

    Raises ValueError when the two do not fit together."""
    size = number(environment, "WORLD_SIZE", 1)
    rank = number(environment, "RANK", 0)
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} does not fit WORLD_SIZE={size}: start by a launcher.")
    return World(rank, size)


def number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"The environment variable {name}={text!r} is not a number: unset it.")
    return int(text)
