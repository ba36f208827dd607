"""Signals at any moment: before torch is there, and when the terminal goes."""

from __future__ import annotations

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tests.launcher.sample import ROOT, environment, make_shards, organza, start, write_recipe
from tests.processes import patience
from trainers.checkpoints.checkpoint import find

SLOW_TORCH = """
import pathlib, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        here = pathlib.Path(__file__).with_name("importing")
        if name == "torch" and not here.exists():
            here.write_text("now")
            time.sleep(2)

sys.meta_path.insert(0, Slow())
"""
"""As sitecustomize.py of a process: its first import of torch says so, and takes a while."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("signals"), count=4)


@pytest.fixture()
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is written as soon as a process begins to import torch, which then takes 2 s."""
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(SLOW_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(shim))
    return shim / "importing"


def test_a_warning_before_torch_is_there_is_answered_in_the_first_step(
    shards: Path, tmp_path: Path, importing: Path
) -> None:
    recipe = write_recipe(tmp_path, shards)
    process = start("train", recipe)
    patience.wait_for(importing.exists, "import")
    process.send_signal(signal.SIGUSR2)
    output, _ = patience.communicate(process)
    assert process.returncode == 128 + signal.SIGUSR2, output
    assert "Stopped by SIGUSR2, before the first step" in output, output
    status, output = organza("train", recipe)
    assert status == 0 and "Finished." in output, output


def test_a_warning_while_memory_is_chosen_is_answered_in_the_first_step(
    shards: Path, tmp_path: Path, importing: Path
) -> None:
    shim = importing.with_name("sitecustomize.py")
    shim.write_text(SLOW_TORCH.replace('"torch"', '"launcher.estimate.memory"'))
    process = start("train", write_recipe(tmp_path, shards), "--model.memory=auto")
    patience.wait_for(importing.exists, "import")
    process.send_signal(signal.SIGTERM)
    output, _ = patience.communicate(process)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "memory: auto" in output, output
    assert "Stopped by SIGTERM, before the first step" in output, output


def test_a_warning_ends_a_command_that_has_nothing_to_save(importing: Path) -> None:
    shim = importing.with_name("sitecustomize.py")
    shim.write_text(SLOW_TORCH.replace('"torch"', '"fire"'))
    for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        importing.unlink(missing_ok=True)
        process = start("runs", importing.parent)
        patience.wait_for(importing.exists, "import")
        process.send_signal(signum)
        patience.communicate(process)
        assert process.returncode == -signum


def test_an_interrupt_before_torch_is_there_ends_without_a_traceback(
    shards: Path, tmp_path: Path, importing: Path
) -> None:
    for command in (["train", write_recipe(tmp_path, shards)], ["plan", "cyclegan"]):
        importing.unlink(missing_ok=True)
        process = start(*command)
        patience.wait_for(importing.exists, "import")
        process.send_signal(signal.SIGINT)
        output, _ = patience.communicate(process)
        assert process.returncode == 128 + signal.SIGINT
        assert "organza: interrupted" in output and len(output.splitlines()) == 1, output
    assert not (tmp_path / "run-coarse").exists()


def test_an_interrupt_before_the_commands_are_there_ends_without_a_traceback(
    importing: Path,
) -> None:
    shim = importing.with_name("sitecustomize.py")
    shim.write_text(SLOW_TORCH.replace('"torch"', '"fire"'))
    process = start("runs", importing.parent)
    patience.wait_for(importing.exists, "import")
    process.send_signal(signal.SIGINT)
    output, _ = patience.communicate(process)
    assert process.returncode == 128 + signal.SIGINT
    assert output == "organza: interrupted before anything was begun.\n"


def test_a_run_is_saved_when_its_terminal_goes(shards: Path, tmp_path: Path) -> None:
    endless = {"constant": 10**6, "decay": 0}
    recipe = write_recipe(tmp_path, shards, schedule=endless, cadence={"log": 2, "save": 0})
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        command = [sys.executable, "-m", "launcher", "train", str(recipe)]
        os.execve(sys.executable, command, environment())
    metrics = tmp_path / "run-coarse" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert find(tmp_path / "run-coarse").progress.images > 0


def test_under_nohup_a_terminal_that_goes_is_ignored(shards: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("train", write_recipe(tmp_path, shards))
    finally:
        signal.signal(signal.SIGHUP, before)
    patience.wait_for_line(tmp_path / "run-coarse" / "metrics.jsonl", process)
    process.send_signal(signal.SIGHUP)
    output, _ = patience.communicate(process)
    assert process.returncode == 0 and "Finished." in output, output
