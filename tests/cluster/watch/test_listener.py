"""Whether ranks go on, by the reader's own clock: beats and times as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.watch.heartbeat import Beat
from cluster.watch.listener import Listener, named, silence, suspects


def beat(rank: int, step: int = 5, doing: str = "step", beats: int = 1, time: float = 0) -> Beat:
    return Beat(rank, f"n{rank + 1}", 100 + rank, step, 8 * step, doing, beats, time)


def heard(timeout_s: float, *looks: tuple[float, list[Beat]]) -> str:
    """The complaint after the last look."""
    listener = Listener(0, timeout_s)
    for now, beats in looks:
        listener.hear(beats, now)
    return listener.complaint(looks[-1][0])


def looks(last: float, *ranks: tuple[int, str, float, float]) -> list[tuple[float, list[Beat]]]:
    """A look every 5 s; of each rank (last step, doing, silent from, stands still from)."""

    def at(now: float, rank: int) -> Beat:
        step, doing, silent, still = ranks[rank]
        now = min(now, silent)
        moving = now < still
        here = step - int(still - now) if moving else step
        return beat(rank, here, "step" if moving else doing, int(now // 5))

    times = [5.0 * i for i in range(int(last // 5) + 1)]
    return [(now, [at(now, rank) for rank in range(len(ranks))]) for now in times]


NEVER = 1e9


@pytest.mark.parametrize(
    ("timeout_s", "seconds"), [(1, 60), (100, 100), (1800, 300), (float("inf"), 300)]
)
def test_silence_has_bounds(timeout_s: float, seconds: float) -> None:
    assert silence(timeout_s) == seconds


@pytest.mark.parametrize(
    ("ranks", "complaint"),
    [
        # (last step, doing, silent from, stands still from)
        ([(9, "step", NEVER, NEVER)] * 2, ""),
        (
            [(500, "step", NEVER, NEVER), (40, "data", 200, 150)],
            "For 300 s there has been no sign of life from "
            "rank 1 on n2 (pid 101, step 40, waiting for data).",
        ),
        # One rank may leave while another still saves.
        ([(40, "save", NEVER, 150), (40, "end", 200, 150)], ""),
        (
            [(40, "end", 200, 150)] * 2,
            "All ranks have left, but for 300 s their launcher has not ended.",
        ),
        ([(40, "step", NEVER, 300)] * 2, ""),
    ],
)
def test_silent_ranks_are_named(ranks: list, complaint: str) -> None:
    assert heard(1800, *looks(600, *ranks)) == complaint


@pytest.mark.parametrize(
    ("ranks", "complaint"),
    [
        (
            [(40, "step", NEVER, 100), (40, "data", NEVER, 100)],
            "No rank has gone on for 400 s: the others, at step 40, wait for "
            "rank 1 on n2 (pid 101, step 40, waiting for data).",
        ),
        (
            [(39, "step", NEVER, 100), (40, "step", NEVER, 100), (40, "step", NEVER, 100)],
            "No rank has gone on for 400 s: the others, at step 40, wait for "
            "rank 0 on n1 (pid 100, step 39, computing).",
        ),
        (
            [(40, "step", NEVER, 100)] * 2,
            "No rank has gone on for 400 s: all stand at one place, rank 0 on n1 (pid 100, step "
            "40, computing) and rank 1 on n2 (pid 101, step 40, computing).",
        ),
        # Who is at the same place, but silent, is the one.
        (
            [(40, "step", NEVER, 100), (40, "step", 320, 100)],
            "No rank has gone on for 400 s: there is no sign of life from "
            "rank 1 on n2 (pid 101, step 40, computing).",
        ),
        # A rank has ended, and the others wait for it.
        (
            [(40, "end", 100, 100), (40, "save", NEVER, 100)],
            "No rank has gone on for 400 s: all stand at one place, "
            "rank 1 on n2 (pid 101, step 40, saving).",
        ),
        # A slow rank is no rank that stands still.
        ([(40, "step", NEVER, 100), (40, "data", NEVER, 550)], ""),
    ],
)
def test_ranks_that_stand_still_are_named(ranks: list, complaint: str) -> None:
    assert heard(400, *looks(600, *ranks)) == complaint


def test_no_rank_at_all_is_told() -> None:
    assert heard(60, (30, []), (60, [])) == ""
    words = "No rank has given a sign of life within 60 s."
    assert heard(60, (30, []), (59, []), (61, [])) == words


def test_clocks_of_other_nodes_do_not_matter() -> None:
    """A rank whose clock stands, or jumps back by years, beats all the same."""
    for time in (lambda now: 0.0, lambda now: -1e6 * now):
        beats = [(now, [beat(0, now, beats=now, time=time(now))]) for now in range(0, 600, 5)]
        assert heard(60, *beats) == ""
    ticking = [(now, [beat(0, time=now)]) for now in range(0, 400, 5)]
    assert "gone on" in heard(60, *ticking)


def test_a_reader_that_was_held_up_starts_afresh() -> None:
    before = [(now, [beat(0, beats=now)]) for now in range(0, 50, 5)]
    assert heard(60, *before, (500, [beat(0, beats=45)])) == ""
    after = [(now, [beat(0, beats=45)]) for now in range(500, 570, 5)]
    assert "no sign of life from rank 0" in heard(60, *before, *after)


def test_a_rank_that_its_launcher_started_again_goes_on() -> None:
    old = [(now, [beat(0, 9, beats=now)]) for now in range(0, 100, 5)]
    new = [(now, [replace(beat(0, 9, beats=now), pid=7)]) for now in range(100, 150, 5)]
    assert heard(90, *old, *new) == ""


def test_of_many_ranks_a_few_are_named() -> None:
    text = named([beat(rank) for rank in range(9, -1, -1)])
    assert text.startswith("rank 0 on n1") and text.endswith(" and 6 more")
    assert text.count("rank") == 4
    assert "wait for rank 0 on n1" in suspects([beat(0, 4), beat(1)])
