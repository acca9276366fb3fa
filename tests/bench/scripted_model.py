"""A server of models that thinks nothing: one answer of a chat completion to every request, as fast as a socket. Layer: I/O rim.

Run: `scripted_model.py`. It prints its port on loopback and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
WORDS = "word " * 60


def answer() -> bytes:
    """About 600 bytes."""
    usage = {
        "prompt_tokens": 250,
        "completion_tokens": 60,
        "total_tokens": 310,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": WORDS}}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m-1",
            "choices": [choice],
            "usage": usage,
        }
    )
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body.encode(),
    )


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        found = _LENGTH.search(self._held, 0, end + 2) if end >= 0 else None
        if end < 0 or len(self._held) < end + 4 + (int(found[1]) if found is not None else 0):
            return
        self._held = b""
        assert self._transport is not None
        self._transport.write(self._said)


async def serve() -> None:
    """Until the process is ended."""
    said = answer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(said), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(serve())
