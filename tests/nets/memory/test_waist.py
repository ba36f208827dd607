"""The narrow waist: one backward's gradients, with one critic in memory at a time."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from nets.memory.waist import Terms, loss_scale, narrow_waist


def critic(seed: int, weight: float) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 3))
    network.requires_grad_(False)

    class Critic(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Terms]:
            term = network.to(image.dtype)(image).float().square().mean()
            return weight * term, {"G/gan": term, f"G/{seed}": term}

    return Critic()


def picture(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(7)
    return torch.randn(2, 3, 12, 10).to(dtype)


def plain_gradient(critics: list[nn.Module], image: Tensor, scale: float = 1.0) -> Tensor:
    image = image.clone().requires_grad_()
    (scale * sum(critic(image)[0] for critic in critics)).backward()
    return image.grad


@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_value_terms_and_gradient_of_one_backward(scale: float) -> None:
    critics, image = [critic(0, 1.0), critic(1, 10.0), critic(2, 0.3)], picture()
    leaf = image.clone().requires_grad_()
    total, terms = narrow_waist(leaf, critics)
    (total * scale).backward()
    assert torch.equal(leaf.grad, plain_gradient(critics, image, scale))
    zero, one, two = (terms[f"G/{seed}"] for seed in range(3))
    assert torch.equal(terms["G/gan"], zero + (one + two))
    assert total.item() == pytest.approx((zero + 10 * one + 0.3 * two).item(), rel=1e-6)
    assert not any(term.requires_grad for term in terms.values())


def test_a_waist_is_a_critic() -> None:
    near, far, last = critic(0, 1.0), critic(1, 3.0), critic(2, 0.5)

    def half(image: Tensor) -> tuple[Tensor, Terms]:
        return narrow_waist(nn.functional.avg_pool2d(image, 2), [far])

    def plain_half(image: Tensor) -> tuple[Tensor, Terms]:
        return far(nn.functional.avg_pool2d(image, 2))

    leaf = picture().requires_grad_()
    total, terms = narrow_waist(leaf, [near, half, last])
    total.backward()
    assert set(terms) == {"G/gan", "G/0", "G/1", "G/2"}
    assert torch.equal(leaf.grad, plain_gradient([near, plain_half, last], picture()))


def test_each_graph_is_gone_before_the_next_critic_runs() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def greedy(image: Tensor) -> tuple[Tensor, Terms]:
        assert not any(reference() is not None for reference in alive)
        activation = image.exp()
        alive.append(weakref.ref(activation))
        return (activation * activation).sum(), {}

    narrow_waist(picture().requires_grad_(), [greedy, greedy, greedy])
    assert len(alive) == 3


def test_without_gradients_nothing_is_differentiated() -> None:
    seen = []

    def watched(image: Tensor) -> tuple[Tensor, Terms]:
        seen.append(image.requires_grad or torch.is_grad_enabled())
        return critic(0, 1.0)(image)

    assert not narrow_waist(picture(), [watched])[0].requires_grad
    with torch.no_grad():
        assert not narrow_waist(picture().requires_grad_(), [watched])[0].requires_grad
    assert seen == [False, False]


def test_float16_gradients_need_the_loss_scale() -> None:
    def faint(image: Tensor) -> tuple[Tensor, Terms]:
        total = 1e-8 * image.float().sum()
        return total, {"G/gan": total}

    for announced, expected in ((1.0, 0.0), (65536.0, 1e-8 * 65536)):
        leaf = picture(torch.float16).requires_grad_()
        with loss_scale(announced):
            total, _ = narrow_waist(leaf, [lambda image: narrow_waist(image, [faint])])
            (total * 65536).backward()
        assert torch.allclose(leaf.grad, torch.full_like(leaf, expected), rtol=1e-3)
        assert total.item() == pytest.approx(1e-8 * leaf.float().sum().item(), rel=1e-4)


def test_gradcheck() -> None:
    def smooth(image: Tensor) -> tuple[Tensor, Terms]:
        return (image.sin() * image).sum(), {}

    image = picture(torch.float64)[:1, :, :3, :3].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: narrow_waist(torch.tanh(x), [smooth, smooth])[0], image
    )
