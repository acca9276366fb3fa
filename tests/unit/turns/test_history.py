"""The conversation behind a turn: oldest first, bounded, and read once."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_gateway.turns import history
from moorage_gateway.turns.history import History, Link

pytestmark = pytest.mark.unit


class Chain:
    """Responses r-1 … r-N, each after the one before, with `size` items each; counts what is read."""

    def __init__(self, length: int, size: int = 1) -> None:
        self.reads = 0
        self._length, self._size = length, size

    async def link(self, response: str) -> Link | None:
        """The items of one response, and the one before it."""
        self.reads += 1
        number = int(response.removeprefix("r-"))
        if not 1 <= number <= self._length:
            return None
        items: list[dict[str, Any]] = [{"n": number, "i": i} for i in range(self._size)]
        return items, f"r-{number - 1}" if number > 1 else None


async def test_a_turn_without_a_predecessor_has_no_history() -> None:
    chain = Chain(3)
    assert await History(chain.link).before(None) == []
    assert chain.reads == 0


async def test_items_come_oldest_first() -> None:
    found = await History(Chain(3, size=2).link).before("r-3")
    assert [(i["n"], i["i"]) for i in found] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


async def test_an_unknown_response_ends_the_walk() -> None:
    assert await History(Chain(3).link).before("r-9") == []


async def test_the_oldest_turns_are_left_out_first() -> None:
    length = history.MAX_TURNS + 50
    found = await History(Chain(length).link).before(f"r-{length}")
    assert len(found) == history.MAX_TURNS
    assert [found[0]["n"], found[-1]["n"]] == [51, length]


async def test_items_are_bounded_by_whole_turns() -> None:
    size = history.MAX_ITEMS // 3
    found = await History(Chain(10, size=size).link).before("r-10")
    assert sorted({i["n"] for i in found}) == [8, 9, 10]
    assert len(found) == 3 * size


async def test_a_response_is_read_once_and_the_memory_is_bounded() -> None:
    chain = Chain(history.CACHE + 100)
    walk = History(chain.link)
    await walk.before("r-100")
    assert chain.reads == 100
    await walk.before("r-100")
    assert chain.reads == 100
    for start in range(1, history.CACHE + 101):
        await walk.before(f"r-{start}")
    assert len(walk._cache) == history.CACHE


async def test_what_is_not_there_yet_is_asked_again() -> None:
    chain = Chain(0)
    walk = History(chain.link)
    assert await walk.before("r-1") == []
    chain._length = 1
    assert await walk.before("r-1") == [{"n": 1, "i": 0}]
