"""Toolboxes for the people who run them: what there is, what servers say of their tools, and a call by hand. Layer: engine.

Nothing here is of a turn: what is tried is run each time, and no journal has it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.catalog import ToolboxEntry
from moorage_api.ledger.journal import Outcome, Permits
from moorage_gateway.journal.answers import Headers
from moorage_gateway.journal.kinds import NoOutcome, NothingSent
from moorage_gateway.tools import definitions, results, rpc
from moorage_gateway.tools.kind import Find, Reached, Toolboxes
from moorage_gateway.tools.pins import digest, held_back
from moorage_gateway.tools.servers import ToolFault, ToolRefusal, Whose

LIST_S = 30.0
MOST_LEFT_OUT = 100
"""Of one server, that are named."""
NO_SUCH = "has `examples` in the manifest, but its server has no tool of that name"


@dataclass(frozen=True)
class Shown:
    """One tool. `name` is what agents call it, empty where they may not; `effect`: see Permits; `held`: not the pinned one."""

    name: str
    upstream: str
    tool: str
    description: str
    effect: Permits
    digest: str
    held: bool


@dataclass(frozen=True)
class Listed:
    """What servers say. `unavailable`: why one told nothing; `left_out`: what of one's list, or of
    the manifest's examples, is no tool, and why."""

    tools: list[Shown]
    unavailable: dict[str, str]
    left_out: dict[str, str]


class Trials:
    """What the control API asks of toolboxes."""

    def __init__(self, boxes: Toolboxes, find: Find, listed: Callable[[str], list[ToolboxEntry]]) -> None:
        """`find` by tenant and name, `listed` by tenant: the catalog's."""
        self._boxes = boxes
        self.find = find
        self.listed = listed

    async def tools(self, entry: ToolboxEntry, user: str) -> Listed:
        """Every tool of every server, also those that agents may not call, as `user` sees them."""
        found = Listed([], {}, {})
        await asyncio.gather(*(self._of(entry, each, found) for each in self._boxes.reached(entry, Whose(user=user))))
        order = [each.name for each in self._boxes.names(entry).upstreams]
        found.tools.sort(key=lambda each: order.index(each.upstream))
        return found

    async def _of(self, entry: ToolboxEntry, reached: Reached, into: Listed) -> None:
        upstream, names = reached.upstream, self._boxes.names(entry)
        try:
            server = reached.server(definitions.MOST_LIST)
            found = await server.tools(min(LIST_S, reached.seconds))
        except (ToolFault, ToolRefusal) as fault:
            into.unavailable[upstream.name] = str(fault)
            return
        left_out = list(server.left_out.items())[:MOST_LEFT_OUT]
        into.left_out.update({f"{upstream.name}: {what}": why for what, why in left_out})
        reached.seen.put(found)
        known = {each["name"] for each in found if isinstance(each, dict) and isinstance(each.get("name"), str)}
        strange = sorted((upstream.spec.get("examples") or {}).keys() - known)[:MOST_LEFT_OUT]
        into.left_out.update({f"{upstream.name}: {name}": NO_SUCH for name in strange})
        good = [(each, tool) for each in found[: definitions.MOST_TOOLS] if (tool := definitions.checked(each))]
        into.tools.extend(
            Shown(
                name=names.shown(upstream, tool["name"]) or "",
                upstream=upstream.name,
                tool=tool["name"],
                description=str(tool.get("description", "")),
                effect=upstream.permits(tool["name"]),
                digest=digest(each),
                held=held_back(upstream, each),
            )
            for each, tool in good
        )

    async def call(self, entry: ToolboxEntry, name: str, arguments: dict[str, Any], user: str) -> dict[str, Any] | None:
        """The result of one call that `user` makes, as an agent would read it; None where agents have no such tool."""
        message = rpc.Message(0, "tools/call", {"name": name, "arguments": arguments}, modern=False)
        prepared = self._boxes.called(entry, message, name, Whose(user=user))
        if prepared is None:
            return None
        outlet = _Outlet()
        try:
            await prepared.perform(outlet)
        except NothingSent as why:
            return results.failed("unreachable", f"'{name}' was not called: {why}. Try again.")
        except NoOutcome:
            return results.unknown(name, prepared.reached.upstream.name)
        found: dict[str, Any] = orjson.loads(outlet.body)["result"]
        return found


class _Outlet:
    """See `moorage_gateway.journal.kinds.Outlet`: of a call that nobody follows."""

    def __init__(self) -> None:
        self.body = b""
        self.passed_on = False
        self.call_id = f"call_{secrets.token_hex(16)}"

    async def sending(self) -> None:
        """Nothing to ask: no attempt can have been superseded."""

    def begin(self, status: int, headers: Headers, *, streams: bool) -> None:
        """Its head is known."""

    def put(self, piece: bytes, *, last: bool = False) -> None:
        """One piece is all of it."""
        self.body += piece

    def clear(self) -> None:
        """Forgets it."""
        self.body = b""

    def note(self, outcome: Outcome) -> None:
        """Of no turn: nothing is summed up."""
