"""Servers of models and tools asked over connections of our own: which address, by TLS, kept, and never sent twice by itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.peer import head
from fakes.tls import authority
from moorage_gateway.models.asking import AskFault, Request, Upstreams

pytestmark = pytest.mark.component

WITHIN = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 4\r\n\r\nfine"


class Server:
    """Answers each request with the next of `answers`; an empty one, and what follows the last, closes the connection unanswered."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.asked, self.connections, self.port = list(answers), list[bytes](), 0, 0
        self._tasks = set[asyncio.Task[None]]()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.asked.append(await head(reader) + await reader.readexactly(2))
                answer = self.answers.pop(0) if self.answers else b""
                if not answer:
                    break
                writer.write(answer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def there(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstreams]:
        """It listens on loopback; who asks may, by address and by name."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = int(listening.sockets[0].getsockname()[1])
        upstreams = Upstreams(lambda: frozenset({f"127.0.0.1:{self.port}", f"localhost:{self.port}"}))
        try:
            async with asyncio.timeout(WITHIN):
                yield upstreams
        finally:
            await upstreams.aclose()
            listening.close()
            await asyncio.gather(*self._tasks)


async def ask(upstreams: Upstreams, url: str) -> tuple[int, str, bytes]:
    request = Request("POST", url, {"content-type": "text/plain", "x-key": "mark42"}, b"hi", 5, 5, 5)
    async with upstreams.ask(request) as coming:
        return coming.status, coming.header("content-type"), b"".join([piece async for piece in coming.pieces()])


async def test_a_connection_is_kept_and_the_path_and_headers_are_as_they_were_given() -> None:
    server = Server(OK, OK, OK)
    async with server.there() as upstreams:
        for _ in range(3):
            assert await ask(upstreams, f"http://127.0.0.1:{server.port}/v1/x?a=1") == (200, "text/plain", b"fine")
    assert server.connections == 1 and len(server.asked) == 3
    lines = server.asked[0].split(b"\r\n")
    assert lines[0] == b"POST /v1/x?a=1 HTTP/1.1" and lines[-1] == b"hi"
    assert {b"host: 127.0.0.1:%d" % server.port, b"x-key: mark42", b"content-length: 2"} <= set(lines)


async def test_a_name_is_asked_at_the_address_that_answers() -> None:
    server = Server(OK)  # where `localhost` is ::1 too, nobody listens there
    async with server.there() as upstreams:
        assert (await ask(upstreams, f"http://localhost:{server.port}/"))[0] == 200
    assert b"host: localhost:%d" % server.port in server.asked[0]


async def test_a_server_is_believed_by_its_authority_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, tls = authority(tmp_path, address="127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    server = Server(OK, OK)
    async with server.there(tls) as upstreams:
        for _ in range(2):
            assert (await ask(upstreams, f"https://127.0.0.1:{server.port}/"))[2] == b"fine"
        assert server.connections == 1
        with pytest.raises(AskFault) as found:
            await ask(upstreams, f"https://localhost:{server.port}/")
    assert not found.value.sent and "mark42" not in str(found.value)
    assert len(server.asked) == 2, "who is not who was named is told nothing"


async def test_one_that_nobody_vouches_for_is_told_nothing(tmp_path: Path) -> None:
    _, tls = authority(tmp_path, address="127.0.0.1")
    server = Server(OK)
    async with server.there(tls) as upstreams:
        with pytest.raises(AskFault) as found:
            await ask(upstreams, f"https://127.0.0.1:{server.port}/")
    assert not found.value.sent and "certificate" in str(found.value).lower() and not server.asked


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok\r\n\r\n", b"what?\r\n\r\n"])
async def test_a_kept_connection_that_breaks_is_a_fault_that_says_it_was_sent(answer: bytes) -> None:
    server = Server(OK, answer, OK)
    async with server.there() as upstreams:
        await ask(upstreams, f"http://127.0.0.1:{server.port}/")
        with pytest.raises(AskFault) as found:
            await ask(upstreams, f"http://127.0.0.1:{server.port}/")
        assert found.value.sent and not found.value.final and "mark42" not in str(found.value)
        assert len(server.asked) == 2, "sent again only by whoever asked"
        assert (await ask(upstreams, f"http://127.0.0.1:{server.port}/"))[0] == 200


async def test_nobody_there_is_told_as_the_system_says_it() -> None:
    server = Server()
    async with server.there() as upstreams:
        pass
    with pytest.raises(AskFault, match="refused") as found:
        await ask(upstreams, f"http://127.0.0.1:{server.port}/")
    assert not found.value.sent
    with pytest.raises(AskFault, match="without TLS") as found:
        await ask(upstreams, "http://127.0.0.2:1/")
    assert found.value.final
