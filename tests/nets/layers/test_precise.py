"""Norms in float32 beside float64, in every layout, on areas where naive sums lose digits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets.layers import precise
from nets.layers.norms import Norm, build_norm

LAYOUTS = (torch.contiguous_format, torch.channels_last)
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def features(mean: float, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean


def plain(norm: Norm, x: Tensor) -> Tensor:
    """The textbook's formula."""
    over = (2, 3) if norm == "instance" else (0, 2, 3)
    centred = x - x.mean(over, keepdim=True)
    return centred * (centred.square().mean(over, keepdim=True) + 1e-5).rsqrt()


def results(function: nn.Module, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and gradient at the input, which has a mean as well."""
    x = x.detach().requires_grad_()
    out = function(x)
    return out.detach(), torch.autograd.grad(out, x, probe)[0]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize("norm", ["instance", "batch", "sync-batch"])
@pytest.mark.parametrize("device", DEVICES)
def test_float32_is_precise_over_a_whole_picture(
    device: str, norm: Norm, mean: float, layout: torch.memory_format
) -> None:
    x = features(mean, 1, 2, 1024, 2048).to(device, memory_format=layout)
    probe = features(1.0, *x.shape).flip(3).to(device)
    module = build_norm(norm, 2).to(device)
    out, grad = results(module, x, probe.to(memory_format=layout))
    wanted, wanted_grad = results(lambda x: plain(norm, x), x.double(), probe.double())
    assert (out - wanted).abs().max() < 2e-6
    assert (grad - wanted_grad).abs().max() < 2e-6 * wanted_grad.abs().max()
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_several_samples_and_blocks(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's own on a contiguous tensor: outputs, gradients, running statistics."""
    monkeypatch.setattr(precise, "BLOCK", 70)  # rows of 14 pixels, the last block smaller
    x = features(3.0, 3, 5, 9, 8).double() * torch.arange(1, 4)[:, None, None, None]
    found = []
    for layout in LAYOUTS:
        module = build_norm(norm, 5).double()
        for i, parameter in enumerate(module.parameters()):
            nn.init.constant_(parameter, i + 0.5)
        given = x.clone(memory_format=layout).requires_grad_()
        assert precise.needed(given) == (layout == torch.channels_last)
        out = module(given)
        (out * x.flip(0)).sum().backward()
        gradients = [given.grad, *(parameter.grad for parameter in module.parameters())]
        found.append([out.detach(), *gradients, *module.buffers()])
    for ours, torchs in zip(*found, strict=True):
        assert torch.allclose(ours, torchs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradients_of_gradients(norm: Norm) -> None:
    module = build_norm(norm, 2).double()
    x = features(0.0, 2, 2, 3, 4).double().to(memory_format=torch.channels_last)
    assert precise.needed(x)
    inputs = (x.requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(lambda *_: module(inputs[0]), inputs)
    assert torch.autograd.gradgradcheck(lambda *_: module(inputs[0]), inputs)


def test_low_precision_keeps_its_type() -> None:
    x = features(2.0, 2, 3, 8, 8).to(torch.bfloat16, memory_format=torch.channels_last)
    probe = features(0.0, *x.shape).bfloat16()
    out, grad = results(build_norm("instance", 3), x, probe)
    wanted, wanted_grad = results(lambda x: plain("instance", x), x.float(), probe.float())
    assert out.dtype == grad.dtype == torch.bfloat16
    assert torch.allclose(out.float(), wanted, atol=2e-2)
    assert torch.allclose(grad.float(), wanted_grad, atol=2e-2)


def test_the_number_of_threads_changes_little() -> None:
    x = features(10.0, 1, 4, 256, 256).to(memory_format=torch.channels_last)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(build_norm("instance", 4)(x))
    finally:
        torch.set_num_threads(threads)
    assert (found[0] - found[1]).abs().max() < 2e-6
