"""What Python, the GPU and the collectives raise -> sentences for the user, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from launcher.recipe.config import ConfigError
from launcher.text.sentences import sentence
from trainers.errors import TrainingError


@contextmanager
def config_errors() -> Iterator[None]:
    """Before the first collective, a ValueError is a mistake in the configuration."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(sentence(str(error))) from error


@contextmanager
def start_errors() -> Iterator[None]:
    """What torch.distributed says when the processes do not find each other."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"The processes did not come together within backend.timeout_s ({reason}): look for "
            "what the others say, whether MASTER_ADDR and MASTER_PORT are rank 0's and its port is "
            "free, and which network GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name."
        ) from error


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """A GPU that is too small is the user's to mend."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"The GPU's memory does not suffice ({reason}): {remedy}") from error


@contextmanager
def peer_errors() -> Iterator[None]:
    """What a collective says when another process has ended or does not answer."""
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        if not isinstance(error, dist.DistBackendError) and "gloo" not in words:
            raise
        reason = words.splitlines()[0]
        raise TrainingError(
            "Another process has ended, or has not answered within backend.timeout_s: the logs of "
            f"the others say why; the last checkpoint is kept ({reason})."
        ) from error
