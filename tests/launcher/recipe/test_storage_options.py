"""Places in a configuration: URLs stay as they are, and a node's variables are read on the node."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from launcher.data import packing
from launcher.recipe import config
from launcher.recipe.config import ConfigError
from launcher.recipe.storage_options import CacheOptions, cache_of
from launcher.run import run_folder
from launcher.slurm import submitting
from shards.pack.packing import pack
from tests.launcher.sample import make_source, organza, write_recipe
from tests.shards.fault_server import FaultServer


@pytest.mark.parametrize("url", ["s3://data/sets/street", "https://host/a%20set", "gs://b//c"])
def test_urls_stay_as_they_are(tmp_path: Path, url: str) -> None:
    recipe = str(write_recipe(tmp_path, tmp_path / "shards"))
    loaded = config.load(recipe, {"data.shards": url})
    assert loaded.data.shards == url and submitting.frozen(loaded).data.shards == url
    (tmp_path / "resolved.yaml").write_text(loaded.to_yaml())
    assert config.load(str(tmp_path / "resolved.yaml")).data.shards == url


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("s4://data/set", "`data.shards` is 's4://data/set': .*s4 is no kind of place"),
        ("https://host/set?key=SECRET", "a URL with .* or a password is refused"),
        ("https://me:SECRET@host/set", "is 'https://host/set': https://host/set: a URL with"),
        ("https://SECRET@host/set", "`data.shards` is 'https://host/set'"),
        ("s3://SECRET@bucket/set", "a user or a password is refused"),
        ("https://[::1/set", "is no URL"),
        ("null", "`data.shards` is None"),
    ],
)
def test_other_places_are_refused(tmp_path: Path, value: str, message: str) -> None:
    recipe = str(write_recipe(tmp_path, tmp_path / "shards"))
    with pytest.raises(ConfigError, match=message) as told:
        config.load(recipe, {"data.shards": value})
    assert "SECRET" not in str(told.value)


def test_a_nodes_variables_are_read_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", "/local/job7")
    folder = "$SLURM_TMPDIR/${SLURM_TMPDIR}/x$$"
    cache = cache_of(CacheOptions(folder=folder, limit_gib=0.5, ahead=4))
    assert cache is not None and cache.folder == Path("/local/job7//local/job7/x$")
    assert (cache.limit, cache.ahead, cache.num_nodes) == (2**29, 4, 1)
    assert cache_of(CacheOptions()) is None


@pytest.mark.parametrize(
    "option", [{"folder": ""}, {"limit_gib": float("inf")}, {"limit_gib": 1e300}, {"limit_gib": 0}]
)
def test_values_that_name_no_place_or_limit(option: dict[str, object]) -> None:
    """An empty folder, as an unset variable of the shell leaves it, would be the current one."""
    with pytest.raises(ValidationError):
        CacheOptions(**option)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("$NOT_HERE/x", "data.cache.folder=.NOT_HERE/x: the variable NOT_HERE is not set on"),
        ("${EMPTY}/x", "the variable EMPTY is not set"),
        ("/local/$", "write variables as"),
    ],
)
def test_a_variable_that_is_not_set(
    folder: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ValueError, match=message):
        cache_of(CacheOptions(folder=folder))


def test_submitting_leaves_the_variable_to_the_node(tmp_path: Path) -> None:
    recipe = str(write_recipe(tmp_path, tmp_path / "shards"))
    loaded = config.load(recipe, {"data.cache.folder": "$TMPDIR"})
    assert submitting.frozen(loaded).data.cache.folder == "$TMPDIR"


def test_a_run_may_go_on_with_another_cache_and_from_another_place() -> None:
    for option in ("data.cache.folder", "data.shards"):
        assert not run_folder.covers(run_folder.FIXED, option)


def test_a_run_trains_from_a_web_server_through_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    shards = tmp_path / "shards"
    pack(make_source(tmp_path / "source"), shards, workers=1)
    recipe = write_recipe(tmp_path, shards, schedule={"constant": 4, "decay": 0})
    with FaultServer(shards) as server:
        options = (f"--data.shards={server.url}", "--data.cache.folder=$NODE_DISK/cache")
        status, output = organza("train", recipe, *options)
        assert status == 0 and f"shards: {server.url}" in output, output
        assert server.gets()["000000.tar"] == 1
        assert packing.verify(server.url) == 0
    assert f"{server.url}: 6 samples in 1 shards" in capsys.readouterr().out
    assert len(list((tmp_path / "disk/cache").glob("organza-*/*.tar"))) == 1
