"""Starts the ranks of a job, watches over them, and decides what follows when they end.

    python -m cluster.watch RUN [--requeue] [--patience=3] [--timeout_s=1800] [--signal_s=0] -- srun

The body of the batch script: it runs on the job's first node, outside of any environment that the
ranks may need, and must outlive all that may happen to them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.watch import attempts, claim, heartbeat
from cluster.watch.attempts import Attempt, Outcome
from cluster.watch.listener import Listener
from cluster.watch.notices import Notices
from cluster.watch.verdict import Act, Case, Policy, Verdict, verdict

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
    watch = Watch(run, command, policy, options.timeout_s, options.signal_s)
    watch.notices.listen()
    try:
        if not run.is_dir():
            raise ClusterError(f"There is no run in {run}: give the folder that `submit` made.")
        watch.claim()
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
    parser.add_argument("--signal_s", type=float, default=0.0, help="from warning to time limit")
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

    def __init__(
        self, run: Path, command: list[str], policy: Policy, timeout_s: float, signal_s: float
    ):
        self.run, self.command, self.policy, self.timeout_s = run, command, policy, timeout_s
        self.folder = run / "heartbeats"
        self.job = os.environ.get("SLURM_JOB_ID", "")
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.notices = Notices(self.job, signal_s, say)
        self.attempt: Attempt | None = None
        """The present start, from the first one on."""

    def claim(self) -> None:
        """Be the only one who starts the ranks of this run, before anything in it is touched."""
        own, deadline = claim.own_name(), time.monotonic() + ORPHANS
        while (holder := claim.take(self.run, own)) is not None:
            lost = holder.job == self.job != "" and holder.restart < self.restart
            if not lost or time.monotonic() > deadline:
                raise ClusterError(claim.refusal(self.run, holder))
            # Out of SLURM's reach an earlier restart of this job lives on, until it reads this.
            heartbeat.begin(self.folder, f"job {self.job}, restart {self.restart}")
            time.sleep(heartbeat.INTERVAL)
        self.check_no_other_waits()

    def check_no_other_waits(self) -> None:
        """A job that was requeued comes back to its run."""
        last = attempts.attempts(self.run)[-1:]
        if not self.job or not last or last[0].job in ("", self.job):
            return
        try:
            status = queries.status(last[0].job)
        except ClusterError as error:
            say(str(error))
            return
        requeued = status is not None and status.restarts > last[0].restart
        if status is not None and not status.over and (requeued or status.state != "COMPLETING"):
            who = f"job {status.job}, which is {status.state}"
            raise ClusterError(claim.refusal(self.run, who))

    def follow(self) -> int:
        """Start the ranks until there is nothing more to do; the exit status."""
        clean, case = False, None
        for start in count():
            # What SLURM announces between two starts makes the next one useless.
            if case is None or not (self.notices.warned or self.notices.told):
                environment = self.begin(start, clean)
                srun = subprocess.Popen(self.command, env=environment, stdin=subprocess.DEVNULL)
                case = self.attend(srun)
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
        self.check_still_ours()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        images = attempts.newest_images(self.run)
        self.attempt = Attempt(self.job, self.restart, start, now, images)
        attempts.record(self.run, self.attempt)
        heartbeat.begin(self.folder, str(self.attempt))
        if not clean:
            await_orphans(self.folder)
        heartbeat.clear(self.folder)
        attempts.clear(self.run, keep_stop=self.restart > 0 or start > 0)
        self.notices.ask()
        say(f"Start {start} of restart {self.restart}, from {images} images.")
        return os.environ | {heartbeat.START: str(self.attempt), attempts.RUN: str(self.run)}

    def present(self) -> Attempt:
        assert self.attempt is not None, "no start has begun"
        return self.attempt

    def check_still_ours(self) -> None:
        """A later restart of this job, on other nodes, has the word where this one is lost."""
        current = heartbeat.current_start(self.folder)
        if self.attempt is not None and current != str(self.attempt):
            raise ClusterError(f"The run has been started again ({current}): this job leaves it.")

    def attend(self, srun: subprocess.Popen[bytes]) -> Case:
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
            if self.outcome() is None:
                complaint = self.pass_warning_on(srun) or listener.complaint(now)
            elif left is None:
                left = now
            elif now - left > LINGER:
                complaint = f"The ranks have left, but srun has not ended within {LINGER:.0f} s."
        return Case(
            outcome=self.outcome(),
            status=128 - status if status is not None and status < 0 else status,
            complaint=complaint if status is None else "",
            heard=bool(listener.ranks),
            start=self.present().start,
        )

    def pass_warning_on(self, srun: subprocess.Popen[bytes]) -> str:
        """Once the time limit is near, have srun tell the ranks to save, again and again as they
        may not hear yet; a complaint when it is too late for them."""
        self.notices.look()
        if not self.notices.warned:
            return ""
        srun.send_signal(signal.SIGUSR2)
        if self.policy.requeue and self.notices.time_is_up():
            return "The ranks have not left in time."
        return ""

    def outcome(self) -> Outcome | None:
        """What the ranks of the present start have said, not those of another."""
        found = attempts.read_outcome(self.run)
        return found if found is not None and found.start == str(self.attempt) else None

    def decide(self, case: Case) -> Verdict:
        """The verdict, told to whoever reads the log; a requeue is done."""
        if case.outcome is None or case.outcome.reason == "SIGTERM" or self.notices.told:
            self.notices.ask()
        case = replace(
            case,
            told=self.notices.told,
            preempted=self.notices.preempted,
            warned=self.notices.warned,
            tries=attempts.fruitless(self.run, self.present()),
        )
        decision = verdict(case, self.policy)
        say(decision.words)
        if not case.innocent:
            self.count(case.tries)
        if decision.act is Act.REQUEUE:
            try:
                queries.requeue(self.job)
            except ClusterError as error:
                time.sleep(TICK)
                # SLURM may have been quicker: it ends scontrol together with the job.
                self.notices.ask()
                if self.notices.told:
                    return decision
                decision = verdict(case, replace(self.policy, requeue=False))
                say(f"{error} {decision.words}")
        return decision

    def count(self, tries: int) -> None:
        """Remember a start that got no further."""
        try:
            attempts.count(self.run, self.present(), tries)
        except OSError as error:  # as of a full disk: the verdict holds all the same
            say(str(error))

    def step_is_over(self, start: int) -> bool:
        """Whether SLURM knows that all ranks have ended; else some may live on, out of its reach,
        as after the death of their slurmstepd."""
        try:
            return not self.job or not queries.step_exists(self.job, start)
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
