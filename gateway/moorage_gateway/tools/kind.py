"""The call kind of tools: `/toolboxes/NAME/mcp`, one MCP URL a toolbox. Layer: engine; I/O by the upstreams.

`tools/call` and `tools/list` are calls of the journal; handshakes, `ping` and notifications are answered here, and nobody is asked. An
upstream is of a type: a field of the manifest (`mcp`, `openapi`, `stdio`, `agent`) and a class behind `ToolServer` (`making.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moorage_api.catalog import ToolboxEntry
from moorage_api.kinds import quantities
from moorage_api.ledger.tool_sessions import ToolSessionLedger
from moorage_api.wire.calls import TOOL_SEARCH, TOOLBOXES
from moorage_api.wire.headers import TRACEPARENT
from moorage_gateway.clock import Clock
from moorage_gateway.consents.shapes import has_per_user, is_per_user
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.kinds import Asked, CallRefused
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.models.identity import WorkloadTokens
from moorage_gateway.tools import fingerprints, meta, results, rpc
from moorage_gateway.tools.agents import Asks
from moorage_gateway.tools.approving import Approves
from moorage_gateway.tools.calling import ToolCall
from moorage_gateway.tools.gates import Gate, Gates
from moorage_gateway.tools.listing import ToolList
from moorage_gateway.tools.making import Making, OfUsers, Openers
from moorage_gateway.tools.names import Names, Upstream, place_of
from moorage_gateway.tools.pins import Seen
from moorage_gateway.tools.searching import MetaList, Searched, Searches, ToolSearch
from moorage_gateway.tools.servers import ConsentNeeded, ToolFault, ToolServer, Whose
from moorage_gateway.tools.stdio import Programs

_TARGET = re.compile(rf"{TOOLBOXES}([a-z0-9][a-z0-9-]{{0,62}})/mcp/?(?:\?(.*))?\Z", re.DOTALL)
_SEARCHES = {"": None, f"{TOOL_SEARCH}=true": True, f"{TOOL_SEARCH}=false": False}
"""Queries of a toolbox' URL: whether this client is shown `tool_search`; None: as the manifest says."""
_SHOWN = 20
"""Names of toolboxes that a refusal lists."""

BY_HAND = Whose()


@dataclass(frozen=True)
class People:
    """Who else has a say: `asks` makes turns of called agents, `approves` knows what persons have said of calls, `programs` are those
    that the provider runs, `of_users` what users have consented to, `remembers` the sessions that servers keep."""

    asks: Asks
    approves: Approves
    programs: Programs
    of_users: OfUsers
    remembers: ToolSessionLedger


Find = Callable[[str, str], ToolboxEntry | None]


@dataclass(frozen=True)
class Reached:
    """One upstream with what is needed to ask it."""

    toolbox: str
    upstream: Upstream
    gate: Gate
    seen: Seen
    now: Callable[[], float]
    whose: Whose
    approves: Approves
    make: Callable[[Upstream, int | None], ToolServer]

    @property
    def seconds(self) -> float:
        """Of one call."""
        return quantities.seconds(str(self.upstream.spec["timeout"]))

    def server(self, most: int | None = None) -> ToolServer:
        """The upstream, for one call. `most` bytes of an answer, else the manifest's. Raises ToolFault when its credential is missing."""
        return self.make(self.upstream, most)

    def failed(self, fault: ToolFault) -> None:
        """Counts it, where it is the server's failure; what asked no server says nothing of it."""
        if isinstance(fault, ConsentNeeded):
            return
        if fault.counts:
            self.gate.bad(self.now())
        else:
            self.gate.good()


class Toolboxes:
    """Finds the toolbox, prepares. `find` is the catalog's, by tenant and name; `version` is told to servers and clients."""

    prefix = TOOLBOXES

    def __init__(
        self,
        find: Find,
        upstreams: Upstreams,
        credentials: Credentials,
        clock: Clock,
        *,
        identity: WorkloadTokens,
        people: People,
        version: str,
    ) -> None:
        self._find = find
        self._clock = clock
        self._people = people
        self._version = version
        self._gates = Gates()
        self._searches = Searches(clock.monotonic)
        self._making = Making(
            upstreams,
            Openers(credentials, identity, people.of_users),
            clock,
            asks=people.asks,
            programs=people.programs,
            remembers=people.remembers,
            version=version,
        )
        self.sessions = self._making.sessions
        self._seen: dict[tuple[str, str], Seen] = {}
        self._names: dict[str, tuple[dict[str, Any], Names]] = {}

    def prepare(self, asked: Asked) -> ToolCall | ToolList | ToolSearch:
        """See CallKind."""
        entry, searching = self._entry(asked)
        if asked.method != "POST":
            text = "A toolbox answers each POST by itself: there is no stream to GET and no session to DELETE."
            answer = rpc.failure(405, None, rpc.INVALID, text)
            raise CallRefused(Answer(405, (*answer.headers, ("allow", "POST")), answer.body))
        try:
            message = rpc.read(asked.headers, asked.body)
        except rpc.Rejected as no:
            raise CallRefused(no.answer) from None
        if message is None:
            raise CallRefused(rpc.accepted())
        greeting = rpc.greeting(message, entry.name, self._version, str(entry.spec["description"]))
        if greeting is not None:
            raise CallRefused(greeting)
        match message.method:
            case "tools/call" if searching:
                return self._meta_call(entry, message, _whose(asked))
            case "tools/call":
                return self._call(entry, message, _whose(asked))
            case "tools/list":
                return self._list(entry, message, _whose(asked), searching=searching)
            case method:
                raise CallRefused(rpc.refuse(message, rpc.METHOD, f"A toolbox has tools only, and no {method[:64]}."))

    def _entry(self, asked: Asked) -> tuple[ToolboxEntry, bool]:
        """The toolbox, and whether this client is shown `tool_search` in place of all."""
        found = _TARGET.match(asked.target)
        if found is None:
            text = "Tools are at /toolboxes/NAME/mcp."
            raise CallRefused(rpc.failure(404, None, rpc.INVALID, text))
        query = found[2] or ""
        if query not in _SEARCHES:
            text = f"After /mcp may stand ?{TOOL_SEARCH}=true or ?{TOOL_SEARCH}=false, and nothing else."
            raise CallRefused(rpc.failure(400, None, rpc.INVALID, text))
        name, may = found[1], [str(each) for each in asked.spec.get("toolboxes") or []]
        entry = self._find(asked.tenant, name) if name in may else None
        if entry is None:
            text = f"'{name}' is not a toolbox that agent '{asked.agent}' may use: add it to spec.toolboxes"
            if name in may:
                text = f"There is no Toolbox '{name}' (or it is not ready), though spec.toolboxes names it"
            raise CallRefused(
                rpc.failure(403, None, rpc.INVALID, f"{text}; it has: {', '.join(may[:_SHOWN]) or 'none'}.")
            )
        said = _SEARCHES[query]
        return entry, bool(entry.spec.get("toolSearch")) if said is None else said

    def _call(self, entry: ToolboxEntry, message: rpc.Message, whose: Whose) -> ToolCall:
        name, arguments = message.params.get("name"), message.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            text = "tools/call has a name, and arguments that are an object."
            raise CallRefused(rpc.refuse(message, rpc.PARAMS, text))
        made = self.called(entry, message, name, whose)
        if made is None:
            text = f"Unknown tool: '{name[:128]}'; toolbox '{entry.name}' has none of that name for agents."
            raise CallRefused(rpc.refuse(message, rpc.PARAMS, text))
        return made

    def _list(self, entry: ToolboxEntry, message: rpc.Message, whose: Whose, *, searching: bool) -> ToolList:
        if message.params.get("cursor") is not None:
            raise CallRefused(rpc.refuse(message, rpc.PARAMS, "The list has one page: ask without a cursor."))
        every = self._every(entry, message, whose)
        if not searching:
            return every
        searched = Searched(_shelf(entry, whose), self._searches, every)
        print_ = fingerprints.of_list(entry.name, searching=True)
        return MetaList(entry.name, every.reached, every.names, message, print_, searched)

    def _every(self, entry: ToolboxEntry, message: rpc.Message, whose: Whose) -> ToolList:
        names, print_ = self.names(entry), fingerprints.of_list(entry.name)
        return ToolList(entry.name, self.reached(entry, whose), names, message, print_)

    def _meta_call(self, entry: ToolboxEntry, message: rpc.Message, whose: Whose) -> ToolCall | ToolSearch:
        """A search, or the call of a tool: by `call_tool`, or by its name."""
        if not isinstance(message.params.get("arguments"), dict | None):
            return self._call(entry, message, whose)  # which refuses it
        try:
            match message.params.get("name"):
                case meta.SEARCH:
                    query, most = meta.asked(message)
                    searched = Searched(_shelf(entry, whose), self._searches, self._every(entry, message, whose))
                    print_ = fingerprints.of_call(entry.name, message.params)
                    return ToolSearch(searched, message, query, most, whose.session, print_)
                case meta.CALL:
                    inside, name = meta.inner(message)
                    made = self.called(entry, inside, name, whose)
                    if made is None:
                        raise meta.BadArguments(f"There is no tool '{name[:128]}'. Find its name with {meta.SEARCH}.")
                    return made
                case _:
                    return self._call(entry, message, whose)
        except meta.BadArguments as no:
            raise CallRefused(rpc.shown(message, rpc.result(results.failed("refused", str(no))))) from None

    def called(self, entry: ToolboxEntry, message: rpc.Message, name: str, whose: Whose = BY_HAND) -> ToolCall | None:
        """The call of a tool by the name that agents know; None where they have none of that name."""
        found = self.names(entry).find(name)
        if found is None:
            return None
        upstream, tool = found
        print_ = fingerprints.of_call(entry.name, message.params)
        return ToolCall(self._reached(entry, upstream, whose), message, name, tool, print_)

    def reached(self, entry: ToolboxEntry, whose: Whose = BY_HAND) -> tuple[Reached, ...]:
        """Its upstreams, for that attempt of an agent's."""
        return tuple(self._reached(entry, each, whose) for each in self.names(entry).upstreams)

    def names(self, entry: ToolboxEntry) -> Names:
        """Its names, made once a manifest."""
        known = self._names.get(entry.field)
        if known is None or known[0] is not entry.spec:
            known = self._names[entry.field] = entry.spec, Names(entry.spec)
        return known[1]

    def _reached(self, entry: ToolboxEntry, upstream: Upstream, whose: Whose) -> Reached:
        gate = self._gates.of(entry.field, upstream, entry.spec["breaker"])

        def make(upstream: Upstream, most: int | None) -> ToolServer:
            return self._making.made(entry, upstream, most, whose)

        # By what is asked, too: another server's definitions say nothing of this one's.
        key = entry.field, f"{upstream.name} {place_of(upstream.spec)}"
        seen = Seen(self._clock.monotonic)
        if not is_per_user(upstream.spec):  # what a server tells one user says nothing of what it tells another
            seen = self._seen.setdefault(key, seen)
        return Reached(entry.name, upstream, gate, seen, self._clock.monotonic, whose, self._people.approves, make)


def _shelf(entry: ToolboxEntry, whose: Whose) -> str:
    """Under which name what was read of a toolbox is kept for searches: its user's own, where one of its servers is opened by users."""
    return f"{entry.field} {whose.session or whose.user}" if has_per_user(entry) else entry.field


def _whose(asked: Asked) -> Whose:
    trace = next((value for name, value in asked.headers if name == TRACEPARENT), "")
    return Whose(asked.session, asked.turn, trace)
