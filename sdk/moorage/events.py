"""The typed events an agent may produce; every protocol is rendered from them.

Layer: SDK, public. An agent yields these (or plain text, which is a `TextDelta`), an adapter translates a framework's own
events into them, and `moorage.serve.rendering` turns them into the events of the Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer. Consecutive deltas form one message."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More text of the agent's reasoning, shown apart from the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent called a tool. `args` is a JSON object, or the JSON text of one as a model wrote it."""

    id: str
    name: str
    args: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the tool call `id` gave back: text, or anything that JSON can hold."""

    id: str
    output: Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens used since the last `Usage` of this turn; several add up."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Replaces the session's state (`ctx.state`); kept when the turn completes, seen by the session's next turn."""

    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A whole output item in the shape of the Responses API. Its id is given by the server."""

    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Error:
    """The agent failed and says why: the response ends `failed`. It is an answer, so it is never tried again."""

    message: str
    code: str = "server_error"


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over; what follows is ignored. `incomplete` names why it is cut short (`max_output_tokens` …)."""

    incomplete: str | None = None


Event = TextDelta | ReasoningDelta | ToolCall | ToolResult | Usage | State | Item | Error | Done
