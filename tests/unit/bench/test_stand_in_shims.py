"""Stand-in shims hold one session each, as a shim does: else a bench could not see that two were given one sandbox."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from bench.stand_in_shims import Connection, Sandbox, addresses

pytestmark = pytest.mark.unit


class Transport:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)


def bind(session: str, epoch: int) -> bytes:
    body = json.dumps({"session": session, "epoch": epoch}).encode()
    return b"POST /shim/bind HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def answers(sandbox: Sandbox, *pieces: bytes) -> list[tuple[int, Any]]:
    transport, connection = Transport(), Connection(sandbox)
    connection.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        connection.data_received(piece)
    return [(int(sent[9:12]), json.loads(sent.partition(b"\r\n\r\n")[2])) for sent in transport.sent]


def test_a_sandbox_takes_one_session_and_no_other_and_no_lower_epoch() -> None:
    sandbox = Sandbox()
    assert answers(sandbox, bind("one", 5), bind("one", 5), bind("one", 7)) == [
        (200, {"bound": True, "epoch": 5}),
        (200, {"bound": True, "epoch": 5}),
        (200, {"bound": True, "epoch": 7}),
    ]
    assert answers(sandbox, bind("two", 9)) == [(409, {"error": "other_session"})]
    assert answers(sandbox, bind("one", 6)) == [(409, {"error": "stale_epoch"})]


def test_a_request_that_comes_in_pieces_is_answered_once() -> None:
    whole = bind("one", 1)
    assert answers(Sandbox(), *(whole[at : at + 7] for at in range(0, len(whole), 7))) == [
        (200, {"bound": True, "epoch": 1})
    ]


def test_every_pod_has_a_loopback_address_of_its_own() -> None:
    found = [ipaddress.ip_address(one) for one in addresses(1_000)]
    assert len(set(found)) == 1_000 and all(one.is_loopback for one in found)
