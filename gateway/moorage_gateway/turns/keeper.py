"""The turns this process owns: leases renewed, due turns taken over, memory written back after a loss, released on drain.

turns.md §1, §2 (Takeover), §7. One task a held turn, all awaited by `run`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import orjson

from moorage_api.ledger.records import Entry, SessionIdentity, TurnRecord
from moorage_api.ledger.script import RENEW_S, LedgerError, Lost, Unreachable
from moorage_api.ledger.turns import TurnLedger
from moorage_gateway.clock import Clock
from moorage_gateway.recovery import Recovery
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns import archive
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Normaliser, Template
from moorage_gateway.turns.rules import Limits
from moorage_gateway.turns.source_reader import failed

DUE_S = 1.0
BATCH = 32
PROOF_S = 2.0  # well within the lease that was just taken
LEFT_S = 10.0  # turns.md §2: a foreground turn that is not stored ends this long after its last reader
UNFLUSHED_S = 5.0

log = logging.getLogger(__name__)


def template_of(record: TurnRecord) -> Template:
    """What was fixed at acceptance, read back from the ledger."""
    meta = record.meta
    return Template(
        response_id=record.response,
        created_at=int(meta["created_at"]),
        model=str(meta["model"]),
        agent=str(meta["agent"]),
        revision=str(meta["revision"]),
        session_id=str(meta["session_id"]),
        body=dict(meta["body"]),
    )


def identity_of(record: TurnRecord) -> SessionIdentity:
    """Whose session a turn belongs to."""
    meta = record.meta
    return SessionIdentity(
        tenant=str(meta["tenant"]),
        agent=str(meta["agent"]),
        user=str(meta["user"]),
        session=str(meta["session_id"]),
        partition=str(meta["partition"]),
        revision=str(meta["revision"]),
    )


def has_waited(log: Sequence[Entry]) -> bool:
    """Whether a turn had to wait its place, by how its log begins."""
    return len(log) > 1 and orjson.loads(log[1].data)["type"] == "response.queued"


class Keeper:
    """Holds turns; `get` answers what is held here."""

    def __init__(  # noqa: PLR0913 - the ports of one loop, named
        self,
        *,
        engine: Engine,
        ledger: TurnLedger,
        store: archive.Archive,
        clock: Clock,
        recovery: Recovery,
        limits: Callable[[TurnRecord], Limits],
        generation: Callable[[], int],
        calm: Callable[[], float],
        capacity: int,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._recovery = recovery
        self._limits = limits
        self._generation = generation
        self._calm = calm
        self._capacity = capacity
        self._held: dict[str, Held] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._draining = False
        recovery.on_loss(self.restore)

    def get(self, response: str) -> Held | None:
        """The turn if this process owns it."""
        return self._held.get(response)

    @property
    def count(self) -> int:
        """How many turns are held."""
        return len(self._held)

    def hold(self, held: Held) -> None:
        """Owns a turn from now: drives it, renews its lease, feeds its readers. One drive a turn, whoever asks twice."""
        if held.response in self._held:
            return  # an acceptance whose answer came after the due loop had taken the turn
        self._held[held.response] = held
        task = asyncio.get_running_loop().create_task(self._drive(held), name=f"turn {held.response}")
        self._tasks[held.response] = task

    def hint(self, response: str) -> None:
        """A turn became due, or one of ours was flagged: look now."""
        self._wake.set()

    async def run(self) -> None:
        """The loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(RENEW_S, self._renew))
            group.create_task(self._due_loop())
            group.create_task(self._every(1.0, self._abandoned))
            group.create_task(self._every(UNFLUSHED_S, self._flush))

    async def drain(self, grace: float) -> None:
        """Lets turns end for `grace` seconds, then releases the rest: another gateway attaches to their attempts."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=grace)
        for held in list(self._held.values()):
            held.interrupt(releasing=True)
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, held: Held) -> None:
        try:
            try:
                await self._engine.drive(held)
            except Exception:  # a mistake of ours: tried again it would break again, so the turn ends and says so
                log.exception("turn %s broke", held.response)
                await self._engine.fail(held, "The platform met an error of its own; its log names this response.")
        except Exception:  # the outermost frame of a turn: its lease runs out, and another gateway takes it
            log.exception("turn %s could not be ended", held.response)
        finally:
            held.gone = not held.ended
            self._held.pop(held.response, None)
            self._tasks.pop(held.response, None)
            held.feed.publish()
            if held.releasing and not held.ended and not held.fenced:
                await self._release(held)

    async def _release(self, held: Held) -> None:
        try:
            await self._ledger.release(held.response, held.fence)
        except LedgerError:
            return  # the lease runs out by itself

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            await self._guarded(action)

    async def _guarded(self, action: Callable[[], Awaitable[None]]) -> None:
        """Redis away or lost is no end of a loop: the loss is mended, the next round goes on."""
        try:
            await action()
        except Lost:
            try:
                await self._recovery.recover()
            except Unreachable:
                return
        except (Unreachable, StoreUnavailable):
            return

    async def _due_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(DUE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._guarded(self.take_due)

    async def take_due(self) -> None:
        """Takes every turn that is due and has no live owner; passes on cancels of our own."""
        for response in await self._ledger.due(self._clock.now_ms(), BATCH):
            held = self._held.get(response)
            if held is not None:
                await self._check(held)
            elif not self._draining and self._calm() <= 0 and len(self._held) < self._capacity:
                await self._take(response)

    async def _check(self, held: Held) -> None:
        for word in await self._ledger.renew([(held.response, held.fence)]):
            self._told(held, word)

    async def _renew(self) -> None:
        held = [h for h in self._held.values() if not h.ended]
        for start in range(0, len(held), 100):
            part = held[start : start + 100]
            words = await self._ledger.renew([(h.response, h.fence) for h in part])
            for one, word in zip(part, words, strict=True):
                self._told(one, word)

    def _told(self, held: Held, word: str) -> None:
        if word == "CANCEL":
            held.interrupt(cancelled=True)

    async def _take(self, response: str) -> None:
        generation = self._generation()
        word, record = await self._ledger.acquire(response)
        if word == "STATE":
            await self._expire(response)
        if record is None:
            return
        tenant = str(record.meta.get("tenant", ""))
        if await self._ended_before(record, tenant, response):
            await self._ledger.discard(response, record.fence)
            return
        held = Held(
            record=record,
            fence=record.fence,
            template=template_of(record),
            identity=identity_of(record),
            limits=self._limits(record),
            input_items=await self._store.input(tenant, response, record.input),
            log=await self._ledger.log(response),
            attempts=await self._ledger.attempts(response),
            begun=record.begun,
            taken_over=True,
        )
        await self._prove(held)
        # Read after a loss, or after another gateway closed it, this log is not the one to go on from.
        (word,) = await self._ledger.renew([(response, record.fence)])
        if word not in ("OK", "CANCEL") or self._generation() != generation:
            return
        held.log_bytes = sum(len(e.data) for e in held.log)
        held.cancelled = record.cancel or word == "CANCEL"
        self.hold(held)

    async def _ended_before(self, record: TurnRecord, tenant: str, response: str) -> bool:
        """Whether the end of a turn just taken is stored already: Redis lost it since, and somebody noticed that or nobody did.

        One of this generation that is closing may well be stored and not yet shown. Without a store a turn of this generation goes on.
        """
        if record.generation != self._generation():
            return await self._store.has(tenant, response)
        if record.state == "closing" or not record.meta.get("store", True):
            return False
        try:
            async with asyncio.timeout(PROOF_S):
                return await self._store.has(tenant, response)
        except (StoreUnavailable, TimeoutError):
            return False

    async def _prove(self, held: Held) -> None:
        """Its acceptor may have died before it wrote the object `accepted` (decisions/0010): whoever takes the turn sees to it.

        Without a store the turn goes on: it needs the object only if Redis and this process go too.
        """
        record = held.record
        if not record.meta.get("store", True):
            return
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(PROOF_S):
                if await self._store.accepted(held.response) is None:
                    await self._store.put_accepted(
                        held.response,
                        meta=record.meta,
                        accepted=record.accepted,
                        generation=record.generation,
                        queued=has_waited(held.log),
                    )

    async def _expire(self, response: str) -> None:
        """A waiting turn past its deadline ends without ever having run."""
        record = await self._ledger.turn(response)
        if record is None or record.state != "queued" or record.deadline > self._clock.now_ms():
            return
        entries = await self._ledger.log(response)
        normaliser = Normaliser(template_of(record), [orjson.loads(e.data) for e in entries], continues=True)
        outcome = failed("turn_timeout", "The turn waited behind others of its session past its deadline.")
        finish = normaliser.finish(outcome, completed_at=self._clock.now_ms() // 1000)
        await self._ledger.cancel(response, "failed", len(entries), orjson.dumps(finish.terminal).decode())

    async def _abandoned(self) -> None:
        """A foreground turn with `store: false` whose readers left is cancelled."""
        now = self._clock.monotonic()
        for held in list(self._held.values()):
            meta = held.record.meta
            if held.readers or meta.get("store", True) or meta.get("background", False) or held.cancelled:
                held.left_at = None
            elif held.left_at is None:
                held.left_at = now
            elif now - held.left_at >= LEFT_S:
                await self._ledger.cancel(held.response, "cancelled", 0, "")
                held.interrupt(cancelled=True)

    async def _flush(self) -> None:
        """Stores the responses of turns that ended while the store was away."""
        for response in await self._ledger.unflushed(BATCH):
            record = await self._ledger.turn(response)
            if record is None:
                await self._ledger.flushed(response)
                continue
            tenant = str(record.meta["tenant"])
            items = await self._store.input(tenant, response, record.input)
            attempts, entries = await self._ledger.attempts(response), await self._ledger.log(response)
            if not entries or entries[-1].encode() != record.terminal.encode():
                continue  # Redis lost something between these reads: what is left of it is not the end of this turn
            document = archive.compose(record, items, entries, attempts)
            await self._store.put_response(tenant, response, document)
            await self._ledger.flushed(response)
            await self._store.settled(response)

    async def restore(self) -> None:
        """After a loss: every turn held here is written anew from memory (turns.md §7)."""
        for held in list(self._held.values()):
            if held.ended or held.fenced:
                continue
            if await self._stands(held):
                held.interrupt(fenced=True)
                continue
            route = held.route
            session = {"state": "new", "epoch": "0"}
            if route is not None:
                session = {
                    "state": "claimed",
                    "epoch": str(route.epoch),
                    "sandbox": route.sandbox,
                    "endpoint": route.endpoint,
                    "secret": route.secret,
                    "volume": route.volume,
                    "bound": str(self._clock.now_ms()),
                }
            word = await self._ledger.restore(held.record, held.identity, session, held.log, held.attempts)
            if word not in ("OK",):
                held.interrupt(fenced=True)
        await self._store.put_generation(self._generation())

    async def _stands(self, held: Held) -> bool:
        """Whether its end is stored: another owner ended it before Redis lost that, and this process did not see it."""
        try:
            return await self._store.has(str(held.record.meta.get("tenant", "")), held.response)
        except StoreUnavailable:
            return False
