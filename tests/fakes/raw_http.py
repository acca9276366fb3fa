"""Raw sockets for the tests of the HTTP face: send bytes, read what comes back, with a deadline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson

DEADLINE = 10.0


@dataclass
class Reply:
    """What came back on one connection: the bytes, and whether the gateway closed it."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, in order."""
        return [int(part[1:4]) for part in self.data.split(b"HTTP/1.1")[1:]]

    @property
    def error(self) -> dict[str, str]:
        """The error of the last answer's body."""
        return dict(orjson.loads(self.data[self.data.rindex(b"\r\n\r\n") + 4 :])["error"])


async def exchange(port: int, *pieces: bytes, answers: int = 1, quiet: float = 0.3) -> Reply:
    """Sends the pieces one after the other, then reads until the connection closes or, after `answers`, is quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        for piece in pieces:
            writer.write(piece)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        while True:
            enough = received.count(b"HTTP/1.1 ") >= answers
            try:
                more = await asyncio.wait_for(reader.read(65536), quiet if enough else DEADLINE)
            except TimeoutError:
                assert enough, f"no answer within {DEADLINE} s"
                return Reply(received, closed=False)
            except ConnectionError:
                return Reply(received, closed=True)
            if not more:
                return Reply(received, closed=True)
            received += more
    finally:
        writer.close()
