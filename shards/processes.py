"""Worker processes that start clean and die with their parent.

They come from a fork server: forking a trainer would copy its CUDA and gloo threads' locks and
hold its sockets open after its death. The server imports the heavy libraries once.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

from shards.records import DataError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit) now and then."""
Tick = Callable[[], None]
Job = TypeVar("Job")
Result = TypeVar("Result")

SHARED_MEMORY = Path("/dev/shm")
_LONGEST_TEMPORARY = 60
"""Bytes: the path of a socket may have 107, and the workers' own part of it has about 40."""
_PRELOAD = [
    "webdataset.writer",
    "PIL.PngImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.WebPImagePlugin",
]
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt."""
_PARENTS_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def context() -> ForkServerContext:
    """The multiprocessing context of all workers; starts its server if need be.

    Schedulers and terminals signal whole process groups, but only the parent decides what a
    signal means: server and workers inherit a mask that blocks it."""
    check_shared_memory()
    keep_sockets_short()
    server_context = multiprocessing.get_context("forkserver")
    server_context.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # it unblocks signals, so it comes first
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return server_context


def check_shared_memory(num_bytes: int = 0, folder: Path = SHARED_MEMORY) -> None:
    """Raise DataError if processes cannot share memory, or less than they will need.

    This looks at one process: all processes of a machine share what is free."""
    remedy = "or work in one process (data.workers=0 in training, --workers=1 elsewhere)"
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise DataError(
            f"{folder}, which processes share memory by, is not there ({error.strerror}): mount "
            f"it, {remedy}."
        ) from error
    if status.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        raise DataError(
            f"{folder}, which processes share memory by, may not be written: mount it for "
            f"writing, {remedy}."
        )
    free = status.f_bavail * status.f_frsize
    if num_bytes > free:
        raise DataError(
            f"{folder} has {free / 2**20:.0f} MiB free, but the data workers of a process need "
            f"{num_bytes / 2**20:.0f}: enlarge it (docker run --shm-size) or lower data.workers."
        )


def keep_sockets_short() -> None:
    """Have the workers' sockets in /tmp where TMPDIR, as some clusters set it, is too long a path
    for them."""
    chosen = tempfile.gettempdir()
    if len(os.fsencode(chosen)) <= _LONGEST_TEMPORARY:
        return
    if not os.access("/tmp", os.W_OK | os.X_OK):
        raise DataError(
            f"TMPDIR={chosen} is too long a path for the workers' sockets, and /tmp may not be "
            f"written: set TMPDIR to a folder with a path of at most {_LONGEST_TEMPORARY} bytes."
        )
    tempfile.tempdir = "/tmp"
    util.get_temp_dir()  # chosen once for the process and its workers
    tempfile.tempdir = chosen


def watch_parent() -> None:
    """Called in a worker: end it when its parent ends, even by SIGKILL.

    Nothing else would: for the system its parent is the fork server, which lives as long as its
    children do, and they wait for work."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def enter_worker(worker: int = 0) -> None:
    """Called first in a worker (of any number)."""
    watch_parent()
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees for its next pictures, or its next step: given back
    to the system, it would come again page by page: an eighth of the work of a worker, a quarter of
    a training step at 2048x1024."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_TOP_PAD, 2**26)


def run_jobs(
    function: Callable[[Job, Tick], Result],
    jobs: Sequence[Job],
    *,
    num_workers: int | None,
    total: int,
    unit: str,
    progress: Progress | None,
) -> list[Result]:
    """[function(job, tick) for job in jobs], on processes (None: one per usable CPU).

    A job calls tick() once per `unit` done. The first job that raises, in the order of jobs,
    ends the run with its exception."""
    report = progress or (lambda done, total, unit: None)
    num_workers = min(num_workers or len(os.sched_getaffinity(0)), len(jobs))
    if num_workers <= 1:
        return _run_here(function, jobs, total, unit, report)
    server_context = context()
    done, stop = server_context.Value("q", 0), server_context.RawValue("b", 0)
    pool = ProcessPoolExecutor(num_workers, server_context, _enter_pool, (done, stop))
    try:
        futures = [pool.submit(_call, function, job) for job in jobs]
        for future in futures:
            _await(future, lambda: report(done.get_obj().value, total, unit))
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, probably for want of memory: use fewer workers."
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


def _run_here(
    function: Callable[[Job, Tick], Result],
    jobs: Sequence[Job],
    total: int,
    unit: str,
    report: Progress,
) -> list[Result]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        report(done, total, unit)

    return [function(job, tick) for job in jobs]


def _await(future: Future[Any], report: Callable[[], None]) -> None:
    while wait([future], timeout=0.2).not_done:
        report()
    report()
    error = future.exception()
    if isinstance(error, DataError):
        raise DataError(str(error)) from None  # without the worker's traceback
    future.result()


_done: Any = None
_stop: Any = None


def _enter_pool(done: Any, stop: Any) -> None:
    global _done, _stop
    _done, _stop = done, stop
    # A pool ends its workers so after one of them was killed, and waits for their end.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    enter_worker()


def _call(function: Callable[[Job, Tick], Result], job: Job) -> Result:
    return function(job, _tick)


class _Stopped(Exception):
    """The parent gave up: its other jobs end at their next tick."""


def _tick() -> None:
    if _stop.value:
        raise _Stopped
    with _done.get_lock():
        _done.value += 1
