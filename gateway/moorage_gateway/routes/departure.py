"""Ends a piece of work at once when its caller leaves. Layer: gateway, rim.

Under our own listener this costs no task: the connection calls back. Under another server a task watches `receive`, which is
possible only after the body was read (`body_read`).
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from moorage_gateway.routes.answers import exchange_of


class Departure:
    """`async with Departure(scope, receive) as caller:` – the block is cancelled when the caller leaves; then `caller.left`.

    Only the leaving is swallowed; a cancellation from elsewhere goes through.
    """

    def __init__(self, scope: Any, receive: Any, *, body_read: bool = True) -> None:
        self.left = False
        self._exchange = exchange_of(scope)
        self._receive = receive if body_read else None
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Departure:
        self._task = asyncio.current_task()
        if self._exchange is not None:
            if self._exchange.disconnected:
                self._leave()
            self._exchange.on_left = self._leave
        elif self._receive is not None:
            self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._exchange is not None:
            self._exchange.on_left = None
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if not self.left:
            return False
        assert self._task is not None
        return self._task.uncancel() == 0 and kind is asyncio.CancelledError

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            assert self._task is not None
            self._task.cancel()

    async def _watch(self) -> None:
        assert self._receive is not None
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self._leave()
