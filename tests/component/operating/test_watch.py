"""Watches and calls over a real socket: what is said is told; a server that lies, breaks off or is silent is an error of a known kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from moorage_operator import kube as rim
from moorage_operator.kube import PODS, Kube, KubeError, Object

pytestmark = pytest.mark.component

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def line(told: str, body: Object) -> bytes:
    """One event as a chunk."""
    text = json.dumps({"type": told, "object": body}).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


def pod(version: str) -> Object:
    return {"metadata": {"name": "a", "namespace": "one", "resourceVersion": version}}


class Server:
    """Says `answer` to every request, then closes, or stays silent. Limits: no Kubernetes; one answer."""

    def __init__(self, answer: bytes, *, silent: bool = False) -> None:
        self._answer = answer
        self._silent = silent
        self.asked: list[str] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
            writer.write(self._answer)
            await writer.drain()
            if self._silent:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def against(server: Server) -> AsyncIterator[Kube]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        async with ApiClient(configuration=configuration) as api:
            yield Kube(api)
    finally:
        listening.close()
        await asyncio.gather(*server.tasks)  # their client is gone


async def watched(server: Server) -> list[tuple[str, str]]:
    """What a watch of pods tells, up to its end. Raises KubeError."""
    found = []
    async with asyncio.timeout(20), against(server) as kube:
        async for told, body in kube.watch(PODS, "one", "5"):
            found.append((told, body["metadata"]["resourceVersion"]))
    return found


async def test_events_are_told_in_order_from_the_version_asked_for_until_the_server_ends_it() -> None:
    server = Server(HEAD + line("ADDED", pod("6")) + line("BOOKMARK", pod("9")) + END)
    assert await watched(server) == [("ADDED", "6"), ("BOOKMARK", "9")]
    assert server.asked == ["/api/v1/namespaces/one/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5"]


GONE: Object = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


ANSWERS = ["error", "410", "403", "between", "within", "markup", "list", "empty", "nameless", "large", "no http"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HEAD + line("ADDED", pod("6")) + line("ERROR", GONE) + END, 410),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 2\r\n\r\n{}", 410),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope", 403),
        (HEAD + line("ADDED", pod("6")), 0),  # broken off between two events
        (HEAD + line("ADDED", pod("6"))[:-20], 0),  # and within one
        (HEAD + b"6\r\n<html\n\r\n" + END, 0),
        (HEAD + b'5\r\n["a"\n\r\n' + END, 0),
        (HEAD + b"3\r\n{}\n\r\n" + END, 0),
        (HEAD + line("ADDED", {"kind": "Pod"}) + END, 0),
        (HEAD + line("ADDED", pod("x" * 2**23)) + END, 0),  # far more than an object may have
        (b"no HTTP at all\r\n\r\n", 0),
    ],
    ids=ANSWERS,
)
async def test_a_server_that_refuses_lies_or_breaks_off_is_an_error_of_its_own_kind(answer: bytes, status: int) -> None:
    with pytest.raises(KubeError) as refused:
        await watched(Server(answer))
    assert refused.value.status == status


@pytest.mark.parametrize("answer", [b"", HEAD, HEAD + line("ADDED", pod("6"))], ids=["mute", "head", "event"])
async def test_a_server_that_falls_silent_is_left(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rim, "SILENT_SECONDS", 0.3)
    found: Callable[[Any], Any] = watched
    assert await found(Server(answer, silent=True)) in ([], [("ADDED", "6")])


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"], ids=["mute", "in its midst"]
)
async def test_a_call_that_is_not_answered_in_its_time_is_an_error_of_the_same_kind(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rim, "CALL_SECONDS", 0.3)
    async with asyncio.timeout(20), against(Server(answer, silent=True)) as kube:
        for call in (kube.get(PODS, "one", "a"), kube.merge(PODS, "one", "a", {}), kube.delete(PODS, "one", "a")):
            with pytest.raises(KubeError) as refused:
                await call
            assert refused.value.status == 0


def conflict(reason: str) -> bytes:
    body = json.dumps({"kind": "Status", "code": 409, "reason": reason, "message": "a test asked"}).encode()
    return b"HTTP/1.1 409 Conflict\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


BODY: Object = {"metadata": {"name": "a", "namespace": "one"}}
ALWAYS: list[Callable[[Kube], Awaitable[Any]]] = [
    lambda kube: kube.create(PODS, BODY),
    lambda kube: kube.merge(PODS, "one", "a", BODY),
    lambda kube: kube.delete(PODS, "one", "a"),
]
OF_A_VERSION: list[Callable[[Kube], Awaitable[Any]]] = [
    lambda kube: kube.replace(PODS, BODY),
    lambda kube: kube.apply(PODS, BODY, manager="somebody", force=False),
]


@pytest.mark.parametrize(
    ("writes", "reason", "times"),
    [(ALWAYS, "Conflict", 4), (ALWAYS, "AlreadyExists", 1), (OF_A_VERSION, "Conflict", 1)],
    ids=["conflict", "there is one", "of a version"],
)
async def test_a_write_that_meets_a_conflict_is_sent_three_times_more_and_one_that_lost_never(
    writes: list[Callable[[Kube], Awaitable[Any]]], reason: str, times: int
) -> None:
    for write in writes:
        server = Server(conflict(reason))
        async with asyncio.timeout(20), against(server) as kube:
            with pytest.raises(KubeError, match="a test asked"):
                await write(kube)
        assert len(server.asked) == times
