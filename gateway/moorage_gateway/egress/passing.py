"""Bytes of one connection both ways: what the client says first is judged, all are counted, an idle one is cut. Layer: I/O.

inside ── first words ──▶ hello.judge ──▶ outside       nothing of the client's passes before it
inside ◀───────────────────────────────── outside       from the beginning: some servers speak first
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from moorage_api.wire import http1
from moorage_gateway.egress import hello
from moorage_gateway.egress.budgets import Way
from moorage_gateway.egress.connecting import Streams
from moorage_gateway.egress.counts import Why
from moorage_gateway.egress.rules import Target

Moved = Callable[[Way, int], bool]


class Cut(Exception):
    """A connection is ended by us. `told` is what its client gets to read of that."""

    def __init__(self, why: Why, reason: str, told: bytes = b"") -> None:
        super().__init__(reason)
        self.why: Why = why
        self.told = told


@dataclass(frozen=True)
class Passing:
    """Times in seconds: `first` for the whole of a ClientHello, `idle` without a byte either way. `size`: bytes of a read."""

    target: Target
    first: float
    idle: float
    size: int
    moved: Moved

    async def both(self, inside: Streams, outside: Streams, body: http1.Body | None) -> None:
        """Until both have said all; without a body it is a tunnel. Raises Cut, OSError, TimeoutError."""
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(self.idle) as limit:

            def passed() -> None:
                until = limit.when() or 0.0
                if until - now() < self.idle - min(1.0, self.idle / 10):  # not at every byte: moving a deadline costs
                    limit.reschedule(now() + self.idle)

            sending = (
                self._tunnel(inside[0], outside[1], passed)
                if body is None
                else self._request(inside[0], outside[1], passed, body)
            )
            receiving = self._pump(outside[0], inside[1], "received", passed)
            pumps = [asyncio.create_task(each) for each in (sending, receiving)]
            try:
                # Both directions to their ends: a side that has said all may still be listening.
                await asyncio.gather(*pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[], None]
    ) -> None:
        first = await self._first(reader)
        self._count("sent", first)
        writer.write(first)
        await writer.drain()
        passed()
        await self._pump(reader, writer, "sent", passed)

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[], None], body: http1.Body
    ) -> None:
        """The body of one request, and of what follows nothing: a second request could name another host. Raises Cut."""
        chunked, over = isinstance(body, http1.Chunked), b""

        def put(piece: bytes) -> None:
            said = http1.chunk(piece) if chunked else piece
            self._count("sent", said)
            writer.write(said)

        while not body.done:
            data = await reader.read(self.size)
            if not data:
                return  # in the middle: the server waits for the rest, and is told by the end of the connection
            passed()
            try:
                over = body.feed(data, put)
            except http1.BadMessage as error:
                raise Cut("malformed", str(error)) from None
            await writer.drain()
        if chunked:
            writer.write(http1.LAST_CHUNK)
        if over or await reader.read(self.size):
            raise Cut("malformed", "one request a connection")
        writer.write_eof()

    async def _first(self, reader: asyncio.StreamReader) -> bytes:
        """What the client says first, when it may pass. Raises Cut."""
        held = b""
        strict = self.target.port == hello.TLS_PORT
        try:
            async with asyncio.timeout(self.first if strict else None) as limit:
                while (found := hello.read(held)) is None:
                    data = await reader.read(self.size)
                    if not data and not held:
                        return b""
                    if not data:
                        raise Cut("name", "it ended in the middle of a ClientHello")
                    held += data
                    if limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + self.first)
        except TimeoutError:
            raise Cut("name", "its ClientHello did not come in time", hello.NO_NAME) from None
        refusal = hello.judge(found, self.target)
        if refusal is not None:
            raise Cut("name", refusal.reason, refusal.told)
        return held

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, passed: Callable[[], None]
    ) -> None:
        """Bytes one way until the end, which is passed on; `drain` holds it back while the other side is slow."""
        while data := await reader.read(self.size):
            passed()
            self._count(way, data)
            writer.write(data)
            await writer.drain()
            passed()
        if writer.can_write_eof():
            writer.write_eof()

    def _count(self, way: Way, data: bytes) -> None:
        if data and not self.moved(way, len(data)):
            raise Cut("budget", f"no more bytes may be {way} in this hour")
