"""Checkpoints: a folder that appears whole or not at all, and loads without running any code.

checkpoints/000012000/weights.safetensors     gan.nets, full fp32
                      ema.safetensors         the moving average, if there is one
                      optimizers.safetensors  PHASE/PARAMETER/exp_avg ...
                      rank00000.safetensors   one file per rank: random state, image pools
                      state.json              progress, loss scales, config, versions
                      files.json              crc32 of all of these, written last
checkpoints/latest                            name of the newest whole one
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainers.checkpoints.durable_files import opened, read_bytes
from trainers.errors import TrainingError
from trainers.gan import GAN
from trainers.schedule import Plateau

FORMAT = 2
FILES = "files.json"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    images: int = 0
    """Images consumed by all ranks together: also the position in the data order."""
    averaged: int = 0
    """Images at the last update of the moving average."""
    plateau: Plateau = field(default_factory=Plateau)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk; tensors are read when asked for."""

    path: Path
    state: dict[str, Any]

    @property
    def progress(self) -> Progress:
        """A copy: the run's own moves on."""
        numbers = self.state["progress"]
        numbers = {"averaged": numbers["images"]} | numbers  # every step did, before it was written
        return Progress(**numbers | {"plateau": Plateau(**numbers.get("plateau", {}))})

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run that wrote it."""
        return self.state["config"]

    def weights(self, ema: bool = False) -> dict[str, Tensor]:
        """`gan.nets` by name; with `ema`, the averaged networks replaced by their average."""
        tensors = self.tensors("weights")
        if ema:
            tensors |= self.tensors("ema")
        return tensors

    def tensors(self, name: str) -> dict[str, Tensor]:
        """One file of the checkpoint."""
        path = self.path / f"{name}.safetensors"
        try:
            with opened(path):
                return load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{path} cannot be read ({error}): choose an earlier checkpoint beside it."
            ) from error

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.safetensors").exists()


def find(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`: one itself, or the newest of a run folder; None if none yet."""
    path = Path(path)
    for root in (path / "checkpoints", path):
        name = newest(root)
        if name is not None:
            return read(root / name)
    return read(path) if (path / "state.json").exists() else None


def newest(folder: Path) -> str | None:
    """The checkpoint in a folder of them that the pointer names or, where it is lost, the last
    that looks whole; None where there are none."""
    names = numbered(folder)
    name = pointed_at(folder)
    if name in names:
        return name
    whole = (name for name in names if (folder / name / FILES).exists())
    return max(whole, default=max(names, default=None))


def numbered(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, drafts left out; the newest first."""
    found = (p.name for p in folder.glob("[0-9]*") if p.name.isdecimal() and p.is_dir())
    return sorted(found, reverse=True)


def pointed_at(folder: Path) -> str:
    """What the pointer names; "" where it is lost. It is data: only a plain name beside it is
    followed."""
    try:
        return Path(read_bytes(folder / "latest").decode(errors="replace").strip()).name
    except (FileNotFoundError, NotADirectoryError):
        return ""


def read(path: Path) -> Checkpoint:
    """Open one checkpoint folder."""
    try:
        state = json.loads(read_bytes(path / "state.json"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{path} is not a whole checkpoint ({error}): choose an earlier one beside it."
        ) from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path} is not a whole checkpoint: choose an earlier one beside it.")
    if state.get("format") != FORMAT:
        raise TrainingError(
            f"{path} has checkpoint format {state.get('format')}, but this version reads {FORMAT}."
        )
    checkpoint = Checkpoint(path, state)
    if not is_sound(checkpoint):
        raise TrainingError(
            f"{path / 'state.json'} was altered by hand: restore it, or choose an earlier "
            "checkpoint beside it."
        )
    return checkpoint


def is_sound(checkpoint: Checkpoint) -> bool:
    """Whether the state holds what is read from it later."""
    state = checkpoint.state
    kinds = {"config": dict, "data": str, "world": int, "scalers": dict, "progress": dict}
    if not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        return False
    try:
        progress = checkpoint.progress
        plateau = progress.plateau
        counts = (progress.step, progress.images, progress.averaged, plateau.count, plateau.bad)
        numbers = (plateau.total, plateau.factor, plateau.best or 0.0)
        return (
            all(type(count) is int and 0 <= count < 2**63 for count in counts)
            and all(math.isfinite(number) for number in numbers)
            and all(isinstance(scaler, dict) for scaler in state["scalers"].values())
        )
    except (TypeError, LookupError, OverflowError):
        return False


def load_weights(gan: GAN, weights: dict[str, Tensor], source: Path) -> None:
    """Copy `weights` into `gan.nets`; a checkpoint of another architecture is refused."""
    own = gan.nets.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        ours = list(own[name].shape) if name in own else "absent"
        theirs = list(weights[name].shape) if name in weights else "absent"
        if ours != theirs:
            raise TrainingError(
                f"{source} is of another architecture: {name} is {theirs} there and {ours} in "
                "this configuration; use its own config, or another run_dir to start anew."
            )
    gan.nets.load_state_dict(weights)
