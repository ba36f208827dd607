"""The reading benchmark prints what it promises, and compares only what is equal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.loaders import LOADERS, Ours, Sample, Webdataset, installed
from tests.benchmarks.reading import COLUMNS, Options, check_equal, parsed
from tests.launcher.sample import ROOT, environment

TINY = ["--size=64x32", "--triplets=4", "--rounds=1", "--batch=2", "--workers=1", "--pictures=jpg"]


class Mirrored(Webdataset):
    def pixels(self) -> Iterator[Sample]:
        for sample in super().pixels():
            yield sample | {"image": sample["image"][:, ::-1]}


def test_a_row_for_each_loader_with_ratios_to_ours(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.reading", *TINY]
    command += [f"--json={tmp_path / 'rows.json'}", f"--folder={tmp_path}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["loader"] for row in rows] == [kind.name for kind in LOADERS]
    for row, kind in zip(rows, LOADERS, strict=True):
        (line,) = [line for line in done.stdout.splitlines() if f"jpg       {kind.name}  " in line]
        assert ("not installed" in line) == (not installed(kind)) == ("ratios" not in row)
        assert not installed(kind) or all(row[name] >= 0 for name in COLUMNS)
    assert rows[0]["ratios"]["read_cpu_ms"] == 1 and rows[1]["ratios"]["read_cpu_ms"] > 0
    assert rows[0]["sample_bytes"] == 64 * 32 * (1 + 4 + 3)
    material = tmp_path / "jpg-64x32-4"
    with pytest.raises(AssertionError, match="webdataset gives other pixels"):
        check_equal([Ours(material), Mirrored(material)])


def test_unknown_options_are_named() -> None:
    with pytest.raises(SystemExit, match="unknown option --round: choose size, triplets, rounds,"):
        parsed(["--size=64x32", "--round=1"], Options)
