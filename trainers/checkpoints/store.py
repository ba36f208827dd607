"""Writing checkpoints: whole or not at all, as many of them as are to stay."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from trainers.backends.base import Backend, Seat
from trainers.checkpoints.checkpoint import (
    FILES,
    FORMAT,
    Progress,
    numbered,
    read,
)
from trainers.checkpoints.durable_files import (
    crc32_of,
    fresh,
    read_bytes,
    replace_text,
    store,
    sync_folder,
    write_text,
)
from trainers.checkpoints.rng_state import random_state
from trainers.ema import Ema
from trainers.errors import TrainingError
from trainers.gan import GAN
from trainers.schedule import crossed


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


def is_ours(path: Path) -> bool:
    """Whether a folder is a whole checkpoint and nothing else: what people put there is theirs."""
    try:
        listed = json.loads(read_bytes(path / FILES))
        held = {entry.name for entry in path.iterdir()}
    except (OSError, ValueError, RecursionError):
        return False
    return not path.is_symlink() and isinstance(listed, dict) and held == {FILES, *listed}


def is_milestone(path: Path) -> bool:
    """Whether a checkpoint is to stay for ever; a damaged one is not."""
    try:
        return read(path).state.get("milestone") is True
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
