"""What others wrote is shown, and does nothing to the terminal that it is shown on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import pytest

from cluster.standard_streams import visible
from cluster.start.reports import Report, mismatch, parse_report
from cluster.watch import heartbeat
from cluster.watch.heartbeat import Beat
from tests.launcher.sample import ROOT, make_source, organza

HIDDEN = "\x1b]0;mine\x07\x1b[2J\u202ereversed\x9b31m\r"
SHOWN = r"\x1b]0;mine\x07\x1b[2J\u202ereversed\x9b31m\r"
"""A title, an empty screen, text from right to left, red, and a line that is written over."""


def test_what_cannot_be_printed_is_escaped() -> None:
    assert visible(f"{HIDDEN}Köln 東京\n") == f"{SHOWN}Köln 東京\\n"
    assert visible("two\n\tlines", but="\n\t") == "two\n\tlines"
    assert visible(os.fsdecode(b"\xff")) == r"\udcff"


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    """A run folder in which somebody has written what he liked."""
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "config.yaml").write_text("schedule: {constant: 8, decay: 0}\n")
    beat = Beat(0, f"n1{HIDDEN}\nrank 7 on n9", 1, 2, 3, f"{HIDDEN}computing", 4, 5.0)
    beats = tmp_path / "heartbeats" / heartbeat.file_name(0)
    beats.write_text(json.dumps(asdict(beat)))
    outcome = {"outcome": f"failed{HIDDEN}", "reason": f"{HIDDEN}\nx", "images": 3, "start": ""}
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({f"G{HIDDEN}/gan": 1.0, "step": 2}) + "\n")
    (tmp_path / "logs" / "job-17.log").write_text(f"first{HIDDEN}.\nsecond\n")
    return tmp_path


@pytest.mark.parametrize("command", ["status", "runs", "logs"])
def test_words_of_a_run_are_shown_escaped(run: Path, command: str) -> None:
    status, output = organza(command, run)
    assert status == 0 and SHOWN.removesuffix(r"\r") in output, output
    assert all(line.isprintable() for line in output.replace("\t", "").split("\n")), output
    assert "\nrank 7" not in output


def test_a_run_of_such_a_name_is_listed(run: Path) -> None:
    run.rename(run.with_name(f"run{HIDDEN}"))
    status, output = organza("runs", run.parent)
    assert status == 0 and f"run{SHOWN}" in output and "\x1b" not in output, output


def test_a_stranger_s_name_in_the_preflight_is_shown_escaped() -> None:
    words = asdict(Report("run", 1, 2, f"n2{HIDDEN}\n", 0.0, {f"torch{HIDDEN}": f"3\n{HIDDEN}"}))
    other = parse_report(json.dumps(words).encode())
    own = Report("run", 0, 2, "n1", 0.0, {})
    sentence = mismatch(own, other, None)
    assert f"n2{SHOWN}" in sentence and f"torch{SHOWN}" in sentence and sentence.isprintable()
    words["facts"] = {"torch": ["no text"]}
    assert parse_report(json.dumps(words).encode()) is None


def test_keys_and_names_of_foreign_tars_are_shown_escaped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tars.tar", "w") as tar:
        entry = tarfile.TarInfo(f"0{HIDDEN}.jpg")
        tar.addfile(entry, BytesIO(b""))
    status, output = organza("index", tmp_path / "tars.tar")
    assert status == 1 and "unprintable" in output and "\x1b" not in output, output
    source = make_source(tmp_path / "source", count=1)
    (source / "train_img" / f"1{HIDDEN}.png").write_bytes(b"")
    status, output = organza("pack", source, tmp_path / "out")
    assert status == 1 and "\x1b" not in output and "\u202e" not in output, output


def test_an_index_with_such_keys_is_shown_escaped(tmp_path: Path) -> None:
    make_source(tmp_path / "source", count=1)
    assert organza("pack", tmp_path / "source", tmp_path / "out", "--workers=1")[0] == 0
    for name in ("manifest.json", "index.json"):
        path = tmp_path / "out" / name
        path.write_text(path.read_text().replace("000", f"000{json.dumps(HIDDEN)[1:-1]}"))
    for command in ("verify", "stats"):
        output = organza(command, tmp_path / "out")[1]
        assert "\x1b" not in output and "\u202e" not in output, output


def test_bars_still_move_on_a_terminal() -> None:
    """Their codes are ours."""
    code = (
        "from cluster import standard_streams as s; s.prepare();"
        "from launcher.text.progress_bar import progress_bar as p;"
        "bar, move = p('packing');"
        "bar.__enter__(); move(1, 2); bar.__exit__(None, None, None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"},
    )
    assert done.returncode == 0 and b"\x1b[" in done.stderr, done.stderr
