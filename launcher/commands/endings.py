"""How a command ends: exit status and last words. Mistakes of the user are a sentence each, not a
traceback."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from cluster import signals
from cluster.errors import ClusterError
from cluster.watch import attempts
from launcher.recipe.config import ConfigError
from launcher.run import logs
from launcher.text.sentences import sentence
from shards.records import DataError

FIRST_RANK_SPEAKS = 5.0
"""Seconds: launchers look after their workers several times in them."""
REMEDIES = {
    errno.ENOSPC: "make room on that disk, or choose another place",
    errno.EDQUOT: "make room in your quota there, or choose another place",
    errno.EROFS: "choose a place that may be written",
    errno.EACCES: "ask its owner for the right to it, or choose another place",
    errno.EPERM: "ask its owner for the right to it, or choose another place",
    errno.ELOOP: "a link is in the file's place, which may lead anywhere: remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk or its server fails: look at its logs, or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""By the number of an OSError: what its user can do."""


@contextmanager
def last_words() -> Iterator[None]:
    """Ends the process for whatever its user can mend."""
    try:
        yield
    except (ConfigError, DataError) as error:
        attempts.record_mistake(str(error))
        fail(error, 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from what is finished.", 128 + signal.SIGINT)
    except user_errors() as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            os._exit(128 + signal.SIGPIPE)  # as of any program before `| head`
        fail(disk_words(error) if isinstance(error, OSError) else error, 1)


def disk_words(error: OSError) -> str:
    """What was to be written or read, why it was not, and what to do."""
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:  # a network's, say
        return str(error)
    place = error.filename or "Standard output"
    return f"{place}: {error.strerror}; {remedy}. The same command goes on from what is finished."


def user_errors() -> tuple[type[Exception], ...]:
    """The other exceptions whose message is all that the user needs; OSError, too: a full disk, a
    folder that may not be written."""
    loaded = sys.modules.get("trainers.errors")
    return (ClusterError, OSError, *([loaded.TrainingError] if loaded else ()))


def nobody_reads() -> bool:
    """Whether the pipe that this process prints into has lost its reader."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def let_others_speak() -> None:
    """The first rank of a node speaks for all that end alike, and the launcher then ends these: who
    still lives after a moment has something of its own to say."""
    if int(os.environ.get("LOCAL_RANK") or 0) > 0:
        if signals.terminated():  # by the launcher, after the first rank's end
            os._exit(128 + signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FIRST_RANK_SPEAKS)


def fail(error: object, code: int) -> NoReturn:
    """One sentence and the exit status."""
    rank = os.environ.get("RANK")
    if code == 2:
        let_others_speak()
    words = f"organza{f' (rank {rank})' if rank else ''}: {sentence(str(error))}"
    print(words, file=sys.stderr)
    logs.tell(words)
    sys.stdout.flush()
    sys.stderr.flush()
    if rank:
        # The other ranks may hang in a collective, and gloo aborts now and then at a regular exit.
        os._exit(code)
    sys.exit(code)
