"""Schedules count images."""

import pytest

from trainers.schedule import Schedule, crossed


def test_constant_then_linear_to_zero_at_the_end() -> None:
    schedule = Schedule(constant=300, decay=400)
    seen = [0, 299, 300, 400, 500, 600, 699, 700]
    expected = [1, 1, 1, 0.75, 0.5, 0.25, 0.0025, 0]
    assert [schedule.factor(images) for images in seen] == pytest.approx(expected)
    assert schedule.total == 700


def test_the_paper_s_epochs_agree_with_the_original_at_their_starts() -> None:
    # The original's rate in epoch e of 3 + 4: 2e-4 while constant, then falling; ours by images
    # is one epoch later at each start, and reaches zero at the end instead of one epoch before.
    schedule = Schedule(constant=3, decay=4)
    assert [2e-4 * schedule.factor(e) for e in (3, 4, 5, 6)] == pytest.approx(
        [2e-4, 1.5e-4, 1e-4, 0.5e-4]
    )


def test_no_decay_is_constant_to_the_end() -> None:
    assert Schedule(constant=10, decay=0).factor(10) == 1


@pytest.mark.parametrize(
    ("every", "before", "after", "answer"),
    [(10, 9, 10, True), (10, 10, 19, False), (10, 0, 64, True), (0, 0, 64, False)],
)
def test_crossed(every: int, before: int, after: int, answer: bool) -> None:
    assert crossed(every, before, after) is answer
