"""A run goes on with the generation of its data that it began with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.commands.cli import Commands
from launcher.recipe.config import Config, ConfigError, load
from launcher.run import run_folder
from launcher.run.sources import sources_of
from shards.pack.packing import pack
from shards.pixels.photos import Photos
from shards.sets.shard_set import open_shards
from tests.launcher.sample import ROOT, organza, write_recipe
from tests.processes import gang
from tests.shards.sources import label_source
from trainers.backends.opening import open_backend


@pytest.fixture
def began(tmp_path: Path) -> tuple[Config, str]:
    """A run with two checkpoints on the first generation, and that one's fingerprint."""
    shards = tmp_path / "shards"
    (first,) = pack(label_source(tmp_path / "first", 2), shards, workers=1)
    pack(label_source(tmp_path / "second", 3, seed=1), shards, workers=1, replace=True)
    config = load(str(write_recipe(tmp_path, shards)), {})
    for name in ("000000008", "000000016"):
        folder = config.run_dir / "checkpoints" / name
        folder.mkdir(parents=True)
        state = {"format": 2, "config": {}, "world": 1, "scalers": {}}
        state |= {"data": first.fingerprint, "progress": {"step": 1, "images": int(name)}}
        (folder / "state.json").write_text(json.dumps(state))
    return config, first.fingerprint


def test_a_run_finds_its_generation_even_by_an_older_checkpoint(began):
    config, fingerprint = began
    (source,) = sources_of(config)
    assert source.shard_set.fingerprint == fingerprint
    (config.run_dir / "checkpoints/000000016/state.json").write_text("half a")
    assert run_folder.data_of(config.run_dir) == fingerprint
    (source,) = sources_of(config)
    assert source.shard_set.fingerprint == fingerprint


def test_a_new_run_takes_the_current_generation(began, tmp_path):
    config, _ = began
    (source,) = sources_of(config.model_copy(update={"run_dir": tmp_path / "new"}))
    assert source.shard_set.num_samples == 3


def test_dali_gets_its_files_beside_the_tars_that_it_shall_read(began):
    config, _ = began
    shards = Path(config.data.shards)
    Commands().dali(str(shards))._run()
    assert [path.parent.name for path in shards.rglob("*.idx")] == ["generation-000002"]


@pytest.mark.parametrize("target", ["s3://bucket/set", "file:///set"])
def test_nothing_is_written_behind_urls(target):
    with pytest.raises(ConfigError, match=f"pack: OUT={target} must be a folder"):
        Commands().pack("source", target)
    with pytest.raises(ConfigError, match=f"dali: --out={target} must be a folder"):
        Commands().dali("set", out=target)


def meeting(config: Config, own_prints: list[str]) -> str:
    """What a rank that reads its own of these sets is told."""
    backend = open_backend(len(own_prints), 60, None)
    told = ""
    try:
        run_folder.check_same_data(config, own_prints[backend.rank], backend)
    except ConfigError as error:
        told = str(error)
    backend.close()
    return told


def test_ranks_that_found_different_generations_do_not_start(began):
    config, fingerprint = began
    assert gang.run(2, meeting, config, [fingerprint, fingerprint]) == ["", ""]
    first, second = gang.run(2, meeting, config, [fingerprint, "0" * 64])
    assert first == second and "another generation was packed just now" in first


def test_pack_takes_its_new_options(tmp_path: Path) -> None:
    label_source(tmp_path / "source", 2)
    label_source(tmp_path / "other", 3, seed=1)
    (tmp_path / "other/list.csv").write_text("image,split\ntrain_img/001.png,val\n")
    out = tmp_path / "out"
    pack(tmp_path / "source", out, workers=1)
    more = ("--split=val", "--photos=jpeg", "--quality=90", "--workers=1")
    status, output = organza("pack", tmp_path / "other/list.csv", out, *more)
    assert status == 1 and "--replace=yes to pack a new generation" in output, output
    status, output = organza("pack", tmp_path / "other/list.csv", out, *more, "--replace=yes")
    assert status == 0 and f"{out}/generation-000002: 1 samples in 1 shards." in output, output
    assert " samples/s, " in output and " MiB/s." in output, output
    assert open_shards(out).manifest.storing == {"photos": vars(Photos("jpeg", 90))}
    status, output = organza("verify", out)
    assert status == 0 and "1 samples in 1 shards, 0.00 GiB: all is well." in output, output
    assert " MiB/s." in output, output


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"quality": "90"}, "--quality=90 needs --photos=jpeg or webp"),
        ({"photos": "png"}, "--photos=png must be one of keep, jpeg, webp"),
        ({"photos": "webp", "quality": "high"}, "--quality=high is not a whole number"),
        ({"replace": "maybe"}, "--replace=maybe must be one of yes, no"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, expected):
    with pytest.raises(ConfigError, match=expected):
        Commands().pack("source", "out", **options)


def test_packing_starts_without_torch():
    code = "import launcher.data.packing, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
