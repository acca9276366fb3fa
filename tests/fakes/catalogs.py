"""Waiting for what gateways of a test's own process know of the catalog; and routines of one, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from moorage_api.catalog import RoutineEntry
from moorage_gateway.app import Gateway
from moorage_gateway.catalog import Catalog


async def learned(gateways: Iterable[Gateway], holds: Callable[[Catalog], bool], *, within: float = 15.0) -> None:
    """Returns once `holds` is true of each gateway's catalog. TimeoutError after `within` seconds.

    Meanwhile each is woken as a hint would wake it: a gateway whose stream of hints has only just begun misses those of what is published
    now, and would look again by itself after its poll of two seconds, which most tests would spend waiting.
    """
    async with asyncio.timeout(within):
        for gateway in gateways:
            while not holds(gateway.core.catalog):
                gateway.core.catalog.hint("")
                await asyncio.sleep(0.01)


class Routines:
    """Routines as their ledger publishes them. Limit: nothing is kept of what becomes of them."""

    def __init__(self) -> None:
        self.held: dict[str, RoutineEntry] = {}

    async def entries(self) -> list[RoutineEntry]:
        """All, in no order."""
        return list(self.held.values())

    async def publish(self, entry: RoutineEntry) -> bool:
        """Takes it in place of one of its name."""
        self.held[entry.field] = entry
        return True

    async def unpublish(self, tenant: str, name: str) -> None:
        """Raises KeyError where it was not published."""
        del self.held[f"{tenant}/{name}"]
