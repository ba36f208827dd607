"""What the launcher's environment says."""

import pytest

from cluster.topology import World, world


def test_without_a_launcher_a_process_is_alone() -> None:
    assert world({}) == World(rank=0, size=1)


def test_ranks_are_read() -> None:
    assert world({"RANK": "3", "WORLD_SIZE": "4"}) == World(rank=3, size=4)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 does not fit WORLD_SIZE=4"),
        ({"RANK": "0", "WORLD_SIZE": "many"}, "WORLD_SIZE='many' is not a number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1' is not a number"),
    ],
)
def test_what_does_not_fit_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world(environment)
