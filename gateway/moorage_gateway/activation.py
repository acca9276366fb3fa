"""A sandbox for a session, under one deadline: the table, else one claim, one bind, or a wait for the provider.

turns.md §5. At most one activation a session and process runs; waiters share it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import Claim, SessionIdentity
from moorage_api.ledger.script import Lost, Unreachable
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire.shim import Bind
from moorage_gateway.clock import Clock
from moorage_gateway.files import NoFiles
from moorage_gateway.recovery import Recovery
from moorage_gateway.routing import RouteTable
from moorage_gateway.store import StoreUnavailable
from moorage_gateway.upstream import Route, ShimLost, ShimRefused, Shims

POLL_S = 0.25  # hints may be lost
RETRY_S = 0.1
PATIENT = ("not_ready", "starting", "not_kept", "damaged")  # refusals after which the same sandbox is asked again
ANNOUNCED_S = 15.0  # a bound shim announces itself every 10 s (turns.md §3)


@dataclass(frozen=True)
class Wanted:
    """Which session wants a sandbox. `named`: the caller named it, so after a loss its old sandbox may still appear."""

    key: str
    identity: SessionIdentity
    named: bool
    dead_epoch: int = 0  # this binding was found dead: wait until the provider has proved it


class Sources(Protocol):
    """Where the files of a session on a fresh volume come from; `files.Files` is the real one."""

    async def source(self, tenant: str, agent: str, partition: str, claim: Claim, damaged: Collection[str]) -> str: ...


@dataclass
class _Binding:
    """One session's way to a bound sandbox: since when (monotonic), which checkpoints were found damaged, and what the binding of
    `epoch` begins from: it is looked up once, though a bind is repeated while the files are on their way.
    """

    since: float
    damaged: set[str] = field(default_factory=set)
    epoch: int = 0
    restore: str = ""


class NotReady(ApiError):
    """No sandbox within the deadline; the message says why as far as the provider told."""

    def __init__(self, reason: str) -> None:
        text = reason or "no sandbox became ready in time; look at `moorage agents show` and `moorage logs`"
        super().__init__(Kind.SESSION_NOT_READY, f"The session's sandbox is not ready: {text}", retry_after=5)


class Activation:
    """Claims, binds, wakes. Raises NotReady, or `Unreachable` when Redis stays away past the deadline."""

    def __init__(
        self,
        ledger: SessionLedger,
        shims: Shims,
        table: RouteTable,
        clock: Clock,
        recovery: Recovery,
        gateways: Callable[[], Sequence[str]],
        files: Sources,
    ) -> None:
        self._files = files
        self._ledger = ledger
        self._shims = shims
        self._table = table
        self._clock = clock
        self._recovery = recovery
        self._gateways = gateways
        self._running: dict[str, asyncio.Task[Route]] = {}

    async def acquire(self, wanted: Wanted, *, deadline: float) -> Route:
        """The session's bound route; `deadline` is on the clock's monotonic scale."""
        while True:
            route = self._table.get(wanted.key)
            if route is not None and route.epoch != wanted.dead_epoch:
                return route
            task = self._running.get(wanted.key)
            if task is None or task.done():
                task = asyncio.get_running_loop().create_task(self._acquire(wanted, deadline))
                self._running[wanted.key] = task
                task.add_done_callback(functools.partial(self._ended, wanted.key))
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic()) + 1.0):
                    return await asyncio.shield(task)
            except TimeoutError:
                raise NotReady("") from None
            except NotReady:
                if self._clock.monotonic() >= deadline:
                    raise
                # It ended by the deadline of the caller who began it: go on until ours.

    def forget(self, key: str) -> None:
        """The route did not answer, or refused: ask the ledger next time."""
        self._table.forget(key)

    async def lost(self, route: Route, reason: str) -> None:
        """The sandbox does not answer: the provider is to end it and prove it, so that another may follow."""
        self._table.forget(route.session_key)
        await self._ledger.doom(route.sandbox, reason)

    async def end_reason(self, session_key: str, sandbox: str) -> str:
        """Why the provider ended a sandbox, empty when it did not (or nobody can say now)."""
        with suppress(Unreachable, Lost):
            return await self._ledger.end_reason(session_key, sandbox)
        return ""

    async def aclose(self) -> None:
        """Ends what runs."""
        tasks = [t for t in self._running.values() if not t.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: str, task: asyncio.Task[Route]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody else is owed it

    async def _acquire(self, wanted: Wanted, deadline: float) -> Route:
        reason, way = "", _Binding(self._clock.monotonic())
        while self._clock.monotonic() < deadline:
            try:
                claim = await self._ledger.claim(wanted.key, wanted.identity.revision, named=wanted.named)
                reason = claim.reason or reason
                match claim.word:
                    case "ROUTE" if claim.epoch == wanted.dead_epoch:
                        await self._ledger.doom(claim.sandbox, "it did not answer")  # again: Redis may have lost it
                        await self._table.changed(wanted.key, POLL_S)
                    case "ROUTE" | "CLAIMED":
                        route = await self._bind(wanted, claim, way)
                        if route is not None:
                            return route
                        await self._table.changed(wanted.key, RETRY_S)
                    case "ABSENT":
                        await self._ledger.open_session(wanted.key, wanted.identity)
                    case "DELETED":
                        raise ApiError(Kind.NOT_FOUND, "This session was deleted; start a new one.")
                    case _:
                        await self._table.changed(wanted.key, POLL_S)
            except Lost:
                with suppress(Unreachable):  # asked again below, until the deadline
                    await self._recovery.recover()
            except (Unreachable, StoreUnavailable) as fault:
                reason = str(fault) or reason
                await self._clock.sleep(RETRY_S)
            except NoFiles as fault:
                raise ApiError(Kind.SESSION_NOT_READY, f"The session cannot begin: {fault}") from fault
        raise NotReady(reason)

    async def _bind(self, wanted: Wanted, claim: Claim, way: _Binding) -> Route | None:
        """The route once its shim holds the binding, and the session's files; None: ask the ledger again.

        Redis may have been an old one when it gave a sandbox that is another session's: its shim soon says so there.
        """
        route = Route(
            wanted.key, claim.sandbox, claim.endpoint, claim.secret, claim.epoch, claim.volume, claim.kept
        )  # fmt: skip
        who = wanted.identity
        if not claim.bound:
            restore = await self._source(wanted, claim, way)
            call = Bind(
                session=wanted.key,
                epoch=claim.epoch,
                tenant=who.tenant,
                agent=who.agent,
                session_id=who.session,
                user=who.user,
                gateways=list(self._gateways()),
                restore=restore,
            )
            try:
                await self._shims.bind(route, call)
            except ShimRefused as refusal:
                innocent = refusal.word == "other_session" and self._clock.monotonic() < way.since + ANNOUNCED_S
                if refusal.word == "damaged":
                    way.damaged.add(restore)
                    way.epoch = 0
                if refusal.word not in PATIENT and not innocent:
                    await self._ledger.doom(route.sandbox, f"bind refused: {refusal.word}")
                return None
            except ShimLost as fault:
                await self._ledger.doom(route.sandbox, f"no answer to bind: {fault}")
                return None
            if await self._ledger.bound(wanted.key, claim.epoch) != "OK":
                return None
        self._table.put(route)
        return route

    async def _source(self, wanted: Wanted, claim: Claim, way: _Binding) -> str:
        """Which checkpoint the volume begins from. A session that nobody named is new: it has none."""
        if not (wanted.named or claim.restore):
            return ""
        if way.epoch != claim.epoch:
            who = wanted.identity
            way.restore = await self._files.source(who.tenant, who.agent, who.partition, claim, way.damaged)
            way.epoch = claim.epoch
        return way.restore
