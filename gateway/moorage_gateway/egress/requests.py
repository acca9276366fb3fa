"""The head of a proxy request, read strictly. Pure.

What two parsers could read in two ways is refused: a bare line feed, a folded header, a control character, a repeated
authorization. The head goes no further than this: upstream gets a new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage_api.tokens import MAX_POD_TOKEN, MAX_TOKEN
from moorage_api.wire import http1
from moorage_api.wire.headers import HOP_BY_HOP, POD_TOKEN
from moorage_gateway.egress.rules import Refused, Target, parse_authority

# What a shim takes from its agent, and what it adds to that.
MAX_HEAD = 16 * 1024 + MAX_TOKEN + MAX_POD_TOKEN + 256
MAX_HEADERS = 64

_METHOD = re.compile(rb"[A-Z]{1,20}\Z")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_REST = re.compile(rb"[\x21-\x7e]*\Z")


class Malformed(Exception):
    """Not a proxy request; the message says why."""


@dataclass(frozen=True)
class Request:
    """`token` and `pod_token` are what the shim shows. `upstream` is what the server behind is sent first: nothing for a tunnel, a
    head of our own for plain http, whose `body` says where the request ends: what comes after it is another one, and nobody's.
    """

    target: Target
    token: str | None
    pod_token: str | None
    upstream: bytes
    body: http1.Body | None = None


def parse(head: bytes) -> Request:
    """The request of a head that ends with an empty line. Raises Malformed, or Refused for its target."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not _METHOD.match(parts[0]):
        raise Malformed("the request line is not 'METHOD TARGET HTTP/1.1'")
    headers = _headers(lines[1:])
    method, target, _ = parts
    shown = _token(headers), _pod_token(headers)
    if not _REST.match(target):
        raise Refused("a target has visible ASCII characters only")
    if method == b"CONNECT":
        return Request(parse_authority(target.decode("ascii")), *shown, b"")
    if method == b"TRACE":
        raise Malformed("TRACE is not passed on")
    if not target.lower().startswith(b"http://"):
        raise Malformed("this is a proxy: use CONNECT for https, or the whole http:// address")
    rest = target[len(b"http://") :]
    end = next((i for i, octet in enumerate(rest) if octet in b"/?#\\"), len(rest))
    where = parse_authority(rest[:end].decode("ascii"), default_port=80)
    path = rest[end:].partition(b"#")[0]
    if not path.startswith(b"/"):
        path = b"/" + path
    try:
        body = http1.request_body(http1.RequestHead(method, target, int(parts[2][-1:]), headers))
    except http1.BadMessage as error:
        raise Malformed(str(error)) from None
    return Request(where, *shown, _head(method, path, where, headers), body)


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(lines) > MAX_HEADERS:
        raise Malformed(f"more than {MAX_HEADERS} headers")
    found: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.match(name) or not _VALUE.match(value):
            raise Malformed("a header cannot be read")
        found.append((name.lower(), value.strip(b" \t")))
    return found


def _token(headers: list[tuple[bytes, bytes]]) -> str | None:
    given = _single(headers, b"proxy-authorization", "the proxy authorization")
    scheme, _, token = (given or b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _pod_token(headers: list[tuple[bytes, bytes]]) -> str | None:
    given = _single(headers, POD_TOKEN.encode(), "the pod token")
    return None if given is None else given.decode("latin-1")


def _single(headers: list[tuple[bytes, bytes]], wanted: bytes, called: str) -> bytes | None:
    given = [value for name, value in headers if name == wanted]
    if len(given) > 1:
        raise Malformed(f"{called} is repeated")
    return given[0] if given else None


def _head(method: bytes, path: bytes, target: Target, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Origin form, our Host, one request a connection: what follows belongs to this target and no other."""
    named = {name for field, value in headers if field == b"connection" for name in value.lower().split(b",")}
    dropped = {name.strip() for name in named} | {b"host", *(name.encode() for name in HOP_BY_HOP)}
    dropped.discard(b"transfer-encoding")  # the body is framed anew in the same way
    host = target.host if target.port == 80 else str(target)
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: " + host.encode(), b"Connection: close"]
    lines += [name + b": " + value for name, value in headers if name not in dropped]
    return b"\r\n".join(lines) + b"\r\n\r\n"
