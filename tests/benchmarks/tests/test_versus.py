"""The race against a plain step prints what it promises, between networks of one size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launcher.recipe import config as configuration
from launcher.recipe.building import build
from tests.benchmarks import baseline
from tests.launcher.sample import ROOT, environment

SLIM = ["--model.ngf=4", "--model.ndf=4", "--model.num_blocks=1", "--precision=bf16"]


def test_plain_steps_and_ours_with_ratios(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.versus", "earth-full", "--size=64x32"]
    command += [*SLIM, "--steps=1", f"--json={tmp_path / 'rows.json'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["step"] for row in rows] == ["plain fp32", "plain bf16", "organza"]
    assert all(row["seconds"] > 0 and row["peak_gib"] > 0 for row in rows)
    assert rows[-1]["seconds_of_ours"] == rows[-1]["peak_gib_of_ours"] == 1
    assert all(row["step"] in done.stdout for row in rows)


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        ("pix2pixhd-coarse", {"model.ngf": "2", "model.ndf": "2", "model.lambda_vgg": "0"}),
        ("pix2pixhd-full", {"model.ngf": "2", "model.ndf": "2", "model.lambda_vgg": "0"}),
        ("cyclegan", {"model.generator.ngf": "2", "model.discriminator.ndf": "2"}),
    ],
)
def test_the_plain_networks_are_those_of_the_recipe(recipe: str, flags: dict[str, str]) -> None:
    config = configuration.load(recipe, flags)
    plain = baseline.PLAIN[config.gan](config.model, torch.device("cpu"), None)
    ours = sum(parameter.numel() for parameter in build(config).nets.parameters())
    assert plain.num_parameters == ours
