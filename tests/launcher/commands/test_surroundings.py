"""Commands on machines that are not as one would wish: full and read-only disks, no shared memory,
long temporary paths, streams that are closed or know no more than ASCII, names that are no text."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from launcher.commands import endings
from tests.launcher.sample import ROOT, environment, make_run, organza
from tests.processes import patience

FULL = "(dd if=/dev/zero of=$0/small/fill bs=1k 2>/dev/null; true)"
READ_ONLY = "mount -o remount,ro $0/small"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source/, two/ (domains), shards/, a recipe, and small/, a place to mount a disk."""
    folder = tmp_path_factory.mktemp("surroundings")
    make_run(folder)
    (folder / "two").mkdir()
    for domain in "AB":
        (folder / "two" / f"train{domain}").symlink_to(folder / "source" / "train_img")
    (folder / "small").mkdir()
    return folder


def elsewhere(folder: Path, preparation: str, command: str, **variables: str) -> tuple[int, str]:
    """Status and words of `organza COMMAND` in file systems of its own."""
    script = f"{preparation} && exec {sys.executable} -m launcher {command}"
    done = patience.run(
        ["unshare", "--mount", "bash", "-c", script, str(folder)],
        cwd=ROOT,
        env=environment() | variables,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("trouble", [FULL, READ_ONLY])
@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("train $0/coarse.yaml --run_dir=$0/small/run", "small/run"),
        ("submit $0/coarse.yaml --run_dir=$0/small/run", "small/run"),
        ("pack $0/source $0/small/shards", "small/shards"),
        ("pack earth $0/small/earth", "small/earth"),
        ("translate $0/run-coarse $0/source $0/small/out", "small/out"),
        ("stats $0/shards --out=$0/small/samples.png", "small/samples.png"),
    ],
)
def test_a_disk_that_takes_nothing_is_named_with_a_remedy(
    folder: Path, trouble: str, command: str, place: str
) -> None:
    disk = "mount -t tmpfs -o size=64k none $0/small"
    status, output = elsewhere(folder, f"{disk} && {trouble}", command)
    last = output.splitlines()[-1]
    assert status == 1 and "Traceback" not in output, output
    assert f"{folder}/{place}" in last, output
    assert "make room" in last or "choose a place that may be written" in last, output


def test_an_error_that_is_no_disk_s_keeps_its_own_words() -> None:
    assert endings.disk_words(TimeoutError("timed out")) == "timed out"
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    assert "Standard output" not in endings.disk_words(refused)
    full = endings.disk_words(OSError(errno.ENOSPC, "No space left on device"))
    assert full.startswith("Standard output: No space left on device; make room")


def test_a_disk_that_fills_up_in_training_is_told_without_a_traceback(folder: Path) -> None:
    """The event file, the heartbeat and the checkpoint all meet it."""
    disk = "mount -t tmpfs -o size=100k none $0/small"
    command = "train $0/coarse.yaml --run_dir=$0/small/run --cadence.log=1 --schedule.constant=4000"
    status, output = elsewhere(folder, disk, command)
    assert status == 1 and "Traceback" not in output, output
    assert f"{folder}/small/run" in output.splitlines()[-1], output
    assert "ake room" in output.splitlines()[-1], output


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("pack $0/two $0/again --workers=2 --links=follow", "--workers=1"),
        ("train $0/coarse.yaml --run_dir=$0/none --data.workers=1", "data.workers=0"),
    ],
)
def test_shared_memory_that_may_not_be_written_is_told(
    folder: Path, command: str, remedy: str
) -> None:
    shm = "mount -t tmpfs -o ro none /dev/shm"
    status, output = elsewhere(folder, shm, command)
    last = output.splitlines()[-1]
    assert status == 1 and "Traceback" not in output, output
    assert "/dev/shm, which processes share memory by, may not be written" in last, output
    assert remedy in last, output


def test_workers_have_their_sockets_elsewhere_when_tmpdir_is_long(folder: Path) -> None:
    place = folder / ("x" * 110)
    place.mkdir()
    status, output = elsewhere(
        folder, "true", "pack $0/two $0/long --workers=2 --links=follow", TMPDIR=str(place)
    )
    assert status == 0, output
    status, output = elsewhere(
        folder,
        "mount --bind /tmp /tmp && mount -o remount,ro,bind /tmp && mount -t tmpfs none $TMPDIR",
        f"pack $0/two {place}/out --workers=2 --links=follow",
        TMPDIR=str(place),
    )
    assert status == 1 and "is too long a path for the workers' sockets" in output, output


def test_words_beyond_a_terminal_s_alphabet_are_told_in_its_own(folder: Path) -> None:
    odd = folder / "Größe \udcff"
    (folder / "source").rename(odd)
    try:
        ascii_only = {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "LC_ALL": "C"}
        status, output = elsewhere(folder, "cd $0", "pack Gr*/ $0/odd", **ascii_only)
        for command in ("stats $0/odd", "runs $0"):
            status, output = elsewhere(folder, "true", command, **ascii_only)
            assert status == 0 and "Traceback" not in output, output
    finally:
        odd.rename(folder / "source")


def test_closed_streams_change_nothing(folder: Path) -> None:
    before = sorted(path.read_bytes() for path in (folder / "shards").rglob("*.tar"))
    for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        out = folder / f"closed{len(closed)}"
        status, _ = elsewhere(folder, "true", f"pack $0/source {out} {closed}")
        assert status == 0
        assert sorted(path.read_bytes() for path in out.rglob("*.tar")) == before


def test_a_full_standard_output_is_one_sentence(folder: Path) -> None:
    status, output = elsewhere(folder, "true", "show cyclegan > /dev/full")
    assert status == 1 and output.startswith("organza: Standard output: No space left"), output
    assert len(output.splitlines()) == 1, output


def test_names_that_no_configuration_can_hold_are_refused(folder: Path) -> None:
    for command in (
        ["train", folder / "coarse.yaml", f"--run_dir={folder}/r\udcff"],
        ["train", folder / "coarse.yaml", f"--data.shards={folder}/s\udcff"],
        ["translate", f"{folder}/r\udcff", folder / "source", folder / "out"],
    ):
        status, output = organza(*command)
        assert status == 2 and "is not UTF-8 text: choose, or rename to," in output, output
        assert "Traceback" not in output and len(output.splitlines()) == 1, output
