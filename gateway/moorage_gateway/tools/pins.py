"""Pinned definitions: what a tool's definition was when somebody approved it, and what it is now (faults.md T16). Layer: engine.

A server that changes what it says of a tool changes what a model reads of it. Where the manifest pins a definition's digest, a tool
that is described otherwise is held back until the manifest names the new digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson

from moorage_gateway.tools.names import Upstream
from moorage_gateway.tools.servers import ToolServer

FRESH_S = 60.0
"""How long a list that was read serves the calls of pinned tools."""
LIST_S = 30.0
_SAID = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")


def digest(definition: Any) -> str:
    """`sha256:` and hex, of all that a model may be told by it."""
    found = definition if isinstance(definition, dict) else {}
    said = {name: found[name] for name in _SAID if found.get(name) is not None}
    return f"sha256:{hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


def held_back(upstream: Upstream, definition: dict[str, Any]) -> bool:
    """Whether it is not the one that was approved."""
    pinned = upstream.spec["pin"].get(definition.get("name"))
    return pinned is not None and pinned != digest(definition)


class Seen:
    """Digests of one upstream's definitions as they were last listed. `now` in seconds that only go forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._digests: dict[str, str] = {}
        self._until = float("-inf")

    def put(self, listed: list[Any]) -> None:
        """What the server has just said."""
        named = [each for each in listed if isinstance(each, dict) and isinstance(each.get("name"), str)]
        self._digests = {each["name"]: digest(each) for each in named}
        self._until = self._now() + FRESH_S

    async def of(self, tool: str, server: Callable[[], ToolServer], seconds: float) -> str | None:
        """The tool's digest as it is now, None when the server has none of that name. Raises ToolFault, ToolRefusal."""
        if self._now() >= self._until:
            self.put(await server().tools(min(LIST_S, seconds)))
        return self._digests.get(tool)
