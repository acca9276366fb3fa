"""The simulated provider: keeps a pool, serves waking sessions, ends what is doomed, proves deaths, gives labels back."""

from __future__ import annotations

import asyncio
from typing import Any

from moorage_api.ledger import keys
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, fields, text
from moorage_api.ledger.script import Lost, Unreachable
from sim.runner import SimRunner
from sim.sandboxes import Sandbox

TICK_S = 0.5
POOL = keys.pool("dev", "a", "r1")


class Provider:
    """Level-triggered: each round looks at all it needs in one journey, and never asks what happened."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._runner = SimRunner(world, "provider", self._point, world.loop.create_task)
        self._ledger = ProviderLedger(self._runner)
        self._pool = 2
        self._count = 0
        self._offering: list[Sandbox] = []  # offers without an answer yet
        self._labels_at: float | None = None
        self._dead: list[str] = []  # the last that died; after a loss their deaths are told again
        self._again: list[str] = []
        self.sandboxes: dict[str, Sandbox] = {}

    async def _point(self, name: str, side: str, about: Any) -> bool:
        """Offers get no answer now and then: they are made again."""
        lost = name == "offer" and side == "after" and not self._world.quiet
        return lost and self._world.rng.random() < self._world.story.offers_lost

    def _make(self, volume: str) -> Sandbox:
        self._count += 1
        sandbox = Sandbox(f"sb-{self._count}", volume or f"vol-{self._count}")
        self.sandboxes[sandbox.id] = sandbox
        self._world.shims.add(sandbox)
        return sandbox

    def place(self, s: Sandbox) -> Descriptor:
        """What it tells others about a sandbox."""
        return Descriptor(s.id, "dev", "a", "r1", s.endpoint, "x" * 8, s.volume)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._runner.found()
                break
            except (Lost, Unreachable):
                continue
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._round()
            except Lost:
                await self._mend()
            except Unreachable:
                continue

    async def _mend(self) -> None:
        try:
            await self._runner.found()
        except (Lost, Unreachable):
            return
        # Looking through what every volume is labelled with takes a while.
        self._labels_at = self._world.loop.now + self._world.rng.choice((0.0, 1.0, 4.0, 14.0))
        for sandbox in self.sandboxes.values():
            if sandbox.alive and not sandbox.session and sandbox.volume in self._world.shims.volume_binding:
                self._world.shims.kill(sandbox)  # not bound yet, on a session's volume: its label speaks for it
        self._offering = [s for s in self.sandboxes.values() if s.alive and not s.session]
        self._again = self._dead[-12:]

    async def _round(self) -> None:
        for sandbox in list(self.sandboxes.values()):
            if not sandbox.alive:
                await self._ledger.gone(sandbox.id, "exit")
                self._drop(sandbox)
        doomed, waking, ready, deletes = await self._runner.read_all(
            [
                ("HGETALL", keys.DOOMED),
                ("ZRANGE", keys.WAKING, 0, 99),
                ("LRANGE", POOL, 0, -1),
                ("ZRANGE", keys.DELETES, 0, 99),
            ]
        )
        for name, reason in fields(doomed).items():
            await self._end(name, reason)
        for key in waking:
            await self._wake(text(key))
        for key in deletes:
            await self._remove(text(key))
        if self._labels_at is not None and self._world.loop.now >= self._labels_at:
            await self._relabel()
        if self._again and self._world.rng.random() < 0.1:
            name = self._again.pop()
            await self._ledger.gone(name, "exit")
        await self._fill(len(ready))

    async def _end(self, name: str, reason: str) -> None:
        """Kills, then proves. What it no longer knows has been dead for long."""
        sandbox = self.sandboxes.get(name)
        if sandbox is not None:
            self._world.shims.kill(sandbox)
        await self._ledger.gone(name, reason)
        if sandbox is not None:
            self._drop(sandbox)

    async def _wake(self, key: str) -> None:
        record = await self._ledger.session(key)
        if record is None or record.state != "waking":
            return
        if record.volume:
            others = [s for s in self.sandboxes.values() if s.volume == record.volume]
            for other in others:
                self._world.shims.kill(other)
            if others:
                return  # one writer a volume: its death is reported first
        sandbox = self._make(record.volume)
        await asyncio.sleep(self._world.rng.choice((0.0, 0.0, 0.1, 1.0, 3.0)))
        if not await self._ledger.ready(key, record.epoch, self.place(sandbox)):
            self._world.shims.kill(sandbox)

    async def _remove(self, key: str) -> None:
        volumes = [v for v, (session, _) in self._world.shims.volume_binding.items() if session == key]
        if any(s.volume in volumes and s.alive for s in self.sandboxes.values()):
            return
        for volume in volumes:
            del self._world.shims.volume_binding[volume]
        await self._ledger.removed(key)

    async def _fill(self, ready: int) -> None:
        """Offers until the pool is full; an offer without an answer is made again."""
        for sandbox in list(self._offering):
            if sandbox.alive and not sandbox.session:
                await self._ledger.offer(self.place(sandbox))
            self._offering.remove(sandbox)
        for _ in range(self._pool - ready):
            sandbox = self._make("")
            self._offering.append(sandbox)
            await self._ledger.offer(self.place(sandbox))
            self._offering.remove(sandbox)

    def _drop(self, sandbox: Sandbox) -> None:
        self.sandboxes.pop(sandbox.id, None)
        self._dead.append(sandbox.id)
        self._world.shims.by_endpoint.pop(sandbox.endpoint, None)

    async def _relabel(self) -> None:
        """After a loss: volumes without a sandbox say whose they are."""
        live = {s.volume for s in self.sandboxes.values() if s.alive}
        for volume, (session, epoch) in list(self._world.shims.volume_binding.items()):
            who = self._world.identities.get(session)
            if volume not in live and who is not None:
                await self._ledger.label(session, epoch, volume, who)
        self._labels_at = None
