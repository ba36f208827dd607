"""What follows from how the ranks ended: the whole table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.watch.attempts import Outcome
from cluster.watch.verdict import Act, Case, Policy, verdict

AGAIN, EXIT, REQUEUE, STAY = Act.AGAIN, Act.EXIT, Act.REQUEUE, Act.STAY
FINISHED = Case(Outcome("finished", "", 800), 0)


def stopped(reason: str, status: int = 0, **more: object) -> Case:
    return Case(Outcome("stopped", reason, 80), status, **more)


@pytest.mark.parametrize(
    ("case", "with_requeue", "without"),
    [
        (FINISHED, (EXIT, 0), (EXIT, 0)),
        (replace(FINISHED, status=137), (EXIT, 0), (EXIT, 0)),
        (replace(FINISHED, status=None), (EXIT, 0), (EXIT, 0)),
        (replace(FINISHED, told=True, tries=9), (EXIT, 0), (EXIT, 0)),
        # SLURM preempts by SIGTERM and requeues what it ends itself; `scancel` must stay so.
        (stopped("SIGTERM", 143), (STAY, 143), (STAY, 143)),
        (stopped("SIGTERM", 143, tries=9), (STAY, 143), (STAY, 143)),
        (stopped("SIGUSR2", 140, told=True), (STAY, 143), (STAY, 143)),
        (Case(None, 137, told=True), (STAY, 143), (STAY, 143)),
        (Case(None, None, "Silent.", told=True), (STAY, 143), (STAY, 143)),
        # The warning before the time limit.
        (stopped("SIGUSR2", 140), (REQUEUE, 1), (EXIT, 0)),
        (stopped("SIGUSR2", 140, tries=2), (REQUEUE, 1), (EXIT, 0)),
        (stopped("SIGUSR2", 140, tries=3), (EXIT, 1), (EXIT, 0)),
        (stopped("SIGUSR2", None), (REQUEUE, 1), (EXIT, 0)),
        (Case(None, 140), (REQUEUE, 1), (EXIT, 0)),
        (Case(None, 140, tries=3), (EXIT, 1), (EXIT, 0)),
        (Case(None, 143, warned=True), (REQUEUE, 1), (EXIT, 0)),
        (Case(None, 1, warned=True, tries=3), (EXIT, 1), (EXIT, 0)),
        (Case(None, None, "Silent.", warned=True), (REQUEUE, 1), (EXIT, 0)),
        (Case(None, 2, warned=True), (EXIT, 2), (EXIT, 2)),
        (Case(None, 143, warned=True, told=True), (STAY, 143), (STAY, 143)),
        # It came too late or was not heard: at the limit SLURM ends the job.
        (stopped("SIGTERM", 143, warned=True), (REQUEUE, 1), (EXIT, 0)),
        # In the grace time of a preemption, however often it happens.
        (stopped("SIGTERM", 143, preempted=True), (REQUEUE, 1), (STAY, 143)),
        (Case(None, 1, preempted=True, tries=9), (REQUEUE, 1), (STAY, 143)),
        (Case(None, 1, preempted=True, told=True), (STAY, 143), (STAY, 143)),
        (stopped("stop file", preempted=True), (EXIT, 0), (EXIT, 0)),
        (replace(FINISHED, preempted=True), (EXIT, 0), (EXIT, 0)),
        # The user's wish.
        (stopped("stop file"), (EXIT, 0), (EXIT, 0)),
        (stopped("SIGINT", 130), (EXIT, 0), (EXIT, 0)),
        # A mistake repeats itself.
        (Case(None, 2), (EXIT, 2), (EXIT, 2)),
        (Case(Outcome("mistake", "Label 9.", 0), 143), (EXIT, 2), (EXIT, 2)),
        # Crashes.
        (Case(None, 137), (AGAIN, 0), (AGAIN, 0)),
        (Case(None, 0), (AGAIN, 0), (AGAIN, 0)),
        (Case(None, 1, tries=0), (AGAIN, 0), (AGAIN, 0)),
        (Case(None, 137, tries=3), (EXIT, 137), (EXIT, 137)),
        (Case(None, 0, tries=3), (EXIT, 1), (EXIT, 1)),
        (Case(None, 1, heard=False), (AGAIN, 0), (AGAIN, 0)),
        (Case(None, 1, heard=False, start=1), (REQUEUE, 1), (AGAIN, 0)),
        (Case(None, 1, heard=False, start=1, tries=3), (EXIT, 1), (EXIT, 1)),
        # Ranks that stand still.
        (Case(None, None, "Silent."), (REQUEUE, 1), (AGAIN, 0)),
        (Case(None, None, "Silent.", tries=3), (EXIT, 1), (EXIT, 1)),
    ],
)
def test_the_verdict(case: Case, with_requeue: tuple, without: tuple) -> None:
    for requeue, (act, status) in ((True, with_requeue), (False, without)):
        found = verdict(case, Policy(requeue, patience=3))
        assert (found.act, found.status) == (act, status)
        assert found.words.endswith(".") and "None" not in found.words


def test_words_say_why_and_what_follows() -> None:
    policy = Policy(requeue=False, patience=3)
    words = verdict(Case(None, 137, tries=3), policy).words
    assert "status 137" in words and "last 3 starts got no further" in words
    assert verdict(Case(None, None, "Rank 3 is silent."), policy).words.startswith("Rank 3 is")
    words = verdict(stopped("SIGUSR2"), policy).words
    assert "saved at 80 images" in words and "goes on" in words
