"""The names of scalars, as the board and metrics.jsonl have them. Free of torch."""

from __future__ import annotations

OTHERS = ("step", "images", "speed", "memory", "lr", "grad_norm", "skipped")
"""First parts of names that are no loss."""


def is_loss(name: str) -> bool:
    return name.split("/")[0] not in OTHERS
