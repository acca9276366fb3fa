"""A gateway's public side with fakes behind it, for the tests of the HTTP face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from fakes.gateway import FakeActivation, FakeGateway
from fakes.turns import FakeTurns
from moorage_gateway.settings import Settings


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[FakeGateway]]]:
    """Starts a gateway: `turns=`, `sweep_seconds=`, and settings by name."""
    running: list[FakeGateway] = []

    async def make(
        turns: FakeTurns | None = None,
        activation: FakeActivation | None = None,
        sweep_seconds: float = 1.0,
        **given: Any,
    ) -> FakeGateway:
        settings = Settings(redis_url=SecretStr("redis://unused"), store="/unused", **given)
        gateway = FakeGateway(turns or FakeTurns(), activation or FakeActivation(), settings)
        await gateway.start(sweep_seconds=sweep_seconds)
        running.append(gateway)
        return gateway

    yield make
    for gateway in running:
        await gateway.stop()
