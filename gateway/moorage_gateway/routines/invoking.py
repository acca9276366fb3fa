"""A run by invocation: sent once, by one gateway, and followed to its end. Layer: gateway; for the scheduler what `Running` is for turns.

    lease taken ── record `open` ── sent ── answer ── record `completed` or `failed` ── lease freed
    (Redis)        (store)            └ the lease is renewed; whoever wants it to end says so there

An answer comes to the gateway that waits for it and to no other. Where that one is gone, the lease is free and the record `open`: whoever
sees that takes the lease and writes that it was interrupted. Nothing of it is sent again; a further try is the routine's decision.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.run_leases import RunLeases
from moorage_api.ledger.script import RENEW_S, LedgerError, Lost
from moorage_gateway.auth import INVOKE, Principal
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery
from moorage_gateway.routes.doors import SessionDoor
from moorage_gateway.routes.reaching import Asked, Reaching
from moorage_gateway.routines import sending
from moorage_gateway.routines.invocations import INTERRUPTED, Invocation, Invocations
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.running import owner, session_of
from moorage_gateway.routines.sending import Heard
from moorage_gateway.routines.state import INVOCATION, Run, State, Turn
from moorage_gateway.sessions import Place
from moorage_gateway.store import StoreUnavailable

MOST_AT_ONCE = 1000
"""Invocations that one gateway waits for; further ones begin when some have ended, or in another gateway."""
LOOK_S = 2.0
"""Between two looks at an invocation that another gateway waits for."""
CANCEL_S = 60.0
"""Until whoever asked for an end looks again: longer than two renewals and the end that is written down."""
KEEP_S = 60.0
"""For writing down how it ended; afterwards its lease is let go, and it was interrupted."""
PAUSE_S = 0.5
CLOSE_S = 5.0

log = logging.getLogger(__name__)


@dataclass
class _Going:
    """One that this gateway waits for."""

    tenant: str
    name: str
    run: Run
    fence: int
    seconds: float
    task: asyncio.Task[None] | None = None
    heard: Heard = field(default_factory=Heard)


class Invoking:
    """Invocations of runs. Every method that waits raises ApiError, LedgerError or StoreUnavailable."""

    def __init__(
        self,
        reaching: Reaching,
        sessions: SessionDoor,
        leases: RunLeases,
        records: Invocations,
        recovery: Recovery,
        clock: Clock,
        calm: Callable[[], float],
    ) -> None:
        """`calm`: seconds until leases may be taken (turns.md §7)."""
        self._reaching = reaching
        self._sessions = sessions
        self._leases = leases
        self._records = records
        self._recovery = recovery
        self._clock = clock
        self._calm = calm
        self._going: dict[str, _Going] = {}
        self._beginning: set[str] = set()
        self._draining = False
        self._closing = asyncio.Event()

    async def accept(self, tenant: str, known: Known, state: State, run: Run) -> str:
        """The invocation of the run's newest try: it is persisted, and somebody sends it, when this returns."""
        name = invocation_of(tenant, known, run)
        if name in self._going:
            return name
        full = len(self._going) + len(self._beginning) >= MOST_AT_ONCE
        if full or self._draining or name in self._beginning or self._calm() > 0:
            raise ApiError(Kind.UNAVAILABLE, "This gateway begins no such invocation just now.", retry_after=1)
        self._beginning.add(name)
        try:
            return await self._begin(tenant, known, state, run, name)
        finally:
            self._beginning.discard(name)

    async def _begin(self, tenant: str, known: Known, state: State, run: Run, name: str) -> str:
        caller = Principal(tenant, owner(known), scopes=frozenset({INVOKE}))
        session = session_of(known, run)
        place = await self._sessions.resolve(
            caller, known.spec.agent, session_id=session, previous_response_id=None, conversation=None
        )
        if "invocations" not in place.entry.protocols:
            raise ApiError(Kind.UNPROCESSABLE, f"Agent '{known.spec.agent}' does not serve invocations.")
        body = sending.body_of(known, state, run)
        fence = await self._leases.take(name)
        if not fence:
            if await self._records.get(tenant, name) is None:  # not persisted yet
                raise ApiError(Kind.UNAVAILABLE, "Another gateway begins this invocation.", retry_after=1)
            return name
        if not await self._persisted(tenant, run, name, fence):
            return name
        going = _Going(tenant, name, run, fence, known.spec.timeout_minutes * 60.0)
        self._going[name] = going
        asked = sending.asked_of(tenant, known, run, place, name, body)
        going.task = asyncio.create_task(self._guarded(going, place, asked), name=f"invocation {name}")
        return name

    async def _persisted(self, tenant: str, run: Run, name: str, fence: int) -> bool:
        """Whether it is to be sent. The lease stays with whoever sends it, and is let go where that is nobody."""
        sent = False
        try:
            if await self._records.get(tenant, name) is None:  # else sent, or about to be, by one that is gone
                await self._records.put(tenant, name, fence, Invocation.of(run))
                match await self._leases.keep(name):
                    case "OK":
                        sent = True
                    case "CANCEL":
                        why = "it was cancelled"
                        over = Invocation(run.id, run.number, "cancelled", "", why)
                        await self._records.put(tenant, name, fence, over)
                    case "HELD":  # the store took its time: what it says now, a look finds out
                        pass
        finally:
            if not sent:
                with suppress(LedgerError):
                    await self._leases.free(name)
        return sent

    def response(self, tenant: str, known: Known, run: Run) -> str:
        """The id that a run's newest try has, accepted or not."""
        return invocation_of(tenant, known, run)

    async def look(self, tenant: str, name: str) -> Turn:
        """How it stands. One that nobody waits for any more was interrupted, which is written down first."""
        if name in self._going or name in self._beginning:  # the lease is our own
            return Turn("open")
        found = await self._records.get(tenant, name)
        if found is not None and found.status != "open":
            return found.turn
        if self._calm() > 0 or not (fence := await self._leases.take(name)):
            return Turn("open")  # somebody waits for it, or is about to write it down
        found = await self._records.get(tenant, name) or found
        if found is None:
            return Turn("failed", error=f"{INTERRUPTED}: its record is gone")
        if found.status == "open":
            found = Invocation(
                found.run, found.number, "failed", error=f"{INTERRUPTED}: the gateway that waited for it is gone"
            )
            await self._records.put(tenant, name, fence, found)
        return found.turn

    async def ended(self, tenant: str, name: str) -> Turn:
        """How it ended: waits for that."""
        while (turn := await self.look(tenant, name)).status == "open":
            going = self._going.get(name)
            if going is not None and going.task is not None:
                await asyncio.wait([going.task])
            else:
                await self._clock.sleep(LOOK_S)
        return turn

    async def cancel(self, tenant: str, name: str) -> None:
        """Stops it: the agent is asked to end, then it is ended. Raises ApiError where that takes long."""
        deadline = self._clock.monotonic() + CANCEL_S
        while await self._leases.stop(name) or self._calm() > 0:
            if self._clock.monotonic() >= deadline:
                raise ApiError(Kind.UNAVAILABLE, "The invocation has not ended yet.", retry_after=1)
            await self._clock.sleep(PAUSE_S)

    async def forget(self, tenant: str, names: Iterable[str]) -> None:
        """The history has what is to be known of them."""
        await self._records.forget(tenant, names)

    async def drain(self, seconds: float) -> None:
        """Begins no more; waits for those that run."""
        self._draining = True
        await self._over(seconds)

    async def aclose(self) -> None:
        """Ends those that run: they were interrupted, which is written down."""
        self._draining = True
        self._closing.set()
        await self._over(CLOSE_S)
        tasks = [going.task for going in self._going.values() if going.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _over(self, seconds: float) -> None:
        tasks = [going.task for going in self._going.values() if going.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _guarded(self, going: _Going, place: Place, asked: Asked) -> None:
        call = asyncio.create_task(sending.send(self._reaching, self._clock, place, asked, going.run, going.heard))
        try:
            found = await self._followed(going, call)
            if found is not None:
                await self._kept(going, found)
        except Exception:  # a mistake of ours: the lease runs out, and the invocation was interrupted
            log.exception("the invocation %s could not be followed", going.name)
        finally:
            await sending.until_over(call)
            self._going.pop(going.name, None)

    async def _followed(self, going: _Going, call: asyncio.Task[Invocation]) -> Invocation | None:
        """How it ended; None where another gateway says that."""
        until = self._clock.monotonic() + going.seconds
        closing = asyncio.create_task(self._closing.wait())
        try:
            while True:
                left = until - self._clock.monotonic()
                await asyncio.wait({call, closing}, timeout=min(RENEW_S, left), return_when=asyncio.FIRST_COMPLETED)
                if call.done():
                    return call.result()
                if closing.done():
                    return await self._broken_off(going, call, "failed", f"{INTERRUPTED}: its gateway was stopped")
                if self._clock.monotonic() >= until:
                    return await self._broken_off(going, call, "failed", "its time is over")
                match await self._renewed(going.name):
                    case "HELD":
                        return None
                    case "CANCEL":
                        return await self._broken_off(going, call, "cancelled", "it was cancelled")
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _renewed(self, name: str) -> str:
        try:
            return await self._leases.keep(name)
        except Lost:
            with suppress(LedgerError, StoreUnavailable):
                await self._recovery.recover()
        except LedgerError:
            log.info("the lease of %s is renewed later", name)
        return ""

    async def _broken_off(
        self, going: _Going, call: asyncio.Task[Invocation], status: Literal["failed", "cancelled"], error: str
    ) -> Invocation:
        await sending.until_over(call)
        return Invocation(going.run.id, going.run.number, status, going.heard.text, error)

    async def _kept(self, going: _Going, found: Invocation) -> None:
        """Writes down how it ended, while the lease is ours; then nobody waits any more."""
        until = self._clock.monotonic() + KEEP_S
        while self._clock.monotonic() < until:
            if await self._renewed(going.name) == "HELD":
                return
            with suppress(StoreUnavailable):
                await self._records.put(going.tenant, going.name, going.fence, found)
                with suppress(LedgerError):
                    await self._leases.free(going.name)
                return
            await self._clock.sleep(PAUSE_S)
        log.warning("how the invocation %s ended could not be kept: it counts as interrupted", going.name)
        with suppress(LedgerError):  # who says so gets another fence, this gateway too
            await self._leases.free(going.name)


def invocation_of(tenant: str, known: Known, run: Run) -> str:
    """The id of a try: a pure function of the routine, its run and the try."""
    said = f"{tenant}/{known.name}/{run.id}/{run.number}"
    return f"{INVOCATION}{hashlib.sha256(said.encode()).hexdigest()[:48]}"
