"""`pack` as a command: its options arrive."""

from __future__ import annotations

from pathlib import Path

from tests.launcher.sample import organza
from tests.shards.sources import label_source


def test_the_size_of_shards_is_the_users_choice(tmp_path: Path) -> None:
    source = label_source(tmp_path / "source", 2, size=(512, 300), inst=False)
    options = ("--shard_mib=1", "--workers=1")
    status, output = organza("pack", source, tmp_path / "small", *options)
    assert status == 0 and "2 samples in 2 shards" in output, output
    status, output = organza("pack", source, tmp_path / "none", "--shard_mib=0")
    assert status == 1 and "organza: shard_mib=0" in output and "Traceback" not in output, output
