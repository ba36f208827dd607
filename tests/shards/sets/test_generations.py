"""A packed folder gets another generation: readers of the old one are never disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards.pack.packing import pack
from shards.read.sources import Source, fingerprint, open_sources
from shards.records import DataError
from shards.sets.domains import has_domains
from shards.sets.generations import CURRENT_FILE, current
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_all, open_domain, open_shards
from shards.sets.verify import verify
from shards.storage.opening import open_store
from shards.storage.sealed import fingerprint_of
from tests.processes import patience
from tests.shards.fault_server import FaultServer
from tests.shards.sources import ROOT, contents, domain_source, label_source

SECOND = "generation-000002"


@pytest.fixture(scope="module")
def other_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_source(tmp_path_factory.mktemp("other"), 5, seed=1)


@pytest.fixture(scope="module")
def replaced(
    packed: ShardSet, other_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The set `packed` with the source above as its second generation; not to be changed."""
    out = Path(shutil.copytree(packed.store.path, tmp_path_factory.mktemp("replaced") / "set"))
    pack(other_source, out, workers=1, replace=True)
    return out


@pytest.fixture
def copy(replaced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(replaced, tmp_path / "copy"))


def first_of(folder: Path) -> dict[str, bytes]:
    """The files of the first generation."""
    return {
        name: data
        for name, data in contents(folder).items()
        if not name.startswith(SECOND) and name != CURRENT_FILE
    }


def test_the_new_generation_is_read_and_is_a_set_of_its_own(
    packed, replaced, other_source, tmp_path
):
    assert first_of(replaced) == contents(packed.store.path)
    (fresh,) = pack(other_source, tmp_path / "fresh", workers=1)
    assert contents(replaced / SECOND) == contents(tmp_path / "fresh")
    ((name, found),) = open_all(replaced).items()
    assert (name, found.fingerprint) == ("set", fresh.fingerprint)
    for location in (replaced, replaced / SECOND):
        found = open_shards(location)
        assert (found.fingerprint, found.num_samples) == (fresh.fingerprint, 5)
        summary = verify(location, workers=1)
        assert (summary.num_samples, summary.problems) == (5, ())


def test_a_resumed_run_stays_with_its_generation(packed, replaced):
    for wanted, num_samples in ((None, 5), (packed.fingerprint, 13), ("0" * 64, 5)):
        assert sizes(open_sources(replaced, "labels", 0, fingerprint=wanted)) == [num_samples]


def test_generations_are_found_behind_a_url(packed, replaced):
    with FaultServer(replaced) as server:
        for wanted, num_samples in ((None, 5), (packed.fingerprint, 13)):
            sources = open_sources(server.url, "labels", 0, fingerprint=wanted)
            assert sizes(sources) == [num_samples]
            Reader(sources[0].shard_set).read(0)


def sizes(sources: tuple[Source, ...]) -> list[int]:
    return [source.shard_set.num_samples for source in sources]


def test_only_what_is_wanted_takes_the_place_of_a_set(packed, labels_source, other_source, copy):
    before = contents(copy)
    with pytest.raises(DataError, match="with other options.*--replace=yes to pack"):
        pack(labels_source, copy, workers=1)
    for replace in (False, True):  # the same images again
        (again,) = pack(other_source, copy, workers=1, replace=replace)
        assert again.num_samples == 5 and contents(copy) == before
    (third,) = pack(labels_source, copy, workers=1, replace=True)
    assert third.fingerprint == packed.fingerprint == open_shards(copy).fingerprint
    assert third.store.path == copy / "generation-000003"
    assert {name: data for name, data in contents(copy).items() if name in before} == {
        **before,
        CURRENT_FILE: (copy / CURRENT_FILE).read_bytes(),
    }


def test_nothing_is_replaced_where_nothing_was(labels_source, packed, tmp_path):
    pack(labels_source, tmp_path / "set", workers=1, replace=True)
    assert contents(tmp_path / "set") == contents(packed.store.path)


def test_the_first_generation_may_be_deleted(packed, copy):
    for name in ("manifest.json", "index.json", "000000.tar"):
        (copy / name).unlink()
    assert sizes(open_sources(copy, "labels", 0, fingerprint=packed.fingerprint)) == [5]
    assert verify(copy, workers=1).problems == ()


def test_domains_get_generations_and_may_take_the_place_of_one_set(packed, tmp_path):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    old = domain_source(tmp_path / "old", trainA=2, trainB=3)
    new = domain_source(tmp_path / "new", trainA=4, trainB=1)
    pack(old, out, workers=1, replace=True)
    began_with = fingerprint(open_sources(out, "unpaired", 0))
    pack(new, out, workers=1, replace=True)
    assert has_domains(current(open_store(out))) and open_domain(out, "A").num_samples == 4
    assert sizes(open_sources(out, "unpaired", 0)) == [4, 1]
    assert sizes(open_sources(out, "unpaired", 0, fingerprint=began_with)) == [2, 3]
    backwards = open_sources(out, "unpaired", 0, ("B", "A"), fingerprint=began_with)
    assert sizes(backwards) == [1, 4]  # that would be another run's data
    assert sizes(open_sources(out, "labels", 0, fingerprint=packed.fingerprint)) == [13]
    with pytest.raises(DataError, match="holds the domains A, B, but one set is needed"):
        open_sources(out, "labels", 0)
    assert verify(out, workers=1).num_samples == 5


@pytest.mark.parametrize("number", [1, 0, -1, "../other", "2", 1.5, None, True, 10**7])
def test_a_generation_is_a_number_and_leads_nowhere_else(copy, number):
    content = json.loads((copy / CURRENT_FILE).read_text()) | {"generation": number}
    content["fingerprint"] = fingerprint_of(content)
    (copy / CURRENT_FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match="current.json names generation .*, which is none"):
        open_shards(copy)


def test_an_altered_current_or_an_absent_generation_is_a_sentence(copy, other_source):
    file = copy / CURRENT_FILE
    good = file.read_text()
    file.write_text(good.replace('"generation": 2', '"generation": 3'))
    with pytest.raises(DataError, match="current.json was altered after packing"):
        open_shards(copy)
    with pytest.raises(DataError, match="current.json was altered after packing"):
        pack(other_source, copy, workers=1, replace=True)
    file.write_text(good)
    shutil.rmtree(copy / SECOND)
    with pytest.raises(DataError, match=f"{SECOND} holds no manifest.json"):
        open_shards(copy)
    pack(other_source, copy, workers=1)
    assert open_shards(copy).num_samples == 5


def test_a_whole_generation_that_never_became_current_is_passed_over(packed, copy, other_source):
    (copy / CURRENT_FILE).unlink()  # as if killed right before it was written
    assert open_shards(copy).fingerprint == packed.fingerprint
    pack(other_source, Path(shutil.copytree(copy, copy.parent / "same")), workers=1, replace=True)
    assert contents(copy.parent / "same").keys() == {*contents(copy), CURRENT_FILE}
    third = label_source(copy.parent / "third", 3, seed=3)
    pack(third, copy, workers=1, replace=True)
    assert open_shards(copy).store.path == copy / "generation-000003"


READER_SCRIPT = """
import sys
from pathlib import Path
from shards.sets.shard_set import open_shards
from shards.sets.reader import Reader
out, stop = map(Path, sys.argv[1:])
old = Reader(open_shards(out))
first = [old.read(n) for n in range(old.shard_set.num_samples)]
seen = []
while not seen or not stop.exists():
    assert [old.read(n) for n in range(len(first))] == first
    fresh = Reader(open_shards(out))
    for n in range(fresh.shard_set.num_samples):
        fresh.read(n)
    if fresh.shard_set.fingerprint not in seen:
        seen.append(fresh.shard_set.fingerprint)
        print(fresh.shard_set.fingerprint, flush=True)
"""

PACK_SCRIPT = """
import sys
from pathlib import Path
from shards.pack.packing import pack
if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]), shard_mib=1, workers=1, replace=True)
"""


def start(script: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    file = folder / "script.py"
    file.write_text(script)
    return subprocess.Popen(
        [sys.executable, str(file), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_goes_on_and_others_find_the_new_set_only_once_it_is_whole(
    packed, large_source, large_set, tmp_path
):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    reader = start(READER_SCRIPT, tmp_path, out, tmp_path / "stop")
    try:
        assert reader.stdout.readline().strip() == packed.fingerprint
        pack(large_source, out, shard_mib=1, workers=1, replace=True)
        assert reader.stdout.readline().strip() == large_set.fingerprint
        (tmp_path / "stop").touch()
        rest, errors = patience.communicate(reader)
    finally:
        reader.kill()
    assert (reader.returncode, rest, errors) == (0, "", "")


def test_a_killed_replacement_leaves_the_old_set_and_goes_on(
    packed, large_source, large_set, tmp_path
):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    work = out / SECOND / ".pack"
    process = start(PACK_SCRIPT, tmp_path, large_source, out)
    try:
        patience.wait_for(
            lambda: len(list(work.glob("*.json"))) >= 3 or process.poll() is not None, every=0.005
        )
    finally:
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it finished before it was killed"
    assert open_shards(out).fingerprint == packed.fingerprint and not (out / CURRENT_FILE).exists()
    assert Reader(open_shards(out)).read(0) == Reader(packed).read(0)
    shards = [out / SECOND / path.stem for path in work.glob("*.json")]
    kept = {path: path.stat().st_mtime_ns for path in shards}
    pack(large_source, out, shard_mib=1, workers=1, replace=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) >= 3
    assert contents(out / SECOND) == contents(large_set.store.path)
    assert open_shards(out).fingerprint == large_set.fingerprint


@pytest.mark.parametrize("name, problem", [("000000.tar", "is missing"), ("manifest.json", "")])
def test_a_damaged_set_is_packed_anew_only_if_asked(name, problem, packed, labels_source, tmp_path):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    (out / name).unlink()
    (out / "manifest.json").touch()
    with pytest.raises(DataError, match=rf"{problem}.*--replace=yes packs it anew"):
        pack(labels_source, out, workers=1)
    pack(labels_source, out, workers=1, replace=True)
    assert contents(out / SECOND) == contents(packed.store.path)
    assert open_shards(out).fingerprint == packed.fingerprint
