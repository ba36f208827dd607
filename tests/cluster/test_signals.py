"""Signals set a flag; only a patient second SIGINT ends the process."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import signals
from cluster.signals import STOP_FILE, StopRequest, reason


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@pytest.fixture()
def request_() -> Iterator[StopRequest]:
    before = {s: signal.getsignal(s) for s in SIGNALS}
    yield StopRequest().install()
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_remembered(request_: StopRequest, signum: int) -> None:
    assert not request_()
    os.kill(os.getpid(), signum)
    assert request_() == signum and reason(signum) == signum.name


def test_a_launcher_s_echo_of_a_signal_does_no_harm(request_: StopRequest) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), signum)
    assert request_() == signal.SIGINT


def test_a_stop_file_asks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GLANCE", 0.0)
    request = StopRequest()
    request.look_for(tmp_path / "stop")
    assert request() == 0
    (tmp_path / "stop").touch()
    assert request() == STOP_FILE and reason(STOP_FILE) == "stop file"
    (tmp_path / "stop").unlink()
    assert request() == STOP_FILE


def test_a_second_sigint_later_ends_the_process(
    request_: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "IMPATIENCE", 0.05)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
