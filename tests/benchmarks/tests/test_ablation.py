"""Each row of the ablation switches its saving off, and changes no number but by rounding."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.recipe.config import Config
from tests.benchmarks.ablation import Outcome, difference, outcome
from tests.benchmarks.race import configured, parsed
from tests.benchmarks.savings import BY_NAME, SAVINGS, Saving, Swaps
from tests.launcher.sample import ROOT, environment
from trainers.engine.tracing import Kernels

HD = ["earth-full", "--model.ngf=2", "--model.ndf=2"]
VGG = [*HD, "--model.lambda_vgg=10", "--model.vgg=vgg16", "--precision=bf16"]
CYCLE = ["cyclegan", "--model.generator.ngf=2", "--model.discriminator.ndf=2"]
CYCLE += ["--model.generator.num_blocks=1"]
ROUNDED = {"contiguous images, not channels_last", "F.instance_norm, which ends in a view"}
ROUNDED |= {"D: the condition beside each image", "a call for each pass of a network"}
WAISTLESS = {"one graph of all critics, no waist", "one graph, and nothing frozen"}
MORE_WORK = {
    # Without the waist, discriminators have passes of their own in phase D.
    "pix2pixhd": WAISTLESS
    | {"D: passes of its own in phase D", "D: the condition beside each image"}
    | {"backward of the frozen global part (fix_global)"},
    "cyclegan": {"one graph, and nothing frozen"},
}


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Every trainer collects garbage; what was imported is none, and going through it is slow."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("arguments", "names", "count"),
    [(HD, "", 9), (VGG, "VGG", 2), (CYCLE, "", 7)],
    ids=["pix2pixhd", "vgg", "cyclegan"],
)
def test_no_saving_changes_a_number(arguments: list[str], names: str, count: int) -> None:
    ours: dict[tuple[bool, bool], tuple[Outcome, int]] = {}
    with configured(parsed(arguments)) as config:
        rows = [row for row in SAVINGS if row.applies(config) and names in row.name]
        assert len(rows) == count
        for saving in rows:
            kind = (saving.fixed, saving.precise)
            if kind not in ours:
                ours[kind] = worked(config, saving, off=False)
            wanted, least = ours[kind]
            found, work = worked(config, saving, off=True)
            gap = difference(wanted, found)["difference"]
            rounded = saving.name in ROUNDED | WAISTLESS
            assert gap < 1e-12 if rounded else gap == 0, saving.name
            assert (work > least) == (saving.name in MORE_WORK[config.gan]), saving.name


def worked(config: Config, saving: Saving, off: bool) -> tuple[Outcome, int]:
    """What a step gives, and its FLOPs."""
    kernels = Kernels()
    with kernels:
        found = outcome(config, saving, off)
    return found, sum(flops for part in kernels.parts() for flops, _ in part.kernels)


def test_a_replacement_that_nobody_calls_is_an_error() -> None:
    with configured(parsed(CYCLE)) as config, Swaps() as swaps:
        BY_NAME["a call for each pass of a network"].switch_off(swaps, config)
        with pytest.raises(
            AssertionError, match="nothing calls trainers.gans.from_images.cyclegan.run"
        ):
            swaps.check()


def test_rows_of_the_chosen_savings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.ablation", *HD, "--size=64x32", "--steps=1"]
    command += ["--only=waist", f"--json={tmp_path / 'rows.json'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["step"] == "one graph of all critics, no waist" and row["step"] in done.stdout
    assert row["seconds"] > 0 and row["peak_gib_to_ours"] > 0
