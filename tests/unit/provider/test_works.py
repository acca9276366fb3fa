"""Work that was begun by a look: what follows on its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.provider.loop import Provider
from moorage_api.provider.works import Works

pytestmark = pytest.mark.unit


async def over(works: Works) -> None:
    async with asyncio.timeout(10):
        while works.count(""):
            await asyncio.sleep(0)


@pytest.mark.parametrize(("fault", "looks"), [(None, 1), (OSError("no answer"), 0), (ValueError("a mistake"), 0)])
async def test_the_end_of_a_work_has_the_loop_look_and_a_failure_waits_for_the_next_look(
    fault: Exception | None, looks: int
) -> None:
    nothing: Any = SimpleNamespace()
    provider = Provider(nothing, nothing, now=lambda: 0.0, found=nothing, token_key="")
    guard: Callable[[Callable[[], Awaitable[None]]], Awaitable[bool]] = provider._guarded
    seen: list[str] = []
    works = Works(guard, lambda: seen.append("all"))

    async def work() -> None:
        if fault is not None:
            raise fault

    works.begin("one", work())
    works.begin("two", work(), lambda: seen.append("its agent"))
    await over(works)
    assert sorted(seen) == ["all", "its agent"] * looks
