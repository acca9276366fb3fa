"""The conversation behind a turn: input and output of the chain it continues, oldest first (protocols.md §1.6).

Each attempt is given what the first one was, since the chain is immutable: only ended responses are in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from moorage_gateway.conversation import for_agent

MAX_TURNS = 200
MAX_ITEMS = 2000
CACHE = 512

Link = tuple[list[dict[str, Any]], str | None]  # items of one turn (input, then output); the turn before it


class History:
    """Walks `previous_response_id` back to the start; bounded, the oldest turns are left out first."""

    def __init__(self, link: Callable[[str], Awaitable[Link | None]]) -> None:
        self._link = link
        self._cache: OrderedDict[str, Link] = OrderedDict()

    async def before(self, previous: str | None) -> list[dict[str, Any]]:
        """The items before a turn whose previous response is `previous`."""
        parts: list[list[dict[str, Any]]] = []
        count = 0
        for _ in range(MAX_TURNS):
            if previous is None:
                break
            link = await self._cached(previous)
            if link is None:
                break
            items, previous = link
            count += len(items)
            if count > MAX_ITEMS:
                break
            parts.append(for_agent(items))
        return [item for part in reversed(parts) for item in part]

    async def _cached(self, response: str) -> Link | None:
        found = self._cache.get(response)
        if found is None:
            found = await self._link(response)
            if found is not None:
                self._cache[response] = found
                while len(self._cache) > CACHE:
                    self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(response)
        return found
