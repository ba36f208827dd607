"""Names of nodes; `scontrol` agrees with them in test_minislurm.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError
from cluster.start.hosts import compress, expand, read_hostfile

NAMES = st.from_regex(r"[a-z]{0,3}[0-9]{0,4}(-[a-z]{1,2}[0-9]{0,3})?", fullmatch=True).filter(bool)


@pytest.mark.parametrize(
    ("hostlist", "names"),
    [
        ("", ""),
        ("gpu5", "gpu5"),
        ("n[1-3,07-09]", "n1 n2 n3 n07 n08 n09"),
        ("n[9-11],n[009-010]", "n9 n10 n11 n009 n010"),
        ("n[1-2]-ib[0-1],gpu5", "n1-ib0 n1-ib1 n2-ib0 n2-ib1 gpu5"),
        ("rack[1-2]-n[01,3].site", "rack1-n01.site rack1-n3.site rack2-n01.site rack2-n3.site"),
        ("a,,b", "a b"),
        ("n[99-101],n1,n1", "n99 n100 n101 n1 n1"),
    ],
)
def test_a_hostlist_is_expanded(hostlist: str, names: str) -> None:
    assert expand(hostlist) == names.split()


@pytest.mark.parametrize(
    ("hostlist", "message"),
    [
        ("n[1-2", "a bracket or a space too many"),
        ("n1-2]", "a bracket or a space too many"),
        ("n[[1-2]]", "a bracket or a space too many"),
        ("n1 n2", "a bracket or a space too many"),
        ("n[3-1]", "The range '3-1'"),
        ("n[a-c]", "The range 'a-c'"),
        ("n[]", "The range ''"),
        ("n[1-9999999]", "at most 65536 numbers"),
        ("n[0-999][0-999]", "more than 65536 names"),
    ],
)
def test_what_is_no_hostlist_is_named(hostlist: str, message: str) -> None:
    with pytest.raises(ClusterError, match="hostlist") as raised:
        expand(hostlist)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("names", "hostlist"),
    [
        ("n1 n2 n3", "n[1-3]"),
        ("n08 n09 n10 n5", "n[08-10,5]"),
        ("n9 n10 n11 n012 n013", "n[9-11,012-013]"),
        ("a a1b n1-ib0 n1-ib1 n2-ib0", "a,a1b,n1-ib[0-1],n2-ib0"),
        ("n2 n1 n1", "n[2,1,1]"),
        ("", ""),
    ],
)
def test_names_are_compressed_in_their_order(names: str, hostlist: str) -> None:
    assert compress(names.split()) == hostlist


@given(st.lists(NAMES, max_size=30))
def test_what_is_compressed_expands_again(names: list[str]) -> None:
    assert expand(compress(names)) == names


@given(st.integers(0, 2000), st.integers(0, 300), st.integers(1, 5))
def test_ranges_come_back_whole(first: int, more: int, width: int) -> None:
    names = [f"n{number:0{width}}" for number in range(first, first + more + 1)]
    assert expand(compress(names)) == names
    assert len(compress(names)) < 20


def test_a_hostfile_is_read() -> None:
    text = "# the cluster\nn1 slots=2\n\nn2.site  slots=4 # faster\n"
    assert read_hostfile(text) == {"n1": 2, "n2.site": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1\n", "'n1' must read NAME slots=NUMBER"),
        ("n1 slots=0\n", "must read"),
        ("n1 slots=two\n", "must read"),
        ("n1 slots=2\nn1 slots=3\n", "names n1 twice"),
        ("# nothing\n", "names no node"),
    ],
)
def test_what_is_no_hostfile_is_named(text: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        read_hostfile(text)
