"""The checkpoint calls of the sandbox port (`moorage_api.wire.checkpoints`): a shim stores and fetches its own session's, nobody else's.

Which session that is the ledger says, by the sandbox that was identified; what the body claims is compared with it. Layer: gateway, rim.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError

from moorage_api.ledger import keys
from moorage_api.ledger.records import SessionRecord, text
from moorage_api.ledger.script import Lost, Runner, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.tokens import Identity
from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Offered
from moorage_gateway.checkpoints import Checkpoints, Damaged, MissingPacks
from moorage_gateway.store import StoreUnavailable

_BLOB = re.compile(re.escape(wire.PATH) + r"/(packs|manifests)/([0-9a-f]{64})\Z")
_AT_ONCE = 4
"""Calls served at a time by a gateway: each holds at most a manifest in memory until it is answered, the others wait in their sockets."""
_PEER_S = 30.0
"""For a shim to send its body, and to take its answer: it gives a call 20 s itself."""
_PLACE_S = 15.0
"""For a place: whoever asked gives up soon after, and asks again."""
_MOST = {"packs": wire.MAX_PACK, "manifests": wire.MAX_MANIFEST}

Read = Callable[[int], Awaitable[bytes | None]]
"""The request's body, or None when it is longer than that."""
Say = Callable[["Answered"], Awaitable[None]]
"""Sends the answer."""


@dataclass(frozen=True)
class Answered:
    """Status and body; `data` is JSON unless `raw`."""

    status: int
    data: bytes
    raw: bool = False


class CheckpointPort:
    """One call at a time of a sandbox, so that none takes all places; few at a time in all."""

    def __init__(self, checkpoints: Checkpoints, ledger: SessionLedger, runner: Runner) -> None:
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._runner = runner
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._served: set[str] = set()

    async def serve(self, who: Identity, method: str, path: str, read: Read, say: Say) -> None:
        """Says 403 to a sandbox that holds no session, 404, 408, 409 (missing packs), 413, 422 (damaged), 503 when it cannot be known.

        Raises TimeoutError when the answer is not taken.
        """
        if who.sandbox in self._served:
            await _told(say, _say(503, "another call of this sandbox is being served: one at a time"))
            return
        self._served.add(who.sandbox)
        try:
            if not await self._place():
                await _told(say, _say(503, "other sandboxes' calls are being served: ask again"))
                return
            try:
                await _told(say, await self._answer(who, method, path, read))
            finally:
                self._room.release()
        finally:
            self._served.discard(who.sandbox)

    async def _place(self) -> bool:
        try:
            async with asyncio.timeout(_PLACE_S):
                return await self._room.acquire()
        except TimeoutError:
            return False

    async def _answer(self, who: Identity, method: str, path: str, read: Read) -> Answered:
        try:
            session = await self._session(who)
            if session is None:
                return _say(403, "this sandbox holds no session")
            return await self._call(session, method, path, read)
        except (Lost, Unreachable, StoreUnavailable) as fault:
            return _say(503, f"not now: {fault}")
        except Damaged as fault:
            return _say(422, str(fault))
        except MissingPacks as fault:
            return _say(409, str(fault))
        except _TooSlow:
            return _say(408, f"the body did not come within {_PEER_S:.0f} s: send it again")

    async def _session(self, who: Identity) -> SessionRecord | None:
        key = text(await self._runner.read("HGET", keys.sandbox(who.sandbox), "session"))
        record = await self._ledger.session(key) if key else None
        if record is None or record.sandbox != who.sandbox or record.state not in ("claimed", "draining"):
            return None
        return record if (record.tenant, record.agent) == (who.tenant, who.agent) else None

    async def _call(self, session: SessionRecord, method: str, path: str, read: Read) -> Answered:
        place = session.tenant, session.partition
        blob = _BLOB.match(path)
        if blob is not None and method == "PUT":
            data = await _within(read, _MOST[blob[1]])
            if data is None:
                return _say(413, f"at most {_MOST[blob[1]]} bytes")
            await self._checkpoints.put_blob(*place, blob[1], blob[2], data)
            return await self._unless_deleted(session) or _say(200, "stored")
        if blob is not None and method == "GET":
            found = await self._checkpoints.blob(*place, blob[1], blob[2])
            return _say(404, "there is none of that name") if found is None else Answered(200, found, raw=True)
        if path == wire.PATH and method == "POST":
            return await self._offered(session, await _within(read, wire.MAX_OFFER))
        if method == "GET" and path.startswith(wire.PATH + "/"):
            name = path[len(wire.PATH) + 1 :]
            turn = name.removeprefix(wire.BEFORE)
            one = await (
                self._checkpoints.before(*place, turn) if turn != name else self._checkpoints.get(*place, name)
            )
            return (
                _say(404, "there is no such checkpoint")
                if one is None
                else Answered(200, one.model_dump_json().encode())
            )
        return _say(404, "no such call on the sandbox port")

    async def _offered(self, session: SessionRecord, body: bytes | None) -> Answered:
        if body is None:
            return _say(413, f"at most {wire.MAX_OFFER} bytes")
        try:
            offer = Offered.model_validate_json(body)
        except ValidationError as problem:
            return _say(400, str(problem.errors()[0]["msg"]))
        if (offer.session, offer.epoch) != (session.key, session.epoch):
            return _say(403, "the checkpoint is of another binding")
        made = await self._checkpoints.commit(session.tenant, session.partition, offer)
        return await self._unless_deleted(session) or Answered(200, made.model_dump_json().encode())

    async def _unless_deleted(self, session: SessionRecord) -> Answered | None:
        """What is said of a session that was deleted since it was asked about: nobody else would remove what was just written."""
        now = await self._ledger.session(session.key)
        if now is None or now.state != "deleted":  # None: Redis lost it, which is no reason to remove anything
            return None
        await self._checkpoints.remove(session.tenant, session.partition)
        return _say(403, "the session was deleted")


class _TooSlow(Exception):
    """The body did not come."""


async def _told(say: Say, answer: Answered) -> None:
    async with asyncio.timeout(_PEER_S):
        await say(answer)


async def _within(read: Read, most: int) -> bytes | None:
    try:
        async with asyncio.timeout(_PEER_S):
            return await read(most)
    except TimeoutError:
        raise _TooSlow from None


def _say(status: int, what: str) -> Answered:
    return Answered(status, json.dumps({"error": what} if status >= 400 else {"status": what}).encode())
