"""Moorage for Python: host an agent (`HostedAgent`), make its side effects once (`step`), or call the platform (`Client`, `AsyncClient`).

This module is the whole public surface. The names of the client are loaded when first used, so that an agent's process carries no HTTP
client it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage import events
from moorage._agent import HostedAgent
from moorage._context import Context
from moorage.events import Done, Error, Event, Item, ReasoningDelta, State, TextDelta, ToolCall, ToolResult, Usage
from moorage.items import text_of
from moorage.serve.requests import BlockingRequest, Request, Response

if TYPE_CHECKING:
    from moorage._blocking import Client
    from moorage._client import AsyncClient
    from moorage._errors import (
        AlreadyDone,
        ApiStatusError,
        ConnectionLost,
        Misuse,
        MoorageError,
        NotReady,
        OutcomeUnknown,
        StepFailed,
    )
    from moorage._progress import progress
    from moorage._routine import Routine
    from moorage._steps import step
    from moorage._toolbox import MCPToolbox
    from moorage.adapters.once import read_only, step_tool

__all__ = [
    "AlreadyDone",
    "ApiStatusError",
    "AsyncClient",
    "BlockingRequest",
    "Client",
    "ConnectionLost",
    "Context",
    "Done",
    "Error",
    "Event",
    "HostedAgent",
    "Item",
    "MCPToolbox",
    "Misuse",
    "MoorageError",
    "NotReady",
    "OutcomeUnknown",
    "ReasoningDelta",
    "Request",
    "Response",
    "Routine",
    "State",
    "StepFailed",
    "TextDelta",
    "ToolCall",
    "ToolResult",
    "Usage",
    "events",
    "progress",
    "read_only",
    "step",
    "step_tool",
    "text_of",
]

_LATE = {
    "AsyncClient": "moorage._client",
    "Client": "moorage._blocking",
    "progress": "moorage._progress",
    "Routine": "moorage._routine",
    "step": "moorage._steps",
    "read_only": "moorage.adapters.once",
    "step_tool": "moorage.adapters.once",
    "MCPToolbox": "moorage._toolbox",
    "AlreadyDone": "moorage._errors",
    "ApiStatusError": "moorage._errors",
    "ConnectionLost": "moorage._errors",
    "Misuse": "moorage._errors",
    "MoorageError": "moorage._errors",
    "NotReady": "moorage._errors",
    "OutcomeUnknown": "moorage._errors",
    "StepFailed": "moorage._errors",
}


def __getattr__(name: str) -> Any:
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
