"""Spectral normalisation beside the originals' numbers, and where passes repeat each other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nets.layers.norms import untracked
from nets.layers.spectral import (
    SpectralConv2d,
    SpectralConvTranspose2d,
    SpectralEmbedding,
    SpectralLinear,
)
from nets.memory.remat import remat
from tests.nets.noise.oracle import FUNCTIONS, drawn, weight


def convolution(in_eval: bool = False, dtype: torch.dtype = torch.float64) -> SpectralConv2d:
    layer = SpectralConv2d(3, 4, 3, padding=1, in_eval=in_eval).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(weight("fn_a/sn/weight", (4, 3, 3, 3)))
        layer.bias.copy_(weight("fn_a/sn/bias", (4,)))
        layer.u.copy_(weight("fn_a/sn/u0", (4,)))
    return layer


def test_it_is_biggans_in_three_passes_and_in_eval_mode() -> None:
    expected = FUNCTIONS["spectral_norm_biggan"]
    layer, x = convolution(), drawn(expected["input"])
    for recorded in expected["training_passes"]:
        out = layer(x)
        assert out.norm().item() == pytest.approx(recorded["output_l2"], rel=1e-12)
        assert layer.u.tolist() == pytest.approx(recorded["u"], rel=1e-12)
    layer.eval()
    for _ in range(2):
        norm = layer(x).norm().item()
        assert norm == pytest.approx(expected["evaluation"]["output_l2"], rel=1e-12)
    assert layer.u.tolist() == pytest.approx(expected["evaluation"]["u"], rel=1e-12)


def test_it_is_sagans_transposed_convolution_with_a_third_pass_in_eval_mode() -> None:
    expected = FUNCTIONS["spectral_norm_sagan_transposed"]
    layer = SpectralConvTranspose2d(3, 5, 4, stride=2, padding=1, in_eval=True).double()
    with torch.no_grad():
        for own, key in (("weight", "weight_bar"), ("bias", "bias"), ("u", "weight_u")):
            tensor = getattr(layer, own)
            tensor.copy_(weight(f"fn_a/snt/module.{key}", tensor.shape))
    x = drawn(expected["input"])
    for number, recorded in enumerate(expected["passes"]):
        out = layer.train(number < 2)(x)
        assert layer.u.tolist() == pytest.approx(recorded["u"], rel=1e-11)
        assert out.norm().item() == pytest.approx(recorded["output_l2"], rel=1e-11)


def test_the_weight_and_nothing_else_gets_a_gradient_through_sigma() -> None:
    layer = convolution()
    probe = torch.randn_like(layer.weight)
    (layer.normalised() * probe).sum().backward()
    u = layer.u  # of this very pass
    matrix = layer.weight.detach().flatten(1).requires_grad_()
    v = nn.functional.normalize(weight("fn_a/sn/u0", (4,)).double() @ matrix.detach(), dim=0)
    (matrix / (u @ matrix @ v) * probe.flatten(1)).sum().backward()
    assert torch.allclose(layer.weight.grad.flatten(1), matrix.grad, rtol=1e-12, atol=1e-14)


def test_two_passes_share_a_backward() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    together, apart = convolution(), convolution()
    (together(x).square().sum() + together(x + 1).square().sum()).backward()
    for image in (x, x + 1):
        apart(image).square().sum().backward()
    assert torch.allclose(together.weight.grad, apart.weight.grad, rtol=1e-12)
    assert torch.equal(together.u, apart.u)


class Pair(nn.Module):
    def __init__(self, in_eval: bool):
        super().__init__()
        torch.manual_seed(0)
        layers = [SpectralConv2d(3, 3, 3, padding=1, in_eval=in_eval) for _ in range(2)]
        self.layers = nn.Sequential(*layers).double()
        self.frugal = False

    def forward(self, x: Tensor) -> Tensor:
        return remat(self.layers, torch.tanh(x), when=self.frugal)


@pytest.mark.parametrize("in_eval", [False, True])
@pytest.mark.parametrize("penalty", [False, True])
def test_a_recomputation_starts_from_the_same_vector_and_moves_nothing(
    in_eval: bool, penalty: bool
) -> None:
    """Two passes in one graph, as of real and generated images; a penalty recomputes twice."""
    plain, frugal = Pair(in_eval), Pair(in_eval)
    frugal.frugal = True
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for net in (plain, frugal):
        net.train(not in_eval)
        leaf = x.clone().requires_grad_()
        total = net(leaf).square().sum() - net(leaf + 1).square().sum()
        if penalty:
            (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
            total = slope.square().sum()
        total.backward()
    state = plain.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in frugal.state_dict().items())
    for ours, other in zip(frugal.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (other.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, other.grad)
    assert frugal.layers[0].weight.grad.abs().max() > 1e-6


def test_passes_without_gradients_move_the_vector_in_training_mode_alone() -> None:
    layer, x = convolution(), torch.randn(1, 3, 5, 5, dtype=torch.float64)
    start = layer.u.clone()
    with torch.no_grad():
        layer.eval()(x)
        assert torch.equal(layer.u, start)
        layer.train()(x)
    assert not torch.equal(layer.u, start)


@pytest.mark.parametrize("in_eval", [False, True])
def test_an_untracked_pass_is_the_same_and_leaves_no_trace(in_eval: bool) -> None:
    layer, x = convolution(in_eval), torch.randn(1, 3, 5, 5, dtype=torch.float64)
    start = layer.u.clone()
    with untracked(layer):
        untraced = layer(x)
    assert torch.equal(layer.u, start)
    assert torch.equal(layer(x), untraced) and not torch.equal(layer.u, start)


def test_sigma_is_taken_in_float32_under_autocast() -> None:
    layer, same = (convolution(dtype=torch.float32) for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer.normalised()
        assert layer(torch.randn(1, 3, 5, 5)).dtype == torch.bfloat16
    assert low.dtype == torch.float32 and torch.equal(low, same.normalised())


def test_the_state_holds_the_vector_and_copies_go_their_own_way() -> None:
    for layer in (SpectralLinear(5, 3), SpectralEmbedding(4, 3), convolution()):
        assert [key for key in layer.state_dict() if key != "bias"] == ["weight", "u"]
        twin = copy.deepcopy(layer)
        with torch.no_grad():
            twin.normalised()
        assert not torch.equal(twin.u, layer.u)


def test_classes_and_their_shares_are_embedded_alike() -> None:
    layer = SpectralEmbedding(4, 3).double().eval()
    label = torch.tensor([2, 0])
    shares = nn.functional.one_hot(label, 4).double()
    assert torch.allclose(layer(label), layer(shares), atol=1e-15)
    assert torch.linalg.matrix_norm(layer.weight.detach(), 2) > 0
