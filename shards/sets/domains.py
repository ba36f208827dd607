"""domains.json: the packed sets of one source, a folder each. It is written last, so where it
exists all of them are whole."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from shards.records import DataError
from shards.sets.generations import is_generation
from shards.sets.manifest import read_manifest
from shards.storage.sealed import read_sealed, seal, write_atomically
from shards.storage.store import Store

DOMAINS_FILE = "domains.json"
FORMAT = "organza-domains"
VERSION = 1
_NAME = re.compile(r"\w[\w .+-]*")
_FILE_ENDINGS = (".json", ".tar")
"""Of what lies beside the domains' folders, or in a set."""


def check_domain_name(name: str, where: str) -> None:
    """Raise DataError unless a domain may be called so: its set lies in a folder of that name."""
    if not _NAME.fullmatch(name) or name.endswith(_FILE_ENDINGS) or is_generation(name):
        raise DataError(
            f"{where!r} cannot be a domain: rename it, beginning with a letter or digit, then also "
            f"blanks, dots, plus, minus or underscores, but not ending in .json or .tar and not "
            f"generation-NUMBER."
        )


def has_domains(store: Store) -> bool:
    """Whether a folder holds packed domains rather than one set."""
    return store.size(DOMAINS_FILE) is not None


def write_domains(path: Path, fingerprints: dict[str, str], work: Path) -> None:
    """Declare the sets in folder `path` finished: by domain, in order, their fingerprints."""
    write_atomically(path / DOMAINS_FILE, domains_bytes(fingerprints), work)


def domains_bytes(fingerprints: dict[str, str]) -> bytes:
    """The text of domains.json."""
    domains = [{"name": name, "fingerprint": value} for name, value in fingerprints.items()]
    return seal({"domains": domains}, FORMAT, VERSION)


def read_domains(store: Store) -> dict[str, str]:
    """Domain -> fingerprint of its set, in order; DataError if the file is missing or foreign."""
    content = read_sealed(store, DOMAINS_FILE, FORMAT, VERSION)
    file = store.where(DOMAINS_FILE)
    try:
        fingerprints = {str(one["name"]): one["fingerprint"] for one in content["domains"]}
    except (LookupError, TypeError) as error:
        raise DataError(f"{file} is no list of domains ({error!r}): pack them anew.") from error
    if not fingerprints:
        raise DataError(f"{file} lists no domains: pack them anew.")
    for name in fingerprints:
        check_domain_name(name, f"{file}: {name}")  # a name is not yet a path
    return fingerprints


def check_domain(store: Store, name: str) -> None:
    """Raise DataError unless `store` holds this domain, and its set is the one that was packed with
    the others."""
    fingerprints = read_domains(store)
    if name not in fingerprints:
        close = difflib.get_close_matches(name, fingerprints, n=1)
        hint = f"did you mean {close[0]}?" if close else "name two with data.domains=[ONE,OTHER]."
        raise DataError(f"{store} holds no domain {name!r}, but {', '.join(fingerprints)}: {hint}")
    if read_manifest(store.below(name)).fingerprint != fingerprints[name]:
        raise DataError(
            f"{store.where(name)} is not the set that {store.where(DOMAINS_FILE)} lists (their "
            f"fingerprints differ): restore it or pack the domains anew."
        )
