"""Every option of a recipe with its type, range, value and meaning: as help, as a table, and as a
JSON schema for the editors of YAML files. All of it is read off the settings themselves."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launcher.recipe.config import Config
from launcher.text.tables import table
from trainers.settings import Settings, sections_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LIMITS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
}
WIDTH = 100


@dataclass(frozen=True)
class Option:
    """One line of the documentation."""

    name: str
    """Dotted, as on the command line."""
    kind: str
    """Type and range in words."""
    value: str
    """In the recipe at hand, as it would be written there."""
    text: str


def as_help(config: Config, recipe: str) -> str:
    """For a terminal: a paragraph for each option."""
    blocks = [f"OPTIONS OF {recipe}, each as --NAME=VALUE, with the values that they have there:"]
    for option in options(config):
        words = textwrap.fill(option.text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        blocks.append(f"  --{option.name}={option.value}   ({option.kind})\n{words}")
    return "\n\n".join(blocks)


def as_table(config: Config) -> str:
    rows = [[o.name, o.kind, o.value, o.text] for o in options(config)]
    return table(["option", "type", "value", "meaning"], rows)


def options(config: Config) -> list[Option]:
    """All options in the order of a resolved recipe."""
    whole = schema(config)
    return list(_options(whole, whole["$defs"], config.model_dump(mode="json"), ""))


def schema(config: Config) -> dict[str, Any]:
    """The JSON schema of recipes with this GAN."""
    whole, model = Config.model_json_schema(), type(config.model).model_json_schema()
    definitions = whole.pop("$defs") | model.pop("$defs", {})
    definitions["GANSettings"] = model | {"title": f"{config.gan}'s options"}
    for settings in below(type(config.model)):
        if settings.kinds:
            definitions[settings.__name__]["allOf"] = list(_by_kind(settings))
    whole["properties"]["gan"]["const"] = config.gan
    whole["required"].remove("model")
    return {"$schema": DIALECT, **whole, "title": f"Organza recipe: {config.gan}"} | {
        "$defs": definitions
    }


def as_json_schema(config: Config) -> str:
    return json.dumps(schema(config), indent=2)


def below(settings: type[Settings]) -> Iterator[type[Settings]]:
    """The sections below one, at any depth."""
    for section in sections_of(settings).values():
        yield section
        yield from below(section)


def _by_kind(settings: type[Settings]) -> Iterator[dict[str, Any]]:
    """For each kind: what other kinds alone understand keeps its default."""
    fields, names = settings.model_fields, {n for own in settings.kinds.values() for n in own}
    for kind, own in settings.kinds.items():
        foreign = sorted(names - set(own))
        if foreign:
            given: dict[str, Any] = {"properties": {"kind": {"const": kind}}}
            if kind != fields["kind"].default:
                given["required"] = ["kind"]
            kept = {name: {"const": fields[name].default} for name in foreign}
            yield {"if": given, "then": {"properties": kept}}


def _options(
    section: dict[str, Any], definitions: dict[str, Any], values: dict[str, Any], prefix: str
) -> Iterator[Option]:
    for name, field in section["properties"].items():
        inner = definitions.get(field.get("$ref", "").rpartition("/")[2])
        if inner is not None and "properties" in inner:
            yield from _options(inner, definitions, values[name], f"{prefix}{name}.")
        else:
            text = " ".join(field.get("description", "").split())
            yield Option(prefix + name, _kind(field, definitions), _written(values[name]), text)


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON type in words, with its range."""
    if "$ref" in field:
        return _kind(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(each, definitions) for each in field["anyOf"]))
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if "prefixItems" in field:
        inner = ", ".join(_kind(each, definitions) for each in field["prefixItems"])
        return f"[{inner}]"
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], definitions)}"
    if isinstance(field.get("additionalProperties"), dict):
        return "mapping"
    words = field.get("format") or field.get("type", "any")
    limits = [text.format(f"{field[key]:.10g}") for key, text in LIMITS.items() if key in field]
    return " ".join([words, " and ".join(limits)]).strip()


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
