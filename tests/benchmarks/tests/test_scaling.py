"""The comparison of model and steps runs on two real processes, and fits what it measures."""

from __future__ import annotations

import pytest

from cluster.links import Link, ring_seconds
from launcher.recipe import config as configuration
from launcher.recipe.building import build
from tests.benchmarks.scaling import MESSAGES, SLIM, as_table, compared, fitted

TINY = {"model.ngf": "2", "model.ndf": "2", "model.num_blocks": "1"}


def test_a_step_of_two_processes_beside_the_model_s() -> None:
    config = configuration.load("pix2pixhd-coarse", SLIM | TINY)
    row = compared(2, config.to_yaml(), (32, 64), steps=1)
    trained = sum(parameter.numel() for parameter in build(config).nets.parameters())
    assert row["gradient_mb"] == pytest.approx(4 * trained / 1e6)
    assert row["apart_s"] > 0 and row["apart_s"] <= row["hidden_s"] <= row["exposed_s"]
    assert row["measured_s"] > 0 and row["bandwidth_mb_s"] > 0
    assert f"{row['measured_s'] * 1e3:.1f}" in as_table([row])


def test_a_link_is_found_again() -> None:
    link = Link("", 7e8, 5e-5)
    found = fitted({num_bytes: ring_seconds(num_bytes, 4, link) for num_bytes in MESSAGES}, 4)
    assert (found.bandwidth, found.latency) == pytest.approx((link.bandwidth, link.latency))
