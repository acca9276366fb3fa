"""Adapters: one way to run whatever a framework calls an agent. Layer: SDK.

An adapter is stateless; `run` yields the typed events of `moorage.events` and stops when it is closed or cancelled. A framework has
a module of its own here. What an agent is, is told by what it has: no framework is imported but by its own agents.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol, runtime_checkable

from moorage._context import Context
from moorage.adapters import detect
from moorage.events import Event

ACCEPTED = (
    "give a function agent(items, ctx) that returns or yields text or moorage.events, an agent of the Microsoft Agent Framework,"
    " a compiled LangGraph graph, or a function without parameters that makes one of these two"
)


@runtime_checkable
class Adapter(Protocol):
    """Runs one turn of an agent."""

    def run(self, items: list[dict[str, Any]], session: str, ctx: Context) -> AsyncGenerator[Event, None]:
        """Events of the answer to `items`. Closing the generator stops the agent; its exceptions pass through."""
        ...


def adapt(agent: object) -> Adapter:
    """The adapter for `agent`; raises TypeError naming what is accepted."""
    found = framework(agent)
    if found is not None:
        return found
    if isinstance(agent, Adapter) and not isinstance(agent, type):
        return agent
    if detect.is_factory(agent):
        from moorage.adapters.factory import FactoryAdapter

        return FactoryAdapter(agent, framework, ACCEPTED)
    if callable(agent):
        from moorage.adapters.function import FunctionAdapter

        return FunctionAdapter(agent)
    raise TypeError(f"agent is a {type(agent).__name__}; {ACCEPTED}")


def framework(agent: object) -> Adapter | None:
    """The adapter for a framework's agent, None for what is no framework's. Raises TypeError for one that is not ready to run."""
    if detect.is_graph(agent):
        from moorage.adapters.langgraph import LangGraphAdapter

        return LangGraphAdapter(agent)
    if detect.is_agent(agent):
        from moorage.adapters.agent_framework import AgentFrameworkAdapter

        return AgentFrameworkAdapter(agent)
    if detect.is_builder(agent):
        raise TypeError(f"agent is a {type(agent).__name__} that was not compiled: give what its .compile() returns")
    if detect.is_workflow(agent):
        raise TypeError(f"agent is a {type(agent).__name__}, which has no sessions: give what its .as_agent() returns")
    return None
