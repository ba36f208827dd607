"""The run folder: resolved configuration, versions, and whether there is a run to go on with."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from dataclasses import asdict
from datetime import datetime
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from cluster.errors import ClusterError
from cluster.text_files import lock_file, named, read_bytes, through_no_link
from cluster.watch import attempts, claim
from cluster.watch.attempts import Attempt
from launcher.recipe import yaml_files
from launcher.recipe.config import Config, ConfigError, build
from launcher.status import run_state
from shards.read.draws import Substitution
from trainers.backends.base import Backend
from trainers.checkpoints.checkpoint import Checkpoint, find, newest, read
from trainers.checkpoints.durable_files import replace_text
from trainers.errors import TrainingError

FIXED = (
    *("gan", "seed", "model", "data.preprocess", "data.domains", "data.order"),
    *("optim.kind", "optim.momentum", "optim.players.*.kind", "optim.players.*.momentum"),
)
"""What may not change when a run goes on: it would not be the same run."""
FREE = ("model.memory", "model.vgg_weights", "model.test_dropout", "model.test_statistics")
"""Below them, what may: it changes no number of the training (but the order in which dropout
draws), or only where a file lies."""
PACKAGES = ("torch", "accelerate", "deepspeed", "webdataset", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Versions of what computes and stores, for the record."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def lock(run_dir: Path) -> None:
    """Make this process the only writer of the run folder; the system ends that with it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if attempts.RUN not in os.environ:  # else `watch` has claimed the run
        holder = claim.take(run_dir, claim.own_name())
        if holder is not None:
            raise ConfigError(claim.refusal(run_dir, holder))
    descriptor = lock_file(run_dir / ".lock")
    if not claim.locked(descriptor, run_dir):
        raise ConfigError(
            f"Another process is training in run_dir={run_dir}: wait for its end, or choose "
            "another run_dir."
        )


def write(config: Config, images: int) -> None:
    """Leave config.yaml and versions.json in the run folder, and the configuration among those of
    earlier starts, if it differs from the last: configs/IMAGES.yaml, by where it began."""
    history = config.run_dir / "configs"
    before = [read_bytes(path).decode() for path in sorted(history.glob("*.yaml"))]
    if before[-1:] != [config.to_yaml()]:
        history.mkdir(exist_ok=True)
        number = sum(path.name.startswith(f"{images:09d}") for path in history.glob("*.yaml"))
        replace_text(history / f"{images:09d}-{number}.yaml", config.to_yaml())
    replace_text(config.run_dir / "config.yaml", config.to_yaml())
    replace_text(config.run_dir / "versions.json", json.dumps(versions(), indent=1) + "\n")


def record_start(run_dir: Path, images: int) -> None:
    """A line among the starts of the run, unless `watch` has written it."""
    if attempts.RUN in os.environ:
        return
    number = sum(not attempt.job for attempt in attempts.attempts(run_dir))
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    attempts.record(run_dir, Attempt("", 0, number, now, images))


def write_substitution(run_dir: Path, rank: int, substitution: Substitution) -> None:
    """Append a line to what this rank has replaced. It says nothing of time or rank: one that
    happens again after a resume is the same line, wherever it stands."""
    folder = run_dir / "substituted"
    folder.mkdir(exist_ok=True)
    path = folder / f"{rank:05d}.jsonl"
    with named(path), open(path, "a", opener=through_no_link) as file:
        file.write(json.dumps(asdict(substitution), ensure_ascii=False) + "\n")


def num_substituted(run_dir: Path) -> int:
    """How often the run has replaced a damaged sample, over all starts and ranks."""
    files = (run_dir / "substituted").glob("*.jsonl")
    return len({line for file in files for line in file.read_text().splitlines()})


def check_shared(run_dir: Path, images: int, backend: Backend) -> None:
    """All ranks must see one run folder, once rank 0 has written to it; `images`: how far this
    rank thinks the run has come."""
    here = appears(run_dir / "config.yaml")
    facts = torch.tensor([images, -images, int(not here)], device=backend.device)
    most, least, missing = backend.maximum(facts).tolist()
    if most != -least or missing:
        raise ConfigError(
            f"The processes see different things in run_dir={run_dir}: it must lie on a file "
            "system that all nodes share."
        )


def appears(path: Path, seconds: float = 60) -> bool:
    """Whether a file that another node has just written comes into sight: NFS remembers for a
    while that there was none."""
    deadline = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.5)
    return path.is_file()


def check_same_data(config: Config, fingerprint: str, backend: Backend) -> None:
    """All ranks must read one generation, even where another was packed while they started."""
    number = int(fingerprint[:15], 16)  # as much as an int64 holds
    most, least = backend.maximum(torch.tensor([number, -number], device=backend.device)).tolist()
    if most != -least:
        raise ConfigError(
            f"The processes see different samples in data.shards={config.data.shards}: another "
            "generation was packed just now, or a node has old files; start again."
        )


def data_of(run_dir: Path) -> str | None:
    """Fingerprint of the data that a run was begun with, by its newest readable checkpoint."""
    for path in sorted((run_dir / "checkpoints").glob("[0-9]*"), reverse=True):
        try:
            return read(path).state["data"]
        except TrainingError:
            continue  # damaged: the start that follows says so, and takes the one before
    return None


def examine(config: Config, fingerprint: str) -> None:
    """Refuse, before anything is changed, a run folder that this run cannot go on in, or whose
    history it would bury."""
    check_place(config.run_dir)
    check_config_file(config.run_dir / "config.yaml")
    try:
        checkpoint = find(config.run_dir)
    except TrainingError:
        return  # damaged: once the folder is ours, the one before is looked for
    if checkpoint is not None:
        check_same_run(config, fingerprint, checkpoint)
    else:
        check_history(config.run_dir)


def check_place(run_dir: Path) -> None:
    """A checkpoint, or the folder of all of a run's, is no run folder."""
    inside = (run_dir / "state.json").is_file() and (run_dir / "weights.safetensors").is_file()
    around = newest(run_dir) is not None and not (run_dir / "checkpoints").exists()
    if inside or around:
        run = run_dir.absolute().parents[1 if inside else 0]
        raise ConfigError(
            f"run_dir={run_dir} is {'a checkpoint' if inside else 'a folder of checkpoints'}, not "
            f"a run folder: choose run_dir={run} to go on with that run, or start_from={run_dir} "
            "and another run_dir for a new one."
        )


def check_config_file(path: Path) -> None:
    """What is about to be replaced must be a resolved configuration, not a recipe of the user."""
    try:
        text = read_bytes(path).decode()
        written = yaml_files.read(text)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        text, written = "", None
    if not isinstance(written, dict) or yaml.safe_dump(written, sort_keys=False) != text:
        raise ConfigError(
            f"{path} is there already and was not written by a run, which would replace it: choose "
            "another run_dir, or move the file."
        )


def check_history(run_dir: Path) -> None:
    """A run that has saved is never begun anew without a word."""
    images = run_state.last_row(run_dir).get("images", 0)
    outcome = attempts.read_outcome(run_dir)
    saved = outcome.images if outcome is not None else 0
    if saved or images > first_save(run_dir):
        raise ConfigError(
            f"run_dir={run_dir} tells of a run of {max(saved, images)} images, but holds no "
            "checkpoint of it: restore its folder checkpoints, choose another run_dir, or remove "
            "metrics.jsonl and outcome.json there to begin anew."
        )


def first_save(run_dir: Path) -> float:
    """Images after which the run in a folder has surely saved; infinite if it is not known."""
    try:
        config = run_state.configuration(run_dir)
        every, batch = config["cadence"]["save"], config["batch"]["total"]
    except (ClusterError, KeyError, TypeError):
        return math.inf
    return every + batch if isinstance(every, int) and every else math.inf


def changes(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """What differs between two configurations: "batch.total: 2 -> 4"."""
    now, then = flat(now), flat(completed(then))
    return [
        f"{option}: {then.get(option)!r} -> {now.get(option)!r}"
        for option in sorted(now.keys() | then.keys())
        if now.get(option) != then.get(option)
    ]


def check_same_run(config: Config, fingerprint: str, checkpoint: Checkpoint) -> None:
    """Refuse to resume what would silently become another run."""
    now = flat(config.model_dump(mode="json"))
    then = flat(completed(checkpoint.config))
    for option in sorted(now.keys() | then.keys()):
        if not covers(FIXED, option) or covers(FREE, option):
            continue
        if now.get(option) != then.get(option):
            raise ConfigError(
                f"{option} was {then.get(option)!r} in {config.run_dir} and is "
                f"{now.get(option)!r} now: keep it, or choose another run_dir for a new run."
            )
    if checkpoint.state["data"] != fingerprint:
        raise ConfigError(
            f"data.shards={config.data.shards} holds other samples than the run in "
            f"{config.run_dir} was trained on: use the same shards; or train on these in another "
            f"run_dir, from the weights of this run by --start_from={config.run_dir}."
        )


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with the options that came since, at their defaults: the run that an
    earlier version began had no other choice."""
    try:
        return build(saved, "the saved configuration").model_dump(mode="json")
    except ConfigError:
        return saved  # it has options that are no more: told as changed


def covers(options: tuple[str, ...], option: str) -> bool:
    return any(fnmatchcase(option, k) or option.startswith(k + ".") for k in options)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> {"a.b": value}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
