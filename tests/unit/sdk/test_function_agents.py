"""Functions of every kind are agents, and cancelling reaches each of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from moorage import Context, TextDelta, ToolCall, events
from moorage.adapters import Adapter, adapt, threads

pytestmark = pytest.mark.unit


def context() -> Context:
    return Context(session="s" * 8, workspace=Path("."), response_id="caresp_x")


async def produced(agent: Callable[..., Any]) -> list[events.Event]:
    async with aclosing(adapt(agent).run([], "s" * 8, context())) as source:
        return [event async for event in source]


def sync_text(items: Any, ctx: Any) -> str:
    return "ab"


async def async_text(items: Any, ctx: Any) -> str:
    return "ab"


def sync_generator(items: Any, ctx: Any) -> Iterator[str]:
    yield "a"
    yield "b"


async def async_generator(items: Any, ctx: Any) -> AsyncIterator[str]:
    yield "a"
    yield "b"


def returns_async_generator(items: Any, ctx: Any) -> AsyncIterator[str]:
    return async_generator(items, ctx)


async def returns_generator(items: Any, ctx: Any) -> Iterator[str]:
    return sync_generator(items, ctx)


class Called:
    async def __call__(self, items: Any, ctx: Any) -> str:
        return "ab"


@pytest.mark.parametrize(
    "agent",
    [
        sync_text,
        async_text,
        sync_generator,
        async_generator,
        returns_async_generator,
        returns_generator,
        Called(),
        lambda i, c: ["a", "b"],
    ],
)
async def test_every_kind_of_function_is_an_agent(agent: Callable[..., Any]) -> None:
    told = await produced(agent)
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == "ab"


async def test_events_items_and_lists_pass_and_nothing_is_nothing() -> None:
    call = ToolCall("c", "n", {})
    told = await produced(lambda i, c: [None, "", call, [{"type": "message", "content": "x"}]])
    assert told == [call, events.Item({"type": "message", "content": "x"})]
    assert await produced(lambda i, c: None) == []


async def test_anything_else_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="gave a int"):
        await produced(lambda i, c: 3)


def test_an_object_with_run_is_its_own_adapter() -> None:
    class Mine:
        def run(self, items: Any, session: str, ctx: Context) -> Any: ...

    mine = Mine()
    assert adapt(mine) is mine and isinstance(mine, Adapter)


async def test_an_exception_of_a_thread_arrives_with_its_type() -> None:
    def agent(items: Any, ctx: Any) -> Iterator[str]:
        yield "a"
        raise KeyError("gone")

    with pytest.raises(KeyError):
        await produced(agent)


async def test_exit_called_in_a_thread_does_not_end_the_server() -> None:
    def agent(items: Any, ctx: Any) -> str:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="exit"):
        await produced(agent)


async def test_a_blocking_generator_is_closed_and_told_when_its_reader_leaves() -> None:
    closed = threading.Event()
    ctx = context()

    def agent(items: Any, ctx: Context) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async with aclosing(adapt(agent).run([], "s", ctx)) as source:
        await anext(source)
    assert closed.is_set() and ctx.cancelled.is_set()


async def test_a_blocking_function_sees_cancellation_in_its_context() -> None:
    ctx = context()
    began, ended = threading.Event(), threading.Event()

    def agent(items: Any, ctx: Context) -> str:
        began.set()
        if ctx.cancelled.wait(10):
            ended.set()
        return ""

    async def run() -> None:
        async with aclosing(adapt(agent).run([], "s", ctx)) as source:
            async for _ in source:
                pass

    task = asyncio.create_task(run())
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_an_async_agent_is_cancelled_where_it_waits() -> None:
    seen: list[str] = []
    began = asyncio.Event()

    async def agent(items: Any, ctx: Context) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return ""

    task = asyncio.create_task(produced(agent))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_a_fast_thread_waits_for_a_slow_reader() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10_000):
            made.append(number)
            yield number

    cancelled = threading.Event()
    async with aclosing(threads.iterate(source, cancelled)) as items:
        first = await anext(items)
        for _ in range(20):
            await asyncio.sleep(0)
        assert first == 0 and len(made) <= 2 * threads.AHEAD + 2


async def test_all_items_arrive_in_order() -> None:
    got = [n async for n in threads.iterate(lambda: iter(range(5_000)), threading.Event())]
    assert got == list(range(5_000))


async def test_the_thread_has_the_callers_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    assert await produced(lambda i, c: variable.get()) == [TextDelta("mine")]


async def test_code_that_ignores_cancellation_is_left_behind_in_bounded_time() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        release.wait(30)
        yield 2

    items = threads.iterate(source, threading.Event(), grace=0.05)
    assert await anext(items) == 1
    async with asyncio.timeout(5):
        await items.aclose()
    release.set()
