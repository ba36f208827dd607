"""Starts the ranks of a job, watches over them, and decides what follows when they end.

    python -m cluster.watch RUN [--requeue] [--patience=3] [--timeout_s=1800] -- srun ...

The body of the batch script: it runs on the job's first node, outside of any environment that the
ranks may need, and must outlive all that may happen to them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path

from cluster import attempts, heartbeat, slurm
from cluster.attempts import Attempt
from cluster.errors import ClusterError
from cluster.listener import Listener
from cluster.verdict import Act, Case, Policy, Verdict, verdict

TICK = 0.5
"""Seconds between two looks at srun."""
LINGER = 60.0
"""Seconds that srun may need once the ranks have left in order; it waits for ever for a node whose
slurmstepd was killed."""
PATIENT_END = 60.0
"""Seconds: asked to end, srun waits for the job's KillWait (30 s by default) and then gives up."""
STAY = 600.0
"""Seconds for SLURM to end the job after it said that it would."""
ORPHANS = 60.0
"""Seconds within which ranks of an earlier start must have ended themselves."""


def main(arguments: Sequence[str]) -> int:
    """The exit status of the job."""
    options, command = parse(arguments)
    run, policy = attempts.member(options.run), Policy(options.requeue, options.patience)
    watch = Watch(run, command, policy, options.timeout_s)
    signal.signal(signal.SIGTERM, watch.note_end)
    # SLURM gives the ranks these as well: they decide when to leave.
    for signum in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(signum, lambda signum, frame: None)
    try:
        if not run.is_dir():
            raise ClusterError(f"There is no run in {run}: give the folder that `submit` made.")
        return watch.follow()
    except (ClusterError, OSError) as error:
        say(str(error))
        return 1


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the command after "--"."""
    parser = argparse.ArgumentParser(prog="python -m cluster.watch", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--requeue", action="store_true", help="go on in another job if needed")
    parser.add_argument("--patience", type=int, default=3, help="starts without progress")
    parser.add_argument("--timeout_s", type=float, default=1800.0, help="for one step or save")
    parser.usage = f"{parser.format_usage()[7:].strip()} -- COMMAND ..."
    place = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = parser.parse_args(arguments[:place]), list(arguments[place + 1 :])
    if not command:
        parser.error("give the command that starts the ranks after --, as: -- srun ...")
    if options.patience < 1 or not options.timeout_s > 0:
        parser.error("--patience and --timeout_s must be greater than 0")
    return options, command


class Watch:
    """One job of a run: its starts until it is over."""

    def __init__(self, run: Path, command: list[str], policy: Policy, timeout_s: float):
        self.run, self.command, self.policy, self.timeout_s = run, command, policy, timeout_s
        self.folder = run / "heartbeats"
        self.job = os.environ.get("SLURM_JOB_ID", "")
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.told = False

    def note_end(self, signum: int, frame: object) -> None:
        """SIGTERM: SLURM is about to end the job; the ranks have been told as well."""
        self.told = True

    def follow(self) -> int:
        """Start the ranks until there is nothing more to do; the exit status."""
        clean = False
        for start in count():
            environment = self.begin(start, clean)
            srun = subprocess.Popen(self.command, env=environment, stdin=subprocess.DEVNULL)
            case = self.attend(srun, start)
            decision = self.decide(case)
            if decision.act in (Act.STAY, Act.REQUEUE):
                time.sleep(STAY)
                say(f"SLURM has not ended this job within {STAY:.0f} s.")
            clean = end(srun) and self.step_is_over(start)
            if decision.act is not Act.AGAIN:
                return decision.status
        raise AssertionError("counting never ends")

    def begin(self, start: int, clean: bool) -> dict[str, str]:
        """Make the run this start's own; the environment of its ranks.

        clean: whether all ranks of the start before are known to have ended."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        images = attempts.newest_images(self.run)
        attempt = Attempt(self.job, self.restart, start, now, images)
        attempts.record(self.run, attempt)
        heartbeat.begin(self.folder, str(attempt))
        if not clean:
            await_orphans(self.folder)
        heartbeat.clear(self.folder)
        attempts.clear(self.run)
        say(f"Start {start} of restart {self.restart}, from {images} images.")
        return os.environ | {heartbeat.START: str(attempt), attempts.RUN: str(self.run)}

    def attend(self, srun: subprocess.Popen[bytes], start: int) -> Case:
        """Until the ranks have ended or are given up."""
        listener, left = Listener(time.monotonic(), self.timeout_s), None
        status, complaint, look = None, "", 0.0
        while status is None and not complaint:
            with suppress(subprocess.TimeoutExpired):
                status = srun.wait(TICK)
            now = time.monotonic()
            if status is None and now < look:
                continue
            look = now + heartbeat.INTERVAL
            listener.hear(heartbeat.read(self.folder), now)
            if attempts.read_outcome(self.run) is None:
                complaint = listener.complaint(now)
            elif left is None:
                left = now
            elif now - left > LINGER:
                complaint = f"The ranks have left, but srun has not ended within {LINGER:.0f} s."
        ended = 128 - status if status is not None and status < 0 else status
        return Case(
            outcome=attempts.read_outcome(self.run),
            status=ended,
            complaint=complaint if status is None else "",
            told=self.told,
            heard=bool(listener.ranks),
            start=start,
            tries=self.tries(),
        )

    def decide(self, case: Case) -> Verdict:
        """The verdict, told to whoever reads the log; a requeue is done."""
        if case.outcome is None and not case.told:
            case = replace(case, told=self.slurm_ends_the_job())
        decision = verdict(case, self.policy)
        say(decision.words)
        if decision.act is Act.REQUEUE:
            try:
                slurm.requeue(self.job)
            except ClusterError as error:
                time.sleep(TICK)
                # SLURM may have been quicker: it ends scontrol together with the job.
                if self.told or self.slurm_ends_the_job():
                    return decision
                decision = verdict(case, replace(self.policy, requeue=False))
                say(f"{error} {decision.words}")
        return decision

    def tries(self) -> int:
        """How many starts, the last one included, have got no further than it began."""
        images = attempts.newest_images(self.run)
        return attempts.in_a_row(attempts.attempts(self.run), self.job, images)

    def slurm_ends_the_job(self) -> bool:
        """Its ranks may have been told when they could not catch it yet."""
        if not self.job:
            return False
        try:
            status = slurm.status(self.job)
        except ClusterError as error:
            say(str(error))
            return False
        return status is None or status.state != "RUNNING"

    def step_is_over(self, start: int) -> bool:
        """Whether SLURM knows that all ranks have ended; else some may live on, out of its reach,
        as after the death of their slurmstepd."""
        try:
            return not self.job or not slurm.step_exists(self.job, start)
        except ClusterError as error:
            say(str(error))
            return False


def await_orphans(folder: Path) -> None:
    """Wait until ranks that an earlier start may have left behind have ended themselves."""
    before = heartbeat.read(folder)
    if all(beat.doing == "end" for beat in before):
        return
    say("Making sure that no rank of an earlier start lives on.")
    deadline = time.monotonic() + ORPHANS
    while True:
        time.sleep(1.5 * heartbeat.INTERVAL)
        beats = heartbeat.read(folder)
        changed = [beat for beat in beats if beat not in before]
        if not changed:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"Of an earlier start, {changed[0]} still runs: end it first.")
        before = beats


def end(srun: subprocess.Popen[bytes]) -> bool:
    """Have srun end its step; whether it had ended, or does so in time."""
    for stop in (srun.terminate, srun.kill):
        if srun.poll() is not None:
            break
        stop()
        with suppress(subprocess.TimeoutExpired):
            srun.wait(PATIENT_END)
    return srun.returncode != -signal.SIGKILL


def say(words: str) -> None:
    """A line in the job's log."""
    with suppress(OSError):  # a full disk must not end the watch
        print(f"{datetime.now().isoformat(timespec='seconds')} watch: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
