"""One `tools/list`: every upstream is asked, and the list is recorded as read, so that a later attempt of the turn sees the same tools.
Layer: engine; I/O by the upstreams.

Upstreams that do not answer are left out and named; when none does, that is an error.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from moorage_api.ledger.journal import Permits
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.kinds import Outlet
from moorage_gateway.tools import definitions, rpc
from moorage_gateway.tools.definitions import Told
from moorage_gateway.tools.names import Names
from moorage_gateway.tools.servers import ToolFault, ToolRefusal

if TYPE_CHECKING:
    from moorage_gateway.tools.kind import Reached

UNAVAILABLE = "dev.moorage/unavailable"
"""In `_meta` of a list: upstreams whose tools are not in it."""
HELD = "dev.moorage/heldBack"
"""The same: tools whose definition is not the one that the manifest pins."""
LIST_S = 30.0
"""For one upstream's list, where a call of it may not take as long itself."""

log = logging.getLogger(__name__)


class NoneTold(Exception):
    """No server told its tools; `str()` says why."""


@dataclass(frozen=True)
class ToolList:
    """One prepared list."""

    toolbox: str
    reached: tuple[Reached, ...]
    names: Names
    message: rpc.Message
    fingerprint: str

    @property
    def permits(self) -> Permits:
        """It reads."""
        return "again"

    @property
    def bounded(self) -> None:
        """It costs nothing that is counted."""
        return None

    @property
    def tool(self) -> str:
        """No effect."""
        return ""

    @property
    def call(self) -> str:
        """Nobody is turned away to it."""
        return ""

    @property
    def what(self) -> dict[str, str]:
        """See Prepared."""
        return {"kind": "tools", "toolbox": self.toolbox}

    def shown(self, answer: Answer) -> Answer:
        """See Rendering."""
        text = rpc.refusal_text(answer)
        return rpc.shown(self.message, answer if text is None else rpc.error(rpc.INTERNAL, text))

    def unknown(self) -> Answer:
        """Never for what reads; the shape is everyone's."""
        return rpc.error(rpc.INTERNAL, "The list of tools was lost.")

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """Never for what reads."""
        return self.unknown()

    async def perform(self, outlet: Outlet) -> None:
        """See Prepared."""
        await outlet.sending()
        try:
            found = rpc.result(await self.listed())
        except NoneTold as no:
            found = rpc.error(rpc.INTERNAL, str(no))
        outlet.begin(found.status, found.headers, streams=False)
        outlet.put(found.body)

    async def listed(self) -> dict[str, Any]:
        """What every server says now, as a list is answered. Raises NoneTold."""
        return (await self.heard())[0]

    async def heard(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The same, and what each upstream that told its tools calls itself. Raises NoneTold."""
        told = await asyncio.gather(*(self._of(each) for each in self.reached))
        faults = {name: found for name, found in told if isinstance(found, str)}
        if len(faults) == len(told):
            text = "; ".join(f"{name}: {text}" for name, text in faults.items())
            raise NoneTold(f"No server of toolbox '{self.toolbox}' told its tools: {text}.")
        titles = {name: found.title for name, found in told if isinstance(found, Told)}
        return self._list([found for _, found in told if isinstance(found, Told)], faults), titles

    def _list(self, told: list[Told], faults: dict[str, str]) -> dict[str, Any]:
        kept, size = [], 0
        for tool in (tool for each in told for tool in each.tools):
            size += len(orjson.dumps(tool))
            if size > definitions.MOST_LIST:
                log.warning("toolbox %s has more than %d bytes of definitions", self.toolbox, definitions.MOST_LIST)
                break
            kept.append(tool)
        meta = {UNAVAILABLE: sorted(faults), HELD: sorted(name for each in told for name in each.held)}
        meta = {name: value for name, value in meta.items() if value}
        return {"tools": kept} | ({"_meta": meta} if meta else {})

    async def _of(self, reached: Reached) -> tuple[str, Told | str]:
        """The upstream's name, and its tools, or why there are none."""
        name = reached.upstream.name
        left_alone = reached.gate.closed(reached.now())
        if left_alone:
            return name, f"it failed and is left alone for another {max(1, round(left_alone))} s"
        try:
            async with asyncio.timeout(LIST_S):
                await reached.gate.places.acquire()
        except TimeoutError:
            return name, "all its places are taken"
        try:
            server = reached.server(definitions.MOST_LIST)
            found = await server.tools(min(LIST_S, reached.seconds))
        except ToolFault as fault:
            reached.failed(fault)
            return name, str(fault)
        except ToolRefusal as no:
            reached.gate.good()
            return name, f"it refused: {no}"
        finally:
            reached.gate.places.release()
        reached.gate.good()
        reached.seen.put(found)
        told = replace(definitions.named(self.names, reached.upstream, found), title=server.title)
        if told.wrong:
            log.warning("toolbox %s: %d definitions of %s are none and left out", self.toolbox, told.wrong, name)
        if told.held:
            log.warning(
                "toolbox %s: %s are described otherwise than pinned, held back", self.toolbox, ", ".join(told.held)
            )
        return name, told
