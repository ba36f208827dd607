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
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainers.backends.base import Backend, Moments, Past, Seat
from trainers.checkpoints.durable_files import (
    crc32_of,
    fresh,
    replace_text,
    store,
    sync_folder,
    write_text,
)
from trainers.checkpoints.rng_state import random_state, set_random_state
from trainers.ema import Ema
from trainers.errors import TrainingError
from trainers.gan import GAN
from trainers.schedule import Plateau, crossed

FORMAT = 2
FILES = "files.json"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    images: int = 0
    """Images consumed by all ranks together: also the position in the data order."""
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
        return Path((folder / "latest").read_text(errors="replace").strip()).name
    except (FileNotFoundError, NotADirectoryError):
        return ""


def read(path: Path) -> Checkpoint:
    """Open one checkpoint folder."""
    try:
        state = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} is not a whole checkpoint ({error}): choose an earlier one beside it."
        ) from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path} is not a whole checkpoint: choose an earlier one beside it.")
    if state.get("format") != FORMAT:
        raise TrainingError(
            f"{path} has checkpoint format {state.get('format')}, but this version reads {FORMAT}."
        )
    return Checkpoint(path, state)


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay."""

    last: int
    """Newest ones kept."""
    every: int
    """Also the first one at or after each multiple of this many images; 0 for none."""


class Store:
    """Writes the checkpoints of one run. All ranks call `save`; rank 0 commits."""

    def __init__(self, run_dir: Path, backend: Backend, keep: Keep, facts: dict[str, Any]):
        """facts: what state.json also tells (config, data fingerprint, versions)."""
        self.folder = Path(run_dir) / "checkpoints"
        self.backend = backend
        self.keep = keep
        self.facts = facts
        self.saved = 0
        """Images of the newest checkpoint."""

    def save(self, progress: Progress, gan: GAN, seats: list[Seat], ema: Ema | None) -> None:
        """Write, compare notes with the other ranks, then rename and move the pointer."""
        name = f"{progress.images:09d}"
        draft = self.folder / f".writing-{name}"
        lead = self.backend.rank == 0
        with self._together():
            if lead:
                fresh(draft)
        # Gathering is a matter of all ranks, so it has no place where one may fail alone.
        moments = optimizer_tensors(seats, keep=lead)
        with self._together():
            self._write(draft, progress, gan, seats, moments, ema)
        with self._together():
            if lead:
                self._commit(draft, name)
        self.saved = progress.images
        with self.backend.together():
            if lead:
                self._prune(name)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """One part of a save; if it fails on any rank, all stop with a sentence."""
        with self.backend.together():
            try:
                yield
            except (OSError, SafetensorError) as problem:
                raise TrainingError(
                    f"The checkpoint could not be written to {self.folder} ({problem}); the one "
                    "before is untouched. Make room, then run the same command again to resume."
                ) from problem

    def _write(
        self,
        draft: Path,
        progress: Progress,
        gan: GAN,
        seats: list[Seat],
        moments: dict[str, Tensor],
        ema: Ema | None,
    ) -> None:
        store(draft / f"{own_file(self.backend)}.safetensors", own_tensors(gan, self.backend))
        if self.backend.rank != 0:
            return
        store(draft / "weights.safetensors", gan.nets.state_dict())
        if ema is not None:
            store(draft / "ema.safetensors", ema.shadow)
        store(draft / "optimizers.safetensors", moments)
        state = {
            "format": FORMAT,
            "progress": asdict(progress),
            "scalers": {seat.phase.name: seat.scaler.state_dict() for seat in seats},
            "world": self.backend.world,
            "milestone": crossed(self.keep.every, self.saved, progress.images),
            **self.facts,
        }
        write_text(draft / "state.json", json.dumps(state, indent=1))

    def _commit(self, draft: Path, name: str) -> None:
        final = self.folder / name
        if final.exists():
            shutil.rmtree(final)
        written = {path.name: crc32_of(path) for path in sorted(draft.iterdir())}
        write_text(draft / FILES, json.dumps(written, indent=1))
        sync_folder(draft)
        os.rename(draft, final)
        replace_text(self.folder / "latest", name + "\n")

    def _prune(self, newest: str) -> None:
        """Remove what need not stay; those beyond a pointer that was set back are left alone."""
        names = [name for name in numbered(self.folder) if name <= newest]
        for name in names[self.keep.last :]:
            if is_ours(self.folder / name) and not is_milestone(self.folder / name):
                # Renamed first: what a kill leaves half removed must not look like a checkpoint.
                # What resists removal goes with the drafts of the next save.
                doomed = self.folder / f".writing-{name}"
                os.rename(self.folder / name, doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def restore(checkpoint: Checkpoint, gan: GAN, ema: Ema | None, backend: Backend) -> None:
    """Put weights, average and random state back as they were."""
    load_weights(gan, checkpoint.weights(), checkpoint.path)
    if ema is not None:
        ema.restart(gan)
        if checkpoint.has("ema"):
            for name, tensor in checkpoint.tensors("ema").items():
                ema.shadow[name].copy_(tensor)
    # Other processes than those that wrote it start with fresh draws and empty pools.
    if checkpoint.has(own_file(backend)) and checkpoint.state["world"] == backend.world:
        restore_own(checkpoint.tensors(own_file(backend)), gan, backend)


def is_ours(path: Path) -> bool:
    """Whether a folder is a whole checkpoint and nothing else: what people put there is theirs."""
    try:
        listed = json.loads((path / FILES).read_text())
        held = {entry.name for entry in path.iterdir()}
    except (OSError, ValueError, RecursionError):
        return False
    return not path.is_symlink() and isinstance(listed, dict) and held == {FILES, *listed}


def is_milestone(path: Path) -> bool:
    """Whether a checkpoint is to stay for ever; a damaged one is not."""
    try:
        return read(path).state["milestone"]
    except TrainingError:
        return False


def own_file(backend: Backend) -> str:
    return f"rank{backend.rank:05d}"


def own_tensors(gan: GAN, backend: Backend) -> dict[str, Tensor]:
    """What this process alone holds: {"random/cpu": ..., "gan/NAME": ...}."""
    groups = {"random": random_state(backend.device), "gan": gan.own_state()}
    return {
        f"{group}/{name}": tensor
        for group, found in groups.items()
        for name, tensor in found.items()
    }


def restore_own(tensors: dict[str, Tensor], gan: GAN, backend: Backend) -> None:
    """The inverse of `own_tensors`."""
    groups: dict[str, dict[str, Tensor]] = {"random": {}, "gan": {}}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = tensor
    set_random_state(groups["random"], backend.device)
    gan.load_own_state({name: tensor.to(backend.device) for name, tensor in groups["gan"].items()})


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


def optimizer_tensors(seats: list[Seat], keep: bool) -> dict[str, Tensor]:
    """{"PHASE/PARAMETER/exp_avg": ...} of all seats. All ranks take part in gathering them; empty
    on those that do not `keep` them."""
    tensors: dict[str, Tensor] = {}
    for seat in seats:
        for name, moments in seat.moments():
            if keep:
                key = f"{seat.phase.name}/{name}"
                tensors |= {f"{key}/{kind}": tensor.cpu() for kind, tensor in moments.items()}
    return tensors


def read_pasts(checkpoint: Checkpoint) -> dict[str, Past]:
    """What the seats of the checkpoint's phases left behind, by phase; moments on the CPU."""
    moments: dict[str, Moments] = {}
    for key, tensor in checkpoint.tensors("optimizers").items():
        phase, name, kind = key.split("/")
        moments.setdefault(phase, {}).setdefault(name, {})[kind] = tensor
    scalers = checkpoint.state["scalers"]
    return {phase: Past(moments.get(phase, {}), scaler) for phase, scaler in scalers.items()}
