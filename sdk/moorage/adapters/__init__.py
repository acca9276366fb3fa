"""Adapters: one way to run whatever a framework calls an agent. Layer: SDK.

An adapter is stateless; `run` yields the typed events of `moorage.events` and stops when it is closed or cancelled. A framework
gets a module of its own here, imported only when an agent of that framework is served.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol, runtime_checkable

from moorage._context import Context
from moorage.events import Event


@runtime_checkable
class Adapter(Protocol):
    """Runs one turn of an agent."""

    def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of the answer to `items`. Closing the generator stops the agent; its exceptions pass through."""
        ...


def adapt(agent: object) -> Adapter:
    """The adapter for `agent`; raises TypeError naming what is accepted."""
    if isinstance(agent, Adapter) and not isinstance(agent, type):
        return agent
    if callable(agent):
        from moorage.adapters.function import FunctionAdapter

        return FunctionAdapter(agent)
    raise TypeError(
        f"agent is a {type(agent).__name__}; give a function agent(items, ctx) that returns or yields text or moorage.events"
    )
