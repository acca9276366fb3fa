"""The clients of a world: they create, read, leave, come back, cancel, retry, delete their session, and call their agent raw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.script import Lost, Unreachable
from moorage_gateway.activation import Wanted
from moorage_gateway.auth import Principal
from moorage_gateway.turns.service import TurnRequest
from moorage_gateway.upstream import ShimError
from sim.gateways import Gateway
from sim.judging import TERMINAL, Seen, Told

CALLER = Principal("dev", "u", "k", None, frozenset({"invoke"}))
PATIENCE = 80  # tries of one call


class Clients:
    """Everything that is sent to the gateways of one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.rng = world.rng
        self.judge = world.judge
        self._left: set[str] = set()

    async def user(self, number: int) -> None:
        """One user's story, chosen by the seed."""
        rng, story = self.rng, self.world.story
        await asyncio.sleep(rng.uniform(0, story.quiet if story.drains else 25 if self.world.drains else 10))
        session = f"session-n{number}" if story.fresh else f"session-{rng.randrange(story.sessions)}"
        dice = {"keyed": 0.0, "counted": 0.7, "passing": 0.9, "deleter": 0.99}.get(story.users, rng.random())
        if dice < 0.62:
            await self._keyed(session, f"key-{number}")
        elif dice < 0.80:
            await self._counted(session, f"body-{number}")
        elif dice < 0.92:
            await self._passing(session, f"body-{number}")
        else:
            await self._deleter(f"session-d{number}", f"key-{number}")

    async def _keyed(self, session: str, key: str) -> None:
        """With an Idempotency-Key: sent again it is the same turn; two connections read; perhaps it is cancelled."""
        rng = self.rng
        kind = self.world.story.says or rng.choice(["same", "rechunked", "other"])
        background = rng.random() < (0.7 if not self.world.story.name.startswith("the acceptor") else 1.0)
        wants_cancel, twice = rng.random() < 0.3, rng.random() < 0.4
        told = await self.create(session, key, kind=kind, background=background, keyed=True)
        if told is None:
            return
        if twice:
            again = await self.create(session, key, kind=kind, background=background, keyed=True)
            if again is not None and again is not told and not self.world.losses:
                self.judge.broken(f"one idempotency key made {told.response} and {again.response}")
        readers = [self.world.loop.create_task(self.read(told)) for _ in range(2)]
        if wants_cancel:
            await asyncio.sleep(rng.uniform(0, 9))
            await self.cancel(told)
        await asyncio.gather(*readers)

    async def _counted(self, session: str, body: str) -> None:
        """Without a key: only a count of retries. What was not wholly answered is joined, what was is made anew."""
        rng = self.rng
        told = await self.create(session, body, kind="same", background=False, keyed=False)
        if told is None:
            return
        if rng.random() < 0.5:
            await self.read(told, patience=rng.uniform(0.5, 3.0))
            whole = self._last(told).ended
        else:
            await self.read(told)
            whole = True
        flags = self.world.redis.execute_command("HMGET", f"t:{told.response}", "delivered", "joined")
        again = await self.create(session, body, kind="same", background=False, keyed=False, retry=1, told=told)
        if again is None:
            return
        if flags[0] == b"1" and again is told and not self.world.losses:
            self.judge.broken(f"{told.response} was wholly answered, and a retry joined it")
        joined = self.world.redis.execute_command("HGET", f"t:{told.response}", "joined")
        if not whole and again is not told and flags == [None, None] and joined in (None, again.response.encode()):
            if not self.world.losses:
                self.judge.broken(f"a retry of {told.response}, which was not answered, ran again as {again.response}")
        await self.read(again)

    async def _passing(self, session: str, body: str) -> None:
        """Foreground and not stored: it stays, or leaves for good, and then the turn is cancelled."""
        stays = self.rng.random() < 0.3
        told = await self.create(
            session, body, kind="same" if stays else "long", background=False, keyed=False, store=False
        )
        if told is None:
            return
        await self.read(told, patience=None if stays else self.rng.uniform(0.5, 3.0))
        if not stays:
            self._last(told).left = True
            told.left_at = self.world.loop.now

    async def _deleter(self, session: str, key: str) -> None:
        """Deletes a session of its own while its turn may run; from the answer on nothing is accepted there."""
        told = await self.create(session, key, kind="same", background=True, keyed=True)
        if told is None:
            return
        reader = self.world.loop.create_task(self.read(told))
        await asyncio.sleep(self.rng.uniform(0, 6))
        if await self._delete(told):
            await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0, 6))))
            late = await self.create(session, key + "-late", kind="same", background=True, keyed=True, tries=10)
            if late is not None and not self.world.losses:
                self.judge.broken(f"{late.response} was accepted into {told.session}, which was deleted")
        await reader

    async def _delete(self, told: Told) -> bool:
        """As the control API does it: cancel what runs and waits, until the ledger takes it."""
        for _ in range(PATIENCE):
            gateway = await self.world.some()
            try:
                word = await gateway.spawn(gateway.sessions.delete_session(told.session), raw=True)
            except (Lost, Unreachable, asyncio.CancelledError):
                self._mine()
                await asyncio.sleep(0.5)
                continue
            if word == "BUSY":
                told.deleted = True
                await self.cancel(told)
                continue
            self.judge.removed.add(told.session)
            return bool(word == "OK")
        return False

    async def relays(self) -> None:
        """Raw calls to the sessions' agents, until cancelled: they hold a sandbox awake, and wake one that sleeps."""
        while True:
            await asyncio.sleep(self.rng.uniform(0.3, 5.0) if self.world.story.chatty else self.rng.uniform(1.0, 9.0))
            if self.world.identities:
                key = self.rng.choice(sorted(self.world.identities))
                gateway = await self.world.some()
                try:
                    await gateway.spawn(self.relay(gateway, key, self.rng.uniform(0.1, 4.0)))
                except asyncio.CancelledError:
                    self._mine()

    async def relay(self, gateway: Gateway, key: str, seconds: float) -> None:
        """One raw call through one gateway."""
        wanted = Wanted(key, self.world.identities[key], named=True)
        try:
            route = await gateway.activation.acquire(wanted, deadline=self.world.loop.now + 10.0)
            await gateway.shims.relay(route, seconds)
        except (ShimError, ApiError, Unreachable):
            gateway.activation.forget(key)

    # -- calls --------------------------------------------------------------------------------------------------------

    def _mine(self) -> None:
        """Re-raises when it was this client that was cancelled, not the gateway it talked to."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    def _last(self, told: Told) -> Seen:
        return next(s for s in reversed(self.judge.seen) if s.response == told.response)

    async def create(
        self,
        session: str,
        key: str,
        *,
        kind: str,
        background: bool,
        keyed: bool,
        store: bool = True,
        retry: int = 0,
        tries: int = PATIENCE,
        told: Told | None = None,
    ) -> Told | None:
        """A create call, sent again until it is answered. None: refused for good, or out of patience."""
        world, part = self.world, names.partition("dev", "a", "u", session)
        place = SimpleNamespace(
            tenant="dev", agent="a", user="u", session_id=session, partition=part, revision="r1",
            session_key=names.session_key("dev", part), is_new=world.story.fresh,
        )  # fmt: skip
        world.identities[place.session_key] = SessionIdentity("dev", "a", "u", session, part, "r1")
        for _ in range(tries):
            gateway = await world.some()
            response = f"caresp_{part}00{self.rng.getrandbits(128):032x}"
            world.kinds[response] = kind
            if not store:
                world.unstored.add(response)
            request = TurnRequest(
                response_id=response, body={"model": "a"}, input_items=[], stream=True, background=background, store=store,
                idempotency_key=key if keyed else None, retry_count=retry, body_hash=key, headers={}, trace_id="",
                created_at=1,
            )  # fmt: skip
            answered: list[Told] = []

            def hear(found: str, into: list[Told] = answered) -> None:
                """The client has the answer."""
                fresh = Told(found, place.session_key, key if told is None else key + "-again", kind, store, background)
                into.append(self.judge.told.setdefault(found, fresh))

            try:
                await gateway.spawn(self._accept(gateway, place, request, hear))
            except ApiError as problem:
                if problem.kind is Kind.NOT_FOUND:
                    return None
                retry += problem.kind is not Kind.QUEUE_FULL
            except asyncio.CancelledError:
                self._mine()
                retry += 1
            if answered:
                return answered[0]
            await asyncio.sleep(0.5)
        return None

    async def _accept(self, gateway: Gateway, place: Any, request: TurnRequest, hear: Callable[[str], None]) -> None:
        found = await gateway.turns.accept(CALLER, place, request)
        hear(found)
        await gateway.point("answered", "after", found)

    async def cancel(self, told: Told) -> None:
        """Cancels; what the answer says is what is stored."""
        told.cancelled = True
        for _ in range(PATIENCE):
            gateway = await self.world.some()
            task = gateway.spawn(gateway.turns.cancel(told.response, tenant="dev"))
            try:
                answer = await task
            except ApiError as problem:
                if problem.kind is Kind.NOT_FOUND:
                    return
                await asyncio.sleep(1.0)
                continue
            except (TimeoutError, asyncio.CancelledError):
                self._mine()
                await asyncio.sleep(1.0)
                continue
            if answer["status"] in ("queued", "in_progress"):
                self.judge.broken(f"{told.response}: cancel answered {answer['status']}")
            seen = Seen(told.response, ended=True, end=json.dumps({"response": answer}).encode(), left=True)
            self.judge.seen.append(seen)
            return

    async def read(self, told: Told, *, patience: float | None = None) -> None:
        """Follows to the end over gateways that die; with `patience`, goes away after so many seconds."""
        seen = Seen(told.response, left=patience is not None)
        self.judge.seen.append(seen)
        until = None if patience is None else self.world.loop.now + patience
        while not seen.ended:
            now = self.world.loop.now
            if until is not None and now >= until:
                return
            gateway = await self.world.some()
            task = gateway.spawn(self._follow(gateway, seen))
            try:
                async with asyncio.timeout(self.rng.uniform(2, 40) if until is None else until - now):
                    await task
            except (TimeoutError, asyncio.CancelledError, ApiError):
                self._mine()
            await asyncio.sleep(0.3)
            if not told.background and not seen.ended and self._gone(told):
                seen.left = True  # foreground and lost with its owner, or not stored: nobody can ask any more
                return
        if self.rng.random() < 0.3 and told.store:
            await self._past(told, seen)

    def _gone(self, told: Told) -> bool:
        """Neither Redis, nor the store, nor an owner's memory has it."""
        if any(g.keeper.get(told.response) for g in self.world.alive()) or self.judge.document(told.response):
            return False
        if f"open/{told.response}.json" in self.world.store.objects:
            return False
        return not self.world.redis.execute_command("EXISTS", f"t:{told.response}")

    async def _past(self, told: Told, seen: Seen) -> None:
        """A cursor beyond the end gets the terminal event, alone."""
        gateway = await self.world.some()
        after = seen.cursor + self.rng.choice((0, 7, 10_000))
        got: list[bytes] = []

        async def follow() -> None:
            async for _, data in gateway.turns.follow(told.response, tenant="dev", after=after):
                await gateway.gate()
                got.append(data)

        task = gateway.spawn(follow())
        try:
            async with asyncio.timeout(90.0):
                await task
        except (TimeoutError, asyncio.CancelledError):
            self._mine()
            if gateway.dead or self.world.losses or gateway.held_up():
                return
        if [json.loads(g) for g in got] != [json.loads(seen.end)] and not self.world.losses:
            self.judge.broken(f"{told.response}: a cursor at {after}, past the end, got {len(got)} events")

    async def _follow(self, gateway: Gateway, seen: Seen) -> None:
        async for number, data in gateway.turns.follow(seen.response, tenant="dev", after=seen.cursor):
            await gateway.gate()
            if number > seen.cursor + 1:
                self.judge.broken(f"{seen.response}: event {number} after {seen.cursor}")
            old = seen.events.setdefault(number, data)
            if old != data and not self.judge.may_lose(seen.response):
                self.judge.broken(f"{seen.response}: event {number} changed")
            seen.cursor = max(seen.cursor, number)
            if b'"sequence_number"' in data and json.loads(data)["type"] in TERMINAL:
                seen.ended, seen.end = True, data
        if seen.ended:
            gateway.turns.delivered(seen.response)
