"""`plan` prints what follows from recipe, card and links, and refuses what cannot be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.links import BETWEEN_NODES, BUCKET
from launcher.estimate.gpus import GIB, cards_of, seconds
from launcher.estimate.memory import Work, needed
from launcher.estimate.step_costs import step_costs
from launcher.plan.expected_data import expected_data
from launcher.plan.planning import fleet_of, plan
from launcher.plan.report import sections
from launcher.plan.step_time import LAUNCH, Fleet, Outlook, floors, updates
from launcher.recipe import epochs
from launcher.recipe.config import Config, ConfigError, load
from shards.pack.packing import pack
from shards.records import DataError
from tests.launcher.sample import make_source, organza

(H200,) = cards_of("H200")
HD = {"model.num_blocks": "1", "model.num_local_blocks": "1", "model.lambda_vgg": "0"}
RESNET = {"model.generator.num_blocks": "1"}
SLIM = {"cyclegan": RESNET, "pix2pix": {"backend.memory_gib": "3"}}
"""Recipes of other GANs, with few layers: each preset is traced."""


@pytest.fixture(scope="module")
def coarse() -> Config:
    return load("pix2pixhd-coarse", HD)


@pytest.fixture(scope="module")
def outlook(coarse: Config) -> Outlook:
    data, work = expected_data(coarse, "", ""), Work(1, (64, 128), world=64)
    return Outlook(coarse, (H200,), Fleet(64, 8), data, work, step_costs(coarse, 1, work.size))


def with_backend(outlook: Outlook, **changes: object) -> Outlook:
    backend = outlook.config.backend.model_copy(update=changes)
    return replace(outlook, config=outlook.config.model_copy(update={"backend": backend}))


def printed(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    plan(*arguments)
    return capsys.readouterr().out


def test_the_full_recipe_on_64_gpus(outlook: Outlook) -> None:
    asked = load("pix2pixhd-full", {"batch.total": "64", "model.memory": "none"})
    config = epochs.resolve(asked, 2975)
    work = Work(1, (1024, 2048), world=64)
    costs = step_costs(config, work.num_images, work.size)
    output = "\n".join(sections(replace(outlook, config=config, work=work, costs=costs)))
    assert "parameters: G 182.9 M, D 8.4 M" in output
    assert re.search(r"^all +10\.75 ", output, re.M), "TFLOP"
    assert "G 731.4 MB, D 33.6 MB; with backend.compress=bf16 G 365.7 MB, D 16.8 MB" in output
    for num_gpus in (64, 512):
        for link in BETWEEN_NODES:
            assert re.search(rf"^{num_gpus} +{link.name} +\d", output, re.M), output
    assert "A checkpoint has 3.0" in output and "Assumed:" in output


def test_the_command_tells_every_preset() -> None:
    options = [f"--{name}={value}" for name, value in HD.items()]
    options += ["--size=256x128", "--world=64", "--batch.total=64", "--images=2975"]
    status, output = organza("plan", "pix2pixhd-full", "--gpu=H200", *options)
    assert status == 0, output
    for preset in ("none", "blocks", "halves", "halves+slices", "whole+strips"):
        assert re.search(rf"^{re.escape(preset)} +\d+\.\d\d +yes$", output, re.M), output
    for words in ("64 x H200", "not measured on a GPU yet", "2975 pictures", "Assumed:"):
        assert words in output


@pytest.mark.parametrize("recipe", SLIM)
def test_the_other_gans_have_plans(recipe: str, capsys: pytest.CaptureFixture) -> None:
    output = printed(capsys, recipe, "24G", Fleet(1, 8), "512x512", "", SLIM[recipe])
    for card in cards_of("24G"):
        assert re.search(rf"^{card.name} +\d", output, re.M), output
    assert f"may count on {22.1 if recipe == 'cyclegan' else 3.0} GiB" in output
    assert ("Planned with model.memory=none" in output) == (recipe == "cyclegan")  # auto there
    assert re.search(r"^1 +\(one node\) +0.0 +0.0 +100% +0.0 +0.0 +100%$", output, re.M), output


def test_a_packed_set_is_looked_at(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", count=3, size=(128, 64))
    pack(source, tmp_path / "shards", layout="labels")
    config = load("pix2pixhd-coarse", {"data.shards": str(tmp_path / "shards")})
    found = expected_data(config, "", "")
    assert found.stored == (128, 64) and found.num_images == 3 and found.sample_bytes > 100
    assert found.trained(config) == (1024, 512)
    asked = expected_data(config, "300x200", "7")
    assert asked.stored == (300, 200) and asked.num_images == 7
    with pytest.raises(DataError, match="smaller than data.preprocess.crop_size=256x256"):
        asked.trained(load("earth-pix2pix", {"data.preprocess.crop_size": "256"}))


def test_the_largest_picture_of_a_packed_set_must_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = make_source(tmp_path / "source", count=3, size=(128, 64))
    make_source(source, count=1, size=(192, 128))  # instead of the first
    pack(source, tmp_path / "shards", layout="labels")
    slim = HD | {"data.shards": str(tmp_path / "shards"), "model.memory": "none"}
    slim |= {"data.preprocess.mode": "none", "batch.total": "1", "model.num_labels": "8"}
    output = printed(capsys, "pix2pixhd-coarse", "H200", Fleet(1, 8), "", "", slim)
    assert "most of them 128x64" in output and "for pictures of 192x128, the largest" in output
    work = Work(1, (128, 192))
    least = needed(load("pix2pixhd-coarse", slim), work) / GIB
    assert re.search(rf"^none +{least:.2f} +yes$", output, re.M), output
    with pytest.raises(DataError, match="num_labels=4"):
        plan("pix2pixhd-coarse", "H200", Fleet(1, 8), "", "", slim | {"model.num_labels": "4"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": ""}, "plan: which GPU? --gpu=H200 names a card"),
        ({"gpu": "foo"}, "--gpu=foo is neither a card's memory"),
        ({"backend.world": "16"}, "--world=8, but backend.world=16 lets no other number"),
        ({"world": "63", "batch.total": "64"}, "--world=63 cannot be spread evenly over nodes"),
        ({"world": "7", "batch.total": "64"}, "batch.total=64 cannot be shared by 7 processes"),
        ({"world": "0"}, "--world=0 must be a whole number from 1"),
        ({"world": "many"}, "--world=many must be a whole number from 1"),
        ({"gpus": "-8"}, "--gpus=-8 must be a whole number from 1"),
        ({"images": "0"}, "--images=0 must be a whole number from 1"),
        ({"size": "2048"}, "--size=2048 must be WIDTHxHEIGHT"),
        ({"size": "0x9"}, "--size=0x9 must be WIDTHxHEIGHT"),
        ({"size": "00x9"}, "--size=00x9 must be WIDTHxHEIGHT"),
        ({"images": "9" * 5000}, "must be a whole number from 1 to 999999999"),
        ({"world": "9" * 5000}, "must be a whole number from 1 to 999999999"),
        ({"size": "16x16"}, "has images of 16x16 after data.preprocess"),
        ({"batch.totl": "64"}, "unknown option `batch.totl`"),
    ],
)
def test_mistakes_end_with_a_sentence(options: dict[str, str], message: str) -> None:
    given = {"gpu": "H200", "world": "8", "gpus": "8", "size": "", "images": ""} | HD | options
    own = (given.pop(name) for name in ("gpu", "world", "gpus", "size", "images"))
    gpu, world, gpus, size, images = own
    with pytest.raises(ConfigError) as caught:
        plan("pix2pixhd-full", gpu, fleet_of(world, gpus), size, images, given)
    assert message in str(caught.value)


def test_a_mistake_is_told_in_one_line_with_status_2() -> None:
    status, output = organza("plan", "pix2pixhd-full", "--gpu=H200", "--world=64")
    remedy = "choose a multiple (--batch.total=64), or another number of processes."
    assert status == 2 and output.count("\n") == 1 and remedy in output, output


def test_what_does_not_fit_is_told(capsys: pytest.CaptureFixture) -> None:
    """The allowance alone is a GiB."""
    slim = RESNET | {"model.memory": "directions"}
    output = printed(capsys, "cyclegan", "1G", Fleet(1, 8), "128x128", "", slim)
    assert re.search(r"^directions +\d\.\d\d +no$", output, re.M)
    assert "It does not fit: choose model.memory=directions+blocks, precision=bf16" in output
    assert "the speed of such a card is unknown" in output


def test_floors_are_ordered(outlook: Outlook) -> None:
    found, parts = outlook.floors(H200), outlook.costs.parts
    assert 0 < max(found.arithmetic, found.traffic) <= found.kernels <= found.step
    assert found.launches <= found.step <= found.kernels + found.launches
    assert found.launches == pytest.approx(LAUNCH * sum(len(part.kernels) for part in parts))
    faster = replace(H200, bandwidth=float("inf"))
    assert floors(outlook.costs, faster, "bf16").kernels == pytest.approx(found.arithmetic)


def test_a_phase_that_seldom_runs_counts_for_less(outlook: Outlook) -> None:
    shares = outlook.costs.shares
    assert set(shares.values()) == {1.0}
    alone, mean = (
        replace(outlook, costs=replace(outlook.costs, shares=shares | {"G": share}))
        for share in (0.0, 0.2)
    )
    all_of_it, of_d = outlook.floors(H200).step, alone.floors(H200).step
    assert mean.floors(H200).step == pytest.approx(of_d + 0.2 * (all_of_it - of_d))
    before, now = (updates(o.costs, 1, H200, "bf16") for o in (outlook, mean))
    for update, other in zip(before, now, strict=True):
        sent, less = (sum(num_bytes for _, num_bytes in u.gradients) for u in (update, other))
        assert less / sent == pytest.approx(other.compute / update.compute)
        assert other.compute / update.compute == pytest.approx(0.2 if update is before[0] else 1)


@pytest.mark.parametrize("num_micro", [1, 3])
def test_gradients_come_in_the_last_backward(coarse: Config, num_micro: int) -> None:
    costs = step_costs(coarse, 1, (64, 128), num_micro)
    phases = updates(costs, num_micro, H200, "bf16")
    for update, (phase, count) in zip(phases, costs.num_trained.items(), strict=True):
        (part,) = (p for p in costs.parts if (p.phase, p.stage) == (phase, "backward"))
        whole = max(LAUNCH * len(part.kernels), seconds(part.kernels, H200, "bf16"))
        assert update.backward == pytest.approx(whole / num_micro)
        times = [when for when, _ in update.gradients]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= update.backward
        assert sum(num_bytes for _, num_bytes in update.gradients) == 4 * count


def test_communication_by_backend(outlook: Outlook) -> None:
    *_, slow = BETWEEN_NODES
    assert 4 * sum(outlook.costs.num_trained.values()) > 2 * BUCKET

    def exposed(compress: str = "none", num_gpus: int = 64, **backend: object) -> float:
        asked = with_backend(outlook, **backend)
        return asked.synchronised(H200, Fleet(num_gpus, 8), slow, compress).exposed

    assert exposed(num_gpus=1) == 0
    assert exposed(num_gpus=8) < exposed() < exposed(num_gpus=512)
    assert exposed(overlap=True) <= exposed() < exposed(kind="deepspeed")
    assert exposed(kind="deepspeed", zero=1) > 1.4 * exposed(kind="deepspeed")
    in_four = replace(outlook, work=replace(outlook.work, num_micro=4))
    zeros = [with_backend(in_four, kind="deepspeed", zero=stage) for stage in (1, 2)]
    first, second = (zero.synchronised(H200, Fleet(64, 8), slow, "none") for zero in zeros)
    assert second.all_reduce == pytest.approx(4.5 / 1.5 * first.all_reduce, rel=0.05)
    assert exposed("bf16") < 0.55 * exposed()
    found = outlook.synchronised(H200, Fleet(64, 8), slow, "none")
    assert found.efficiency == pytest.approx(outlook.floors(H200).step / found.step)
