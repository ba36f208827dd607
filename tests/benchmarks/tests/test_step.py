"""The step benchmark prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys

from nets.memory.remat import PRESETS
from tests.launcher.sample import ROOT, environment

SLIM = ["--size=64x32", "--steps=1", "--model.ngf=4", "--model.ndf=4", "--model.num_blocks=1"]


def test_one_json_line_per_preset_with_ratios_to_the_first() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.step", "earth-full", *SLIM]
    command += ["--batch.total=2", "--batch.micro=1"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["memory"] for row in rows] == list(PRESETS)
    assert rows[0]["step_s_ratio"] == rows[0]["peak_gib_ratio"] == 1
    for row in rows:
        assert row["step_s"] > 0 and row["peak_gib"] > 0 and row["batch"] == 2
