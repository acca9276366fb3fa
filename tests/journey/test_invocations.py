"""Invocations: any method, body and type pass as they are, streamed both ways, beside the responses of the same session."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from typing import Any

import pytest

from fakes.platform import Platform, poll
from fakes.wire import Wire

pytestmark = pytest.mark.journey

BASE = "/v1/agents/shapes/invocations"
MiB = 1024 * 1024


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_any_method_reaches_the_agent_with_its_path_and_query(platform: Platform, method: str) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask(method, f"{BASE}/deep/er?x=1&y=%20", b"" if method != "GET" else None)
        assert wire.head() == 200
        assert (wire.headers["x-method"], wire.headers["x-path"]) == (method, "/deep/er")
        assert wire.headers["x-query"] == "x=1&y=%20"
        assert len(wire.headers["x-agent-session-id"]) >= 8


@pytest.mark.parametrize("kind", ["application/json", "image/png", "text/plain; charset=latin-1", "x-own/thing"])
def test_any_body_and_type_come_back_byte_for_byte(platform: Platform, kind: str) -> None:
    body = os.urandom(70_000)
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("POST", BASE, body, content_type=kind)
        assert wire.head() == 200 and wire.headers["content-type"] == kind
        assert wire.body() == body


def test_the_agents_own_status_is_the_answer(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("POST", f"{BASE}/teapot", b"")
        assert wire.head() == 418 and wire.body() == b"short and stout"


def test_an_answers_pieces_arrive_one_by_one_as_they_are_made(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("GET", f"{BASE}/ticks/8/100")
        wire.head()
        pieces = list(wire.chunks())
    assert [data for _, data in pieces] == [b"tick %d\n" % n for n in range(8)], "pieces were merged or split"
    assert pieces[-1][0] - pieces[0][0] > 0.5, "the answer was held back"


def test_a_body_reaches_the_agent_while_it_is_still_being_sent(platform: Platform) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("POST", BASE, transfer_encoding="chunked", content_type="text/plain")
        wire.chunk(b"one")
        assert wire.head() == 200, "the head comes before the body is whole"
        answer = wire.chunks()
        assert next(answer)[1] == b"one"
        for word in (b"two", b"three", b"four"):
            wire.chunk(word)
            assert next(answer)[1] == word
        wire.chunk(b"")
        assert list(answer) == []


def test_both_protocols_meet_in_one_session(platform: Platform) -> None:
    session = new_session()
    with Wire(platform.url, platform.api_key) as wire, platform.client("shapes") as api:
        wire.ask("GET", f"{BASE}?agent_session_id={session}")
        assert wire.head() == 200 and wire.headers["x-agent-session-id"] == session
        wire.body()
        extra = {"agent_session_id": session}
        assert api.responses.create(model="shapes", input="session", extra_body=extra).output_text == session
        wire.ask("GET", f"{BASE}/ticks/1/1", x_agent_session_id=session)
        assert wire.head() == 200 and wire.headers["x-agent-session-id"] == session
    assert [s["id"] for s in platform.sessions("shapes")].count(session) == 1


def test_the_agent_learns_that_its_caller_left(platform: Platform) -> None:
    session = new_session()
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("GET", f"{BASE}/wait?agent_session_id={session}")
        wire.head()
        assert next(wire.chunks())[1] == b"waiting\n"
    with platform.client("shapes") as api:
        extra = {"agent_session_id": session}

        def noted() -> str:
            said = api.responses.create(model="shapes", input="read", extra_body=extra).output_text
            return said if said != "nothing" else ""

        assert poll("the agent notes the end of its call", noted, within=10, every=0.2) in (
            "CancelledError",
            "GeneratorExit",
        )


def test_fifty_megabytes_pass_both_ways_in_flat_memory(platform: Platform) -> None:
    size, pid = 50 * MiB, platform.gateway_pid
    piece = os.urandom(MiB)
    sent, back = hashlib.sha256(), hashlib.sha256()
    reset_peak(pid)
    before = memory(pid, "VmRSS")
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("POST", BASE, content_length=str(size), content_type="application/octet-stream")

        def send() -> None:
            for _ in range(size // MiB):
                sent.update(piece)
                wire.socket.sendall(piece)

        sender = threading.Thread(target=send)
        sender.start()
        assert wire.head() == 200
        received = 0
        for _, data in wire.chunks():
            back.update(data)
            received += len(data)
        sender.join()
    assert received == size and sent.digest() == back.digest()
    grown = memory(pid, "VmHWM") - before
    assert grown < 24 * MiB, f"the gateway's process grew by {grown / MiB:.0f} MiB"


def test_a_reader_that_stops_holds_up_its_own_call_only(platform: Platform) -> None:
    pid, size = platform.gateway_pid, 100 * MiB  # more than the kernel's own buffers on the way hold
    session, text = new_session(), "2 words every 5 ms"
    with platform.client("paced") as api:
        api.responses.create(model="paced", input=text, extra_body={"agent_session_id": session})  # it has its sandbox
    reset_peak(pid)
    before = memory(pid, "VmRSS")
    with Wire(platform.url, platform.api_key, receive_buffer=4096) as stuck:
        stuck.ask("POST", BASE, content_length=str(size), content_type="application/octet-stream")
        stuck.socket.settimeout(0.5)
        held = 0
        try:
            while held < size:
                held += stuck.socket.send(b"x" * 65_536)
        except TimeoutError:
            pass
        assert held < size, "everything was taken in for a reader that reads nothing"
        with platform.client("paced") as api:
            assert (
                api.responses.create(model="paced", input=text, extra_body={"agent_session_id": session}).output_text
                == "w0 w1 "
            )
        with pytest.raises(TimeoutError):
            stuck.socket.send(b"x")  # it is held up still, and not cut off yet
    assert memory(pid, "VmHWM") - before < 24 * MiB


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("?agent_session_id=short", {}, 400),
        ("/../../v1/keys", {}, 400),
        ("?agent_session_id=session-one", {"x_agent_session_id": "session-two"}, 400),
    ],
)
def test_a_wrong_address_is_refused_before_any_sandbox_is_asked(
    platform: Platform, path: str, headers: dict[str, Any], status: int
) -> None:
    with Wire(platform.url, platform.api_key) as wire:
        wire.ask("GET", BASE + path, **headers)
        assert wire.head() == status, wire.body()


def reset_peak(pid: int) -> None:
    """The process's peak of memory counts anew from now."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def memory(pid: int, name: str) -> int:
    """A figure of /proc/PID/status in bytes."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))
