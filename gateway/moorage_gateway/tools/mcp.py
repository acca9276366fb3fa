"""An upstream that speaks MCP over streamable HTTP, of either era. Layer: I/O, by `models/asking.py`: one resolver, one rule of addresses.

    2026-07-28     one POST a call
    2025-11-25     initialize and initialized once for each session of an agent (`sessions.py`, `shared_sessions.py`), then one POST a
                   call; calls by hand, and servers without session ids, get a handshake each

Which of them a server speaks is asked once (`server/discover`) and remembered in this process. A request is sent exactly once: no redirect
is followed, nothing is repeated below the journal. An answer is JSON or an event stream; of either, as much is read as may be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_api.ledger.tool_sessions import ServerSession
from moorage_gateway.models.asking import Coming, Upstreams
from moorage_gateway.tools import rpc
from moorage_gateway.tools.messages import Events, Reading, answers, listed, result_of, title_of
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.reading import answered, request
from moorage_gateway.tools.servers import LOST, Sending, ToolFault, ToolRefusal
from moorage_gateway.tools.sessions import Kept, Sessions
from moorage_gateway.tools.shared_sessions import SharedSessions, first_number

PROBE_S = 10.0
"""For `server/discover`, and no more than a third of the call's time: some servers of the older era never answer what they do not know."""
GOODBYE_S = 2.0
MOST_ERAS = 4096

_GONE: Final = 404
"""Of HTTP, to a request in a session: by the specification the server knows no such session, and has done nothing. An error beside it has
no id then; one that names a call may have come of it, and that call is not sent again."""
_CALL: Final = "tools/call"
_DOUBTED: Final = frozenset({400, _GONE})
"""Some say 400. That may mean another thing, so the request is not sent again; the next one begins a session."""
_WRONG_ERA: Final = frozenset({rpc.UNSUPPORTED, rpc.METHOD, rpc.INVALID})


@dataclass(frozen=True)
class Place:
    """Where it is and what opens it. `key` names it among the eras that are remembered; `most`: bytes of an answer."""

    key: str
    url: str
    opening: Opening
    most: int
    whose: str = ""
    """The agent's session for which the server keeps one of its own, and by what it is opened; empty: none is kept."""


@dataclass(frozen=True)
class _Session:
    """How the server is spoken to: the newer era has no session, nor some servers of the older one."""

    version: str
    id: str = ""
    kept: Kept | None = None

    def number(self) -> int:
        """An id for the next request."""
        return 1 if self.kept is None else self.kept.next()

    @property
    def modern(self) -> bool:
        return self.version == rpc.NEW


class Eras:
    """Which servers speak the newer era, and what they call themselves, as far as this process has asked."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._titles: dict[str, str] = {}

    def get(self, key: str) -> bool | None:
        """None: nobody has asked."""
        return self._known.get(key)

    def put(self, key: str, modern: bool) -> None:
        """From now on."""
        if len(self._known) >= MOST_ERAS:
            self._known.clear()
        self._known[key] = modern

    def title(self, key: str) -> str:
        """What it called itself when it was greeted last; empty where that is not known."""
        return self._titles.get(key, "")

    def called(self, key: str, title: str) -> None:
        """From now on."""
        if len(self._titles) >= MOST_ERAS:
            self._titles.clear()
        self._titles[key] = title

    def forget(self, key: str) -> None:
        """It is asked again."""
        self._known.pop(key, None)


@dataclass(frozen=True)
class Known:
    """What this process remembers of servers."""

    eras: Eras
    sessions: Sessions
    shared: SharedSessions
    """What all gateways remember of sessions."""


class McpUpstream:
    """See `ToolServer`."""

    def __init__(self, place: Place, upstreams: Upstreams, known: Known, version: str) -> None:
        self._place = place
        self._upstreams = upstreams
        self._eras = known.eras
        self._sessions = known.sessions
        self._shared = known.shared
        self._reading = Reading(place.opening, place.most)
        self._client = {"name": "moorage", "version": version}
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        async with self._session(seconds) as session:
            found = await listed(lambda params: self._request(session, "tools/list", params))
        self.title = self._eras.title(self._place.key)
        return found

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        async with self._session(seconds) as session:
            params = {"name": tool, "arguments": arguments, "_meta": meta}
            await sending()
            return await self._request(session, _CALL, params)

    @contextlib.asynccontextmanager
    async def _session(self, seconds: float) -> AsyncIterator[_Session]:
        """The deadline, and around it the goodbye, which must not cost an answer."""
        session: _Session | None = None
        try:
            async with asyncio.timeout(seconds):
                session = await self._opened(min(PROBE_S, seconds / 3))
                self._reading.begin()
                yield session
        except TimeoutError:
            raise ToolFault(f"it did not answer within {seconds:.3g} s", sent=session is not None, late=True) from None
        finally:
            if session is not None and session.id and session.kept is None:
                await self._goodbye(session)

    async def _opened(self, patience: float) -> _Session:
        key = self._place.key
        modern = self._eras.get(key)
        if modern is None:
            modern = await self._probed(patience)
            self._eras.put(key, modern)
        if modern:
            return _Session(rpc.NEW)
        try:
            return await self._kept() if self._place.whose else await self._shaken()
        except (ToolFault, ToolRefusal):
            self._eras.forget(key)  # it may be a server of the newer era that was slow, or a new one
            raise

    async def _kept(self) -> _Session:
        """The session that the server has for this agent's."""
        key = self._place.key, self._place.whose
        async with self._sessions.opening(key):
            kept = self._sessions.get(key)
            found = await (self._shared.found(key) if kept is None else self._shared.used(key, kept))
            if kept is not None and found is not None and found.id == kept.id:
                return _Session(kept.version, kept.id, kept)
            number = first_number()
            if found is None:
                fresh = await self._shaken()
                if not fresh.id:
                    return fresh
                begun = ServerSession(fresh.version, fresh.id, self._eras.title(self._place.key))
                found, number = await self._shared.begun(key, begun), 0
                if found.id != fresh.id:
                    await self._goodbye(fresh)
                    number = first_number()
            if found.title:
                self._eras.called(self._place.key, found.title)
            kept = Kept(found.version, found.id, self._ended, number=number, title=found.title)
            self._sessions.put(key, kept)
        return _Session(kept.version, kept.id, kept)

    async def _ended(self, kept: Kept) -> None:
        if await self._shared.over((self._place.key, self._place.whose), kept):
            await self._goodbye(_Session(kept.version, kept.id))

    async def _shaken(self) -> _Session:
        """The handshake of the older era."""
        params = {"protocolVersion": rpc.OLD[-1], "capabilities": {}, "clientInfo": self._client}
        fresh = _Session("")
        async with self._asked(fresh, 0, "initialize", params) as coming:
            answer = await self._answer(coming, 0)
            number = coming.header("mcp-session-id")
        self._eras.called(self._place.key, title_of(answer))
        version = answer.get("protocolVersion")
        if version not in rpc.OLD:
            raise ToolFault("it speaks no version of MCP that is known here", sent=False, final=True)
        session = _Session(str(version), number if number.isascii() and number.isprintable() else "")
        async with self._asked(session, None, "notifications/initialized", {}) as coming:
            if coming.status >= 400:
                raise ToolFault(f"it answered {coming.status} to the handshake", sent=False, status=coming.status)
        return session

    async def _probed(self, patience: float) -> bool:
        """Whether it speaks the newer era. What is no clear yes is a no: the older handshake then says what is wrong."""
        try:
            async with asyncio.timeout(patience), self._asked(_Session(rpc.NEW), 0, "server/discover", {}) as coming:
                answer = await self._answer(coming, 0)
        except ToolRefusal:
            return False
        except TimeoutError:
            return False
        except ToolFault as fault:
            if not fault.status:
                raise
            return False
        self._eras.called(self._place.key, title_of(answer))
        versions = answer.get("supportedVersions")
        return isinstance(versions, list) and rpc.NEW in versions

    async def _request(self, session: _Session, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request; in a new session, once, where the server has forgotten the one it was asked in."""
        try:
            return await self._once(session, method, params)
        except (ToolRefusal, ToolFault) as why:
            if session.kept is None or why.status not in _DOUBTED:
                raise
            # In Redis first: another call that finds none here must not find it there.
            await self._shared.forgotten((self._place.key, self._place.whose), session.kept)
            self._sessions.drop((self._place.key, self._place.whose), session.kept)
            if why.status != _GONE or (method == _CALL and isinstance(why, ToolRefusal) and why.named):
                raise
        return await self._once(await self._kept(), method, params)

    async def _once(self, session: _Session, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = session.number()
        try:
            async with self._asked(session, number, method, params) as coming:
                return await self._answer(coming, number)
        except ToolRefusal as no:
            if no.code in _WRONG_ERA:
                self._eras.forget(self._place.key)
            raise
        except ToolFault as fault:
            if fault.status in (400, 404, 405):
                self._eras.forget(self._place.key)
            raise

    @contextlib.asynccontextmanager
    async def _asked(
        self, session: _Session, number: int | None, method: str, params: dict[str, Any]
    ) -> AsyncIterator[Coming]:
        """One POST. Raises ToolFault."""
        headers = self._headers(session)
        if session.modern:
            headers["mcp-method"] = method
            if method == _CALL:
                headers["mcp-name"] = str(params["name"])
            own = {"protocolVersion": rpc.NEW, "clientCapabilities": {}, "clientInfo": self._client}
            params = {**params, "_meta": {**params.get("_meta", {}), **{rpc.META + k: v for k, v in own.items()}}}
        said = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if number is None else {"id": number})
        async with answered(self._upstreams, request("POST", self._place.url, headers, orjson.dumps(said))) as coming:
            yield coming

    def _headers(self, session: _Session) -> dict[str, str]:
        found = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            **dict(self._place.opening.headers),
        }
        if session.version:
            found["mcp-protocol-version"] = session.version
        if session.id:
            found["mcp-session-id"] = session.id
        return found

    async def _answer(self, coming: Coming, number: int) -> dict[str, Any]:
        """The result under that id. Raises ToolFault, ToolRefusal."""
        if coming.status in LOST:
            raise ToolFault(f"it answered {coming.status}", sent=True, status=coming.status)
        if coming.streams and coming.status == 200:
            message = await self._streamed(coming, number)
        else:
            parts: list[bytes] = []
            async for piece in coming.pieces():
                self._reading.take(piece)
                parts.append(piece)
            message = self._reading.parsed(b"".join(parts))
        return result_of(message, number, coming.status)

    async def _streamed(self, coming: Coming, number: int) -> dict[str, Any] | None:
        """The message under that id, out of an event stream: what comes beside it (progress, logs) is nobody's here."""
        events = Events()
        async for piece in coming.pieces():
            self._reading.take(piece)
            for _, data in events.of(piece):
                message = self._reading.parsed(data)
                if answers(message, number):
                    return message
        raise ToolFault("its stream ended without an answer", sent=True)

    async def _goodbye(self, session: _Session) -> None:
        asked = request("DELETE", self._place.url, self._headers(session))
        with contextlib.suppress(ToolFault, TimeoutError):
            async with asyncio.timeout(GOODBYE_S), answered(self._upstreams, asked):
                pass
