"""Folders that other users may change; see test_copies.py for what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.storage import owners
from tests.shards.sources import give_away


def test_nobody_else_may_change_a_folder_or_those_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "node" / "cache"
    folder.mkdir(parents=True)
    owners.check_path(folder)
    for open_folder, mode in ((folder, 0o777), (folder.parent, 0o775), (folder.parent, 0o757)):
        open_folder.chmod(mode)
        with pytest.raises(PermissionError, match=f"other users may change {open_folder}, unless"):
            owners.check_path(folder)
        open_folder.chmod(0o1777)  # sticky, as /tmp is
        owners.check_path(folder)
        open_folder.chmod(0o755)


def test_nobody_else_may_own_a_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "node" / "cache"
    folder.mkdir(parents=True)
    give_away(folder.parent, monkeypatch)
    with pytest.raises(PermissionError, match="node.* belongs to another user"):
        owners.check_path(folder)


def test_a_container_may_not_know_the_superuser() -> None:
    assert owners.root("         0          0 4294967295\n") == 0
    assert owners.root("         0     100000      65536\n") == 0
    assert owners.root("      1000       1000          1\n") == 65534
