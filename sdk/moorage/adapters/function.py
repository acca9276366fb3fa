"""Plain functions as agents: sync, async, and generators of both kinds. Layer: SDK."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from moorage._context import Context
from moorage.adapters import threads
from moorage.events import Event, Item, TextDelta

_EVENTS = Event.__args__


class FunctionAdapter:
    """Runs `agent(items, ctx)`. What it returns or yields: text, events, items (dicts), lists of these, or None."""

    def __init__(self, agent: Callable[..., Any]) -> None:
        self._agent = agent
        called = agent if inspect.isroutine(agent) else getattr(agent, "__call__", agent)  # noqa: B004 (kept to inspect it)
        while isinstance(called, partial):
            called = called.func
        self._on_loop = inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)

    async def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of one turn. A blocking function runs in a thread of its own, an async one on the loop."""
        call = partial(self._agent, items, ctx)
        source = _from_async(call()) if self._on_loop else threads.iterate(partial(_from_sync, call), ctx.cancelled)
        try:
            async with aclosing(source):
                async for produced in source:
                    if inspect.isawaitable(produced) or hasattr(produced, "__aiter__"):
                        async with aclosing(_from_async(produced)) as inner:
                            async for late in inner:
                                for event in _events(late):
                                    yield event
                        continue
                    for event in _events(produced):
                        yield event
        except (
            BaseException
        ):  # closed, cancelled or failed: whatever the agent left running learns that the turn is over
            ctx.cancelled.set()
            raise


def _from_sync(call: Callable[[], Any]) -> Iterator[Any]:
    result = call()
    if isinstance(result, Iterator):
        yield from result
    else:
        yield result


async def _from_async(result: Any) -> AsyncGenerator[Any, None]:
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        iterator: AsyncIterator[Any] = aiter(result)
        try:
            async for produced in iterator:
                yield produced
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(result, Iterator):
        for produced in result:
            yield produced
    else:
        yield result


def _events(produced: Any) -> list[Event]:
    if produced is None or produced == "":
        return []
    if isinstance(produced, str):
        return [TextDelta(produced)]
    if isinstance(produced, _EVENTS):
        return [produced]
    if isinstance(produced, Mapping):
        return [Item(produced)]
    if isinstance(produced, list | tuple):
        return [event for entry in produced for event in _events(entry)]
    raise TypeError(
        f"the agent gave a {type(produced).__name__}; it may give text, events of moorage.events, items (dicts) or lists of these"
    )
