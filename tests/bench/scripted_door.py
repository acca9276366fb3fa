"""The shim's door to models alone: its own server and boundary, for an attempt that a bench names. Layer: I/O rim.

A worker (`workers.py`): each line of JSON names an attempt (`gateway`, `token`, `session`, `epoch`, `turn`, `begun`, `port`), and is
answered when its calls are served at that port of loopback, numbered from 1. There is no agent and no sandbox behind it; what a call costs
in the shim is the same.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any, cast

import uvloop

from moorage_api.wire.shim import Bind
from moorage_sandbox.boundary import Boundary
from moorage_sandbox.clock import SystemClock
from moorage_sandbox.config import Limits
from moorage_sandbox.proof import Proof
from moorage_sandbox.server import HttpServer
from moorage_sandbox.shim import Shim


class Running:
    """As much of a shim as the boundary asks: an attempt that runs."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._bound = Bind(
            session=said["session"], epoch=said["epoch"], tenant="bench", agent="scripted", session_id="s", user="bench"
        )
        self._turn, self._begun = str(said["turn"]), int(said["begun"])

    def calling(self) -> tuple[Bind, str, int]:
        """See Shim."""
        return self._bound, self._turn, self._begun

    def trace_of(self, begun: int) -> str:
        """See Shim."""
        return ""

    def break_off(self, begun: int, why: str) -> bool:
        """See Shim."""
        return False


async def serve() -> None:
    """Until the input ends."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        said = json.loads(line)
        limits, shim = Limits(), cast(Shim, Running(said))
        proof, gateways = Proof(said["token"], None), [str(said["gateway"])]
        boundary = Boundary(shim, lambda gateways=gateways: gateways, proof, SystemClock(), limits, note=tell)  # type: ignore[misc]
        server = HttpServer(boundary.handle, lambda error: tell(repr(error)), limits.connections)
        await server.listen(f"http://127.0.0.1:{said['port']}")
        sys.stdout.write(json.dumps({"port": said["port"]}) + "\n")
        sys.stdout.flush()


def tell(text: str) -> None:
    """On stderr."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(serve())
