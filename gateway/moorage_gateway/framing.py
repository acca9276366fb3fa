"""Strict framing of HTTP/1.1 requests: where a head ends, what it may look like, how its body is delimited.

Layer: rules, no I/O. Called by `server.py` before a byte reaches the HTTP parser, so that the two must agree and everything on
which other parsers are known to differ is refused here: bare LF or CR, folded lines, spaces around names, two lengths, a
length beside a transfer coding, any chunk extension, trailers, absolute targets, requests without exactly one Host.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from moorage_api.errors import Kind

HEAD_END = b"\r\n\r\n"
MAX_CHUNK_LINE = 12  # eight hex digits and CRLF fit; four gigabytes is more than any limit allows

# A whole head. Possessive quantifiers: linear time whatever arrives.
_HEAD = re.compile(
    rb"[A-Z]{1,16} (?P<target>/[\x21\x22\x24-\x7e]*+) HTTP/1\.(?P<minor>[01])\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_STARTS = re.compile(rb"[A-Z]")
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})
_LENGTH = re.compile(rb"[0-9]{1,15}\Z")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")


class FramingError(Exception):
    """The bytes are not one unambiguous request. It is answered by `kind`; nothing after them may be read."""

    def __init__(self, message: str, kind: Kind = Kind.INVALID_REQUEST) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind


def check_partial_head(buffer: bytes | bytearray, new_from: int, limit: int) -> None:
    """Refuses an unfinished head as early as can be told. `new_from` is where the newest bytes begin."""
    if _STARTS.match(buffer) is None:
        raise FramingError("a request begins with its method")
    if len(buffer) > limit:
        raise FramingError("the request head is too large", Kind.HEADERS_TOO_LARGE)
    if _BARE_LF.search(buffer, max(0, new_from - 1)):
        raise FramingError("a line ends without CR")


def check_head(head: bytes, *, max_bytes: int, max_headers: int) -> None:
    """Refuses a complete head (with its empty line) that is too large or not exactly of the grammar."""
    if len(head) > max_bytes:
        raise FramingError("the request head is too large", Kind.HEADERS_TOO_LARGE)
    if head.count(b"\r\n") - 2 > max_headers:
        raise FramingError("the request has too many headers", Kind.HEADERS_TOO_LARGE)
    if _HEAD.fullmatch(head) is None:
        raise FramingError("the request head is malformed")


def body_length(headers: list[tuple[bytes, bytes]], *, minor: int) -> int | None:
    """The promised length of the body, or None for chunks. Checks Host too. Names must be lower case.

    Content-Length | Transfer-Encoding | body
    ---------------|-------------------|---------------------------
    –              | –                 | none (0)
    one number     | –                 | that many bytes
    –              | chunked, HTTP/1.1 | chunks
    two, or other  | any               | refused
    any            | anything else     | refused
    """
    length = coding = host = None
    for name, value in headers:
        if name in _ONCE:
            if name == b"host":
                host, again = value, host
            elif name == b"content-length":
                length, again = value, length
            else:
                coding, again = value, coding
            if again is not None:
                raise FramingError(f"{name.decode()} is given twice")
    if host is None and minor:
        raise FramingError("Host is missing")
    if host is not None and _HOST.match(host) is None:
        raise FramingError("Host is malformed")
    if coding is not None:
        if length is not None:
            raise FramingError("Content-Length stands beside Transfer-Encoding")
        if coding.lower() != b"chunked" or not minor:
            raise FramingError("the transfer coding is not supported")
        return None
    if length is None:
        return 0
    if _LENGTH.match(length) is None:
        raise FramingError("Content-Length is malformed")
    return int(length)


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    LAST = auto()
    DONE = auto()


class Chunks:
    """Follows a chunked body and finds its end. Knows only sizes and data: no extension, no trailer."""

    def __init__(self) -> None:
        self._part = _Part.SIZE
        self._line = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk and its empty line have passed."""
        return self._part is _Part.DONE

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body (all of them until it is `done`). Raises FramingError."""
        at, size = 0, len(data)
        while at < size and self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                if not self._left:
                    self._part = _Part.DATA_END
            else:
                end = data.find(b"\n", at)
                stop = size if end < 0 else end + 1
                self._line += data[at:stop]
                at = stop
                if len(self._line) > MAX_CHUNK_LINE:
                    raise FramingError("a chunk header is malformed")
                if end >= 0:
                    self._line_ended()
        return at

    def _line_ended(self) -> None:
        line, self._line = bytes(self._line), bytearray()
        if not line.endswith(b"\r\n"):
            raise FramingError("a chunk line ends without CR")
        text = line[:-2]
        if self._part is _Part.SIZE:
            if _CHUNK_SIZE.match(text) is None:
                raise FramingError("a chunk size is malformed, or has an extension")
            self._left = int(text, 16)
            self._part = _Part.DATA if self._left else _Part.LAST
            if not self._left and text != b"0":
                raise FramingError("the last chunk is malformed")
        elif text:
            raise FramingError("a chunk is longer than its size, or a trailer follows the last")
        else:
            self._part = _Part.SIZE if self._part is _Part.DATA_END else _Part.DONE
