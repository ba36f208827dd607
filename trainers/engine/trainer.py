"""The loop. Knows phases, never "G" or "D".

One step: every phase in turn, on the same micro-batches (each computes its gradients and finishes
with its optimizer's step); then the moving average, the schedule, and one small all-reduce in which
the ranks agree whether to go on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from trainers.backends.base import Backend, Past, Seat
from trainers.backends.optimizers import build_optimizer
from trainers.backends.replicas import average_buffers, check_replicas
from trainers.board.board import Observer
from trainers.board.pictures import picture_of
from trainers.board.stats import Clock, Means, peak_memory_gib
from trainers.checkpoints.checkpoint import Checkpoint, Progress
from trainers.checkpoints.restore import read_pasts, restore
from trainers.checkpoints.store import Store
from trainers.ema import Ema
from trainers.engine.compilation import Compilation
from trainers.engine.consensus import Vote
from trainers.engine.stream import Stream
from trainers.engine.to_device import Transfer, to_device
from trainers.gan import GAN, Batch
from trainers.player import generates, only, phase_parameters
from trainers.recipe import Recipe
from trainers.schedule import crossed


class Trainer:
    """Trains a GAN from `progress` to the end of the schedule, or until told to stop."""

    def __init__(
        self,
        gan: GAN,
        recipe: Recipe,
        backend: Backend,
        store: Store,
        stream: Stream,
        ema: Ema | None = None,
        compilation: Compilation = Compilation(),
        observers: tuple[Observer, ...] = (),
        stop: Callable[[], int] = lambda: 0,
        pulse: Callable[[str, Progress], None] = lambda doing, progress: None,
        shown: tuple[Batch, int] | None = None,
    ):
        """stop: as in `Vote`; pulse: told what comes next ("data", "step", "save") and how far the
        run is; shown: a raw batch that is pictured over the whole run, and how many of it stand in
        a row, instead of samples of the data."""
        self.gan = gan
        self.recipe = recipe
        self.backend = backend
        self.store = store
        self.stream = stream
        self.ema = ema
        self.compilation = compilation
        self.transfer = Transfer(backend.device)
        self.observers = observers
        self.watching: list[Observer] = []
        self.vote = Vote(backend, stop)
        self.pulse = pulse
        self.progress = Progress()
        self.seats: list[Seat] = []
        self.means = Means()
        self.clock = Clock()
        self.batches: Iterator[Batch] | None = None
        self.size: int | None = None
        """Images of a step, where the GAN says so."""
        self.shown = shown
        self.stagnates = recipe.schedule.kind == "plateau"
        self.loss = torch.zeros(())
        """If so: the total of the generators' phase in the last step, on this rank."""

    def fit(self, resume: Checkpoint | None = None, config: str = "") -> bool:
        """Run; True when the schedule was finished, False when stopped before (and saved)."""
        try:
            self._begin(resume, config)
            self._loop()
            if self.progress.images:
                self.save()
        finally:
            while self.seats:
                self.seats.pop().leave()
            gc.collect()  # no wrapper may outlive the process group
            for observer in self.watching:
                with self.vote.failing_together():  # a full disk must not hide why the run ends
                    observer.close()
        if self.vote.failure is not None:
            raise self.vote.failure
        return self.progress.images >= self.recipe.schedule.total

    def _loop(self) -> None:
        """Steps until all ranks agree to stop. The next step's batches are fetched before they
        vote, so that a rank without data leaves nobody waiting for it."""
        total = self.recipe.schedule.total
        micro_batches = self._fetch() if self.progress.images < total else []
        self.clock.restart(self.progress.images)  # the start of the data workers is no tick's
        going = self.vote.go_on({}, self.progress) and self.progress.images < total
        while going:
            self.seat_phases()
            before, seen = self.progress.images, micro_batches
            watched = self.step(micro_batches)
            finished = self.progress.images >= total
            micro_batches = [] if finished else self._fetch()
            going = self.vote.go_on(watched, self.progress) and not finished
            self._report(before, seen)

    def step(self, micro_batches: list[Batch]) -> dict[str, Tensor]:
        """One update of every phase that is due; returns what must stay finite, by name.

        Where gradients travel while others are computed, all phases step at the end: only GANs
        that promise `independent_phases` may be trained so."""
        self.pulse("step", self.progress)
        self.compilation.start_step()
        carries: list[Batch] = [{} for _ in micro_batches]
        watched: dict[str, Tensor] = {}
        due = [seat for seat in self.seats if seat.phase.due(self.progress.step)]
        averages = any(generates(self.gan, seat.phase) for seat in due)
        if averages and self.gan.averaged_before:
            self._average()
        for seat in due:
            for left in reversed(range(seat.phase.repeats)):
                watched |= self._compute(seat, micro_batches, carries)
                if left or not self.backend.overlap:
                    watched |= self._finish(seat)
        for seat in due if self.backend.overlap else ():
            watched |= self._finish(seat)
        average_buffers(self.backend, self.gan)
        self._advance()
        if averages and not self.gan.averaged_before:
            self._average()
        return watched

    def _average(self) -> None:
        """Account for all images since the generators were last averaged."""
        progress = self.progress
        if self.ema is not None:
            self.ema.update(self.gan, progress.images - progress.averaged, progress.images)
        progress.averaged = progress.images

    def _advance(self) -> None:
        before, schedule = self.progress.images, self.recipe.schedule
        self.progress.step += 1
        self.progress.images += self.size or self.recipe.global_batch
        self.gan.advance(self.progress.step, self.progress.images)
        if self.stagnates:  # the same on all ranks, whose rates must not differ
            loss = self.backend.mean(self.loss.double()).item()
            self.progress.plateau.add(loss, schedule, before, self.progress.images)

    def _compute(
        self, seat: Seat, micro_batches: list[Batch], carries: list[Batch]
    ) -> dict[str, Tensor]:
        """Gradients of one phase; what it hands to later ones is added to `carries`."""
        watched: dict[str, Tensor] = {}
        with only(self.gan, seat.phase):
            for i, (batch, carry) in enumerate(zip(micro_batches, carries, strict=True)):
                with self.backend.accumulate(seat, last=i == len(micro_batches) - 1):
                    total, terms, out = seat.player(batch, carry)
                    self.backend.backward(seat, total / len(micro_batches))
                if self.stagnates and generates(self.gan, seat.phase):
                    self.loss = total.detach() / len(micro_batches) + (self.loss if i else 0)
                carry |= out
                self.means.add(terms)
                for name, term in terms.items():
                    key = f"loss {name} of player {seat.phase.name}"
                    watched[key] = watched[key] + term if key in watched else term
        return watched

    def _finish(self, seat: Seat) -> dict[str, Tensor]:
        """The optimizer's step of one phase."""
        factor = self.recipe.schedule.factor(self.progress.images) * self.progress.plateau.factor
        lr = self.recipe.of(seat.phase.name).lr * factor
        for group in seat.optimizer.param_groups:
            group["lr"] = lr
        norm, name = self.backend.step(seat, self.recipe.clip), seat.phase.name
        with torch.no_grad():
            if self.gan.constrain(name):
                seat.weights_changed()
        if seat.scaler.is_enabled():  # it skips a step that is not finite and lowers its scale
            skipped = (~norm.isfinite()).float()
            norm = norm.nan_to_num(0.0, 0.0, 0.0)
            self.means.add({f"skipped/{name}": skipped, f"grad_norm/{name}": norm})
            return {}
        self.means.add({f"grad_norm/{name}": norm})
        return {f"gradient norm of player {name}": norm}

    def seat_phases(self, pasts: dict[str, Past] | None = None) -> None:
        """Build the players of the present phases; keep those whose phase has not changed.

        A wrapper made while other parameters were frozen would never synchronise them, hence a
        new player, wrapper and optimizer; the moments of parameters already trained move along.
        pasts: by phase, what those that have no seat yet go on from."""
        phases = self.gan.phases(self.progress.images)
        if [seat.phase for seat in self.seats] == list(phases):
            return
        old = {seat.phase.name: seat for seat in self.seats}
        self.seats = []
        for phase in phases:
            seat = old.pop(phase.name, None)
            if seat is None or seat.phase != phase:
                past = (pasts or {}).get(phase.name, Past())
                if seat is not None:
                    past = seat.past()
                    seat.leave()
                changed = phase_parameters(self.gan, phase).keys() ^ past.moments.keys()
                if self.recipe.reset_moments and changed:
                    past = replace(past, moments={})
                del seat
                gc.collect()  # the old wrapper's hooks must be gone before the new one's come
                precision = self.recipe.precision
                numbers, device = self.recipe.of(phase.name), self.backend.device
                optimizer = partial(build_optimizer, numbers, device=device)
                seat = self.backend.adopt(self.gan, phase, optimizer, precision, past)
            self.seats.append(seat)

    def save(self) -> None:
        """A checkpoint of this moment, after making sure that all replicas are one."""
        if self.store.saved == self.progress.images:
            return
        self.pulse("save", self.progress)
        check_replicas(self.backend, self.gan)
        self.store.save(self.progress, self.gan, self.seats, self.ema)

    def _begin(self, resume: Checkpoint | None, config: str) -> None:
        pasts: dict[str, Past] = {}
        if resume is not None:
            self.progress = resume.progress
            self.store.saved = self.progress.images
            with self.backend.together():
                restore(resume, self.gan, self.ema, self.backend)
                pasts = read_pasts(resume)
        self.gan.advance(self.progress.step, self.progress.images)
        self.seat_phases(pasts)
        check_replicas(self.backend, self.gan)
        with self.vote.failing_together():
            for observer in self.observers:
                observer.start(self.progress, self.recipe.schedule.total, config)
                self.watching.append(observer)

    def _fetch(self) -> list[Batch]:
        """The micro-batches of one step on the device; the wait for them is measured."""
        self.pulse("data", self.progress)
        started, micro_batches = time.perf_counter(), []
        with self.vote.failing_together():
            size = self.gan.batch_size(self.progress.images)
            if self.batches is None or size != self.size:
                asked = () if size is None else (size,)
                self.batches, self.size = self.stream(self.progress.images, *asked), size
            num_micro = self.recipe.num_micro_in(size, self.backend.world)
            raw = [next(self.batches) for _ in range(num_micro)]
            micro_batches = [self.transfer(batch) for batch in raw]
        self.clock.waited += time.perf_counter() - started
        return micro_batches

    def _report(self, before: int, micro_batches: list[Batch]) -> None:
        cadence, now = self.recipe.cadence, self.progress.images
        ends = now >= self.recipe.schedule.total
        if ends or crossed(cadence.log, before, now):
            self._log()
        if cadence.pictures and (ends or crossed(cadence.pictures, before, now)):
            self._picture(micro_batches[0])
        if crossed(cadence.save, before, now):
            self.save()

    def _log(self) -> None:
        values = self.means.collect(self.backend)
        values |= self.clock.read(self.progress.images, self.backend)
        values["memory/peak_gib"] = peak_memory_gib(self.backend.device)
        for seat in self.seats:
            values[f"lr/{seat.phase.name}"] = seat.optimizer.param_groups[0]["lr"]
            seat.check_scale()
        with self.vote.failing_together():
            for observer in self.watching:
                observer.scalars(self.progress, values)

    def _picture(self, batch: Batch) -> None:
        """Only ranks with observers: no collective may be called in here."""
        if not self.watching:
            return
        with self.vote.failing_together(), self.compilation.paused():
            precision, device, columns = self.recipe.precision, self.backend.device, None
            if self.shown is not None:
                batch, columns = to_device(self.shown[0], device), self.shown[1]
            picture = picture_of(self.gan, self.ema, batch, precision, device, columns)
            for observer in self.watching:
                observer.pictures(self.progress, picture)
