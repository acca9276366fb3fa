"""Frames of an attempt from an async generator, for tests that script a shim. Limit: one frame a call, never several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from moorage_api.wire.shim import End, Frame


class Scripted:
    """Implements `moorage_gateway.upstream.Frames`; the generator is closed however pouring ends."""

    def __init__(self, frames: AsyncGenerator[Frame, None]) -> None:
        self._frames = frames
        self._room = asyncio.Event()

    async def pour(self, put: Callable[[list[Frame]], bool]) -> None:
        """Up to the generator's end, or its End frame."""
        async with aclosing(self._frames) as frames:
            async for frame in frames:
                self._room.clear()
                more = put([frame])
                if isinstance(frame, End):
                    return
                if not more:
                    await self._room.wait()

    def resume(self) -> None:
        """Goes on after a full inbox."""
        self._room.set()
