"""The image pool against recorded sequences of the original, and its state."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from tests.nets.rule import recorded
from trainers.parts.image_pool import ImagePool


def numbered(first: int, count: int) -> Tensor:
    """Images whose only value is their number."""
    return torch.arange(first, first + count).float().view(count, 1, 1, 1)


@pytest.mark.parametrize("case", recorded("image_pool"), ids=lambda case: str(case["pool_size"]))
def test_the_original_s_choices(case: dict) -> None:
    pool = ImagePool(case["pool_size"], "any")
    pool._random = random.Random(case["python_random_seed"])
    count = case["batch"]
    for step, wanted in enumerate(case["returned_ids"]):
        returned = pool.query(numbered(step * count, count))
        assert returned.flatten().int().tolist() == wanted
    kept = [int(image) for image in pool.images]
    assert kept == case["final_pool_ids"]


def test_a_pool_goes_on_where_its_state_was_taken() -> None:
    pool, other = ImagePool(4, "fake_A"), ImagePool(4, "fake_A")
    for step in range(7):
        pool.query(numbered(step, 1))
    other.load({name: tensor.clone() for name, tensor in pool.state().items()})
    for step in range(7, 40):
        assert torch.equal(pool.query(numbered(step, 1)), other.query(numbered(step, 1)))


def test_pools_and_processes_choose_independently() -> None:
    def choices(seed: int, name: str) -> list[int]:
        torch.manual_seed(seed)
        pool = ImagePool(3, name)
        return [int(pool.query(numbered(step, 1))) for step in range(40)]

    assert choices(1, "fake_A") == choices(1, "fake_A")
    assert choices(1, "fake_A") != choices(1, "fake_B")
    assert choices(1, "fake_A") != choices(2, "fake_A")


def test_the_pool_keeps_copies_not_batches() -> None:
    pool, batch = ImagePool(8, "any"), numbered(0, 4).requires_grad_()
    returned = pool.query(batch)
    assert not returned.requires_grad
    assert all(image.untyped_storage().nbytes() == 4 for image in pool.images)
