"""A packed set behind a URL: ranges of files over http(s), S3, Google Cloud or Azure.

fsspec speaks the protocols; what it leaves open is done here: every request ends in time, is
repeated a few times, and gives as many bytes as were asked for, or a sentence. Credentials and
proxies are found as each service's own tools find them (~/.netrc, ~/.aws, instance roles ...).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shards.records import DataError, Unreachable
from shards.storage.store import Store
from shards.storage.urls import without_secrets

if TYPE_CHECKING:
    from aiohttp import ClientResponse

PACKAGES = {
    "http": "fsspec aiohttp",
    "https": "fsspec aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""Scheme of a URL -> what must be installed to read it."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(pipe|file):")
_PASSING_STATUS = {408, 425, 429}
"""Refusals of a client (4xx) that another try may outlive."""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Patience:
    """How long a request may take, and how often it is made."""

    timeout_s: float = 60
    tries: int = 5
    pause_s: float = 0.5
    """The longest pause before the second try; it doubles with each further one."""
    whole_s: float = 120
    """For all tries together: a slow server gets fewer of them."""

    def attempts(self) -> Iterator[float]:
        """The seconds that each try may take, after the pause before it."""
        end = time.monotonic() + self.whole_s
        for attempt in range(self.tries):
            if attempt:
                time.sleep(_pause(self.pause_s, attempt))
            left = end - time.monotonic()
            if left <= 0:
                return
            yield min(self.timeout_s, left)


def is_url(location: str) -> bool:
    """Whether this is a URL, not a path; DataError for one that is not read."""
    found = _SCHEME.match(location)
    if found is None:
        return False
    scheme = found[1] or found[2]
    if scheme not in PACKAGES:
        raise DataError(
            f"{without_secrets(location)}: {scheme} is no kind of place that shards are read from; "
            f"give a folder's plain path, or a URL that begins with "
            f"{', '.join(f'{name}://' for name in PACKAGES)}."
        )
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise DataError(f"{without_secrets(location)} is no URL: {error}.") from error
    # abfs://CONTAINER@ACCOUNT is a place; anything else before an @ is a secret, or next to one.
    person = parts.username is not None and not (scheme == "abfs" and parts.password is None)
    if parts.query or parts.fragment or person:
        raise DataError(
            f"{without_secrets(location)}: a URL with ?, #, a user or a password is refused "
            f"(it would be written into logs and config.yaml): give the plain URL of the folder, "
            f"and credentials where the service's own tools look for them, such as ~/.netrc."
        )
    return True


class RemoteStore(Store):
    """A folder behind a URL. Any thread may use it; each process makes a client of its own."""

    remote = True

    def __init__(self, location: str, patience: Patience = Patience()) -> None:
        super().__init__(location.rstrip("/"))
        self.patience = patience
        self._scheme = location.split("://")[0]
        # By process. A forked child keeps its parent's without using it: closing it there would
        # take the sockets out of the parent's event loop.
        self._clients: dict[int, Any] = {}

    def below(self, name: str) -> RemoteStore:
        return RemoteStore(self.where(name), self.patience)

    def size(self, name: str) -> int | None:
        try:
            size = self._ask("_info", name)["size"]
        except FileNotFoundError:
            return None
        if size is None:
            raise DataError(
                f"{self.where(name)}: the server tells no size (Content-Length): serve the files "
                f"as they are, without compressing them."
            )
        return size

    def tars(self) -> list[str]:
        if self._scheme.startswith("http"):
            return []  # a web server lists nothing
        try:
            paths = self._ask("_ls", "", detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.split("/")[-1] for path in paths if path.endswith(".tar"))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        def check(data: bytes) -> None:
            if len(data) != size and len(data) != self._rest(name, offset, size):
                raise EOFError(f"{len(data)} bytes came instead of {size}")

        try:
            return self._ask("_cat_file", name, check, start=offset, end=offset + size)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.where(name)} is missing: restore it or pack the set anew."
            ) from error

    def drop(self, name: str) -> bool:
        return True  # the bytes may have suffered on their way

    def __getstate__(self) -> tuple[str, Patience]:
        return self.location, self.patience  # connections mean nothing to another process

    def __setstate__(self, state: tuple[str, Patience]) -> None:
        RemoteStore.__init__(self, *state)

    def _rest(self, name: str, offset: int, size: int) -> int:
        """How many of `size` bytes from `offset` on the file has."""
        return min(size, max(0, (self.size(name) or 0) - offset))

    def _ask(
        self, method: str, name: str, check: Callable[[Any], None] | None = None, **options: Any
    ) -> Any:
        """What a method of the client gives for a file, with patience, and if `check` finds no
        fault with it. FileNotFoundError if there is no such file."""
        client = self._client()
        from fsspec.asyn import sync

        ask = getattr(client, method)
        path = client._strip_protocol(f"{self.location}/{name}" if name else self.location)
        tries = 0
        for seconds in self.patience.attempts():
            tries += 1
            try:
                answer = sync(client.loop, ask, path, timeout=seconds, **options)
                if check is not None:
                    check(answer)
                return answer
            except Exception as error:  # each service has a zoo of its own
                failure = self._judged(error, name)
        raise Unreachable(
            f"{self.where(name)} could not be read in {tries} tries "
            f"({_words(failure)}): see whether its server is well and can be reached from here."
        ) from failure

    def _judged(self, error: Exception, name: str) -> Exception:
        """An error that another try may outlive; raises all others."""
        if self._scheme.startswith("http") and isinstance(error, FileNotFoundError):
            # To fsspec every failed question for a size is this one.
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(error, FileNotFoundError | DataError):
            raise error
        status = getattr(error, "status", None) or 0
        refused = isinstance(error, PermissionError) or status in (401, 403)
        if refused or type(error).__name__ == "NoCredentialsError":  # of S3's client
            raise Unreachable(
                f"{self.where(name)} may not be read ({_words(error)}): give this user the right "
                f"to read it and to list its folder, or the credentials of one who has it."
            ) from error
        if 400 <= status < 500 and status not in _PASSING_STATUS:
            raise DataError(
                f"{self.where(name)} cannot be read ({_words(error)}): see whether the URL is "
                f"right and the file whole."
            ) from error
        return error

    def _client(self) -> Any:
        process = os.getpid()
        if process not in self._clients:
            try:
                from fsspec import filesystem

                client = filesystem(self._scheme, **self._options())
            except ImportError as error:
                raise DataError(
                    f"{self.location} needs packages that are not installed here ({error}): "
                    f"`pip install {PACKAGES[self._scheme]}`."
                ) from error
            if self._scheme == "s3":
                client.retries = 1  # its own would multiply ours, as botocore's would
            self._clients[process] = client
        return self._clients[process]

    def _options(self) -> dict[str, Any]:
        if self._scheme.startswith("http"):
            session = {
                "raise_for_status": _check_response,
                "headers": {"Accept-Encoding": "identity"},
                "trust_env": True,
            }
            return {"client_kwargs": session}
        if self._scheme == "s3":
            once = {"retries": {"max_attempts": 0}, "read_timeout": self.patience.timeout_s}
            return {"config_kwargs": once, "use_listings_cache": False}
        return {"use_listings_cache": False}


async def _check_response(response: ClientResponse) -> None:
    """Refuse what fsspec would take for the bytes asked for: another page, other bytes."""
    try:
        if response.status == 404:
            raise FileNotFoundError(without_secrets(str(response.url)))
        response.raise_for_status()
        _check_body(response)
        _check_range(response)
    except BaseException:
        response.close()  # its body is not wanted, and may be long
        raise


def _check_body(response: ClientResponse) -> None:
    """Refuse a body whose end nobody knows: it may be longer than memory."""
    if response.method == "HEAD":
        return
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity" or response.content_length is None:
        raise DataError(
            f"{without_secrets(str(response.url))}: the server compresses, or tells no length "
            "(Content-Length): serve the files as they are."
        )


def _check_range(response: ClientResponse) -> None:
    wanted = _RANGE.fullmatch(response.request_info.headers.get("Range", ""))
    if wanted is None:
        return
    start, last = map(int, wanted.groups())
    length = response.content_length
    if response.status == 206:
        if length is not None and length > last - start + 1:
            raise EOFError(f"{length} bytes came instead of {last - start + 1}")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise EOFError(f"other bytes came: {response.headers.get('Content-Range')}")
        return
    if start or length is None or length > last + 1:
        raise DataError(
            f"{without_secrets(str(response.url))}: the server sends whole files only (it ignores "
            f"Range): use one that sends ranges, such as nginx, Apache or an object store."
        )


def _pause(longest: float, attempt: int) -> float:
    """Seconds before a further try: random, so that processes which failed together do not come
    back together; not from the generator that a run restores."""
    return random.SystemRandom().uniform(0, longest * 2 ** (attempt - 1))


def _words(error: Exception) -> str:
    """What an error says: some have a class only."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # A redirect may have led to a signed URL, which clients put into their errors.
    return without_secrets(f"{type(error).__name__}: {' '.join(str(error).split())}")
