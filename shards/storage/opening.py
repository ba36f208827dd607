"""The store for what a user gives: a folder's path or a URL."""

from __future__ import annotations

from pathlib import Path

from shards.storage.local import Folder
from shards.storage.remote import RemoteStore, is_url
from shards.storage.store import Store


def open_store(location: str | Path) -> Store:
    """The store at a path or URL; DataError for a URL of an unknown kind."""
    if is_url(str(location)):
        return RemoteStore(str(location))
    return Folder(str(Path(location)))
