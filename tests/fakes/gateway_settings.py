"""What a gateway of a test's own process is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fakes.valkey import Valkey
from moorage_gateway.settings import Settings


def settings(valkey: Valkey, store: Path, **more: Any) -> Settings:
    """Ports that are free, a folder as store, and an end that gives callers no notice."""
    return Settings(
        redis_url=SecretStr(valkey.url),
        store=str(store),
        durability="relaxed",
        public_port=0,
        sandbox_port=0,
        egress_port=0,
        control_port=0,
        drain_notice_seconds=0,
        drain_seconds=2,
        **more,
    )
