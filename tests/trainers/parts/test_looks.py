"""Looks of instances: taken from features, clustered by label, and chosen again."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainers.parts.looks import Clusters, Looks, k_means, looks_of


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_look_is_that_of_an_instance() -> None:
    """Against a loop over the ids, as the authors have it."""
    inst = torch.tensor([[[[7, 7, 2, 2], [7, 2, 2, 26001], [26001] * 4]]], dtype=torch.int32)
    label = torch.where(inst == 26001, 26, inst).to(torch.uint8)
    of_id = {2: [0.1, 0.2], 7: [0.3, -0.4], 26001: [0.5, 0.6]}
    features = torch.tensor([of_id[i] for i in inst.flatten().tolist()]).T.reshape(1, 2, 3, 4)
    looks = looks_of(features, inst, label)
    for row, (number, values) in enumerate(of_id.items()):
        assert looks.features[row].tolist() == pytest.approx(values, rel=1e-6)
        assert looks.labels[row] == min(number, 26)  # 26001 is of label 26
        assert looks.shares[row] == (inst == number).double().mean()


def cost(points: Tensor, centres: Tensor) -> float:
    return torch.cdist(points, centres).min(1).values.square().sum().item()


def test_centres_are_as_good_as_the_best_division() -> None:
    points = torch.tensor([[0.0, 0], [0.2, 0], [5, 5], [5, 5.2], [9, 0], [9.1, 0]]).double()
    best = min(
        sum(
            (points[own] - points[own].mean(0)).square().sum().item()
            for own in (torch.tensor(choice) == group for group in range(3))
            if own.any()
        )
        for choice in product(range(3), repeat=len(points))
    )
    centres, sizes = k_means(points, 3, draws())
    assert cost(points, centres) == pytest.approx(best) and sizes.tolist() == [2, 2, 2]
    again, _ = k_means(points, 3, draws())
    assert torch.equal(centres, again)


def test_equal_points_are_one_cluster() -> None:
    centres, sizes = k_means(torch.ones(5, 3).double(), 4, draws())
    assert centres.tolist() == [[1.0, 1.0, 1.0]] and sizes.tolist() == [5]


def gathered() -> Clusters:
    """Label 3 mostly looks like 1, sometimes like -1, and once, in a tiny instance, like 9; label 5
    has tiny instances alone."""
    features = torch.tensor([[1.0], [1.0], [-1.0], [9.0], [4.0]]).double()
    labels, shares = torch.tensor([3, 3, 3, 3, 5]), torch.tensor([0.1, 0.2, 0.1, 0.001, 0.001])
    return Clusters.of([Looks(features, labels, shares)], 10, seed=0)


def test_small_instances_count_where_there_are_no_others() -> None:
    clusters = gathered()
    assert {label: c.flatten().tolist() for label, c in clusters.centres.items()} == {
        3: [1.0, -1.0],
        5: [4.0],
    }


def test_a_choice_is_by_label_one_for_each_instance_and_can_be_repeated() -> None:
    clusters = gathered()
    inst = torch.arange(100, dtype=torch.int32).reshape(1, 1, 10, 10).repeat_interleave(2, 3)
    label = torch.where(inst < 98, 3, inst - 93).to(torch.uint8)  # 98 is of label 5, 99 of 6
    common = clusters.choose(inst, label, 1, seed=None)
    assert set(common[label == 3].tolist()) == {1.0}
    assert common[label == 5].tolist() == [4.0] * 2 and common[label == 6].tolist() == [0.0] * 2
    drawn = clusters.choose(inst, label, 1, seed=1)
    assert torch.equal(drawn[..., ::2], drawn[..., 1::2])
    assert 20 < (drawn[..., ::2][label[..., ::2] == 3] == 1).sum() < 78
    assert torch.equal(drawn, clusters.choose(inst, label, 1, seed=1))
    assert not torch.equal(drawn, clusters.choose(inst, label, 1, seed=2))


def test_a_file_gives_back_what_it_got(tmp_path: Path) -> None:
    file = tmp_path / "features.safetensors"
    save_file(gathered().tensors(), file)
    clusters = Clusters.read(file)
    assert clusters.centres.keys() == {3, 5} and clusters.centres[3].flatten().tolist() == [1, -1]
    clusters.check(6, 1)
    with pytest.raises(ValueError, match="holds label 5, but the run has 0 to 4"):
        clusters.check(5, 1)
    with pytest.raises(ValueError, match="features of 1 channels, but the run's have 3"):
        clusters.check(6, 3)


@pytest.mark.parametrize(
    "tensors",
    [
        {"G.weight": torch.zeros(2, 2)},
        {"label003": torch.zeros(2)},
        {"label003": torch.zeros(0, 3)},
        {"label003": torch.full((1, 3), float("nan"))},
        {"label003": torch.zeros(1, 3, dtype=torch.float64)},
    ],
)
def test_other_files_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="which is no clusters of features"):
        Clusters.read(tmp_path / "x.safetensors")
