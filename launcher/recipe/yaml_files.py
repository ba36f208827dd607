"""YAML as people write it: true and false alone are booleans, and nothing may be given twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_NODES = 100_000
"""Values and keys of a text with all its aliases written out: a recipe has some hundred."""


class TooMuch(yaml.YAMLError):
    """A text whose aliases stand for more than anybody means."""


class GivenTwice(yaml.YAMLError):
    """A key that a mapping has twice, of which YAML would drop the first."""


class Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: a folder may be called `no`."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":bool")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and written_out(node, {}) > MOST_NODES:
            raise TooMuch(
                f"with its aliases written out it has more than {MOST_NODES} values: write what "
                "is meant"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Each mapping as it is written: what `<<` merges into it is not there yet."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in first:
                raise GivenTwice(
                    f"`{key.value}` is given in line {first[key.tag, key.value]} and again in line "
                    f"{line}: keep one of them"
                )
            first[key.tag, str(key.value)] = line
        return node


def written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes a tree has where an alias counts as what it stands for; `known`: by id."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # an alias of a node that it is in itself has no end
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(written_out(part, known) for part in parts)
    return known[id(node)]


BOOLEAN = re.compile("true|True|TRUE|false|False|FALSE")
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", BOOLEAN, list("tTfF"))


def read(text: str) -> Any:
    """What a YAML text says; raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader)
    except RecursionError as error:
        raise TooMuch("its sections stand too deep in each other: write what is meant") from error
