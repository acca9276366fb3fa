"""Bound shims announce themselves, to gateways that may be dead or paused (turns.md §3)."""

from __future__ import annotations

import asyncio
from typing import Any

from moorage_api.ledger.script import Lost, Unreachable
from sim.runner import Dead
from sim.sandboxes import Sandbox

ANNOUNCE_S = 8.0


class Announcing:
    """Every bound shim that is reached, every 8 s; soon again after no answer; without any for 60 s it stops everything."""

    def __init__(self, world: Any) -> None:
        self._world = world

    async def run(self) -> None:
        """Until cancelled."""
        world = self._world
        next_at: dict[str, float] = {}
        asked: dict[str, asyncio.Task[bool]] = {}
        while True:
            await asyncio.sleep(0.5)
            now = world.loop.now
            if not any(g.paused_until <= now for g in world.alive()):
                world.dark_at = now
            for sandbox in list(world.shims.by_endpoint.values()):
                if sandbox.cut and now >= sandbox.cut_until:
                    sandbox.cut, sandbox.whole_since = False, now
                    next_at[sandbox.id] = now
                answer = asked.get(sandbox.id)
                if answer is not None and answer.done():
                    del asked[sandbox.id]
                    next_at[sandbox.id] = now + (ANNOUNCE_S if not answer.cancelled() and answer.result() else 0.5)
                if not sandbox.alive or not sandbox.session or now < next_at.setdefault(sandbox.id, now + ANNOUNCE_S):
                    continue
                if now - sandbox.last_gateway > 60.0:
                    world.shims.kill(sandbox)
                elif not sandbox.cut and sandbox.id not in asked:
                    asked[sandbox.id] = world.loop.create_task(self._announce(sandbox))

    async def _announce(self, sandbox: Sandbox) -> bool:
        """False: no answer. Told a higher epoch, the shim stops everything."""
        world = self._world
        ready = [g for g in world.alive() if g.paused_until <= world.loop.now]
        if not ready or sandbox.who is None:
            return False
        gateway, place = world.rng.choice(ready), world.provider.place(sandbox)
        call = gateway.sessions.announce(sandbox.session, sandbox.epoch, place, sandbox.who)
        try:
            async with asyncio.timeout(2.0):
                found = await gateway.spawn(call, raw=True)
        except Lost:
            world.dark_at = world.loop.now  # nobody took the announcement: that gateway still mends its ledger
            return False
        except (Unreachable, Dead, TimeoutError):
            sandbox.unheard_at = world.loop.now
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            sandbox.unheard_at = world.loop.now
            return False
        sandbox.last_gateway = world.loop.now
        if found.epoch > sandbox.epoch:
            world.shims.kill(sandbox)
        return True
