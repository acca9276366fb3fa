"""Blocking iterators read from a thread of their own. Layer: SDK, under the function adapter.

One thread a turn, not one hop to a pool per item: a hop costs more than the item. The thread is a daemon, for code that ignores
cancellation cannot be stopped and must not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

AHEAD = 64  # items a blocking agent may be ahead of its reader


class _Pipe:
    """A bounded hand-over from one thread to one event loop. Every exit of either side wakes the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self._lock = threading.Condition()
        self._arrived = asyncio.Event()
        self._waiting = False
        self.closed = False
        self.ended = False
        self.error: BaseException | None = None

    def put(self, item: object) -> bool:
        """Called by the thread; waits while the reader is behind. False: the reader has gone."""
        with self._lock:
            while len(self._items) >= AHEAD and not self.closed:
                self._lock.wait()
            if self.closed:
                return False
            self._items.append(item)
            wake = self._waiting
        if wake:
            self._wake()
        return True

    def end(self, error: BaseException | None) -> None:
        """Called by the thread, once, last."""
        with self._lock:
            self.ended, self.error = True, error
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            pass  # the loop is closed: the process is ending and nobody reads

    def close(self) -> None:
        """Called by the reader when it leaves."""
        with self._lock:
            self.closed = True
            self._lock.notify_all()

    def take(self) -> tuple[list[Any], bool]:
        """All items there are, and whether the thread has ended. Arms the wake-up when there are none."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            self._waiting = not items
            self._lock.notify_all()
            return items, self.ended

    async def arrived(self) -> None:
        """Waits for the next wake-up."""
        await self._arrived.wait()
        self._arrived.clear()


def _drain(source: Callable[[], Iterator[Any]], pipe: _Pipe) -> None:
    error: BaseException | None = None
    try:
        iterator = source()
        try:
            for item in iterator:
                if not pipe.put(item):
                    break
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
    except BaseException as raised:  # handed to the reader: the thread's own frame is the outermost one
        error = raised
    pipe.end(error)


async def iterate(
    source: Callable[[], Iterator[Any]], cancelled: threading.Event, grace: float = 5.0
) -> AsyncGenerator[Any, None]:
    """Items of `source()`, which runs wholly in a thread, with the caller's context variables.

    Leaving early sets `cancelled`, closes the iterator at its next item, and waits up to `grace` seconds for that. An exception of
    the source is raised here; `SystemExit` becomes RuntimeError, since it must not end the server.
    """
    pipe = _Pipe(asyncio.get_running_loop())
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(_drain, source, pipe), name="moorage-agent", daemon=True)
    thread.start()
    try:
        while True:
            items, ended = pipe.take()
            for item in items:
                yield item
            if items:
                continue
            if ended:
                break
            await pipe.arrived()
    finally:
        if not pipe.ended:
            cancelled.set()
            pipe.close()
            await _ended(pipe, grace)
    if pipe.error is not None:
        if isinstance(pipe.error, SystemExit | KeyboardInterrupt):
            raise RuntimeError(f"the agent called exit: {pipe.error!r}") from pipe.error
        raise pipe.error


async def _ended(pipe: _Pipe, grace: float) -> None:
    try:
        async with asyncio.timeout(grace):
            while not pipe.ended:
                await pipe.arrived()
    except TimeoutError:
        return  # it blocks and does not look at ctx.cancelled; the platform kills the process, a laptop's thread is a daemon
