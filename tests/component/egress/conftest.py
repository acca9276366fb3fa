"""The proxy that tests send through."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from component.egress.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.aclose()
