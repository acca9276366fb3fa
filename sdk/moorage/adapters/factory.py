"""Agents made by a function without parameters, at the first turn of a process. Layer: SDK.

For what cannot be made at import: a client that reads, once, an address which differs from sandbox to sandbox (`moorage dev --plain`).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from moorage._context import Context
from moorage.events import Event

if TYPE_CHECKING:
    from moorage.adapters import Adapter


class FactoryAdapter:
    """Makes the agent once, when it is first needed, and runs that."""

    def __init__(self, make: Any, adapter: Callable[[object], Adapter | None], accepted: str) -> None:
        self._make = make
        self._adapter = adapter
        self._accepted = accepted
        self._made: Adapter | None = None

    async def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of one turn. Raises TypeError when what was made is no framework's agent."""
        if self._made is None:
            agent = self._make()
            if inspect.isawaitable(agent):
                agent = await agent
            made = self._adapter(agent)
            if made is None:
                raise TypeError(f"the agent's function gave a {type(agent).__name__}; {self._accepted}")
            self._made = made
        async with aclosing(self._made.run(items, session, ctx)) as events:
            async for event in events:
                yield event
