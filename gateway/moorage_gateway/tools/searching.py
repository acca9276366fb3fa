"""`toolSearch`: the two calls that a toolbox with it answers otherwise, and what is kept for them. Layer: engine; I/O by the upstreams.

A list asks the servers as ever, and tells the two meta tools; what they said is indexed at once, so that the turn's searches ask nobody.
What a search found is kept a (toolbox version, session). Both are recorded like any list: a later attempt of the turn reads the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from moorage_api.ledger.journal import Permits
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.kinds import Outlet
from moorage_gateway.tools import meta, results, rpc
from moorage_gateway.tools.calling import shown_result
from moorage_gateway.tools.listing import NoneTold, ToolList
from moorage_gateway.tools.names import Names

if TYPE_CHECKING:
    from moorage_gateway.tool_search import Answers, Index, Table

FRESH_S = 60.0
"""How long a list that was read serves searches."""
PARTLY_S = 5.0
"""The same, where a server told none."""
MOST_BOXES = 32
"""Toolboxes whose indexes one gateway keeps: half a kilobyte of vectors and about as much of words for each tool."""

Heard = tuple[dict[str, Any], dict[str, str]]
"""A list, and what each upstream calls itself."""


@dataclass(frozen=True)
class Indexed:
    """One version of a toolbox. `more`: the list's `_meta`."""

    version: str
    index: Index
    tools: dict[str, dict[str, Any]]
    more: dict[str, Any]


@dataclass
class _Box:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    spec: dict[str, Any] | None = None
    until: float = float("-inf")
    held: Indexed | None = None


class Searches:
    """Those of this process. `now` in seconds that only go forward. The table is read when the first toolbox needs it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._boxes: OrderedDict[str, _Box] = OrderedDict()
        self._table: Table | None = None
        self._answers: Answers | None = None

    async def of(
        self, key: str, names: Names, heard: Callable[[], Awaitable[Heard]], *, fresh: bool = False
    ) -> Indexed:
        """The toolbox `key` as it is; `fresh`: as it is now, whatever was read lately. Raises NoneTold."""
        box = self._boxes.setdefault(key, _Box())
        self._boxes.move_to_end(key)
        while len(self._boxes) > MOST_BOXES:
            self._boxes.popitem(last=False)
        async with box.lock:  # others that ask meanwhile get what this one reads
            if fresh or box.held is None or box.spec is not names.spec or self._now() >= box.until:
                found, titles = await heard()
                box.held = await self._indexed(names, found, titles, box.held)
                box.spec = names.spec
                box.until = self._now() + (PARTLY_S if box.held.more else FRESH_S)
            return box.held

    async def _indexed(
        self, names: Names, found: dict[str, Any], titles: dict[str, str], before: Indexed | None
    ) -> Indexed:
        tools, more = found["tools"], found.get("_meta", {})
        asked = {each.name: each.spec.get("examples") for each in names.upstreams}
        version = hashlib.sha256(orjson.dumps([tools, titles, asked], option=orjson.OPT_SORT_KEYS)).hexdigest()
        if before is not None and before.version == version:
            return Indexed(version, before.index, before.tools, more)
        index = await asyncio.to_thread(self._made, names, tools, titles)
        return Indexed(version, index, {tool["name"]: tool for tool in tools}, more)

    def _made(self, names: Names, tools: list[dict[str, Any]], titles: dict[str, str]) -> Index:
        # Here and not above: numpy and the table cost memory that only toolboxes with `toolSearch` are worth.
        from moorage_gateway.tool_search import Answers, Index, Table

        if self._table is None:
            self._table, self._answers = Table.load(), Answers()
        return Index.of([_tool(names, tool, titles) for tool in tools], self._table)

    def found(self, key: str, held: Indexed, session: str, query: str, most: int) -> list[dict[str, Any]]:
        """The definitions that fit best, best first."""
        assert self._answers is not None  # made with the first index
        names = self._answers.of(held.index, f"{key} {held.version}", session, query, most)
        return [held.tools[name] for name in names]


def _tool(names: Names, tool: dict[str, Any], titles: dict[str, str]) -> Any:
    from moorage_gateway.tool_search import Tool

    found = names.find(tool["name"])
    assert found is not None  # only such are listed
    said = str(tool.get("description") or tool.get("title") or "")
    upstream, own = found
    return Tool(upstream.name, tool["name"], said, own, titles.get(upstream.name, ""), upstream.examples(own))


@dataclass(frozen=True)
class Searched:
    """What both calls need: the toolbox' key, what is kept, and the list of all."""

    key: str
    searches: Searches
    every: ToolList

    async def held(self, *, fresh: bool) -> Indexed:
        """Raises NoneTold."""
        return await self.searches.of(self.key, self.every.names, self.every.heard, fresh=fresh)


@dataclass(frozen=True)
class MetaList(ToolList):
    """One prepared list of the two meta tools."""

    searched: Searched

    async def listed(self) -> dict[str, Any]:
        """See ToolList; the servers' own tools go into the index."""
        held = await self.searched.held(fresh=True)
        tools = meta.described(self.toolbox, [each.name for each in self.names.upstreams])
        return {"tools": tools} | ({"_meta": held.more} if held.more else {})


@dataclass(frozen=True)
class ToolSearch:
    """One prepared search: it reads."""

    searched: Searched
    message: rpc.Message
    query: str
    most: int
    session: str
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
        return {"kind": "tool", "toolbox": self.searched.every.toolbox, "tool": meta.SEARCH}

    def shown(self, answer: Answer) -> Answer:
        """See Rendering."""
        return shown_result(self.message, answer)

    def unknown(self) -> Answer:
        """Never for what reads; the shape is everyone's."""
        return rpc.result(results.failed("unreachable", "The search was lost. Search again."))

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """Never for what reads."""
        return self.unknown()

    async def perform(self, outlet: Outlet) -> None:
        """See Performed."""
        await outlet.sending()
        try:
            held = await self.searched.held(fresh=False)
            tools = self.searched.searches.found(self.searched.key, held, self.session, self.query, self.most)
            found = rpc.result(meta.told(tools, len(held.tools), held.more))
        except NoneTold as no:
            found = rpc.result(results.failed("unreachable", f"{no} Search again later."))
        outlet.begin(found.status, found.headers, streams=False)
        outlet.put(found.body)
