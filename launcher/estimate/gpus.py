"""GPUs by their data sheets, and the memory at hand on this machine.

The numbers are the vendor's peaks for dense arithmetic (NVIDIA's data sheets and architecture white
papers): fp32 outside the tensor cores (TF32 off), bf16 and fp16 on them with sums in fp32. A kernel
comes near one of them, never above. Cards without bf16 units are given the speed of fp32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.recipe.config import ConfigError
from launcher.recipe.messages import hint

GIB = 2**30
USABLE = 0.92
"""Of a card's memory, what a process finds free: ECC and the driver keep the rest. By the data
sheet T4 and L4 have 16 and 24 GB; the driver of each shows 15.0 and 22.5 GiB."""


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    memory_gib: float
    flops: dict[str, float]
    """FLOP/s by precision: fp32, bf16, fp16. Empty for a card of unknown speed."""
    bandwidth: float
    """Bytes/s of its memory; 0 if unknown."""
    nvlink: float = 0.0
    """Bytes/s one way to the other GPUs of a node; 0 without it, or with an optional bridge."""

    @property
    def usable_bytes(self) -> int:
        """What a process may count on."""
        return int(self.memory_gib * USABLE * GIB)


def card(
    name: str, gib: float, fp32: float, bf16: float, fp16: float, gb_s: float, link: float = 0
) -> Card:
    """Rates in TFLOP/s and GB/s, as data sheets have them."""
    rates = {"fp32": fp32 * 1e12, "bf16": bf16 * 1e12, "fp16": fp16 * 1e12}
    return Card(name, gib, rates, gb_s * 1e9, link * 1e9)


CARDS = (
    card("T4", 16, 8.1, 8.1, 65, 320),
    card("V100-16", 16, 15.7, 15.7, 125, 900, 150),
    card("V100-32", 32, 15.7, 15.7, 125, 900, 150),
    card("RTX3090", 24, 35.6, 71, 71, 936),
    card("RTX4090", 24, 82.6, 165.2, 165.2, 1008),
    card("A10", 24, 31.2, 125, 125, 600),
    card("L4", 24, 30.3, 121, 121, 300),
    card("RTX5090", 32, 104.8, 209.5, 209.5, 1792),
    card("A100-40", 40, 19.5, 312, 312, 1555, 300),
    card("A6000", 48, 38.7, 154.8, 154.8, 768),
    card("L40S", 48, 91.6, 362, 362, 864),
    card("A100-80", 80, 19.5, 312, 312, 2039, 300),
    card("H100", 80, 67, 989, 989, 3350, 450),
    card("H200", 141, 67, 989, 989, 4800, 450),
    card("B200", 180, 75, 2250, 2250, 7700, 900),
)
"""SXM modules where there are several kinds."""


def cards_of(text: str) -> tuple[Card, ...]:
    """--gpu: a name ("H200"), or a size ("24G"): all known cards of that memory, or one of unknown
    speed."""
    size = re.fullmatch(r"(\d{1,6}(?:\.\d+)?) ?G(?:i?B)?", text.strip(), re.IGNORECASE)
    if size and float(size[1]) > 0:
        gib = float(size[1])
        return tuple(c for c in CARDS if c.memory_gib == gib) or (Card(text, gib, {}, 0.0),)
    wanted = plain(text)
    named = tuple(c for c in CARDS if plain(c.name) == wanted) or tuple(
        c for c in CARDS if plain(c.name.split("-")[0]) == wanted
    )
    if not named:
        known = [c.name for c in CARDS]
        raise ConfigError(
            f"--gpu={text} is neither a card's memory (24G) nor a known card{hint(text, known)}"
        )
    return named


def plain(name: str) -> str:
    """The name without blanks, dashes and capitals: "RTX 4090" is RTX4090."""
    return re.sub(r"[\s_-]", "", name).lower()


def seconds(kernels: Iterable[tuple[int, int]], card: Card, precision: str) -> float:
    """The least that these kernels, (FLOPs, bytes) each, can take on a card of known speed: each
    is bound by arithmetic or by memory, whichever takes longer."""
    rate = card.flops[precision]
    return sum(max(flops / rate, num_bytes / card.bandwidth) for flops, num_bytes in kernels)
