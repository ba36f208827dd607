"""Precision: normalisation whose statistics keep it over whole pictures, channels_last on CPUs.

torch's batch norm adds up float32 values one by one there: over the two million pixels of a
2048x1024 picture its result is wrong by 1e-3, and by more where features have a mean. Here they
are added up in blocks of pixels, and the blocks in float64. Contiguous tensors are summed in
float64 by torch, and on GPUs in a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

BLOCK = 2**20
"""Values that are looked at together: about what a core's caches hold."""
RUN = 2**14
"""Pixels that may be added up in float32, which keeps the error of a sum below 1e-7 of it."""


def at_least_float32(x: Tensor) -> Tensor:
    """float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, operations keep the dtype that they are given; also where there is no autocast, as
    for meta tensors."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def needed(x: Tensor) -> bool:
    """Whether torch's own kernel would lose precision on [N, C, H, W]."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return last and x.device.type == "cpu"


def normalise(
    x: Tensor, eps: float, by_sample: bool, weight: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(x normalised, mean, variance) of a channels_last [N, C, H, W], by sample or by batch.

    The first has the layout and dtype of x; weight and bias are [C], or both None. Mean and biased
    variance, [N or 1, C] in float64, are constants to autograd."""
    return _normalise(x, weight, bias, eps, by_sample)


# Operators of torch, so that whoever traces or compiles a network sees one pass, not its blocks.
@torch.library.custom_op("organza::normalise", mutates_args=())
def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, by_sample: bool
) -> tuple[Tensor, Tensor, Tensor]:
    groups, out = _pixels(x, by_sample), torch.empty_like(x)
    mean, variance = (torch.stack(each) for each in zip(*map(_moments, groups), strict=True))
    factor = (variance + eps).rsqrt() if weight is None else weight * (variance + eps).rsqrt()
    results = _pixels(out, by_sample)
    for pixels, result, m, f in zip(groups, results, mean, factor, strict=True):
        _scale(pixels, result, m, f, bias)
    return out, mean, variance


@_normalise.register_fake
def _(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, by_sample: bool
) -> tuple[Tensor, Tensor, Tensor]:
    moments = x.new_empty((len(x) if by_sample else 1, x.shape[1]), dtype=torch.float64)
    return torch.empty_like(x), moments, torch.empty_like(moments)


@torch.library.custom_op("organza::normalise_backward", mutates_args=())
def _normalise_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    by_sample: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad = grad.contiguous(memory_format=torch.channels_last)
    out, sums = torch.empty_like(x), []
    groups = (_pixels(tensor, by_sample) for tensor in (x, grad, out))
    for pixels, given, result, m, rstd in zip(*groups, mean, (variance + eps).rsqrt(), strict=True):
        sums.append(_scale_back(pixels, given, result, m, rstd, weight))
    of_weight, of_bias = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
    return out, of_weight, of_bias


@_normalise_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(mean[0]), torch.empty_like(mean[0])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ctx.eps, ctx.by_sample = inputs
    _, mean, variance = output
    ctx.save_for_backward(x, weight, bias, mean, variance)
    ctx.mark_non_differentiable(mean, variance)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, variance = ctx.saved_tensors
    if torch.is_grad_enabled():  # somebody will differentiate these gradients again
        return *_gradients(grad, x, weight, bias, ctx.eps, ctx.by_sample), None, None
    out, *others = _normalise_backward(grad, x, weight, mean, variance, ctx.eps, ctx.by_sample)
    others = [None, None] if weight is None else [each.to(weight.dtype) for each in others]
    return out, *others, None, None


_normalise.register_autograd(_backward, setup_context=_keep)


def _pixels(x: Tensor, by_sample: bool) -> Tensor:
    """[N, C, H, W] in channels_last -> [groups, pixels, C], the same memory."""
    return x.permute(0, 2, 3, 1).reshape(len(x) if by_sample else 1, -1, x.shape[1])


def _blocks(*pixels: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows at a time of several [pixels, C]."""
    rows = max(min(BLOCK // pixels[0].shape[1], RUN), 1)
    return zip(*(each.split(rows) for each in pixels), strict=True)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of [pixels, C], in float64."""
    kind, count = _precise(pixels), len(pixels)
    mean = _sum(block.sum(0, dtype=kind).double() for (block,) in _blocks(pixels)) / count
    about = mean.to(kind)
    squares = _sum((b - about).square_().sum(0).double() for (b,) in _blocks(pixels)) / count
    return mean, squares - (mean - about).square()


def _sum(terms: Iterator[Tensor]) -> Tensor:
    """Of at least one."""
    total = sum(terms)
    assert isinstance(total, Tensor)
    return total


def _scale(pixels: Tensor, out: Tensor, mean: Tensor, factor: Tensor, bias: Tensor | None) -> None:
    """out = (pixels - mean) * factor + bias."""
    kind = _precise(pixels)
    mean, factor = mean.to(kind), factor.to(kind)
    for block, target in _blocks(pixels, out):
        with _result(target, kind) as result:
            torch.sub(block, mean, out=result).mul_(factor)
            if bias is not None:
                result.add_(bias)


def _scale_back(
    pixels: Tensor, grad: Tensor, out: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Fills out with the gradient at the pixels; returns those of weight and bias, in float64."""
    kind, count = _precise(pixels), len(pixels)
    about = mean.to(kind)
    plain = _sum(block.sum(0, dtype=kind).double() for (block,) in _blocks(grad))
    crossed = _sum(
        (block - about).mul_(given).sum(0).double() for block, given in _blocks(pixels, grad)
    )
    crossed = (crossed - plain * (mean - about)) * rstd
    factor = rstd if weight is None else rstd * weight
    slope = -crossed * rstd / count * factor
    offset = (-plain / count * factor - slope * mean).to(kind)
    slope, factor = slope.to(kind), factor.to(kind)
    for block, given, target in _blocks(pixels, grad, out):
        with _result(target, kind) as result:
            torch.addcmul(offset, block, slope, out=result)
            torch.addcmul(result, given, factor, out=result)
    return crossed, plain


@contextmanager
def _result(target: Tensor, kind: torch.dtype) -> Iterator[Tensor]:
    """Where to compute what belongs into `target`: there, unless it is of lower precision."""
    result = target if target.dtype == kind else torch.empty_like(target, dtype=kind)
    yield result
    if result is not target:
        target.copy_(result)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, by_sample: bool
) -> tuple[Tensor | None, ...]:
    """Gradients at x, weight and bias, with a graph."""
    over = (2, 3) if by_sample else (0, 2, 3)
    with torch.enable_grad():
        centred = x - x.mean(over, keepdim=True)
        out = centred * (centred.square().mean(over, keepdim=True) + eps).rsqrt()
        if weight is not None and bias is not None:
            out = out * weight[:, None, None] + bias[:, None, None]
        given = [each for each in (x, weight, bias) if each is not None and each.requires_grad]
        found = iter(torch.autograd.grad(out, given, grad, create_graph=True))
    wanted = [each is not None and each.requires_grad for each in (x, weight, bias)]
    return tuple(next(found) if each else None for each in wanted)
