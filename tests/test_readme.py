"""Every command of the pages is run, on small data and with slim networks; what they name is
there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.request
from functools import cache, partial
from pathlib import Path

import pytest
from PIL import Image

from launcher.commands.cli import Commands
from tests.launcher import warm_start
from tests.launcher.run.test_translators import fill
from tests.launcher.sample import ROOT, environment, make_source
from tests.processes import patience
from tests.processes.gang import free_port
from tests.shards.foreign import street_tars
from tests.test_floors import HOUSE, ROOMS

README = ROOT / "README.md"
COMMANDS = ROOT / "launcher" / "README.md"
ARCHITECTURE = ROOT / "launcher" / "ARCHITECTURE.md"
MOST_LINES = 150
"""Of the README, which a stranger is to read whole."""
SHORT = ["--precision=fp32", "--schedule.constant=4", "--schedule.decay=4", "--data.workers=0"]
HD = ["--model.ndf=4", "--model.num_blocks=1", "--model.num_local_blocks=1"]
SLIM = {
    "pix2pixhd-coarse": [*HD, "--model.ngf=4"],
    "pix2pixhd-full": [*HD, "--model.ngf=2", "--model.fix_global=4"],
    "cyclegan": [
        "--model.generator.ngf=2",
        "--model.generator.num_blocks=1",
        "--model.discriminator.ndf=2",
    ],
    "pix2pix": ["--model.generator.ngf=2", "--model.discriminator.ndf=2"],
    "digits": ["--model.generator.ngf=2", "--model.discriminator.ndf=2"],
}
ELSEWHERE = ("make", "pip")
"""`make test` runs this test, in what `pip install` set up; tests/test_demo.py runs `make demo`."""
QUEUED = ("doctor", "submit", "status", "runs", "logs", "stop", "cancel")
"""Commands that tests/test_cluster.py runs, where there is a SLURM."""


def links(page: Path) -> list[tuple[Path, str]]:
    """(file, heading) of what a page links to within the house; its own file for its headings."""
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
    parts = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, name) for path, _, name in parts]


@cache
def pages() -> tuple[Path, ...]:
    """All pages, as a stranger finds them: the README first, then what its links lead to."""
    found = [README]
    for page in found:  # which grows meanwhile
        found += dict.fromkeys(p for p, _ in links(page) if p.suffix == ".md" and p not in found)
    return tuple(found)


def commands(queued: bool = False) -> list[str]:
    """What the pages tell to type, each once, on one box or for a cluster."""
    blocks = re.findall(r"```bash\n(.*?)```", "".join(p.read_text() for p in pages()), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    typed = dict.fromkeys(" ".join(line.split("  #")[0].split()) for line in lines)
    wanted = [line for line in typed if line and not line.startswith(ELSEWHERE)]
    return [line for line in wanted if is_queued(line) == queued]


def is_queued(line: str) -> bool:
    words = line.split()
    return words[0] == "organza" and words[1] in QUEUED


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    make_source(folder / "data" / "streets", count=2, size=(128, 64))
    for split in ("train", "test"):
        fill(folder / "data" / "horse2zebra" / f"{split}A", 2, size=(96, 64))
        fill(folder / "data" / "horse2zebra" / f"{split}B", 2, seed=9, size=(64, 96))
        fill(folder / "data" / "facades" / split, 2, size=(128, 64))
    names = [f"streets/train_{member}/000.png" for member in ("label", "inst", "img")]
    (folder / "data" / "streets.csv").write_text(f"label,inst,image\n{','.join(names)}\n")
    street_tars(folder / "data" / "tars")
    return folder


def adapted(line: str) -> list[str]:
    """The command as documented, with fewer processes and smaller networks."""
    words = shlex.split(line.replace("--num_processes 8", "--num_processes 2"))
    if "train" in words:
        words += SHORT + SLIM[words[words.index("train") + 1]]
    if "plan" in words:
        words += SLIM[words[words.index("plan") + 1]]
    if "tests.benchmarks.scaling" in words:
        words += ["--steps=1", "--worlds=2", "--size=32x32", "--model.ngf=2", "--model.ndf=2"]
    if "tests.benchmarks.step" in words:
        words[words.index("--steps=30")] = "--steps=1"
        # VGG in bf16 takes minutes on processors without it.
        words += ["--size=64x64", "--model.ngf=4", *HD, "--model.lambda_vgg=0"]
    if "tests.benchmarks.samples" in words:
        words += ["--images=1", "--num=10"]
    if "tests.benchmarks.versus" in words:
        words[words.index("--steps=10")] = "--steps=1"
        words += ["--size=64x32"]
    if "tests.benchmarks.ablation" in words:
        words += ["--steps=1", "--size=64x32", "--only=waist"]
    if "tests.benchmarks.waiting" in words:
        words += ["--size=64x32", "--triplets=4", "--images=3", "--step=0.01", "--ranks=1"]
    if "tests.benchmarks.reading" in words:
        words[words.index("--rounds=3")] = "--rounds=1"
        words += ["--size=64x32", "--triplets=4", "--workers=0"]
    if "accelerate" in words:
        words[2:2] = ["--main_process_port", str(free_port())]
    return words


@pytest.fixture(scope="module")
def walked(workplace: Path) -> Path:
    """The folder in which every command was run, in the order of the pages."""
    assert len(commands()) >= 9
    for line in commands():
        if line.startswith("tensorboard"):
            continue
        settings, words = [], adapted(line)
        while "=" in words[0]:
            settings.append(words.pop(0).split("=", 1))
        status, output = typed(words, workplace, dict(settings))
        # Slim pictures of a few steps may lose against a constant colour: that is status 1.
        expected = (0, 1) if "score" in words else (0,)
        assert status in expected, f"{line}\n{output}"
        assert "Traceback" not in output, f"{line}\n{output}"
    return workplace


def typed(words: list[str], folder: Path, settings: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of a command."""
    variables = environment() | {"PYTHONPATH": str(ROOT)} | settings
    if words[0] == "organza":
        return warm_start.run(words[1:], variables, folder)
    command = [sys.executable if words[0] == "python" else words[0], *words[1:]]
    done = patience.run(command, cwd=folder, env=variables, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def test_every_command_runs(walked: Path) -> None:
    assert (walked / "pictures" / "000.png").exists()


def test_tensorboard_serves_what_a_run_left(walked: Path) -> None:
    assert any(line.startswith("tensorboard --logdir") for line in commands())
    port = free_port()
    process = subprocess.Popen(
        ["tensorboard", "--logdir", str(walked / "runs"), "--port", str(port)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        names = ("pix2pixhd-coarse", "pix2pixhd-full")
        patience.wait_for(partial(tells, f"http://127.0.0.1:{port}/data/runs", names), every=0.5)
    finally:
        process.kill()
        process.wait()


def tells(url: str, names: tuple[str, ...]) -> bool:
    """Whether the answer has all names; the server needs a moment to start and to load."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            answer = response.read().decode()
    except OSError:
        return False
    return all(name in answer for name in names)


def headings(page: Path) -> set[str]:
    """As links name them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in found}


def an_example(path: str) -> Path:
    """A path of the pages, with names for what stands for any."""
    return ROOT / path.replace("ROOM", "from_images").replace("NAME", "pix2pixhd")


def test_a_stranger_finds_every_page() -> None:
    floors = [ROOT / floor for floor in (*HOUSE, "tests")]
    assert {README, *(page for floor in floors for page in floor.rglob("*.md"))} == {*pages()}
    assert len(README.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    for target, heading in links(page):
        if target.suffix == ".jpg":
            Image.open(target).load()
        assert target.exists(), target
        assert not heading or heading in headings(target), f"{target} has no {heading}"
    floors = "|".join((*HOUSE, "tests"))
    for path in re.findall(rf"(?<![\w/])(?:\.\./)*((?:{floors})/[\w./-]+)", page.read_text()):
        assert an_example(path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_people_type_organza(page: Path) -> None:
    """A module is for launchers."""
    assert re.findall(r"(?<!srun )python -m launcher", page.read_text()) == []


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, its head left out."""
    text = page.read_text().split(f"{heading}\n", 1)[1]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", text, re.M | re.S)
    assert table is not None
    return [[c.strip() for c in r.strip("| ").split(" | ")] for r in table[0].splitlines()[2:]]


def test_the_table_of_commands_is_whole() -> None:
    told = [name.strip("`") for name, *_ in rows(COMMANDS, "# Commands, recipes and results")]
    assert sorted(told) == sorted(name for name in dir(Commands) if not name.startswith("_"))


def test_every_room_has_its_line() -> None:
    told = [name.strip("`/") for name, *_ in rows(ARCHITECTURE, "## Rooms")]
    rooms = [room.relative_to(ROOT) for room in ROOMS]
    inner = {str(room) for room in rooms if len(room.parts) == 2 and room.parts[0] in HOUSE}
    assert len(told) == len(inner) and {*told} == inner


def test_what_is_to_be_changed_is_where_the_table_says() -> None:
    changes = rows(ARCHITECTURE, "## Where to change what")
    assert len(changes) >= 10
    for change, file, there, *_ in changes:
        code = an_example(file.strip("`")).read_text()
        names = re.findall(r"`([\w.]+)`", there)
        assert names, change
        for name in names:
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), f"{file} has no {name}"


def test_the_troubleshooting_table_quotes_real_messages() -> None:
    sources = [path for floor in HOUSE for path in (ROOT / floor).rglob("*.py")]
    # Sentences are written over several lines of code.
    code = re.sub(r'"\s*f?"', "", "".join(path.read_text() for path in sources))
    code = re.sub(r"\{[^{}]*\}", "*", code)
    quotes = [quote.strip("`") for quote, _ in rows(COMMANDS, "## Troubleshooting")]
    assert len(quotes) >= 8
    for quote in quotes:
        for part in quote.split("..."):
            part = re.sub(r"\b(255|model\.ngf)\b", "*", part).strip()
            assert part in code, f"no source says {part!r}"
