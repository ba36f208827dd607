"""Messages of others as people read them."""

from __future__ import annotations


def sentence(text: str) -> str:
    """With a full stop at its end, unless it has one or is a question."""
    return text if text.endswith((".", "?")) else f"{text}."
