"""Options that name places: where the shards lie, and where a node keeps copies of them."""

from __future__ import annotations

import os
from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import BeforeValidator, Field

from shards.read.cache import Cache
from shards.records import DataError
from shards.storage.remote import is_url
from trainers.settings import Settings, user_path


def folder_or_url(value: object) -> object:
    """A path, or a URL as it was given: as a path it would lose a slash."""
    try:
        return user_path(value) if isinstance(value, str) and not is_url(value) else value
    except DataError as error:
        raise ValueError(str(error)) from error


Location = Annotated[Path | str, BeforeValidator(folder_or_url)]


class CacheOptions(Settings):
    """data.cache: copies of shards on each node."""

    folder: str | None = Field(None, min_length=1)
    """On each node's own disk, for copies of shards; $NAME is the node's variable. null: none."""
    limit_gib: float = Field(100, gt=0, le=2**30)
    """GiB that the copies on a node may take together."""
    ahead: int = Field(2, ge=0)
    """Shards that are fetched before they are needed."""


def cache_of(settings: CacheOptions, num_nodes: int = 1) -> Cache | None:
    """The cache on this node, one of `num_nodes`, if one is wanted. ValueError if its variables
    are not set here."""
    if settings.folder is None:
        return None
    option = f"data.cache.folder={settings.folder}"
    known = {name: text for name, text in os.environ.items() if text}
    try:
        folder = Path(os.path.expanduser(Template(settings.folder).substitute(known)))
    except KeyError as error:
        raise ValueError(
            f"{option}: the variable {error.args[0]} is not set on {os.uname().nodename}: set it "
            "on all nodes, or name a folder that all of them have."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{option}: write variables as $NAME or ${{NAME}}, and a dollar as $$."
        ) from error
    return Cache(folder, int(settings.limit_gib * 2**30), settings.ahead, num_nodes)
