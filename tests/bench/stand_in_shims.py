"""The shims of pods that only stand in: a process that answers `bind` at many loopback addresses, a sandbox each.

Run: `stand_in_shims.py COUNT PORT`. It listens on the first COUNT addresses of `addresses`, says so by a line of JSON, and serves until its
input ends. Each address takes one session and refuses any other, and a lower epoch, as a shim does (moorage_api/wire/shim.py); anything but
`bind` is answered "stopped". Limits: it checks no secret, keeps no files, and announces nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.scripted_sandbox import plain

FIRST = 127 << 24 | 64 << 16 | 1  # 127.64.0.1: loopback addresses that nobody else uses


def addresses(count: int) -> Iterator[str]:
    """So many loopback addresses."""
    for number in range(FIRST, FIRST + count):
        yield ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def refusal(word: str) -> bytes:
    """A shim's no."""
    body = json.dumps({"error": word}).encode()
    return b"HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class Sandbox:
    """Which session an address holds."""

    def __init__(self) -> None:
        self._session = ""
        self._epoch = 0

    def bind(self, body: bytes) -> bytes:
        """The whole answer to a call of `bind`."""
        call = json.loads(body)
        if self._session not in ("", call["session"]):
            return refusal("other_session")
        if call["epoch"] < self._epoch:
            return refusal("stale_epoch")
        self._session, self._epoch = call["session"], call["epoch"]
        return plain(b'{"bound":true,"epoch":%d}' % self._epoch)


class Connection(asyncio.Protocol):
    """One connection to a sandbox, one request at a time; every request has a body of a said length."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        length = self._held[: end + 2].lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        whole = end + 4 + int(length or 0)
        if len(self._held) < whole:
            return
        request, self._held = self._held[:whole], self._held[whole:]
        assert self._transport is not None
        line, body = request.partition(b"\r\n")[0], request[end + 4 :]
        if b" /shim/bind " in line:
            self._transport.write(self._sandbox.bind(body))
        else:
            self._transport.write(plain(b'{"stopped":true}'))


async def serve(count: int, port: int) -> None:
    """Listens everywhere, says so, and serves until the input ends."""
    loop = asyncio.get_running_loop()

    def at(sandbox: Sandbox) -> Connection:
        return Connection(sandbox)

    for address in addresses(count):
        sandbox = Sandbox()
        await loop.create_server(lambda sandbox=sandbox: at(sandbox), address, port)  # type: ignore[misc]
    sys.stdout.write(json.dumps({"listens": count}) + "\n")
    sys.stdout.flush()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
