"""A shim and its agent in one process, played from a script: the other side of the gateway when only the gateway is measured.

Run: `scripted_sandbox.py FOLDER COUNT`. It listens on `FOLDER/0 … COUNT-1` (a sandbox each) and on a TCP port on loopback, which it
prints. Speaks what a gateway asks of a shim (moorage_api/wire/shim.py): bind, start, stop, drain, status, relay. It checks no secret
and no epoch, and buffers nothing.

Relayed paths (also without `/relay`, for the direct baseline):
    /invocations/json            270 bytes of JSON
    /invocations/sse/N/GAP       N events, GAP microseconds apart, each with the time it was sent; with `/spread` behind it the first
                                 one waits a random part of GAP, so that many streams do not tick as one
A turn's input says the same as text: `script N GAP` gives N deltas.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_STREAM = re.compile(rb"/invocations/sse/(\d+)/(\d+)(/spread)?")
_SCRIPT = re.compile(rb"script (\d+) (\d+)")
_FENCE = re.compile(rb'"fence": ?(\d+)')
_EPOCH = re.compile(rb'"epoch": ?(\d+)')
_FRAMES_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-moorage-frames\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"
ANSWER_BYTES = 270


def plain(body: bytes, kind: bytes = b"application/json") -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


def chunk(data: bytes) -> bytes:
    """One chunk of a streamed answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_answer() -> bytes:
    """The short JSON answer, of `ANSWER_BYTES` bytes."""
    body = b'{"id":"r","text":"%b"}'
    return plain(body % (b"x" * (ANSWER_BYTES - len(body) + 2)))


def stamp() -> str:
    """The mark by which the load generator tells how long an event was on its way."""
    return f"@{time.monotonic_ns()}@"


def ticks(count: int) -> Iterator[bytes]:
    """Server-sent events of a relayed stream, each made when it is asked for."""
    for number in range(count):
        yield b'data: {"tick":%d,"at":"%b"}\n\n' % (number, stamp().encode())


def turn(fence: int, deltas: int) -> Iterator[bytes]:
    """The frames of one attempt: the events of an answer with so many deltas. The lifecycle around them comes without a gap."""
    text = ""
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    source = _source()
    yield (
        b'ok {"begun":%d}\n' % fence
        + source("response.created", response={"status": "in_progress", "output": []})
        + source("response.in_progress", response={"status": "in_progress", "output": []})
        + source("response.output_item.added", output_index=0, item=item)
        + source("response.content_part.added", item_id="msg_1", output_index=0, content_index=0, part=part)
    )
    for _ in range(deltas):
        delta = f"{stamp()} "
        text += delta
        yield source("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=delta)
    part = {**part, "text": text}
    item = {**item, "status": "completed", "content": [part]}
    yield (
        source("response.output_text.done", item_id="msg_1", output_index=0, content_index=0, text=text)
        + source("response.content_part.done", item_id="msg_1", output_index=0, content_index=0, part=part)
        + source("response.output_item.done", output_index=0, item=item)
        + source("response.completed", response={"status": "completed", "output": [item]})
        + b'end {"kind":"done"}\n'
    )


def _source() -> Callable[..., bytes]:
    number = 0

    def frame(kind: str, **fields: object) -> bytes:
        nonlocal number
        number += 1
        return f"{number} {json.dumps({'type': kind, **fields}, separators=(',', ':'))}\n".encode()

    return frame


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, short: bytes) -> None:
        self._loop = loop
        self._short = short
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._held, 0, end + 2)
        whole = end + 4 + (int(length.group(1)) if length is not None else 0)
        if len(self._held) >= whole:
            request, self._held = self._held[:whole], self._held[whole:]
            self._serve(request[: request.find(b" HTTP/")], request[end + 4 :])

    def _serve(self, line: bytes, body: bytes) -> None:
        assert self._transport is not None
        if line.endswith(b"/invocations/json"):
            self._transport.write(self._short)
        elif (asked := _STREAM.search(line)) is not None:
            self._transport.write(_EVENTS_HEAD)
            gap = int(asked.group(2)) / 1e6
            wait = random.random() * gap if asked.group(3) else 0.0
            self._play(ticks(int(asked.group(1))), gap, gaps_from=0, wait=wait)
        elif line.endswith(b"/shim/start"):
            script, fence = _SCRIPT.search(body), _FENCE.search(body)
            assert script is not None and fence is not None, body
            self._transport.write(_FRAMES_HEAD)
            self._play(turn(int(fence.group(1)), int(script.group(1))), int(script.group(2)) / 1e6, gaps_from=2)
        elif line.endswith(b"/shim/bind"):
            epoch = _EPOCH.search(body)
            assert epoch is not None
            self._transport.write(plain(b'{"bound":true,"epoch":%b}' % epoch.group(1)))
        else:
            self._transport.write(plain(b'{"stopped":true,"status":"busy"}'))

    def _play(self, pieces: Iterator[bytes], gap: float, *, gaps_from: int, wait: float = 0.0) -> None:
        """A chunk for each piece, after `wait`; every piece from `gaps_from` on comes `gap` seconds after the one before."""
        number, due = 0, self._loop.time() + wait

        def step() -> None:
            nonlocal number, due
            assert self._transport is not None
            for piece in pieces:
                self._transport.write(chunk(piece))
                number += 1
                if gap and number >= gaps_from:
                    due = max(due + gap, self._loop.time())
                    self._timer = self._loop.call_at(due, step)
                    return
            self._transport.write(_LAST)

        if wait:
            self._timer = self._loop.call_at(due, step)
        else:
            step()


async def serve(folder: Path, count: int) -> None:
    """Listens everywhere, prints the TCP port, and serves until it is ended."""
    loop = asyncio.get_running_loop()
    short = json_answer()

    def make() -> Connection:
        return Connection(loop, short)

    servers = [await loop.create_unix_server(make, str(folder / str(number)), backlog=1024) for number in range(count)]
    tcp = await loop.create_server(make, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{tcp.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in [*servers, tcp]))


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
