"""An upstream that is a hosted agent of the same tenant: one tool, `ask`. Layer: engine; turns are made by `Asks`.

The called agent works in a turn of its own, which is as durable as any: whoever asks under the same call id meets the same turn. So a
call that its gateway did not live to finish is no unknown outcome; another gateway joins it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from moorage_gateway.tools.rpc import PARAMS
from moorage_gateway.tools.servers import CALL_ID, Sending, ToolFault, ToolRefusal, Whose

ASK: Final = "ask"
INPUT: Final = "input"
_SCHEMA: Final = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "What the agent is asked or told, with all that it needs to know."}},
    "required": [INPUT],
    "additionalProperties": False,
}  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """Who is called and for whom. `place`: `TOOLBOX/UPSTREAM`; `fresh`: in a session of its own."""

    tenant: str
    agent: str
    place: str
    whose: Whose
    fresh: bool


class Asks(Protocol):
    """Turns of called agents."""

    async def ask(self, manner: Manner, call_id: str, text: str, seconds: float, sending: Sending) -> dict[str, Any]:
        """The final Response object of the one turn of that call. Raises ToolFault, ToolRefusal, NothingSent (ask again: it is the same
        turn), and what `sending` raises."""


class AgentUpstream:
    """See `ToolServer`."""

    def __init__(self, manner: Manner, description: str, most: int, asks: Asks) -> None:
        self._manner = manner
        self._description = description or f"Asks the agent '{manner.agent}', and gives its answer."
        self._most = most
        self._asks = asks
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        return [{"name": ASK, "description": self._description, "inputSchema": _SCHEMA}]

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        text = arguments.get(INPUT)
        if tool != ASK:
            raise ToolRefusal(PARAMS, f"an agent has one tool, {ASK}, and no '{tool[:64]}'")
        if not isinstance(text, str) or not text or arguments.keys() - {INPUT}:
            raise ToolRefusal(PARAMS, f"give {INPUT}, a text that is not empty, and nothing else")
        if not self._manner.whose.turn:
            raise ToolRefusal(PARAMS, "an agent is called by another one's turn; by hand, ask it at its own URL")
        found = await self._asks.ask(self._manner, str(meta[CALL_ID]), text, seconds, sending)
        return self._told(found)

    def _told(self, response: dict[str, Any]) -> dict[str, Any]:
        """The answer as a tool's result."""
        said, status = _text(response), response.get("status")
        if len(said.encode(errors="replace")) > self._most:
            raise ToolFault(f"its answer is longer than {self._most} bytes", sent=True, large=True)
        parts, agent = [said] if said or status == "completed" else [], self._manner.agent
        if status != "completed":
            parts.insert(0, f"agent '{agent}' {_why(response)}" + (" It had said:" if said else ""))
        waiting = [item for item in response.get("output") or () if item.get("type") == "mcp_approval_request"]
        if waiting:
            tools = ", ".join(str(item.get("name")) for item in waiting)
            parts.append(
                f"(It waits for a person's approval of {tools}, to be given to agent '{agent}' after {response['id']}.)"
            )
        links = [item for item in response.get("output") or () if item.get("type") == "oauth_consent_request"]
        parts += [f"(It waits for the user's consent: {item.get('consent_link')})" for item in links]
        content = [{"type": "text", "text": part} for part in parts]
        return {"content": content, "isError": status != "completed"}


def _text(response: dict[str, Any]) -> str:
    items = [item for item in response.get("output") or () if item.get("type") == "message"]
    parts = [part for item in items for part in item.get("content") or () if part.get("type") == "output_text"]
    return "".join(str(part.get("text", "")) for part in parts)


def _why(response: dict[str, Any]) -> str:
    match response.get("status"):
        case "failed":
            return f"failed: {(response.get('error') or {}).get('message')}"
        case "incomplete":
            return f"ended early ({(response.get('incomplete_details') or {}).get('reason')})."
        case _:
            return "was stopped before it had answered."
