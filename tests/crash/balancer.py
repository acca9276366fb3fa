"""A balancer before gateways, as a Service is one: each connection goes to the next that takes it. Layer: I/O rim of the tests.

Limits: TCP alone; it asks nobody whether they are ready, so a gateway that drains refuses by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

PIECE = 65536


class Balancer:
    """`places`: (host, port) of the gateways, changed at will; `url` once it runs."""

    def __init__(self, urls: list[str]) -> None:
        self.places = [_place(url) for url in urls]
        self.url = ""
        self._turn = 0

    def replace(self, old: str, new: str) -> None:
        """Another gateway in place of one."""
        self.places[self.places.index(_place(old))] = _place(new)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to whom it got and to its end."""
        for _ in range(len(self.places)):
            self._turn += 1
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(*self.places[self._turn % len(self.places)])
                await asyncio.gather(_pour(reader, back), _pour(there, writer))
                return
        writer.close()


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """What comes goes on; the end too."""
    with contextlib.suppress(OSError):
        while piece := await source.read(PIECE):
            target.write(piece)
            await target.drain()
    target.close()


def _place(url: str) -> tuple[str, int]:
    found = urlsplit(url)
    assert found.hostname is not None and found.port is not None
    return found.hostname, found.port


@contextlib.contextmanager
def balanced(urls: list[str]) -> Iterator[Balancer]:
    """A balancer before these, in a thread of its own."""
    made, started = Balancer(urls), threading.Event()
    end: list[Callable[[], None]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        end.append(lambda: loop.call_soon_threadsafe(over.set))
        server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await over.wait()
        server.close()  # connections that are left end with the loop

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="balancer")
    thread.start()
    try:
        assert started.wait(10)
        yield made
    finally:
        end[0]()
        thread.join(20)
