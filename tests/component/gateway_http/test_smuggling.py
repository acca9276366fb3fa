"""Requests on whose end two parsers might disagree (T5, S4): each is answered 400 or 431 and its connection closed, and what
hides behind it never reaches the app. Also: what is unusual but unambiguous is served, so that strictness costs nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fakes.raw_http import exchange
from moorage_gateway.server import ConnectionLimits, Listener

pytestmark = pytest.mark.component

HOST = b"Host: a\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /x HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CL, TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

# Every vector is followed by a whole second request for /evil.
VECTORS: dict[str, bytes] = {
    "length and chunks": post(CL, TE, body=CHUNKS),
    "chunks and length": post(TE, CL, body=CHUNKS),
    "zero length and chunks": post(b"Content-Length: 0", TE, body=CHUNKS),
    "two equal lengths": post(CL, CL, body=b"hello"),
    "two different lengths": post(CL, b"Content-Length: 6", body=b"hello"),
    "a list of lengths": post(b"Content-Length: 5, 5", body=b"hello"),
    "a list of different lengths": post(b"Content-Length: 5, 6", body=b"hello"),
    "a signed length": post(b"Content-Length: +5", body=b"hello"),
    "a negative length": post(b"Content-Length: -5", body=b"hello"),
    "a hexadecimal length": post(b"Content-Length: 0x5", body=b"hello"),
    "an underscored length": post(b"Content-Length: 1_0", body=b"helloworld"),
    "a fractional length": post(b"Content-Length: 5.0", body=b"hello"),
    "an exponent length": post(b"Content-Length: 5e0", body=b"hello"),
    "a length of words": post(b"Content-Length: five", body=b"hello"),
    "an empty length": post(b"Content-Length:", body=b"hello"),
    "a blank length": post(b"Content-Length:   ", body=b"hello"),
    "a length with inner space": post(b"Content-Length: 5 5", body=b"hello"),
    "a length beyond 64 bits": post(b"Content-Length: 18446744073709551621", body=b"hello"),
    "a length in other digits": post("Content-Length: ٥".encode(), body=b"hello"),
    "a space before the colon of length": post(b"Content-Length : 5", body=b"hello"),
    "a tab before the colon of length": post(b"Content-Length\t: 5", body=b"hello"),
    "a space before the name of length": post(b"X: y\r\n Content-Length: 5", body=b"hello"),
    "a space before the colon of coding": post(b"Transfer-Encoding : chunked", body=CHUNKS),
    "a vertical tab in coding": post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS),
    "a form feed in coding": post(b"Transfer-Encoding: \x0cchunked", body=CHUNKS),
    "an unknown coding": post(b"Transfer-Encoding: xchunked", body=CHUNKS),
    "identity coding": post(b"Transfer-Encoding: identity", body=CHUNKS),
    "gzip then chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "chunked then identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNKS),
    "chunked twice in one": post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "chunked twice": post(TE, TE, body=CHUNKS),
    "chunked and another": post(TE, b"Transfer-Encoding: cow", body=CHUNKS),
    "quoted chunked": post(b'Transfer-Encoding: "chunked"', body=CHUNKS),
    "a coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=CHUNKS),
    "an empty coding": post(b"Transfer-Encoding:", body=CHUNKS),
    "chunks in HTTP/1.0": b"POST /x HTTP/1.0\r\n" + HOST + TE + b"\r\n\r\n" + CHUNKS,
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS),
    "a folded header": post(b"X: a\r\n\tb", CL, body=b"hello"),
    "a bare LF in the head": b"POST /x HTTP/1.1\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    "a bare LF between headers": b"POST /x HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\nhello",
    "bare LFs only": b"GET /x HTTP/1.1\nHost: a\n\n",
    "a bare CR in a value": post(b"X: a\rb", CL, body=b"hello"),
    "a bare CR as a line end": b"POST /x HTTP/1.1\r\nHost: a\rContent-Length: 5\r\n\r\nhello",
    "a NUL in a value": post(b"X: a\x00b", CL, body=b"hello"),
    "a NUL in a name": post(b"X\x00: a", CL, body=b"hello"),
    "a header without a colon": post(b"Nonsense", CL, body=b"hello"),
    "a header without a name": post(b": a", CL, body=b"hello"),
    "a name with a space": post(b"X Y: a", CL, body=b"hello"),
    "a name with a slash": post(b"X/Y: a", CL, body=b"hello"),
    "a name beyond ASCII": post("Ünï: a".encode(), CL, body=b"hello"),
    "a chunk extension": post(TE, body=b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    "a bare chunk extension": post(TE, body=b"5;\r\nhello\r\n0\r\n\r\n"),
    "an extension with a LF": post(TE, body=b"5;\nhello\r\n0\r\n\r\n"),
    "an extension on the last chunk": post(TE, body=b"5\r\nhello\r\n0;a\r\n\r\n"),
    "a chunk size with a space": post(TE, body=b"5 \r\nhello\r\n0\r\n\r\n"),
    "a space before a chunk size": post(TE, body=b" 5\r\nhello\r\n0\r\n\r\n"),
    "a prefixed chunk size": post(TE, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a signed chunk size": post(TE, body=b"+5\r\nhello\r\n0\r\n\r\n"),
    "a negative chunk size": post(TE, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "an underscored chunk size": post(TE, body=b"0_5\r\nhello\r\n0\r\n\r\n"),
    "an empty chunk size": post(TE, body=b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk size of letters": post(TE, body=b"g\r\nhello\r\n0\r\n\r\n"),
    "a chunk size that overflows": post(TE, body=b"100000000000000005\r\nhello\r\n0\r\n\r\n"),
    "a chunk ended by LF": post(TE, body=b"5\nhello\r\n0\r\n\r\n"),
    "chunk data ended by LF": post(TE, body=b"5\r\nhello\n0\r\n\r\n"),
    "chunk data longer than its size": post(TE, body=b"4\r\nhello\r\n0\r\n\r\n"),
    "the last chunk ended by LF": post(TE, body=b"5\r\nhello\r\n0\n\r\n"),
    "the body ended by LF": post(TE, body=b"5\r\nhello\r\n0\r\n\n"),
    "a last chunk of many zeros": post(TE, body=b"5\r\nhello\r\n00\r\n\r\n"),
    "a trailer": post(TE, body=b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    "a trailer with a length": post(TE, body=b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
    "an absolute target": b"GET http://b/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "an authority target": b"CONNECT b:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an asterisk target": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a space": b"GET /x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a tab": b"GET /x\ty HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a fragment": b"GET /x#y HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target beyond ASCII": "GET /ü HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "two spaces in the request line": b"GET  /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a request line with a trailing space": b"GET /x HTTP/1.1 \r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/1.2": b"GET /x HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /x HTTP/2.0\r\n" + HOST + b"\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a lower-case protocol": b"GET /x http/1.1\r\n" + HOST + b"\r\n",
    "a lower-case method": b"get /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"GRAB /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "no Host": b"GET /x HTTP/1.1\r\nX: y\r\n\r\n",
    "two Hosts": b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a Host with a path": b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a Host with a space": b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n",
    "an empty Host": b"GET /x HTTP/1.1\r\nHost:\r\n\r\n",
    "an empty line first": b"\r\nGET /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "an upgrade with a body": post(b"Connection: Upgrade", b"Upgrade: h2c", CL, body=b"hello"),
    "a path with encoded control characters": b"GET /x%0d%0aX:y HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with an encoded NUL": b"GET /x%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path that is not UTF-8": b"GET /%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n",
}

SERVED: dict[str, tuple[bytes, list[tuple[str, str, bytes]]]] = {
    "a length": (post(CL, body=b"hello"), [("POST", "/x", b"hello")]),
    "chunks": (post(TE, body=CHUNKS), [("POST", "/x", b"hello")]),
    "chunks in upper case": (
        post(b"TRANSFER-ENCODING: CHUNKED", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        [("POST", "/x", b"0123456789")],
    ),
    "a chunk size with a leading zero": (post(TE, body=b"05\r\nhello\r\n0\r\n\r\n"), [("POST", "/x", b"hello")]),
    "no space after the colon": (post(b"Content-Length:5", body=b"hello"), [("POST", "/x", b"hello")]),
    "a value beyond ASCII": (post("X: ü".encode(), CL, body=b"hello"), [("POST", "/x", b"hello")]),
    "two in one write": (post(CL, body=b"hello") + post(TE, body=CHUNKS), [("POST", "/x", b"hello")] * 2),
    "a GET with a body": (b"GET /x HTTP/1.1\r\n" + HOST + CL + b"\r\n\r\nhello", [("GET", "/x", b"hello")]),
    "a Host with a port": (b"GET /x HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", [("GET", "/x", b"")]),
    "an IPv6 Host": (b"GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [("GET", "/x", b"")]),
    "HTTP/1.0 without Host": (b"GET /x HTTP/1.0\r\n\r\n", [("GET", "/x", b"")]),
    "an encoded path": (b"GET /a%20b HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/a b", b"")]),
    "an upgrade without a body": (
        b"GET /x HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n",
        [("GET", "/x", b"")],
    ),
}


class Recorder:
    """An app that notes what reached it whole."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[Recorder, Listener]]:
    app = Recorder()
    listener = Listener(app, ConnectionLimits(), name="test")
    await listener.start(host="127.0.0.1", port=0)
    yield app, listener
    await listener.close()


async def test_there_are_at_least_sixty_vectors() -> None:
    assert len(VECTORS) >= 60


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
async def test_an_ambiguous_request_is_refused_and_nothing_behind_it_served(
    recorder: tuple[Recorder, Listener], vector: bytes
) -> None:
    app, listener = recorder
    reply = await exchange(listener.port, vector + EVIL)
    assert reply.statuses == [400]
    assert reply.closed
    assert app.seen == []


@pytest.mark.parametrize("vector", list(VECTORS.values())[::7], ids=list(VECTORS)[::7])
async def test_a_refusal_does_not_depend_on_how_the_bytes_arrive(
    recorder: tuple[Recorder, Listener], vector: bytes
) -> None:
    app, listener = recorder
    whole = vector + EVIL
    reply = await exchange(listener.port, *(whole[at : at + 1] for at in range(len(whole))))
    assert reply.statuses == [400]
    assert app.seen == []


@pytest.mark.parametrize(("sent", "seen"), SERVED.values(), ids=SERVED.keys())
@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_an_unusual_but_clear_request_is_served_however_it_arrives(
    recorder: tuple[Recorder, Listener], sent: bytes, seen: list[tuple[str, str, bytes]], step: int
) -> None:
    app, listener = recorder
    pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
    reply = await exchange(listener.port, *pieces, answers=len(seen), quiet=0.02)
    assert reply.statuses == [200] * len(seen)
    assert app.seen == seen


async def test_nothing_after_connection_close_is_served(recorder: tuple[Recorder, Listener]) -> None:
    app, listener = recorder
    reply = await exchange(listener.port, post(b"Connection: close", CL, body=b"hello") + EVIL)
    assert reply.statuses == [200]
    assert reply.closed
    assert app.seen == [("POST", "/x", b"hello")]


async def test_pipelined_requests_are_answered_in_order(recorder: tuple[Recorder, Listener]) -> None:
    app, listener = recorder
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(200))
    reply = await exchange(listener.port, many, answers=200, quiet=0.05)
    assert reply.statuses == [200] * 200
    assert [path for _, path, _ in app.seen] == [f"/{n}" for n in range(200)]
