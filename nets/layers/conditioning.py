"""From what a sample holds (uint8 images, label and instance ids) to what networks take.

Float images are channels_last: convolutions run in the layout of what they are given, and are
fastest in this one. Networks, losses and parameters need not know.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """dtype that a convolution with `parameter` computes in: autocast's, or the parameter's."""
    device = parameter.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return parameter.dtype


def normalise(image: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, C, H, W] -> [-1, 1] in `dtype`, rounded once."""
    precise = torch.promote_types(dtype, torch.float32)
    image = image.to(precise, memory_format=torch.channels_last)
    return image.div_(127.5).sub_(1).to(dtype)


def denormalise(image: Tensor) -> Tensor:
    """[-1, 1] -> uint8, rounded to the nearest."""
    return image.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def in_colours(image: Tensor) -> Tensor:
    """uint8 [N, 1, 3 or 4, H, W] -> RGB [N, 3, H, W]: grey repeated, transparency over white."""
    if image.shape[1] != 4:
        return image.expand(-1, 3, -1, -1)
    alpha = image[:, 3:].float() / 255
    return (image[:, :3] * alpha + 255 * (1 - alpha)).round_().to(torch.uint8)


def one_hot(label: Tensor, num_labels: int, dtype: torch.dtype, edges: Tensor | None) -> Tensor:
    """Label ids [N, 1, H, W] -> one-hot [N, num_labels, H, W] in `dtype`.

    With `edges` [N, 1, H, W], they are one more channel. Both are written into one
    buffer: at 2048x1024 it is the largest input of a step.
    """
    batch, _, height, width = label.shape
    channels = num_labels + (edges is not None)
    shape = (batch, channels, height, width)
    planes = torch.empty(
        shape, dtype=dtype, device=label.device, memory_format=torch.channels_last
    ).zero_()
    planes[:, :num_labels].scatter_(1, label.long(), 1.0)
    if edges is not None:
        planes[:, num_labels:] = edges
    return planes


def instance_edges(inst: Tensor) -> Tensor:
    """Instance ids [N, 1, H, W] -> bool: pixels of which one of four neighbours is another."""
    edges = torch.zeros_like(inst, dtype=torch.bool)
    across = inst[..., 1:] != inst[..., :-1]
    down = inst[..., 1:, :] != inst[..., :-1, :]
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeats the last column and row of [N, C, H, W] until both sides are multiples."""
    height, width = x.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if right or bottom else x


def label_colours(label: Tensor, num_labels: int) -> Tensor:
    """Label ids [N, 1, H, W] -> uint8 pictures [N, 3, H, W], a colour of its own for each id.

    The PASCAL VOC map: the bits of an id are dealt to red, green and blue, the highest first.
    """
    ids = torch.arange(num_labels, device=label.device)
    palette = torch.zeros(3, num_labels, dtype=torch.uint8, device=label.device)
    for bit in range(8):
        for channel in range(3):
            palette[channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).to(torch.uint8)
    return palette[:, label[:, 0].long()].transpose(0, 1)
