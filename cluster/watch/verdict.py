"""What follows when the ranks have ended, or do not go on: a pure function.

What may be lost is decided here: a job that leaves after SIGTERM counts as ended and is not
requeued by SLURM, one that requeues itself after SIGTERM undoes its user's `scancel`, and one that
starts a wrong configuration again and again burns its account.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from cluster.watch.attempts import Outcome

MISTAKE = 2
"""Exit status of `train` for a wrong configuration: the same would come out again."""
SAVE_AND_REQUEUE = 128 + signal.SIGUSR2
"""Of ranks that the warning reached before they could catch it."""


class Act(Enum):
    """What is done after a start has ended."""

    EXIT = "exit"
    AGAIN = "start the ranks again, inside this job"
    REQUEUE = "have SLURM start the job again, on whatever nodes are well"
    STAY = "wait for SLURM to end the job"


@dataclass(frozen=True)
class Case:
    """What is known of a start."""

    outcome: Outcome | None = None
    """What the ranks said when they left in order."""
    status: int | None = None
    """Exit status of srun; None while it runs."""
    complaint: str = ""
    """Why the ranks are given up although srun runs."""
    told: bool = False
    """Whether SLURM is about to end this job."""
    preempted: bool = False
    """Whether it will do so because others need the nodes."""
    warned: bool = False
    """Whether the time limit is near."""
    heard: bool = True
    """Whether any rank came up far enough to give a sign of life."""
    start: int = 0
    """Number of this start within the job."""
    tries: int = 1
    """How many starts in a row, this one included, have got no further."""

    @property
    def by_user(self) -> bool:
        """Whether somebody asked the ranks to leave who is not SLURM."""
        return self.outcome is not None and self.outcome.reason not in ("SIGTERM", "SIGUSR2")

    @property
    def innocent(self) -> bool:
        """Whether SLURM took the nodes away: that says nothing about the run."""
        return self.told or self.preempted


@dataclass(frozen=True)
class Policy:
    """What the job's owner has asked for."""

    requeue: bool
    patience: int
    """So many starts in a row may get no further."""


@dataclass(frozen=True)
class Verdict:
    """What follows, and why, in a sentence for the log."""

    act: Act
    words: str
    status: int = 0
    """To exit with, at once or when nothing else ends the job."""


def verdict(case: Case, policy: Policy) -> Verdict:
    """What to do now, and why."""
    if case.outcome is not None and case.outcome.outcome == "finished":
        return Verdict(Act.EXIT, f"Finished at {case.outcome.images} images.")
    if case.outcome is not None and case.outcome.outcome == "mistake":
        return Verdict(Act.EXIT, f"Not started again: {case.outcome.reason}", MISTAKE)
    if case.by_user and not case.told:
        return Verdict(Act.EXIT, f"{_ended(case)} `sbatch` with this script goes on.")
    if case.preempted and not case.told and policy.requeue:
        # In its grace time SLURM waits: a job that ended by itself would not come back.
        return Verdict(Act.REQUEUE, f"{_ended(case)} SLURM preempts this job: it is requeued.", 1)
    terminated = case.outcome is not None and case.outcome.reason == "SIGTERM"
    if case.innocent or terminated and not case.warned:
        return Verdict(Act.STAY, f"{_ended(case)} SLURM ends or requeues this job.", 143)
    if case.status == MISTAKE and case.outcome is None:
        return Verdict(Act.EXIT, "Not started again: the mistake is named above.", MISTAKE)
    stuck = case.tries >= policy.patience
    if case.outcome is not None or case.warned or case.status == SAVE_AND_REQUEUE:
        return _stopped(case, policy, stuck)
    if stuck:
        words = f"Given up: the last {case.tries} starts got no further. The reason is in the logs."
        return Verdict(Act.EXIT, f"{_ended(case)} {words}", case.status or 1)
    # What made the ranks stand still, or their nodes unreachable, may be there again.
    elsewhere = bool(case.complaint) or case.start > 0 and not case.heard
    if elsewhere and policy.requeue:
        return Verdict(Act.REQUEUE, f"{_ended(case)} The job is requeued.", 1)
    return Verdict(Act.AGAIN, f"{_ended(case)} The ranks are started again.")


def _stopped(case: Case, policy: Policy, stuck: bool) -> Verdict:
    if not policy.requeue:
        return Verdict(Act.EXIT, f"{_ended(case)} `sbatch` with this script goes on.")
    if stuck:
        words = f"Given up: {case.tries} starts in a row got no further within their time limit."
        return Verdict(Act.EXIT, f"{_ended(case)} {words}", 1)
    return Verdict(Act.REQUEUE, f"{_ended(case)} The job is requeued.", 1)


def _ended(case: Case) -> str:
    if case.outcome is not None:
        return f"Stopped by {case.outcome.reason} and saved at {case.outcome.images} images."
    near = "The time limit is near. " if case.warned else ""
    if case.complaint:
        return near + case.complaint
    if case.status is None:
        return near.strip()
    return f"{near}The ranks ended without a word, with status {case.status}."
