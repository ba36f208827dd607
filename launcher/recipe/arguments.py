"""The command line before fire sees it, and what a command hands back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from launcher.recipe.config import ConfigError
from shards.storage.urls import without_secrets
from trainers.settings import home_expanded, user_path

SWITCHES = ("--dry", "--requeue", "--json-schema", "--json_schema")
"""Flags that may stand without a value: then they mean yes."""
RANK_FLAG = "--local_rank="
"""deepspeed puts this in front of the command; LOCAL_RANK says the same."""
DEEPSPEEDS = ("--deepspeed", "--deepspeed_config", "--deepscale", "--deepscale_config")
"""What scripts for DeepSpeed take, which its documentation says to give."""
RECIPE_COMMANDS = ("show", "options", "train", "doctor", "plan", "submit")
RUN_COMMANDS = ("translate", "sample")


class Plan:
    """What a command will do. Opaque to fire, which would call or descend into anything else."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[], int | None]):
        self._run = run


def asks_for_help(arguments: list[str]) -> bool:
    return not arguments or bool({"--help", "-h"} & {*arguments})


def recipe_named(words: list[str]) -> str | None:
    """The recipe that a command line without its flags is about: it is named, or that of a run."""
    if len(words) < 2:
        return None
    if words[0] in RUN_COMMANDS:
        recipe = Path(words[1]) / "config.yaml"
        return str(recipe) if recipe.is_file() else None
    return words[1] if words[0] in RECIPE_COMMANDS else None


def prepared(arguments: list[str]) -> list[str]:
    """The arguments as fire shall see them.

    Raises ConfigError for what it would accept in silence: a flag without a value, and the same
    flag twice."""
    if arguments and arguments[0].startswith(RANK_FLAG):
        arguments = arguments[1:]
    arguments = [f"{a}=yes" if a in SWITCHES else a for a in arguments]
    check_flags(arguments)
    return quoted(arguments)


def check_flags(arguments: list[str]) -> None:
    seen = set()
    for argument in arguments:
        if not argument.startswith("--") or argument in ("--", "--help"):
            continue
        name, equals, _ = argument.partition("=")
        if name in DEEPSPEEDS:
            raise ConfigError(
                f"{name}: nothing reads DeepSpeed's own configuration; give "
                "--backend.kind=deepspeed, --backend.zero=STAGE and options of the recipe."
            )
        if not equals:
            raise ConfigError(f"{name} needs a value: write {name}=VALUE.")
        if name in seen:
            raise ConfigError(f"{name} is given twice: keep one of them.")
        seen.add(name)


def quoted(arguments: list[str]) -> list[str]:
    """Every value as a Python literal, so that fire hands on the text and guesses no type:
    it would turn a folder called 1e5 into 100000.0."""
    command, rest = arguments[:1], arguments[1:]
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            command.append(f"{name}={at_home(value)!r}" if equals else argument)
        else:
            command.append(repr(at_home(argument)))
    return command


def at_home(value: str) -> str:
    """No shell expands the `~` of --option=~/x."""
    try:
        return home_expanded(value)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


def integers(command: str, **options: str) -> dict[str, int]:
    for name, text in options.items():
        if not text.isdecimal():
            raise ConfigError(f"{command}: --{name}={text} is not a whole number.")
    return {name: int(text) for name, text in options.items()}


def several(command: str, option: str, text: str) -> tuple[int, ...]:
    """Whole numbers with commas between, brackets around them or not."""
    parts = text.strip("[]").split(",") if text else []
    return tuple(integers(command, **{option: part.strip()})[option] for part in parts)


def positive(command: str, option: str, text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ConfigError(f"{command}: --{option}={text} is not a number above 0.")
    return number


def one_of(command: str, name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{command}: --{name}={value} must be one of {', '.join(known)}.")


def local_folder(command: str, name: str, text: str) -> Path:
    """A folder to be written; as a path, a URL would be a strange folder on this disk."""
    if "://" in text:
        shown = without_secrets(text)
        raise ConfigError(f"{command}: {name}={shown} must be a folder: URLs are only read.")
    return Path(text)


def text_path(command: str, text: str) -> Path:
    """A path that other libraries shall open: not all of them take names that are no text."""
    try:
        return user_path(text)
    except ValueError as error:
        raise ConfigError(f"{command}: {error}.") from error


def pairs(command: str, **options: str) -> dict[str, str]:
    """The names and values of one option that is written NAME=VALUE,NAME=VALUE."""
    ((option, text),) = options.items()
    found = [item.partition("=") for item in text.split(",") if text]
    for name, _, value in found:
        if not (name and value):
            raise ConfigError(f"{command}: --{option}={text} must be NAME=VALUE,NAME=VALUE.")
    values = {name: value for name, _, value in found}
    if len(values) < len(found):
        raise ConfigError(f"{command}: --{option}={text} names one twice: give each one value.")
    return values
