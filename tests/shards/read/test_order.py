"""The order of samples: a pure function of its seed that never changes, and uniform."""

from __future__ import annotations

import numpy as np
import pytest

from shards.hashing import hash64, mix64, mix64_array
from shards.read.order import FullOrder, permutation


def test_splitmix64_gives_the_published_sequence():
    # The first three outputs of the reference generator with state 0.
    golden = 0x9E3779B97F4A7C15
    assert mix64(0) == 0xE220A8397B1DCDAF
    assert mix64(golden) == 0x6E789E6AA1B965F4
    assert mix64(2 * golden) == 0x06C45D188009454F


def test_the_order_of_a_seed_never_changes():
    assert permutation(8, seed=1, domain=0, epoch=0).tolist() == ORDER_OF_SEED_1
    assert FullOrder([8], seed=1).locate(8 + 3) == (1, int(permutation(8, 1, 0, 1)[3]))


ORDER_OF_SEED_1 = [6, 7, 2, 4, 1, 5, 0, 3]


def test_epochs_seeds_and_domains_differ():
    orders = {
        tuple(permutation(50, seed, domain, epoch))
        for seed in range(3)
        for domain in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 27


def test_places_are_uniform():
    num_epochs, num_samples = 2000, 8
    first = [permutation(num_samples, 5, 0, epoch)[0] for epoch in range(num_epochs)]
    counts = np.bincount(first, minlength=num_samples)
    # Standard deviation of each count is 15: five of them.
    assert np.abs(counts - num_epochs / num_samples).max() < 75, counts


def test_a_permutation_cannot_be_damaged():
    with pytest.raises(ValueError, match="read-only"):
        permutation(4, 0, 0, 0)[0] = 1


def test_array_and_scalar_hash_agree():
    values = [0, 1, 2**63, 2**64 - 1]
    assert mix64_array(np.array(values, dtype=np.uint64)).tolist() == [mix64(v) for v in values]
    assert hash64(1, 2) != hash64(2, 1)
