"""Class-conditional batch norm, attention and orthogonal starts, beside the originals' numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nets.layers.attention import PooledSelfAttention, SelfAttention
from nets.layers.conditional import ClassEmbedding, ConditionalBatchNorm, ProjectionHead
from nets.layers.init import init_normal, init_orthogonal
from nets.layers.norms import build_norm, standing
from nets.layers.spectral import SpectralConv2d, SpectralLinear
from tests.nets.noise.oracle import FUNCTIONS, distance, drawn, fill


def conditional() -> ConditionalBatchNorm:
    norm = ConditionalBatchNorm(
        3, SpectralLinear(2, 3, bias=False), SpectralLinear(2, 3, bias=False)
    ).double()
    expected = FUNCTIONS["class_conditional_batch_norm"]
    keys = {
        "gain.weight": "gain.weight",
        "bias.weight": "bias.weight",
        "norm.running_mean": "stored_mean",
        "norm.running_var": "stored_var",
        "gain.u": "gain.u0",
        "bias.u": "bias.u0",
    }
    recorded = dict(tag=expected["tag"], rule="fan", layout="torch", state=expected["weights"])
    fill(norm, keys, recorded)
    return norm


def test_classes_set_gain_and_bias_of_a_batch_norm() -> None:
    expected, norm = FUNCTIONS["class_conditional_batch_norm"], conditional()
    x, y = (torch.tensor(expected[key], dtype=torch.float64) for key in "xy")
    for mode in ("train", "eval"):
        out = norm.train(mode == "train")(x, y)
        assert distance(out, torch.tensor(expected[f"{mode}_output"], dtype=x.dtype)) <= 1e-12
    assert norm.norm.running_mean.tolist() == pytest.approx(expected["stored_mean"], rel=1e-12)
    assert norm.norm.running_var.tolist() == pytest.approx(expected["stored_var"], rel=1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_standing_statistics_are_the_plain_mean_over_passes(last: bool) -> None:
    norm = conditional().norm
    batches = [torch.randn(4, 3, 5, 6, dtype=torch.float64) * k + k for k in (1, 2, 3)]
    if last:
        batches = [batch.to(memory_format=torch.channels_last) for batch in batches]
    norm(batches[2])
    with standing(norm):
        for batch in batches:
            norm(batch)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(norm.running_mean, means.mean(0), rtol=1e-12)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    assert torch.allclose(norm.running_var, variances.mean(0), rtol=1e-12)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("name", ["attention_biggan", "attention_sagan"])
def test_attention(name: str) -> None:
    expected = FUNCTIONS[name]
    if name == "attention_biggan":
        attention: nn.Module = PooledSelfAttention(8, spectral=False).double()
    else:
        attention = SelfAttention(8).double()
    recorded = dict(expected, rule="fan", layout="torch", state=expected["weights"])
    own = [key for key, _ in attention.named_parameters()]
    fill(attention, dict(zip(own, expected["weights"], strict=True)), recorded)
    x = drawn(expected["x"])
    out = attention(x)
    assert distance(out, torch.tensor(expected["output"], dtype=x.dtype)) <= 1e-12
    if "attention_row_0" in expected:
        row = attention.weights(x)[0, 0].tolist()
        assert row == pytest.approx(expected["attention_row_0"], rel=1e-12)


def test_attention_starts_as_nothing_and_learns() -> None:
    for attention in (SelfAttention(8), PooledSelfAttention(8)):
        x = torch.randn(2, 8, 4, 6)
        out = attention(x)
        assert torch.equal(out, x)
        out.square().sum().backward()
        assert attention.gamma.grad.abs() > 0


def test_a_projection_adds_the_label_to_a_linear_score() -> None:
    head = ProjectionHead(3, 4, spectral=False).double()
    features, label = torch.randn(2, 3, dtype=torch.float64), torch.tensor([3, 1])
    scores = head(features, label)
    plain = head.linear(features)[:, 0]
    assert torch.allclose(scores, plain + (head.embedding.weight[label] * features).sum(1))
    assert ProjectionHead(3, 0)(features.float()).shape == scores.shape


def test_an_instance_norm_with_gains_is_torchs() -> None:
    ours = build_norm("instance", 3, affine=True).double()
    theirs = nn.InstanceNorm2d(3, affine=True).double()
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
            norm.bias.copy_(torch.tensor([0.5, 0.0, 3.0]))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=layout)
        assert torch.allclose(ours(x), theirs(x), atol=1e-12)
    assert not list(build_norm("instance", 3).parameters())


def test_orthogonal_starts_reach_convolutions_linears_and_embeddings() -> None:
    layers = (SpectralConv2d(4, 3, 3), nn.Linear(5, 2), ClassEmbedding(3, 6))
    module = nn.Sequential(*layers, build_norm("batch", 3, affine=False))
    init_normal(module, linear=True)
    assert abs(layers[1].weight).max() < 0.1
    init_orthogonal(module)
    for layer in layers:
        matrix = layer.weight.detach().flatten(1)
        assert torch.allclose(matrix @ matrix.t(), torch.eye(len(matrix)), atol=1e-5)
