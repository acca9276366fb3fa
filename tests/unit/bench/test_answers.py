"""The load generator's reader of answers, over every way in which bytes may arrive."""

from __future__ import annotations

import pytest

from bench.answers import AnswerReader, Malformed

pytestmark = pytest.mark.unit

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\n\n\r\n6\r\nb\n\nc\n\n\r\n0\r\n\r\n"


class Seen:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[int] = []
        self.reader = AnswerReader(self.pieces.append, self.ends.append)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_come_one_by_one_however_the_bytes_arrive(size: int) -> None:
    seen = Seen()
    for at in range(0, len(STREAM), size):
        seen.reader.feed(STREAM[at : at + size])
    assert (seen.pieces, seen.ends) == ([b"a\n\n", b"b\n\nc\n\n"], [200])


def test_answers_of_one_connection_follow_each_other() -> None:
    seen = Seen()
    seen.reader.feed(PLAIN + EMPTY + STREAM + PLAIN[:20])
    seen.reader.feed(PLAIN[20:])
    assert seen.ends == [200, 204, 200, 200]
    assert (seen.pieces[0], seen.pieces[-1]) == (b"hello", b"hello")


def test_a_plain_body_is_handed_out_as_it_arrives() -> None:
    seen = Seen()
    seen.reader.feed(PLAIN[:-2])
    assert (seen.pieces, seen.ends) == ([b"hel"], [])
    seen.reader.feed(PLAIN[-2:])
    assert (b"".join(seen.pieces), seen.ends) == (b"hello", [200])


@pytest.mark.parametrize("data", [b"HELO\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"])
def test_what_the_reader_does_not_know_is_an_error_and_no_number(data: bytes) -> None:
    with pytest.raises(Malformed):
        Seen().reader.feed(data)
