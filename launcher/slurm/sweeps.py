"""Sweeps: a small YAML grid of options -> the runs of one array job."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import yaml

from cluster.text_files import read_bytes
from launcher.recipe import yaml_files
from launcher.recipe.config import ConfigError

MOST = 1000
"""SLURM's usual largest array."""


def read(option: str) -> tuple[dict[str, list[str]], str]:
    """--array=FILE or FILE%LIMIT -> the grid, and "%LIMIT": how many run at once.

    FILE maps dotted options to lists: {"optim.lr": [1e-4, 2e-4], "seed": [0, 1]}."""
    if not option:
        return {}, ""
    name, sign, limit = option.partition("%")
    path = Path(name)
    try:
        tree = yaml_files.read(read_bytes(path).decode())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"submit: --array={name} must be a YAML file with the options of a sweep: {error}."
        ) from error
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(f"{path} must map options to lists, as `optim.lr: [1e-4, 2e-4]`.")
    for key, values in tree.items():
        if not isinstance(key, str) or not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: `{key}` is {values!r}; write a list of values.")
        if key == "run_dir":
            raise ConfigError(f"{path}: `run_dir` is chosen by the sweep, one folder each.")
    return {key: [text(value) for value in values] for key, values in tree.items()}, sign + limit


def product(grid: dict[str, list[str]]) -> list[dict[str, str]]:
    """Every combination, the last option fastest; [{}] for an empty grid."""
    variants = [dict(zip(grid, c, strict=True)) for c in itertools.product(*grid.values())]
    if len(variants) > MOST:
        raise ConfigError(f"The sweep has {len(variants)} runs: submit at most {MOST} at once.")
    return variants


def text(value: Any) -> str:
    """A value as it would be written on the command line."""
    return value if isinstance(value, str) else json.dumps(value)
