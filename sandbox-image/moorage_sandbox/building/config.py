"""What a build is told: nothing secret. Layer: the floor of the builder; frozen values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from moorage_api.kinds.source import Source


@dataclass(frozen=True)
class BuildConfig:
    """`gateway` is a URL, `egress` the proxy as `host:port`; `commit` pins a git source, "" takes its ref. `within`: seconds."""

    gateway: str
    egress: str
    token: str
    token_file: str
    source: Source
    contract: Literal["auto", "moorage", "foundry", "agentcore"]
    commit: str
    within: float

    @classmethod
    def from_json(cls, text: str | bytes) -> BuildConfig:
        """Raises ValueError, TypeError or KeyError for anything else than the operator writes."""
        found = json.loads(text)
        return cls(**{**found, "source": Source.model_validate(found["source"])})
