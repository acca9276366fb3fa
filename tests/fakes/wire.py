"""HTTP on a bare socket: what was sent when, framed as it came. For tests of the wire itself, where a client would hide it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Event:
    """One server-sent event as lines: its `event:` line, its `data:` line, and when its chunk arrived."""

    name: str
    data: str
    at: float

    @property
    def value(self) -> dict[str, Any]:
        """The JSON of `data`."""
        return dict(json.loads(self.data))


class Wire:
    """One connection. Use as a context: leaving it is what a caller that goes away does."""

    def __init__(self, url: str, key: str, *, receive_buffer: int | None = None) -> None:
        where = urlsplit(url)
        assert where.hostname is not None and where.port is not None
        self.socket = socket.create_connection((where.hostname, where.port), timeout=PATIENCE_S)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lead = f"host: {where.netloc}\r\nauthorization: Bearer {key}\r\n"
        self._buffer = b""
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        """Sends a request; `body` None: the caller sends chunks itself (`chunk`), unless the method has no body."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            lines["content-length"] = str(len(body))
        told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{self._lead}{told}\r\n".encode() + (body or b""))

    def ask_json(self, path: str, body: Any, **headers: str) -> None:
        """A POST with a JSON body."""
        self.ask("POST", path, json.dumps(body).encode(), content_type="application/json", **headers)

    def chunk(self, data: bytes) -> None:
        """One chunk of a chunked request body; an empty one ends it."""
        self.socket.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def head(self) -> int:
        """Reads the answer's status and headers (lower-case names)."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        raw, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *rest = raw.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return self.status

    def chunks(self) -> Iterator[tuple[float, bytes]]:
        """The chunks of a chunked answer as they were framed, each with the time at which its last byte was here."""
        assert self.headers.get("transfer-encoding") == "chunked", self.headers
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            size_line, self._buffer = self._buffer.split(b"\r\n", 1)
            size = int(size_line.split(b";")[0], 16)
            while len(self._buffer) < size + 2:
                self._more()
            data, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
            if not size:
                return
            yield time.monotonic(), data

    def body(self) -> bytes:
        """The whole answer's body, however it is framed."""
        if "content-length" not in self.headers:
            return b"".join(data for _, data in self.chunks())
        size = int(self.headers["content-length"])
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def events(self) -> Iterator[Event]:
        """Server-sent events; comments are left out. A line that is none of `event:`, `data:` or a comment fails."""
        text = b""
        for at, data in self.chunks():
            text += data
            while b"\n\n" in text:
                block, text = text.split(b"\n\n", 1)
                name, value = "", None
                for line in block.decode().split("\n"):
                    field, _, rest = line.partition(":")
                    assert field in ("event", "data", ""), line
                    if field == "event":
                        name = rest.strip()
                    elif field == "data":
                        assert value is None, block
                        value = rest.strip()
                if value is not None:
                    yield Event(name, value, at)
        assert text == b"", text

    def _more(self) -> None:
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError(f"the connection ended early, after {self._buffer[-200:]!r}")
        self._buffer += data
