"""Signals set a flag; only a patient second SIGINT ends the process."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import signals
from cluster.signals import STOP_FILE, StopRequest, reason

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@pytest.fixture()
def request_() -> Iterator[StopRequest]:
    with restored():
        yield StopRequest().install()


@contextmanager
def restored() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in SIGNALS}
    try:
        yield
    finally:
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


@pytest.mark.parametrize("signum", signals.WARNINGS)
def test_a_warning_before_anybody_can_answer_is_kept(signum: int) -> None:
    with restored():
        signals.hold()
        os.kill(os.getpid(), signum)
        assert signals.held() == signum
        assert StopRequest().install()() == signum
        assert signals.held() == 0 and StopRequest().install()() == 0


def test_what_is_ignored_from_outside_stays_so() -> None:
    with restored():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals.hold()
        request = StopRequest().install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert request() == signals.held() == 0


def test_other_programs_answer_as_ever() -> None:
    with restored():
        signals.hold()
        signals.release()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert all(signal.getsignal(s) is signal.SIG_DFL for s in signals.WARNINGS)
