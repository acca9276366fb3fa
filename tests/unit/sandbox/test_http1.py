"""What the strict HTTP/1.1 parser takes and what it refuses (T5, T6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.wire import http1

pytestmark = pytest.mark.unit


def split(raw: bytes) -> http1.RequestHead:
    return http1.request_head(raw[:-2])


def test_a_plain_head_is_read_with_lower_case_names():
    head = split(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two:  spaced \t\r\nEmpty:\r\n\r\n")
    assert (head.method, head.target, head.minor) == (b"POST", b"/a?b=c", 1)
    assert head.headers == [(b"host", b"x"), (b"x-two", b"spaced"), (b"empty", b"")]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\nY: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_request_head_is_refused(raw):
    with pytest.raises(http1.BadMessage):
        split(raw)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"0x1")],
        [(b"content-length", b"")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_an_ambiguous_framing_is_refused(headers):
    with pytest.raises(http1.BadMessage):
        http1.request_body(http1.RequestHead(b"POST", b"/", 1, headers))


def test_too_many_headers_are_refused():
    with pytest.raises(http1.HeadTooLarge):
        split(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (http1.MAX_HEADERS + 1) + b"\r\n")


@pytest.mark.parametrize(
    "raw",
    [b"5;ext=1\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5\r\nhelloXX", b"-1\r\n", b"\r\n", b"5 \r\nhello\r\n", b"F" * 30],
)
def test_a_malformed_chunk_is_refused(raw):
    with pytest.raises(http1.BadMessage):
        http1.Chunked().feed(raw, lambda piece: None)


def test_endless_trailers_are_refused():
    body = http1.Chunked()
    body.feed(b"0\r\n", lambda piece: None)
    with pytest.raises(http1.BadMessage):
        for _ in range(10_000):
            body.feed(b"a: b\r\n", lambda piece: None)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(1, 9), min_size=1))
def test_a_chunked_body_comes_through_however_it_is_cut(pieces, cuts):
    wire = b"".join(http1.chunk(piece) for piece in pieces) + http1.LAST_CHUNK + b"NEXT"
    body, out, rest, at, turn = http1.Chunked(), [], b"", 0, 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        if body.done:
            rest += wire[at : at + size]
        else:
            rest += body.feed(wire[at : at + size], out.append)
        at, turn = at + size, turn + 1
    assert b"".join(out) == b"".join(pieces)
    assert body.done
    assert rest == b"NEXT"


def test_two_chunks_in_one_segment_stay_two_pieces():
    out: list[bytes] = []
    http1.Chunked().feed(http1.chunk(b"one") + http1.chunk(b"two"), out.append)
    assert out == [b"one", b"two"]


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00b"])
def test_a_value_that_would_add_a_header_is_never_written(value):
    with pytest.raises(http1.BadMessage):
        http1.encode_head(b"GET / HTTP/1.1", [(b"x", value)])
