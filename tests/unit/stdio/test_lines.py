"""Lines of a program, whose answer a long one is, and its secrets taken out: the pure rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_sandbox.stdio import messages
from moorage_sandbox.stdio.hiding import Hiding
from moorage_sandbox.stdio.lines import ENDS, Lines, Long
from moorage_sandbox.stdio.telling import BURST, Telling

pytestmark = pytest.mark.unit


def cut(data: bytes, most: int, sizes: Iterator[int] | None = None) -> list[bytes | Long]:
    made, found = Lines(most), list[bytes | Long]()
    while data:
        size = next(sizes) if sizes is not None else len(data)
        found += list(made.feed(data[:size]))
        data = data[size:]
    return found


@given(st.lists(st.binary(max_size=40).map(lambda each: each.replace(b"\n", b"").rstrip(b"\r"))), st.data())
def test_lines_are_what_they_were_however_they_come(lines: list[bytes], data: st.DataObject) -> None:
    sizes = iter(lambda: data.draw(st.integers(1, 30)), 0)
    found = cut(b"".join(line + b"\n" for line in lines), 20, sizes)
    assert len(found) == len(lines)
    for line, one in zip(lines, found, strict=True):
        assert one == line if isinstance(one, bytes) else len(line) > 20 and one.size == len(line)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b'{"jsonrpc":"2.0","id":17,"result":{"a":"%s"}}', 17),
        (b'{"jsonrpc": "2.0", "id": 17, "result": "%s"}', 17),
        (b'{"result":{"a":"%s"},"jsonrpc":"2.0","id":17}', 17),
        (b'{"result":{"a":"%s"},"id":17,"jsonrpc":"2.0"}', 17),
        (b'{"result":{"id":17,"a":"%s"},"jsonrpc":"2.0","id":"x"}', None),
        (b'{"jsonrpc":"2.0","method":"m","params":{"id":17,"a":"%s"}}', None),
        (b"%s", None),
    ],
)
def test_a_long_line_is_known_by_its_ends(line: bytes, number: int | None) -> None:
    (found,) = cut(line % (b"x" * 5000) + b"\n", 1000)
    assert isinstance(found, Long) and found.answers == number
    assert len(found.head) <= ENDS and len(found.tail) <= ENDS + 5100


@pytest.mark.parametrize("secret", ["plain-secret", 'with"quote/and slash', "schlüssel-ä-ö-ü"])
def test_a_secret_is_taken_out_in_every_form(secret: str) -> None:
    hiding = Hiding([secret, "ab"])
    said = [
        secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        base64.b64encode(secret.encode()).decode(),
    ]
    for each in said:
        assert secret.encode() not in hiding.line(each.encode()) and b"[credential]" in hiding.line(each.encode())
    assert hiding.line(b"cab") == b"cab", "too short to be looked for"


def test_what_is_printed_is_bounded_and_says_what_was_left_out() -> None:
    now, said = [0.0], list[str]()
    telling = Telling(said.append, lambda: now[0])
    for each in range(BURST + 50):
        telling.line(b"line %d" % each)
    assert len(said) == BURST
    now[0] = 1.0
    telling.line(b"\x1b[31mlater" + b"x" * 9000)
    assert said[BURST] == "(50 lines left out)" and "\x1b" not in said[-1] and len(said[-1]) == 2000


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"jsonrpc": "1.0"}', b"[" * 100_000, b"\xff"])
def test_what_is_no_message_is_none(line: bytes) -> None:
    assert messages.read(line) is None


def test_a_programs_own_request_is_no_answer() -> None:
    assert messages.answers({"id": 1, "method": "ping", "result": {}}) is None
    assert messages.answers({"id": True, "result": {}}) is None
    assert messages.answers({"id": 1, "result": {}}) == 1
    assert b'"result":{}' in messages.reply({"id": 1, "method": "ping"})
    assert b"-32601" in messages.reply({"id": 1, "method": "sampling/createMessage"})
