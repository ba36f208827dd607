"""YAML as people write it: true and false alone are booleans, and nothing may be given twice."""

from __future__ import annotations

import re
from typing import Any

import yaml


class GivenTwice(yaml.YAMLError):
    """A key that a mapping has twice, of which YAML would drop the first."""


class Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 does: a folder may be called `no`."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":bool")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
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


BOOLEAN = re.compile("true|True|TRUE|false|False|FALSE")
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", BOOLEAN, list("tTfF"))


def read(text: str) -> Any:
    """What a YAML text says; raises yaml.YAMLError."""
    return yaml.load(text, Loader)
