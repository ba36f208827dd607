"""Normalisation of feature maps: by sample, by batch, or by the batch of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers import precise
from nets.layers.spectral import Spectral

Norm = Literal["instance", "batch", "sync-batch", "none"]


def per_sample(norm: Norm) -> bool:
    """Whether the samples of a batch do not influence each other: several passes may be one."""
    return norm in ("instance", "none")


def conv_bias(norm: Norm, biased: bool = False) -> bool:
    """Whether a convolution before `norm` has a bias; batch norms bring their own. `biased`: it has
    one all the same, which changes nothing, as in pix2pixHD's code."""
    return biased or per_sample(norm)


def build_norm(
    norm: Norm, channels: int, eps: float = 1e-5, affine: bool | None = None
) -> nn.Module:
    """[N, channels, H, W] -> the same; both batch norms have the same state-dict keys.

    affine: whether there is a weight and a bias by channel; by default batch norms have them."""
    if norm == "batch":
        return BatchNorm(channels, eps, affine=affine is not False)
    if norm == "sync-batch":
        return SyncBatchNorm(channels, eps, affine=affine is not False)
    if norm == "instance":
        return InstanceNorm(channels if affine else 0, eps)
    assert norm == "none", norm
    return nn.Identity()


class InstanceNorm(nn.Module):
    """Instance norm without running statistics, then `activation` (may be in place).

    With `channels` it has a weight and a bias for each, without it has no parameters.

    `F.instance_norm` ends in a view, and an in-place activation on a view copies the whole tensor
    again in backward; it also leaves channels_last. Batch norm over one sample is the same
    function and does neither.
    """

    def __init__(self, channels: int = 0, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if channels else None
        self.bias = nn.Parameter(torch.zeros(channels)) if channels else None

    def forward(self, x: Tensor, activation: nn.Module | None = None) -> Tensor:
        x = self._normalised(x)
        return x if activation is None else activation(x)

    def _normalised(self, x: Tensor) -> Tensor:
        if precise.needed(x):
            return precise.normalise(x, self.eps, True, self.weight, self.bias)[0]
        how = (None, None, self.weight, self.bias, True, 0.0, self.eps)
        samples = [F.batch_norm(sample, *how) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of this process, as torch's but for the precision of its sums."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and precise.needed(x)):
            return super().forward(x)
        out, mean, variance = precise.normalise(x, self.eps, False, self.weight, self.bias)
        if self.track_running_stats:
            count = x[:, 0].numel()
            self._track(mean[0], variance[0] * count / (count - 1))
        return out

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None  # as it tracks them
        assert self.num_batches_tracked is not None
        # By `.data`, as torch's kernel does: it keeps the buffers of an earlier pass for that one's
        # backward, which would take them for altered, though training never reads them.
        self.num_batches_tracked.add_(1)
        share: Any = self.momentum
        if share is None:  # the plain mean over all passes
            share = 1 / self.num_batches_tracked.to(self.running_mean)
        self.running_mean.data.lerp_(mean.to(self.running_mean), share)
        self.running_var.data.lerp_(variance.to(self.running_var), share)


class SyncBatchNorm(BatchNorm):
    """Batch norm over the batch of all processes; without a process group, and in eval mode, plain.

    torch's own on GPUs, which share this module's state. It refuses the CPU, and DDP refuses every
    model on the CPU that contains one; there the same comes from differentiable sums.
    """

    synced = True

    def forward(self, x: Tensor) -> Tensor:
        if not (self.synced and self.training and dist.is_initialized()):
            return super().forward(x)
        return self._by_sums(x) if x.device.type == "cpu" else self._by_torch(x)

    def _by_torch(self, x: Tensor) -> Tensor:
        return nn.SyncBatchNorm.convert_sync_batchnorm(self)(x)

    def _by_sums(self, x: Tensor) -> Tensor:
        # Sums over whole pictures are taken in float64: float32 would lose digits of the mean.
        kind = torch.promote_types(x.dtype, torch.float32)
        sums = x.sum((0, 2, 3), dtype=torch.float64)
        sums = torch.cat([sums, sums.new_tensor([x[:, 0].numel()])])
        sums, count = _SumOverProcesses.apply(sums).tensor_split([self.num_features])
        count = count.detach()
        mean = sums / count
        centred = x.to(kind) - mean.to(kind)[:, None, None]
        squares = centred.square().sum((0, 2, 3), dtype=torch.float64)
        variance = _SumOverProcesses.apply(squares) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.to(kind)[:, None, None]).to(x.dtype)
        scale = (self.weight * scale).to(kind)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over the default process group. Every process uses it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOverProcesses.apply(grad.contiguous())


def untracked(module: nn.Module) -> AbstractContextManager[None]:
    """Inside, batch norms of `module` in training mode leave their running statistics alone, and
    spectral norms their vectors.

    They still normalise by the batch: for a pass over a batch that was or will be counted."""
    return _with(module, (nn.BatchNorm2d, Spectral), "track_running_stats", False)


@contextmanager
def standing(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms of `module` gather their running statistics anew, as the plain mean over
    the passes in training mode: standing statistics (BigGAN, arXiv:1809.11096, section 4)."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def unsynced(module: nn.Module) -> AbstractContextManager[None]:
    """Inside, sync-batch norms of `module` are plain ones: for what one process does alone."""
    return _with(module, SyncBatchNorm, "synced", False)


@contextmanager
def _with(
    module: nn.Module, kind: type | tuple[type, ...], attribute: str, value: bool
) -> Iterator[None]:
    layers = [layer for layer in module.modules() if isinstance(layer, kind)]
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            setattr(layer, attribute, value)
