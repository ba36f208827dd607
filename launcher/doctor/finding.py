"""What `doctor` finds: one line of its table each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    found: str
    remedy: str = ""
    """What to do; "" when all is well."""
