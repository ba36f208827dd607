"""Plain tables: they stay whole in log files and under `watch`."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.standard_streams import visible


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; what would move the cursor, or begin
    another line, is escaped."""
    lines = [[visible(cell) for cell in line] for line in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = [[c.ljust(width) for c, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)
