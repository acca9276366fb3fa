"""The table of routes: counts only while its stream beats; a hint drops and wakes."""

from __future__ import annotations

import asyncio

import pytest

from moorage_gateway import routing
from moorage_gateway.routing import RouteTable
from moorage_gateway.upstream import Route

pytestmark = pytest.mark.unit


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def route(key: str = "dev:p1", epoch: int = 1) -> Route:
    """A bound route."""
    return Route(key, "sb-1", "unix:/sb-1", "secret", epoch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> RouteTable:
    return RouteTable(clock)


def test_a_route_counts_only_while_the_stream_beats(table: RouteTable, clock: Clock) -> None:
    table.put(route())
    assert table.get("dev:p1") is None  # no beat yet
    table.beat()
    assert table.get("dev:p1") == route()
    clock.now += routing.BEAT_S
    assert table.get("dev:p1") == route()
    clock.now += 0.1
    assert table.get("dev:p1") is None
    table.beat()
    assert table.get("dev:p1") == route()


def test_a_hint_drops_its_route_alone_and_is_a_beat(table: RouteTable) -> None:
    table.put(route("dev:p1"))
    table.put(route("dev:p2"))
    table.hint("dev:p1")
    assert table.get("dev:p1") is None
    assert table.get("dev:p2") == route("dev:p2")


def test_an_empty_hint_is_a_beat_and_drops_nothing(table: RouteTable) -> None:
    table.put(route())
    table.hint("")
    assert table.get("dev:p1") == route()


def test_silence_forgets_everything(table: RouteTable) -> None:
    table.beat()
    table.put(route())
    table.silent()
    assert table.get("dev:p1") is None
    table.beat()
    assert table.get("dev:p1") is None


def test_the_newest_route_of_a_session_is_the_one(table: RouteTable) -> None:
    table.beat()
    table.put(route(epoch=1))
    table.put(route(epoch=2))
    assert table.get("dev:p1") == route(epoch=2)
    table.forget("dev:p1")
    table.forget("dev:p1")
    assert table.get("dev:p1") is None


def test_the_table_is_bounded_and_the_oldest_goes_first(table: RouteTable) -> None:
    table.beat()
    for n in range(routing.CAPACITY + 10):
        table.put(route(f"dev:{n}"))
    assert table.get("dev:9") is None
    assert table.get("dev:10") is not None
    assert table.get(f"dev:{routing.CAPACITY + 9}") is not None


async def test_who_waits_is_woken_by_a_hint_of_its_session_and_by_silence(table: RouteTable) -> None:
    for wake in (lambda: table.hint("dev:p1"), table.silent):
        waiting = [asyncio.ensure_future(table.changed("dev:p1", 30.0)) for _ in range(3)]
        await asyncio.sleep(0)
        table.hint("dev:p2")
        await asyncio.sleep(0)
        assert not any(w.done() for w in waiting)
        wake()
        await asyncio.wait_for(asyncio.gather(*waiting), 1.0)


async def test_who_waits_without_a_hint_looks_again_by_itself(table: RouteTable) -> None:
    await asyncio.wait_for(table.changed("dev:p1", 0.01), 1.0)
