"""Weights that a new run begins with: another run's, or the authors' own."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.recipe.config import Config, ConfigError
from trainers.checkpoints.checkpoint import Checkpoint, find
from trainers.checkpoints.originals import adopt_originals, holds_originals
from trainers.gan import GAN


def check_start_from(config: Config) -> None:
    """Refuse a `start_from` that a new run could not begin with."""
    source = config.start_from
    if source is None or (config.run_dir / "checkpoints").exists() or holds_originals(source):
        return
    checkpoint_at(source, "start_from")


def start_from(gan: GAN, source: Path, report: bool) -> None:
    """Begin with the weights of another run, as the GAN sees fit, or with the authors' own."""
    try:
        if holds_originals(source):
            filled = ", ".join(adopt_originals(gan, source))
            told = f"Started from {source}: {filled}; the other networks are fresh."
        else:
            checkpoint = checkpoint_at(source, "start_from")
            fresh = gan.adopt(checkpoint.weights())
            told = f"Started from {checkpoint.path}; {len(fresh)} tensors are fresh."
    except ValueError as error:
        raise ConfigError(f"start_from={source}: {error}.") from error
    if report:
        print(told, file=sys.stderr)


def checkpoint_at(path: Path, option: str) -> Checkpoint:
    """The newest checkpoint of a run, or the one that this is; `option` asked for it."""
    checkpoint = find(path)
    if checkpoint is None:
        raise ConfigError(
            f"{option}={path} holds no checkpoint: give a run folder, one in it, or the authors' "
            "weights (latest_net_G.pth, or their folder)."
        )
    return checkpoint
