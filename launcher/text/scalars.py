"""The names of scalars, as the board and metrics.jsonl have them. Free of torch."""

from __future__ import annotations


def is_loss(name: str) -> bool:
    """Losses are named PHASE/term, and phases in capitals (G/gan, D/real); nothing else is."""
    phase, slash, _ = name.partition("/")
    return bool(slash) and phase.isupper()
