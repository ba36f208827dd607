"""The house rules: who may import whom, how large a room is, and what must never appear."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = {"launcher", "trainers", "nets", "shards", "cluster"}
FORBIDDEN = {
    "nets": HOUSE - {"nets"},
    "shards": HOUSE - {"shards"},
    "cluster": HOUSE - {"cluster"},
    "trainers": {"launcher", "cluster", "shards"},
}
ONLY_IN = {
    "accelerate": "trainers/backends/distributed.py",
    "deepspeed": "trainers/backends/deepspeed_zero.py",
    "fire": "launcher/commands/cli.py",
    "fsspec": "shards/storage/remote.py",
    "aiohttp": "shards/storage/remote.py",
    "torch.utils.tensorboard": "trainers/board/board.py",
}
SOURCES = sorted(p for floor in HOUSE for p in (ROOT / floor).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_floors(path: Path) -> None:
    floor, name = path.relative_to(ROOT).parts[0], str(path.relative_to(ROOT))
    for module in imports(ast.parse(path.read_text())):
        top = module.split(".")[0]
        assert top not in FORBIDDEN.get(floor, ()), f"{name} imports {module}"
        third_party = top not in sys.stdlib_module_names and top not in HOUSE
        if floor == "cluster":
            assert not third_party, f"{name} imports {module}"
        if floor == "nets":
            assert not third_party or top == "torch", f"{name} imports {module}"
        for package, home in ONLY_IN.items():
            inside = module == package or module.startswith(package + ".")
            assert not inside or name == home, f"{name} imports {module}"
        assert top not in {"pickle", "torchvision"}, f"{name} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_environment_in_the_data_floor_and_no_code_from_data(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert called != "torch.load" or keywords.get("weights_only") is True, path
            assert called not in ("os.system", "eval", "exec"), path
            assert keywords.get("shell") is not True, path
        if path.is_relative_to(ROOT / "shards") and isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("os.environ", "os.getenv"), path


MESSAGES = {"ConfigError", "DataError", "Unreachable", "ClusterError", "TrainingError"}
"""What is shown to people as it is written."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_messages_end_with_a_full_stop(path: Path) -> None:
    """As far as their end is written there; that of others is theirs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in MESSAGES and node.args:
            text = node.args[0]
            end = text.values[-1] if isinstance(text, ast.JoinedStr) else text
            if isinstance(end, ast.Constant):
                assert str(end.value).endswith((".", "?")), ast.unparse(text)


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders and all((folder / "__init__.py").exists() for folder in folders)


MOST_ENTRIES = 14
MOST_LINES = 300
ROOMS = sorted(
    folder
    for floor in (*HOUSE, "tests")
    for folder in [ROOT / floor, *(ROOT / floor).rglob("*/")]
    if "__pycache__" not in folder.parts
)


@pytest.mark.parametrize("folder", ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_is_seen_at_a_glance(folder: Path) -> None:
    # Pages tell what the others are.
    entries = [p.name for p in folder.iterdir() if p.name != "__pycache__" and p.suffix != ".md"]
    assert len(entries) <= MOST_ENTRIES, f"{folder} has {len(entries)} entries: divide it"
    for path in folder.glob("*.py") if "tests" not in folder.parts else ():
        length = len(path.read_text().splitlines())
        assert length <= MOST_LINES, f"{path} has {length} lines: divide it"


def module_of(path: Path) -> str:
    """As it is imported; a package by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: Container[str]) -> Iterator[str]:
    """The modules of the house that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def room_of(module: str) -> str:
    """FLOOR.ROOM, or the module itself where it lies on its floor without a room."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else module


@pytest.mark.parametrize("place", [str, room_of], ids=["files", "rooms"])
def test_imports_go_one_way(place: Callable[[str], str]) -> None:
    """TopologicalSorter raises CycleError, which names the circle."""
    known = {module_of(path) for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        own = place(module_of(path))
        graph.setdefault(own, set()).update(
            place(module) for module in imported(path, known) if place(module) != own
        )
    order = [*TopologicalSorter(graph).static_order()]
    assert len(order) >= len(graph)
