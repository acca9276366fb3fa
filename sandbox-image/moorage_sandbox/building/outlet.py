"""A build's way out: the agent's door, on a port of its own, for as long as the build runs. Layer: I/O rim.

What the tools of a build connect to is decided by the egress proxy; here only the proof is added, which tools have no way to show.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from types import TracebackType

from moorage_sandbox.door import Door
from moorage_sandbox.proof import Proof

CONNECTIONS = 128
STOP_SECONDS = 10.0


class Outlet:
    """A proxy at `url` between entering and leaving. Runs in a thread with a loop of its own."""

    def __init__(self, egress: str, proof: Proof) -> None:
        self._egress = egress
        self._proof = proof
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(CONNECTIONS)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="outlet", daemon=True)

    @property
    def variables(self) -> dict[str, str]:
        """What makes ordinary tools use it."""
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)

    def __enter__(self) -> Outlet:
        self._thread.start()
        if not self._opened.wait(STOP_SECONDS):
            raise OSError("the way out did not open")
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        door = Door(self._egress, self._proof, max_connections=CONNECTIONS, note=_note)
        await door.open(self._listener)
        self._opened.set()
        try:
            await self._stop.wait()
        finally:
            await door.close()


def _note(text: str) -> None:
    sys.stderr.write(f"moorage: {text}\n")
