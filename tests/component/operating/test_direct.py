"""Calls over connections of our own: whom they believe, what they show, and what a server that breaks off or says nothing comes to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from fakes.tls import authority
from moorage_operator import kube as rim
from moorage_operator.compose import talking
from moorage_operator.kube import PODS, Kube, KubeError

pytestmark = pytest.mark.component

BODY = b'{"kind": "Pod", "metadata": {"name": "sb-1"}}'
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
BROKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + BODY
CALLS = 3


class Server:
    """Says the answers in turn, on as many connections as come, and closes one after `each` of them. Limits: no Kubernetes."""

    def __init__(self, *answers: bytes, each: int = 100) -> None:
        self._answers = list(answers)
        self._each = each
        self.asked: list[bytes] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for _ in range(self._each):
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self._answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if not answer:
                    await reader.read()
                if answer != GOOD:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def over(self) -> None:
        """Their client is gone."""
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def against(server: Server, tls: ssl.SSLContext | None = None, **given: Any) -> AsyncIterator[Kube]:
    """An API server as a kubeconfig names it. `given`: of the configuration."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    configuration = Configuration()
    scheme = "https" if tls is not None else "http"
    path = given.pop("path", "")
    configuration.host = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}{path}"
    for name, value in given.items():
        setattr(configuration, name, value)
    try:
        async with asyncio.timeout(30), talking(configuration, Kube) as kube:
            yield kube
    finally:
        listening.close()
        await server.over()


async def test_calls_share_a_connection_and_show_the_token_behind_the_servers_own_path() -> None:
    server = Server(*[GOOD] * CALLS)
    token = {"BearerToken": "first"}
    async with against(server, path="/clusters/one", api_key=token, api_key_prefix={"BearerToken": "Bearer"}) as kube:
        for number in range(CALLS):
            token["BearerToken"] = f"t-{number}"  # as one that is renewed
            assert (await kube.get(PODS, "one", "sb-1") or {})["kind"] == "Pod"
        assert (kube.calls, kube.writes) == (CALLS, 0)
    assert server.connections == 1
    for number, head in enumerate(server.asked):
        assert head.startswith(b"GET /clusters/one/api/v1/namespaces/one/pods/sb-1 HTTP/1.1\r\n")
        assert b"\r\nauthorization: Bearer t-%d\r\n" % number in head


@pytest.mark.parametrize(
    ("names", "expected"), [({"address": "127.0.0.1"}, ""), ({"host": "api.example"}, "api.example")]
)
async def test_a_server_is_believed_by_its_authority_under_its_address_or_the_name_given(
    tmp_path: Path, names: dict[str, str], expected: str
) -> None:
    public, tls = authority(tmp_path, **names)
    async with against(Server(GOOD), tls, ssl_ca_cert=str(public), tls_server_name=expected or None) as kube:
        assert (await kube.get(PODS, "one", "sb-1") or {})["kind"] == "Pod"


@pytest.mark.parametrize("names", [{"host": "api.example"}, {"address": "127.0.0.2"}])
async def test_one_of_another_name_is_told_nothing(tmp_path: Path, names: dict[str, str]) -> None:
    public, tls = authority(tmp_path, **names)
    server = Server(GOOD)
    async with against(server, tls, ssl_ca_cert=str(public)) as kube:
        with pytest.raises(KubeError) as caught:
            await kube.get(PODS, "one", "sb-1")
    assert (caught.value.status, server.asked) == (0, [])


async def test_one_of_an_unknown_authority_is_told_nothing(tmp_path: Path) -> None:
    _, tls = authority(tmp_path, address="127.0.0.1")
    server = Server(GOOD)
    async with against(server, tls) as kube:
        with pytest.raises(KubeError) as caught:
            await kube.get(PODS, "one", "sb-1")
    assert (caught.value.status, server.asked) == (0, [])


async def test_a_kept_connection_that_closed_costs_a_read_nothing() -> None:
    server = Server(GOOD, GOOD, each=1)
    async with against(server) as kube:
        for _ in range(2):
            assert await kube.get(PODS, "one", "sb-1") is not None
    assert server.connections == 2


@pytest.mark.parametrize("answer", [BROKEN, b"HTTP/1.1 200 OK\r\n", b"no HTTP at all\r\n\r\n"])
async def test_an_answer_that_breaks_off_or_is_none_is_no_answer_and_a_write_is_not_sent_again(answer: bytes) -> None:
    server = Server(GOOD, answer, GOOD)
    async with against(server) as kube:
        await kube.get(PODS, "one", "sb-1")
        with pytest.raises(KubeError) as caught:
            await kube.create(PODS, {"metadata": {"name": "sb-1", "namespace": "one"}})
    assert (caught.value.status, caught.value.reason) == (0, "NoAnswer")
    assert [head.split()[0] for head in server.asked] == [b"GET", b"POST"]


async def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rim, "CALL_SECONDS", 0.2)
    async with against(Server(b"")) as kube:
        with pytest.raises(KubeError) as caught:
            await kube.get(PODS, "one", "sb-1")
    assert caught.value.status == 0


async def test_where_nobody_listens_is_no_answer() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    async with talking(configuration, Kube) as kube:
        with pytest.raises(KubeError) as caught:
            await kube.get(PODS, "one", "sb-1")
    assert caught.value.status == 0
