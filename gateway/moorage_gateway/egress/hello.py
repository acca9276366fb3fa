"""What a client says first in a tunnel, and whether it means the host that the tunnel was opened for. Pure.

TLS (RFC 8446 §4.1.2, RFC 6066 §3): the ClientHello names the server in the clear. One that names another, none, two, or hides the name
(Encrypted Client Hello) is refused: behind one address there may be many servers, and the manifest lists one of them. On port 443 nothing
but TLS passes. On other ports what is no TLS passes: nobody can tell which server it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moorage_gateway.egress.rules import Target

TLS_PORT = 443
MOST = 64 * 1024
"""Bytes of a ClientHello with its records' heads; those of today are 2 KiB at most."""
RECORD = 16 * 1024

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _HIDDEN = 0, 0xFE0D
_HOST_NAME = 0

# Fatal alerts (RFC 8446 §6): unrecognized_name, missing_extension.
OTHER_NAME = bytes((21, 3, 3, 0, 2, 2, 112))
NO_NAME = bytes((21, 3, 3, 0, 2, 2, 109))


@dataclass(frozen=True)
class Hello:
    """`tls`: it begins a TLS session; `names` are the servers that it names in the clear, `hidden`: it may mean another one."""

    tls: bool
    names: tuple[bytes, ...] = ()
    hidden: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why it does not pass, and what the client is told of that: an alert that its TLS library can read, or a sentence."""

    reason: str
    told: bytes


class _Short(Exception):
    """There is more to come."""


class _Broken(Exception):
    """No ClientHello."""


def read(said: bytes) -> Hello | None:
    """The beginning of what a client says; None while too little of it has come."""
    if not said:
        return None
    if said[0] != _HANDSHAKE:
        return Hello(tls=False)
    try:
        return _client_hello(_message(said))
    except _Short:
        return None if len(said) < MOST else Hello(tls=True)
    except _Broken:
        return Hello(tls=True)


def judge(hello: Hello, target: Target) -> Refusal | None:
    """Why it may not pass to the target; None when it may."""
    if not hello.tls:
        if target.port != TLS_PORT:
            return None
        reason = (
            f"only TLS passes to port {TLS_PORT} of a host: for plain http ask the proxy for the whole http:// address"
        )
        body = reason.encode() + b"\n"
        head = b"HTTP/1.1 403 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        return Refusal(reason, head % (reason.encode(), len(body)) + body)
    if hello.hidden:
        return Refusal(
            "its TLS hides the server's name (Encrypted Client Hello): turn that off in the client", OTHER_NAME
        )
    if not hello.names:
        return Refusal("its TLS names no server (SNI): let the client name the host", NO_NAME)
    if len(hello.names) > 1 or hello.names[0].lower() != target.host.encode():
        shown = " ".join(name.decode("ascii", "replace") for name in hello.names)[:100]
        return Refusal(
            f"its TLS names {shown!r}, the tunnel was opened to {target.host}: connect to the host that is meant",
            OTHER_NAME,
        )
    return None


class _Cursor:
    """Reads numbers and vectors; what runs over the end is broken."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        if len(found) < count:
            raise _Broken
        self.at += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    @property
    def left(self) -> bool:
        return self.at < len(self.data)


def _message(said: bytes) -> bytes:
    """The first handshake message, out of as many records as it was cut into. Raises _Short, _Broken."""
    held, at = b"", 0
    while True:
        if len(held) >= 4:
            if held[0] != _CLIENT_HELLO:
                raise _Broken
            size = 4 + int.from_bytes(held[1:4], "big")
            if size > MOST:
                raise _Broken
            if len(held) >= size:
                return held[4:size]
        head = said[at : at + 5]
        if len(head) < 5:
            raise _Short
        size = int.from_bytes(head[3:5], "big")
        if head[0] != _HANDSHAKE or head[1] != 3 or not 0 < size <= RECORD:
            raise _Broken
        held += said[at + 5 : at + 5 + size]
        if len(said) < at + 5 + size:
            raise _Short
        at += 5 + size


def _client_hello(body: bytes) -> Hello:
    cursor = _Cursor(body)
    cursor.take(2 + 32)
    cursor.vector(1)
    cursor.vector(2)
    cursor.vector(1)
    if not cursor.left:
        return Hello(tls=True)
    found = list(_extensions(cursor.vector(2)))
    if cursor.left:
        raise _Broken
    names = [name for kind, value in found if kind == _SERVER_NAME for name in _names(value)]
    return Hello(tls=True, names=tuple(names), hidden=any(kind == _HIDDEN for kind, _ in found))


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    cursor = _Cursor(data)
    while cursor.left:
        yield cursor.number(2), cursor.vector(2)


def _names(data: bytes) -> Iterator[bytes]:
    """Every entry, so that two of them, or one of another kind, are none that match."""
    outer = _Cursor(data)
    cursor = _Cursor(outer.vector(2))
    if outer.left:
        raise _Broken
    while cursor.left:
        kind, name = cursor.number(1), cursor.vector(2)
        yield name if kind == _HOST_NAME else b"?"
