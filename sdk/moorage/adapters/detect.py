"""What an agent is, told by what it has. Layer: SDK, pure; loads no adapter and no framework."""

from __future__ import annotations

import inspect


def is_graph(agent: object) -> bool:
    """A compiled graph of LangGraph."""
    return _has(agent, "astream", "aget_state", "channels", "nodes")


def is_builder(agent: object) -> bool:
    """A graph of LangGraph that was not compiled."""
    return _has(agent, "compile", "add_node", "add_edge")


def is_agent(agent: object) -> bool:
    """An agent of the Microsoft Agent Framework."""
    run = getattr(agent, "run", None)
    if not callable(run) or isinstance(agent, type):
        return False
    try:
        parameters = inspect.signature(run).parameters
    except (TypeError, ValueError):
        return False
    return {"stream", "session"} <= parameters.keys()


def is_workflow(agent: object) -> bool:
    """A workflow of the same: it runs, and has no sessions."""
    return _has(agent, "run", "as_agent") and not is_agent(agent)


def is_factory(agent: object) -> bool:
    """A plain function that takes nothing."""
    return inspect.isfunction(agent) and not inspect.signature(agent).parameters


def _has(agent: object, *names: str) -> bool:
    return not isinstance(agent, type) and all(hasattr(agent, name) for name in names)
