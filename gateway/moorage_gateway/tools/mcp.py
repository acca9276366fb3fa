"""An upstream that speaks MCP over streamable HTTP, of either era. Layer: I/O, by `models/asking.py`: one resolver, one rule of addresses.

    2026-07-28     one POST a call
    2025-11-25     initialize and initialized once for each session of an agent (`sessions.py`), then one POST a call; calls by hand, and
                   servers without session ids, get a handshake each

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

from moorage_api.errors import ApiError
from moorage_gateway.models import hiding
from moorage_gateway.models.asking import AskFault, Coming, Request, Upstreams
from moorage_gateway.request import parse_json
from moorage_gateway.tools import rpc
from moorage_gateway.tools.results import MOST_TEXT
from moorage_gateway.tools.servers import LOST, Sending, ToolFault, ToolRefusal
from moorage_gateway.tools.sessions import Kept, Sessions

CONNECT_S = 10.0
PROBE_S = 10.0
"""For `server/discover`, and no more than a third of the call's time: some servers of the older era never answer what they do not know."""
GOODBYE_S = 2.0
MOST_PAGES = 32
MOST_ERAS = 4096

_GONE: Final = 404
"""Of HTTP, to a request in a session: by the specification the server knows no such session, and has done nothing."""
_DOUBTED: Final = frozenset({400, _GONE})
"""Some say 400. That may mean another thing, so the request is not sent again; the next one begins a session."""
_WRONG_ERA: Final = frozenset({rpc.UNSUPPORTED, rpc.METHOD, rpc.INVALID})


@dataclass(frozen=True)
class Place:
    """Where it is and what opens it. `key` names it among the eras that are remembered; `most`: bytes of an answer."""

    key: str
    url: str
    opening: tuple[tuple[str, str], ...]
    secret: str
    most: int
    whose: str = ""
    """The agent's session for which the server keeps one of its own; empty: none is kept."""


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
    """Which servers speak the newer era, as far as this process has asked."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def get(self, key: str) -> bool | None:
        """None: nobody has asked."""
        return self._known.get(key)

    def put(self, key: str, modern: bool) -> None:
        """From now on."""
        if len(self._known) >= MOST_ERAS:
            self._known.clear()
        self._known[key] = modern

    def forget(self, key: str) -> None:
        """It is asked again."""
        self._known.pop(key, None)


@dataclass(frozen=True)
class Known:
    """What this process remembers of servers."""

    eras: Eras
    sessions: Sessions


class McpUpstream:
    """See `ToolServer`."""

    def __init__(self, place: Place, upstreams: Upstreams, known: Known, version: str) -> None:
        self._place = place
        self._upstreams = upstreams
        self._eras = known.eras
        self._sessions = known.sessions
        self._taken = 0
        self._client = {"name": "moorage", "version": version}

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        found: list[Any] = []
        async with self._session(seconds) as session:
            cursor: str | None = None
            for _ in range(MOST_PAGES):
                params = {} if cursor is None else {"cursor": cursor}
                answer = await self._request(session, "tools/list", params)
                tools, following = answer.get("tools"), answer.get("nextCursor")
                if not isinstance(tools, list):
                    raise ToolFault("its list of tools is none", sent=True)
                found += tools
                if not isinstance(following, str):
                    return found
                cursor = following
        raise ToolFault(f"its list of tools has more than {MOST_PAGES} pages", sent=True)

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        async with self._session(seconds) as session:
            params = {"name": tool, "arguments": arguments, "_meta": meta}
            await sending()
            return await self._request(session, "tools/call", params)

    @contextlib.asynccontextmanager
    async def _session(self, seconds: float) -> AsyncIterator[_Session]:
        """The deadline, and around it the goodbye, which must not cost an answer."""
        session: _Session | None = None
        try:
            async with asyncio.timeout(seconds):
                session = await self._opened(min(PROBE_S, seconds / 3))
                self._taken = 0
                yield session
        except TimeoutError:
            raise ToolFault(f"it did not answer within {seconds:g} s", sent=session is not None, late=True) from None
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
            if kept is None:
                fresh = await self._shaken()
                if not fresh.id:
                    return fresh
                kept = Kept(fresh.version, fresh.id, self._ended)
                self._sessions.put(key, kept)
        return _Session(kept.version, kept.id, kept)

    async def _ended(self, kept: Kept) -> None:
        await self._goodbye(_Session(kept.version, kept.id))

    async def _shaken(self) -> _Session:
        """The handshake of the older era."""
        params = {"protocolVersion": rpc.OLD[-1], "capabilities": {}, "clientInfo": self._client}
        fresh = _Session("")
        async with self._asked(fresh, 0, "initialize", params) as coming:
            answer = await self._answer(coming, 0)
            number = coming.header("mcp-session-id")
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
        versions = answer.get("supportedVersions")
        return isinstance(versions, list) and rpc.NEW in versions

    async def _request(self, session: _Session, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request; in a new session, once, where the server has forgotten the one it was asked in."""
        try:
            return await self._once(session, method, params)
        except (ToolRefusal, ToolFault) as why:
            if session.kept is None or why.status not in _DOUBTED:
                raise
            self._sessions.drop((self._place.key, self._place.whose), session.kept)
            if why.status != _GONE:
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
            if method == "tools/call":
                headers["mcp-name"] = str(params["name"])
            own = {"protocolVersion": rpc.NEW, "clientCapabilities": {}, "clientInfo": self._client}
            params = {**params, "_meta": {**params.get("_meta", {}), **{rpc.META + k: v for k, v in own.items()}}}
        said = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if number is None else {"id": number})
        request = Request("POST", self._place.url, headers, orjson.dumps(said), CONNECT_S, _FOREVER, _FOREVER)
        try:
            async with self._upstreams.ask(request) as coming:
                if 300 <= coming.status < 400:
                    raise ToolFault("it redirects elsewhere; write the place it means as url", sent=True, final=True)
                yield coming
        except AskFault as fault:
            raise ToolFault(str(fault), sent=fault.sent, late=fault.late, final=fault.final) from None

    def _headers(self, session: _Session) -> dict[str, str]:
        found = {
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "moorage",
            **dict(self._place.opening),
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
                self._take(piece)
                parts.append(piece)
            message = self._parsed(b"".join(parts))
        if message is None or message.get("jsonrpc") != "2.0" or not _is_to(message, number):
            if coming.status != 200:
                raise ToolFault(f"it answered {coming.status}", sent=True, status=coming.status)
            raise ToolFault("its answer is no answer of MCP", sent=True)
        error = message.get("error")
        if isinstance(error, dict):
            code, text = error.get("code"), error.get("message")
            code = code if isinstance(code, int) else rpc.INTERNAL
            raise ToolRefusal(code, str(text)[:MOST_TEXT], status=coming.status)
        result = message.get("result")
        if not isinstance(result, dict):
            raise ToolFault("its answer has no result", sent=True)
        return result

    async def _streamed(self, coming: Coming, number: int) -> dict[str, Any] | None:
        """The message under that id, out of an event stream: what comes beside it (progress, logs) is nobody's here."""
        held = bytearray()
        async for piece in coming.pieces():
            self._take(piece)
            looked = max(0, len(held) - 1)
            held += piece.replace(b"\r", b"")
            while (end := held.find(b"\n\n", looked)) >= 0:
                event, looked = bytes(held[:end]), 0
                del held[: end + 2]
                lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
                message = self._parsed(b"\n".join(lines)) if lines else None
                if message is not None and message.get("id") == number and "method" not in message:
                    return message
        raise ToolFault("its stream ended without an answer", sent=True)

    def _take(self, piece: bytes) -> None:
        """Counts it, over all pages of a list."""
        self._taken += len(piece)
        if self._taken > self._place.most:
            raise ToolFault(f"its answer is longer than {self._place.most} bytes", sent=True, large=True)

    def _parsed(self, data: bytes) -> dict[str, Any] | None:
        """A message. A server that says its own credential does not get it past here."""
        data = hiding.whole(data, self._place.secret)
        try:
            found = parse_json(data, rpc.LIMITS)
        except ApiError:
            return None
        return found if isinstance(found, dict) else None

    async def _goodbye(self, session: _Session) -> None:
        request = Request("DELETE", self._place.url, self._headers(session), b"", GOODBYE_S, GOODBYE_S, GOODBYE_S)
        with contextlib.suppress(AskFault, TimeoutError):
            async with asyncio.timeout(GOODBYE_S), self._upstreams.ask(request):
                pass


def _is_to(message: dict[str, Any], number: int) -> bool:
    """Whether it answers that request: an error to what could not be read has no id."""
    return message.get("id") == number or isinstance(message.get("error"), dict)


_FOREVER = 3600.0
"""Seconds: the deadline of the whole call stands around each wait."""
