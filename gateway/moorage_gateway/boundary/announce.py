"""The sandbox port's ASGI app: a shim says where it is, and learns whether it is still wanted (turns.md §3, §7).

Identity comes from what the shim proves (`proofs.py`) alone; what the body claims is compared with it. Checkpoints are `checkpoint_port`'s,
agents' calls past the boundary `calls`'.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from moorage_api import names
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.script import LedgerError, Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.tokens import Identity
from moorage_api.wire import calls, checkpoints, headers
from moorage_api.wire.shim import Announcement, AnnouncementAnswer
from moorage_gateway.boundary.builds import BuildPort
from moorage_gateway.boundary.calls import CallPort
from moorage_gateway.boundary.checkpoint_port import Answered, CheckpointPort
from moorage_gateway.boundary.pod_tokens import NotProven
from moorage_gateway.boundary.proofs import Proofs
from moorage_gateway.recovery import Recovery

MAX_BODY = 16 * 1024
REMEMBERED = 4096  # sandboxes that a provider was told of; of one that fell out it is told again

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class SandboxPort:
    """ASGI app. `gateways` answers where shims may announce themselves."""

    def __init__(
        self,
        ledger: SessionLedger,
        recovery: Recovery,
        proofs: Proofs,
        gateways: Callable[[], Sequence[str]],
        builds: BuildPort,
        kept: CheckpointPort,
        called: CallPort,
    ) -> None:
        self._called = called
        self._kept = kept
        self._ledger = ledger
        self._recovery = recovery
        self._proofs = proofs
        self._gateways = gateways
        self._served: OrderedDict[str, None] = OrderedDict()
        self._builds = builds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; besides those of builds, checkpoints and agents only `POST /sandbox/v1/announce` and `GET /healthz` exist here."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == "/healthz":
            await _answer(send, 200, {"status": "ok"})
            return
        if self._builds.serves(path):
            await self._builds(scope, receive, send, _shown(scope["headers"]))
            return
        keeps = path == checkpoints.PATH or path.startswith(checkpoints.PATH + "/")
        if not keeps and (path not in ("/sandbox/v1/announce", calls.PATH) or method != "POST"):
            await _answer(send, 404, {"error": "no such call on the sandbox port"})
            return
        try:
            who = self._proofs.identify(*_shown(scope["headers"]))
        except NotProven as why:
            await _answer(send, 401, {"error": str(why)})
            return
        if path == calls.PATH:
            await self._called(who, scope, receive, send)
            return
        if keeps:

            async def say(found: Answered) -> None:
                await _send(send, found.status, found.data, raw=found.raw)

            await self._kept.serve(who, method, path, functools.partial(_body, receive), say)
            return
        body = await _body(receive, MAX_BODY)
        if body is None:
            await _answer(send, 413, {"error": f"an announcement has at most {MAX_BODY} bytes"})
            return
        status, answer = await self._announced(who, body)
        await _answer(send, status, answer)

    async def _announced(self, who: Identity, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            said = Announcement.model_validate_json(body)
        except ValidationError as problem:
            return 400, {"error": str(problem.errors()[0]["msg"])}
        if said.sandbox != who.sandbox:
            return 403, {"error": "the announcement is another sandbox's"}
        answer = AnnouncementAnswer(epoch=said.epoch, gateways=list(self._gateways()))
        if said.session is None or said.state == "unbound":
            await self._serves(who.sandbox, said.endpoint)
            return 200, answer.model_dump()
        identity = SessionIdentity(
            who.tenant, who.agent, said.user, said.session_id, said.session.partition(":")[2], who.revision
        )
        expected = names.session_key(
            who.tenant, names.partition(who.tenant, who.agent, identity.user, identity.session)
        )
        if said.session != expected:
            return 403, {"error": "the session is not one of this sandbox's agent"}
        secret = said.secret or self._proofs.secret(who)
        place = Descriptor(
            who.sandbox, who.tenant, who.agent, who.revision, said.endpoint, secret, who.volume, tuple(said.pids)
        )
        try:
            found = await self._ledger.announce(said.session, said.epoch, place, identity)
        except Lost:
            return 503, await self._recovering()
        except Unreachable:
            return 503, {"error": "the ledger does not answer; announce again"}
        return 200, answer.model_copy(update={"epoch": found.epoch}).model_dump()

    async def _serves(self, sandbox: str, endpoint: str) -> None:
        """Tells the provider the first time: a cluster's own word that a pod is ready comes up to two seconds later."""
        if sandbox in self._served:
            return
        self._served[sandbox] = None
        if len(self._served) > REMEMBERED:
            self._served.popitem(last=False)
        with suppress(LedgerError):
            await self._ledger.serving(sandbox, endpoint)

    async def _recovering(self) -> dict[str, Any]:
        try:
            await self._recovery.recover()
        except Unreachable:
            return {"error": "the ledger does not answer; announce again"}
        return {"error": "the ledger was founded anew; announce again"}


def _shown(found: Sequence[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """The sandbox token and the pod token of a request; None for one that is missing, or there twice."""
    bearer = _single(found, b"authorization") or ""
    token = bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else None
    return token, _single(found, headers.POD_TOKEN.encode())


def _single(found: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    values = [value for each, value in found if each == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


async def _body(receive: Receive, most: int) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    await _send(send, status, json.dumps(body).encode())


async def _send(send: Send, status: int, data: bytes, *, raw: bool = False) -> None:
    kind = b"application/octet-stream" if raw else b"application/json"
    head = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})
