"""`pack` as a command: its options arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.launcher.sample import organza
from tests.shards.sources import domain_source, encoded, label_source


def test_the_size_of_shards_is_the_users_choice(tmp_path: Path) -> None:
    source = label_source(tmp_path / "source", 2, size=(512, 300), inst=False)
    options = ("--shard_mib=1", "--workers=1")
    status, output = organza("pack", source, tmp_path / "small", *options)
    assert status == 0 and "2 samples in 2 shards" in output, output
    status, output = organza("pack", source, tmp_path / "none", "--shard_mib=0")
    assert status == 1 and "organza: shard_mib=0" in output and "Traceback" not in output, output


def test_domains_are_packed_verified_and_their_conversions_told(tmp_path: Path) -> None:
    source, out = domain_source(tmp_path / "source", trainA=2, trainB=3), tmp_path / "out"
    for picture in (source / "trainA").iterdir():
        picture.write_bytes(encoded(np.zeros((8, 10), np.uint8)))
    (source / "trainB/trainB-1.png").write_bytes(encoded(np.zeros((8, 10, 3), "u1"), mode="RGBA"))
    (source / "trainB/trainB-2.png").write_bytes(encoded(np.zeros((8, 10), np.uint8)))
    status, output = organza("pack", source, out, "--workers=1")
    assert status == 0, output
    for line in (
        f"{out}/A: 2 samples in 1 shards.",
        "A: 2 of 2 pictures are grey; they are read as upright 8-bit RGB.",
        f"{out}/B: 3 samples in 1 shards.",
        "B: 1 of 3 pictures are RGB with opaque alpha, 1 are grey; they are read as upright 8-bit "
        "RGB.",
    ):
        assert line in output.splitlines(), output
    status, output = organza("verify", out)
    assert status == 0 and f"{out}: 5 samples in 2 shards, 0.00 GiB: all is well." in output, output


def test_a_layout_that_is_not_known_names_all(tmp_path: Path) -> None:
    status, output = organza("pack", tmp_path, tmp_path / "out", "--layout=ab")
    expected = "choose auto, labels, pairs, unpaired, side-by-side, images, classes, labelled"
    assert status == 1 and expected in output and "Traceback" not in output, output


def test_dark_16_bit_pictures_are_a_loud_warning(tmp_path: Path) -> None:
    source, random = tmp_path / "source", np.random.default_rng(0)
    for side, top in (("A", 4096), ("B", 65536)):
        folder = source / f"train_{side}"
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, top, (8, 8)).astype(np.uint16)
            (folder / f"{number}.png").write_bytes(encoded(pixels))
    status, output = organza("pack", source, tmp_path / "out", "--workers=1")
    assert status == 0, output
    (line,) = (line for line in output.splitlines() if "ATTENTION" in line)
    assert line.startswith("ATTENTION: all 16-bit pictures of a use the lower part of their range")
    assert "a: 2 16-bit pictures with all values below 16384." in output
    assert "a: 2 of 2 pictures are 16-bit grey; they are read" in output
