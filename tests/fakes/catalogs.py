"""Waiting for what gateways of a test's own process know of the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

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
