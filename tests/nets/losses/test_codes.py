"""Losses of classes, codes and turns, beside the originals' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nets.losses import codes, losses
from nets.losses.weights import orthogonality
from tests.nets.noise.oracle import FUNCTIONS, drawn, weight
from tests.nets.rule import stream


def precise(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "name"), [("hinge", "hinge"), ("bce", "bce_logits"), ("lsgan", "lsgan")]
)
def test_losses_of_scores(kind: losses.CriticLoss, name: str) -> None:
    expected = FUNCTIONS["losses"]
    real, fake = precise(expected["real"]), precise(expected["fake"])
    found = {
        "D_real": losses.discriminator_loss(real, True, kind),
        "D_fake": losses.discriminator_loss(fake, False, kind),
        "G": losses.generator_loss(fake, kind),
    }
    for key, value in found.items():
        assert value.item() == pytest.approx(expected[name][key], rel=1e-12), key


def test_wasserstein_and_drift() -> None:
    expected = FUNCTIONS["losses"]
    real, fake = precise(expected["real"]), precise(expected["fake"])
    both = sum(losses.discriminator_loss(x, r, "wgangp") for x, r in ((real, True), (fake, False)))
    assert both.item() == pytest.approx(expected["wasserstein"]["D"], rel=1e-12)
    assert losses.drift(real).item() == pytest.approx(real.square().mean().item())


def critic(x: Tensor) -> Tensor:
    return (x.square() * torch.arange(1.0, 1 + x[0].numel()).view_as(x[0]).to(x)).sum((1, 2, 3))


def test_the_share_of_a_penalty_is_of_the_real_or_of_the_fake_image() -> None:
    real, fake, share = torch.rand(2, 2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.rand(2, 1, 1, 1)
    real = real[0]
    ours = losses.gradient_penalty(critic, real, fake, share, share_of="fake")
    swapped = losses.gradient_penalty(critic, fake, real, share)
    assert torch.allclose(ours, swapped)
    assert not torch.allclose(ours, losses.gradient_penalty(critic, real, fake, share))


def test_a_penalty_with_a_target_is_that_of_the_enlarged_image() -> None:
    def enlarged(x: Tensor) -> Tensor:
        return critic(F.avg_pool2d(x, 4))

    real, fake, share = (torch.rand(2, 3, 2, 2, dtype=torch.float64) for _ in range(3))
    share = share[:, :1, :1, :1]
    large = (x.repeat_interleave(4, 2).repeat_interleave(4, 3) for x in (real, fake))
    expected = losses.gradient_penalty(enlarged, *large, share)
    ours = losses.gradient_penalty(critic, real, fake, share, target=4.0)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_likelihood_of_codes() -> None:
    expected = FUNCTIONS["normal_nll"]
    tensors = (precise(expected[key]) for key in ("x", "mu", "var"))
    assert codes.normal_nll(*tensors).item() == pytest.approx(expected["value"], rel=1e-12)


def test_the_cross_entropies_of_several_categories_are_summed() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64)
    categories = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 0]])
    plain = sum(F.cross_entropy(logits[:, 3 * j : 3 * j + 3], categories[:, j]) for j in (0, 1))
    assert codes.category_loss(logits, categories).item() == pytest.approx(plain.item())
    one = codes.category_loss(logits[:, :3, None, None], categories[:, 0])
    assert one.item() == pytest.approx(F.cross_entropy(logits[:, :3], categories[:, 0]).item())


def test_coupled_losses() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 0.5]])
    for real in (False, True):
        wanted = F.cross_entropy(logits, torch.tensor([int(real)] * 2))
        assert codes.two_class_loss(logits, real) == wanted
    a, b = torch.rand(2, 3, 5, 1, 1)
    distance = codes.feature_distance(a, b)
    assert torch.allclose(distance, 5 * F.mse_loss(a, b))


@pytest.mark.parametrize("diagonal", [False, True])
def test_orthogonal_regularisation(diagonal: bool) -> None:
    expected = FUNCTIONS["orthogonal_regularisation"]
    parameter = torch.nn.Parameter(weight("fn_a/ortho/weight", expected["shape"]).double())
    bias, frozen = (torch.nn.Parameter(torch.zeros(*shape).double()) for shape in ((3,), (2, 2)))
    frozen.requires_grad_(False)
    penalty = orthogonality([parameter, bias, frozen], diagonal)
    (found,) = torch.autograd.grad(expected["strength"] * penalty, parameter)
    recorded = precise(expected["default_gradient" if diagonal else "modified_gradient"])
    assert torch.allclose(found, recorded, rtol=0, atol=1e-15)


class Judge:
    """S2GAN's discriminator in small: linear features, scores and classes."""

    def __init__(self, expected: dict[str, Any]):
        self.tag, self.state = expected["tag"], expected["weights"]
        self.weights = {}
        for key, shape in self.state.items():
            values = stream(f"{self.tag}/{key}").standard_normal(shape)
            values *= shape[0] ** -0.5 if len(shape) > 1 else 0.1
            tensor = torch.from_numpy(values.astype("float32")).double()
            self.weights[key] = tensor.requires_grad_()

    def features(self, image: Tensor) -> Tensor:
        return F.relu(self.linear("features", image.flatten(1)))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.kernel"] + self.weights[f"{name}.bias"]

    def score(self, features: Tensor, shares: Tensor) -> Tensor:
        projected = (shares @ self.weights["projection.kernel"] * features).sum(1)
        return self.linear("score", features)[:, 0] + projected


@pytest.mark.parametrize("name", ["s2gan_inferred", "s2gan_co"])
def test_s2gan_judges_real_images_by_the_labels_that_it_infers(name: str) -> None:
    expected = FUNCTIONS["s2gan"][name]
    judge, label = Judge(expected), torch.tensor(expected["labels"])
    inputs = {role: drawn(spec) for role, spec in expected["inputs"].items()}
    real, fake = (inputs[role].requires_grad_() for role in ("real", "fake"))
    features = judge.features(real)
    total: Tensor | float = 0.0
    shares = F.one_hot(label.clamp(min=0), 5).double()
    if expected["cfg"]["predictor"]:
        logits = judge.linear("predictor", features)
        total = codes.labelled_loss(logits, label)
        assert total.item() == pytest.approx(expected["parts"]["class_loss_real"], rel=1e-9)
        shares = codes.inferred(label, logits)
    made = F.one_hot(inputs["gen_label"], 5).double()
    scores = judge.score(judge.features(fake), made)
    total = total + losses.discriminator_loss(judge.score(features, shares), True, "hinge")
    total = total + losses.discriminator_loss(scores, False, "hinge")
    assert total.item() == pytest.approx(expected["d_loss"], rel=1e-9)
    deceit = losses.generator_loss(scores, "hinge")
    assert deceit.item() == pytest.approx(expected["g_loss"], rel=1e-9)
    (slope,) = torch.autograd.grad(deceit, fake, retain_graph=True)
    assert slope.norm().item() == pytest.approx(expected["grad_g_at_fake"]["l2"], rel=1e-9)
    total.backward()
    assert real.grad.norm().item() == pytest.approx(expected["grad_d_at_real"]["l2"], rel=1e-9)
    for key, summary in expected["grads_d"].items():
        assert judge.weights[key].grad.norm().item() == pytest.approx(summary["l2"], rel=1e-9)


def test_soft_labels_are_what_the_logits_say() -> None:
    label, logits = torch.tensor([1, codes.UNLABELLED]), torch.randn(2, 3, requires_grad=True)
    shares = codes.inferred(label, logits, soft=True)
    assert not shares.requires_grad and shares[0].tolist() == [0, 1, 0]
    assert torch.equal(shares[1], logits[1].softmax(0))


def test_without_labels_there_is_no_loss_of_classes() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = codes.labelled_loss(logits, torch.tensor([codes.UNLABELLED] * 2))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_the_last_images_are_turned_counter_clockwise() -> None:
    image = torch.zeros(3, 1, 2, 2)
    image[2, 0, 0, 1] = 1.0  # at the upper right
    turned = codes.with_turned(image, 1)
    assert len(turned) == 6 and torch.equal(turned[:3], image)
    corners = [turned[3 + k, 0].nonzero().tolist() for k in range(3)]
    assert corners == [[[0, 0]], [[1, 0]], [[1, 1]]]


def test_the_turns_that_are_asked_for() -> None:
    logits = torch.randn(10, 4, dtype=torch.float64)
    turns = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    plain = F.cross_entropy(logits[2:], turns)
    assert codes.turn_loss(logits, 2).item() == pytest.approx(plain.item(), rel=1e-8)
    sure = torch.tensor([[-1e4, 0.0, 0.0, 0.0]] * 4, dtype=torch.float64)
    assert codes.turn_loss(sure, 1).isfinite()
