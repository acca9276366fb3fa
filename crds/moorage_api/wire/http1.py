"""HTTP/1.1 messages, strictly: heads and body framing, bytes in and values out. Layer: the floor; pure, stdlib only.

The client of the sandbox hop (`hop.py`) and the shim's own server parse with it, so both ends refuse the same things:
bare line feeds, folded headers, two framings at once, chunk extensions, odd lengths (T5). Nothing here is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
Put = Callable[[bytes], None]

MAX_HEAD = 64 * 1024
"""Bytes of a start line with all headers; over it the message is refused (431 at a server)."""
MAX_HEADERS = 128
"""Header lines in one head."""
MAX_CHUNK_LINE = 18
"""Bytes of a chunk-size line with its line end: sixteen hex digits would already be absurd."""
MAX_TRAILER = 8 * 1024
"""Bytes of trailer lines, which are dropped."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEADER = re.compile(rb"^(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\Z")
_DIGITS = re.compile(rb"[0-9]{1,15}\Z")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,12}\Z")


class BadMessage(ValueError):
    """The peer sent something that is not HTTP/1.1 as we accept it; the connection must not be used again."""


class HeadTooLarge(BadMessage):
    """A head over MAX_HEAD or MAX_HEADERS."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Start line and headers of a request; names are lower case."""

    method: bytes
    target: bytes
    minor: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of a response; names are lower case."""

    status: int
    minor: int
    headers: Headers


class Body(Protocol):
    """Takes a message body apart as its bytes arrive."""

    done: bool

    def feed(self, data: bytes, put: Put) -> bytes:
        """Hands each piece to `put` (never two chunks in one), and returns what lies past the body's end."""
        ...


def request_head(block: bytes) -> RequestHead:
    """The head in `block` (which ends before the empty line, its last CRLF included)."""
    line, headers = _split(block)
    found = _REQUEST_LINE.match(line)
    if found is None:
        raise BadMessage("malformed request line")
    return RequestHead(found[1], found[2], int(found[3]), headers)


def response_head(block: bytes) -> ResponseHead:
    """The head in `block` (which ends before the empty line, its last CRLF included)."""
    line, headers = _split(block)
    found = _STATUS_LINE.match(line)
    if found is None:
        raise BadMessage("malformed status line")
    return ResponseHead(int(found[2]), int(found[1]), headers)


def _split(block: bytes) -> tuple[bytes, Headers]:
    end = block.find(b"\r\n")
    found = _HEADER.findall(block, end + 2)
    # Every line feed must end a whole, well-formed line: then the matches are all there is.
    if len(found) != block.count(b"\n") - 1:
        raise BadMessage("malformed header line")
    if len(found) > MAX_HEADERS:
        raise HeadTooLarge("too many headers")
    return block[:end], [(name.lower(), value.rstrip(b" \t")) for name, value in found]


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of `name` (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def keeps_alive(minor: int, headers: Headers) -> bool:
    """Whether the connection may carry another message after this one."""
    tokens = [t.strip().lower() for k, v in headers if k == b"connection" for t in v.split(b",")]
    return b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)


def request_body(head: RequestHead) -> Body:
    """The framing of a request's body: chunked, by length, or none. Raises BadMessage on anything ambiguous."""
    return _framed(head.minor, head.headers) or Length(0)


def response_body(head: ResponseHead, method: str) -> Body:
    """The framing of a response's body; without chunks or length it runs until the peer closes."""
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return Length(0)
    return _framed(head.minor, head.headers) or UntilClose()


def _framed(minor: int, headers: Headers) -> Body | None:
    size: int | None = None
    coding: bytes | None = None
    for name, value in headers:
        if name == b"content-length":
            if size is not None:
                raise BadMessage("content-length twice")
            size = length(value)
        elif name == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked" or minor == 0:
                raise BadMessage("unsupported transfer-encoding")
            coding = value
    if coding is not None:
        if size is not None:
            raise BadMessage("content-length beside transfer-encoding")
        return Chunked()
    return None if size is None else Length(size)


def length(value: bytes) -> int:
    """The number a content-length says; BadMessage for anything but plain digits."""
    if _DIGITS.match(value) is None:
        raise BadMessage("ambiguous content-length")
    return int(value)


class Length:
    """A body of a known number of bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes, put: Put) -> bytes:
        """See Body."""
        size = len(data)
        if size < self._left:
            self._left -= size
            put(data)
            return b""
        piece, rest = (data, b"") if size == self._left else (data[: self._left], data[self._left :])
        if piece:
            put(piece)
        self._left = 0
        self.done = True
        return rest


class UntilClose:
    """A response body that ends with the connection; the client sets `done` when the peer closed in good order."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, put: Put) -> bytes:
        """See Body."""
        put(data)
        return b""


_SIZE, _DATA, _DATA_END, _TRAILER = range(4)


# The sizes that streams of events have, read once: a table costs a third of matching and reading.
_SIZES = {b"%x" % size: size for size in range(2048)}


def _chunk_size(line: bytes) -> int:
    if _HEX.match(line) is None:
        raise BadMessage("malformed chunk size")
    return int(line, 16)


class Chunked:
    """A chunked body. A chunk that came in several segments gives several pieces; two chunks are never one piece."""

    __slots__ = ("_held", "_left", "_state", "_trailer", "done")

    def __init__(self) -> None:
        self.done = False
        self._state = _SIZE
        self._left = 0
        self._trailer = 0
        self._held = b""

    def feed(self, data: bytes, put: Put) -> bytes:
        """See Body."""
        if self._held:
            data = self._held + data
            self._held = b""
        at, end = 0, len(data)
        if self._state == _SIZE:  # nearly every read of a stream of events is one whole chunk
            stop = data.find(b"\r\n", 0, 8)
            size = _SIZES.get(data[:stop], 0)
            if size and end == stop + size + 4 and data.endswith(b"\r\n"):
                put(data[stop + 2 : -2])
                return b""
        while at < end:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                put(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                if end - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise BadMessage("chunk without its line end")
                at += 2
                self._state = _SIZE
            else:
                stop = data.find(b"\r\n", at)
                if stop < 0:
                    break
                at = self._line(data[at:stop], stop + 2)
                if self.done:
                    return data[at:]
        self._held = data[at:]
        self._bound()
        return b""

    def _line(self, line: bytes, after: int) -> int:
        if self._state == _SIZE:
            size = _SIZES.get(line)
            self._left = _chunk_size(line) if size is None else size
            self._state = _DATA if self._left else _TRAILER
        elif not line:
            self.done = True
        else:
            self._trailer += len(line)
            if b"\n" in line:
                raise BadMessage("malformed trailer")
            if self._trailer > MAX_TRAILER:
                raise BadMessage("trailer too large")
        return after

    def _bound(self) -> None:
        if len(self._held) > (MAX_TRAILER if self._state == _TRAILER else MAX_CHUNK_LINE):
            raise BadMessage("chunk size line too long")


def encode_head(first: bytes, headers: Headers) -> bytes:
    """Start line and headers on the wire, the empty line included.

    Raises BadMessage when a value would add a line of its own: what others sent is never trusted to be one line.
    """
    lines = [first]
    lines += [name + b": " + value for name, value in headers]
    text = b"\r\n".join(lines)
    count = len(lines) - 1
    if text.count(b"\n") != count or text.count(b"\r") != count or b"\x00" in text:
        raise BadMessage("a header value holds a line end or NUL")
    return text + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk on the wire. `data` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
