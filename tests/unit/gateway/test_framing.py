"""Framing rules in the small; the vectors on real sockets are in tests/component/gateway_http/test_smuggling.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway import framing
from moorage_gateway.framing import FramingError

pytestmark = pytest.mark.unit

CL, TE, HOST = b"content-length", b"transfer-encoding", (b"host", b"a")


@pytest.mark.parametrize(
    ("headers", "minor", "length"),
    [
        ([], 1, 0),
        ([(CL, b"0")], 1, 0),
        ([(CL, b"007")], 1, 7),
        ([(TE, b"Chunked")], 1, None),
    ],
)
def test_a_body_has_one_length(headers: list[tuple[bytes, bytes]], minor: int, length: int | None) -> None:
    assert framing.body_length([HOST, *headers], minor=minor) == length


@pytest.mark.parametrize(
    "headers",
    [
        [HOST, (CL, b"1"), (TE, b"chunked")],
        [HOST, (CL, b"1"), (CL, b"1")],
        [HOST, (CL, b"1x")],
        [HOST, (CL, b"")],
        [HOST, (TE, b"chunked"), (TE, b"chunked")],
        [HOST, (TE, b"gzip")],
        [HOST, HOST],
        [],
        [(b"host", b"a,b")],
    ],
)
def test_a_body_with_two_lengths_or_a_head_without_one_host_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(FramingError):
        framing.body_length(headers, minor=1)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    st.binary(max_size=20),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_a_chunked_body_ends_at_its_end_however_it_is_cut(parts: list[bytes], rest: bytes, cuts: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    data, chunks, used, at = body + rest, framing.Chunks(), 0, 0
    for cut in [*cuts, len(data)]:
        if not chunks.done:
            used += chunks.feed(data[at : at + cut])
        at += cut
    assert chunks.done
    assert used == len(body)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_as_chunks_are_followed_or_refused(data: bytes) -> None:
    chunks = framing.Chunks()
    try:
        assert 0 <= chunks.feed(data) <= len(data)
    except FramingError as error:
        assert error.message


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=80))
def test_an_arbitrary_head_is_refused_unless_it_is_of_the_grammar(noise: bytes) -> None:
    head = b"GET /x HTTP/1.1\r\nHost: a\r\n" + noise + b"\r\n\r\n"
    try:
        framing.check_head(head, max_bytes=4096, max_headers=10)
    except FramingError:
        return
    lines = head.split(b"\r\n")[1:-2]
    assert all(b":" in line and b"\n" not in line and b"\r" not in line and line[:1] not in b" \t" for line in lines)
