"""Mistakes in a configuration -> sentences that name the option and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from launcher.recipe import originals_options
from shards.storage.urls import without_secrets
from trainers.settings import Settings, sections_of


def messages(
    error: ValidationError,
    root: type[Settings],
    tree: Any,
    prefix: tuple[str, ...],
    everywhere: list[str],
) -> Iterator[str]:
    """One sentence per mistake, with the full option name.

    everywhere: the dotted names of all options, for whoever took the wrong section."""
    seen = set()
    for problem in error.errors(include_url=False):
        location = tuple(str(part) for part in problem["loc"])
        # Branches of a union are appended to the location; the option is what the tree has.
        option = ".".join(prefix + location_in(tree, location, problem["type"]))
        if option in seen:
            continue
        seen.add(option)
        if problem["type"] == "extra_forbidden":
            known = list(section_of(root, location[:-1]).model_fields)
            where = ".".join(prefix + location[:-1])
            known = [f"{where}.{name}" if where else name for name in known]
            found = meant_elsewhere(location[-1], everywhere)
            yield f"unknown option `{option}`{f'; {found}' if found else hint(option, known)}"
        elif problem["type"] == "missing":
            yield f"option `{option}` is missing: give it in the recipe or as --{option}=..."
        else:
            text = problem["msg"].removeprefix("Value error, ")
            value = problem["input"]
            # A rule between several options names them itself.
            rule = problem["type"] == "value_error" and isinstance(value, dict | Settings)
            shown = without_secrets(repr(value))
            yield text if rule else f"`{option}` is {shown}: {text[:1].lower()}{text[1:]}"


def location_in(tree: Any, location: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """The part of a pydantic location that consists of keys of the user's tree."""
    if kind in ("missing", "extra_forbidden"):
        return location
    known = []
    for part in location:
        if not isinstance(tree, dict) or part not in tree:
            break
        known.append(part)
        tree = tree[part]
    return tuple(known) or location


def section_of(root: type[Settings], location: tuple[str, ...]) -> type[Settings]:
    parts, section = iter(location), root
    for part in parts:
        kind: Any = section.model_fields[part].annotation
        if get_origin(kind) is dict:  # sections by names of the user's
            next(parts, None)
            kind = get_args(kind)[1]
        section = kind
    return section


def names_in(settings: type[Settings], prefix: str = "") -> Iterator[str]:
    """The dotted names of a section's options, at any depth."""
    sections = sections_of(settings)
    for name in settings.model_fields:
        if name in sections:
            yield from names_in(sections[name], f"{prefix}{name}.")
        else:
            yield prefix + name


def meant_elsewhere(name: str, everywhere: list[str]) -> str | None:
    """What may be meant by an option that is not where it was given: of another section, or of the
    authors' code."""
    alike = [option for option in everywhere if option.rpartition(".")[2] == name]
    if len(alike) > 1:
        return f"did you mean {' or '.join(f'`{option}`' for option in alike)}?"
    if alike:
        return f"did you mean `{alike[0]}`?"
    return originals_options.meant(name, everywhere)


def hint(word: str, known: list[str]) -> str:
    """ "; did you mean `x`?", or the list of what exists."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(known)}."
