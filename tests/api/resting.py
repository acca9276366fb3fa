"""Waits for an operator that has done everything: by what it wrote, and by the picture of its world. Layer: I/O rim of the tests."""

from __future__ import annotations

import time
from typing import Any

from api.picture import look, orphans, picture
from api.world import WITHIN, World, until

QUIET_SECONDS = 3.0  # of an operator that looks every second


async def at_rest(world: World) -> dict[str, Any]:
    """Waits until the operator has written nothing for some looks, and nothing is nobody's; what there is then."""
    last: tuple[object, ...] = ()
    since = time.monotonic()
    seen: dict[str, Any] = {}

    async def quiet() -> bool:
        nonlocal last, since, seen
        held = await look(world)
        seen = picture(held)
        now = (seen, orphans(held), len(world.counted()))
        if now != last:
            last, since = now, time.monotonic()
        return not now[1] and time.monotonic() - since >= QUIET_SECONDS

    await until("the operator is at rest", quiet)
    return seen


async def settled(world: World, wanted: dict[str, Any], within: float = WITHIN) -> None:
    """Waits until the picture is the wanted one, and nothing is nobody's."""
    why: list[str] = []

    async def so() -> bool:
        held = await look(world)
        seen = picture(held)
        why[:] = orphans(held) + [
            f"{part}: {seen[part]!r}, not {wanted[part]!r}" for part in seen if seen[part] != wanted[part]
        ]
        return not why

    try:
        await until("the world is as it should be", so, within)
    except AssertionError as fault:
        raise AssertionError("\n".join([str(fault), *why])) from fault
