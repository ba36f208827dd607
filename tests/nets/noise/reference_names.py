"""What the references call the parameters of our networks, where their order differs."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from tests.nets.noise.oracle import tensors

SAGAN = {
    "layers.0": "l1",
    "layers.1": "l2",
    "layers.2": "l3",
    "layers.3": "attn1",
    "layers.4": "l4",
    "layers.5": "attn2",
    "output": "last.0",
}
SAGAN_PARTS = {
    "conv.weight": "0.module.weight_bar",
    "conv.bias": "0.module.bias",
    "conv.u": "0.module.weight_u",
}


def as_in_sagan(module: nn.Module) -> dict[str, str]:
    keys = {}
    for own in tensors(module):
        block = next(name for name in SAGAN if own.startswith(f"{name}."))
        part = own.removeprefix(f"{block}.")
        if SAGAN[block].startswith("attn"):
            part = part.replace(".", "_conv.")
        keys[own] = f"{SAGAN[block]}.{SAGAN_PARTS.get(part, part.replace('norm.', '1.'))}"
    return keys


def as_in_progan(module: nn.Module, top: int) -> dict[str, str]:
    """Blocks are named by their side, colours by their level of detail."""
    table = [
        (r"blocks\.(\d+)\.(first|second)", lambda m: sided(int(m[1]) + 1, m[2])),
        (r"to_rgb\.(\d+)", lambda m: f"ToRGB_lod{top - int(m[1])}"),
        (r"from_rgb\.(\d+)", lambda m: f"FromRGB_lod{top - int(m[1])}"),
        (r"^(first\.)?conv", lambda m: "4x4.Conv"),
        (r"^first\.bias", lambda m: "4x4.Dense.bias"),
        (r"^first\.dense", lambda m: "4x4.Dense"),
        (r"^dense", lambda m: "4x4.Dense0"),
        (r"^output", lambda m: "4x4.Dense1"),
    ]
    return {own: renamed(own, table) for own in tensors(module)}


def sided(level: int, part: str) -> str:
    return f"{4 << level}x{4 << level}.Conv{0 if part == 'first' else 1}"


def as_in_collection(module: nn.Module, top: int) -> dict[str, str]:
    """The discriminator's blocks and colours begin with the largest."""
    judges = hasattr(module, "output")
    table = [
        (
            r"blocks\.(\d+)\.(first|second)",
            lambda m: (
                f"prog_blocks.{top - 1 - int(m[1]) if judges else m[1]}"
                f".conv{1 if m[2] == 'first' else 2}"
            ),
        ),
        (r"to_rgb\.0", lambda m: "initial_rgb"),
        (r"to_rgb\.(\d+)", lambda m: f"rgb_layers.{m[1]}"),
        (r"from_rgb\.(\d+)", lambda m: f"rgb_layers.{top - int(m[1])}"),
        (r"^first", lambda m: "initial.1"),
        (r"^conv", lambda m: "final_block.0" if judges else "initial.3"),
        (r"^dense", lambda m: "final_block.2"),
        (r"^output", lambda m: "final_block.4"),
    ]
    keys = {own: renamed(own, table) for own in tensors(module)}
    scaled = {own: re.sub(r"\.weight$", ".conv.weight", key) for own, key in keys.items()}
    return scaled | {own: key for own, key in keys.items() if key.startswith("initial.1")}


def renamed(own: str, table: list[tuple[str, Callable[[re.Match[str]], str]]]) -> str:
    for pattern, name in table:
        if re.search(pattern, own):
            return re.sub(pattern, name, own)
    raise KeyError(own)
