"""A real web server for a folder, with ranges and keep-alive, that goes wrong on demand."""

from __future__ import annotations

import gzip
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

STATUS = {"busy": 503, "forbidden": 403, "unauthorized": 401, "gone": 410}
"""Faults that are an answer without the file."""


class FaultServer:
    """Serves `folder` at `url` as long as the with-block lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: Counter[tuple[str, str]] = Counter()
        """(method, name of a file) -> how often it was asked for."""
        self.connections = 0
        self.over = threading.Event()
        self._faults: dict[tuple[str, str], Iterator[str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.faulty = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, name: str, faults: Iterable[str], method: str = "GET") -> None:
        """Let the next requests for a file go wrong, each by its own fault; "" is none.

        busy, forbidden, unauthorized, gone: another status; stall: headers and half the body, then
        silence; cut: the connection ends there; short: the half is called the whole; altered: one
        byte is wrong; shifted: bytes from further on, and the headers say so; whole: Range is
        ignored; elsewhere: a redirect to ftp; signed: one to a signed URL, which is refused;
        presigned: one to a signed URL, which answers.
        endless, packed, long: more than was asked for, without an end, in gzip, or told."""
        self._faults[method, name] = iter(faults)

    def next_fault(self, method: str, name: str) -> str:
        self.requests[method, name] += 1
        return next(self._faults.get((method, name), iter(())), "")

    def gets(self) -> dict[str, int]:
        """How often each file was fetched."""
        return {name: count for (method, name), count in self.requests.items() if method == "GET"}

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.faulty.connections += 1

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *words: object) -> None:
        pass

    def _answer(self) -> None:
        name = unquote(self.path.partition("?")[0]).strip("/").removeprefix("presigned/")
        path = self.server.faulty.folder / name
        fault = self.server.faulty.next_fault(self.command, name)
        if fault == "signed":
            self._head(302, 0, Location=f"/forbidden/{name}?X-Amz-Signature=SECRET")
        elif fault == "presigned" and not self.path.startswith("/presigned/"):
            self._head(302, 0, Location=f"/presigned/{name}?X-Amz-Signature=SECRET")
        elif name.startswith("forbidden/"):
            self._head(403, 0)
        elif fault == "elsewhere":
            self._head(302, 0, Location=f"ftp://127.0.0.1/{name}")
        elif fault in STATUS or not path.is_file():
            self._head(STATUS.get(fault, 404), 0)
        else:
            self._send(path.read_bytes(), fault)

    def _send(self, content: bytes, fault: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None or fault == "whole":
            return self._body(200, content, fault)
        start, end = int(wanted[1]), int(wanted[2]) + 1
        if fault == "endless":
            return self._endless(**{"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})
        if fault == "packed":
            places = f"bytes {start}-{end - 1}/{len(content)}"
            bomb = gzip.compress(bytes(2**20))
            return self._body(
                206, bomb, "", **{"Content-Range": places, "Content-Encoding": "gzip"}
            )
        if fault == "long":
            places = f"bytes {start}-{end - 1}/{len(content)}"
            return self._body(206, bytes(2 * (end - start)), "", **{"Content-Range": places})
        if fault == "shifted":
            start, end = start + 1, end + 1
        if start >= len(content):
            return self._head(416, 0)
        body = content[start:end]
        places = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        self._body(206, body, fault, **{"Content-Range": places})

    def _body(self, status: int, body: bytes, fault: str, **headers: str) -> None:
        half = body[: len(body) // 2]
        if fault == "altered":
            body = half + bytes([body[len(half)] ^ 1]) + body[len(half) + 1 :]
        self._head(status, len(half if fault == "short" else body), **headers)
        if self.command == "HEAD":
            return
        if fault in ("stall", "cut", "short"):
            self.wfile.write(half)
            if fault == "stall":
                self.server.faulty.over.wait(30)
            self.close_connection = fault != "short"
        else:
            self.wfile.write(body)

    def _head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _endless(self, **headers: str) -> None:
        """A body without an end, as far as anybody listens."""
        self._head(206, None, **headers)
        self.close_connection = True
        with suppress(ConnectionError):
            while not self.server.faulty.over.is_set():
                self.wfile.write(b"x" * 2**16)
