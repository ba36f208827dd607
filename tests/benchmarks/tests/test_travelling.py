"""The benchmark of travelling gradients runs and prints what it promises."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import travelling


def test_one_line_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    slim = ["--model.generator.ngf=2", "--model.generator.num_blocks=1"]
    travelling.main(["--size=64x64", "--steps=1", "--model.discriminator.ndf=2", *slim])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["way"] for row in rows] == list(travelling.WAYS)
    assert all(row["step_s"] > 0 and row["processes"] == 2 for row in rows)
