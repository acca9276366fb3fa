"""A turn's sandbox: asked for, given up, and what it holds kept before the turn is called completed.

Between `Closing` and `Engine`; nothing here begins an attempt.
"""

from __future__ import annotations

import asyncio

from moorage_api.errors import ApiError
from moorage_api.wire.checkpoints import Save
from moorage_gateway.activation import Wanted
from moorage_gateway.turns.closing import Closing
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Outcome
from moorage_gateway.turns.source_reader import failed, void
from moorage_gateway.upstream import Route, ShimLost, ShimRefused

RETRY_S = 0.2
LONGEST_S = 5.0  # between two tries of a turn's checkpoint
SAVE_S = 120.0  # for one try of it


class _Unkeepable(Exception):
    """No further try would be another's."""


class Placing(Closing):
    """The session's route for a turn. Raises Dropped when this process must let go of the turn."""

    async def _route(self, held: Held, deadline: float) -> Route | None:
        """The session's bound route, within the acquire deadline; None when interrupted meanwhile."""
        until = min(deadline, self._clock.monotonic() + held.limits.acquire_s)
        wanted = Wanted(held.record.session, held.identity, held.named, dead_epoch=held.dead_epoch)
        task = asyncio.ensure_future(self._activation.acquire(wanted, deadline=until))
        unwatch = held.watch(lambda: void(task.cancel()))
        try:
            if held.interrupted:
                task.cancel()
            held.route = await task
            return held.route
        except asyncio.CancelledError:
            if held.interrupted:
                return None
            task.cancel()
            raise
        finally:
            unwatch()

    async def _mark_dead(self, held: Held, route: Route, why: str) -> None:
        """This binding is over: the provider is to prove it, and no route of this epoch is taken again."""
        held.dead_epoch = route.epoch
        await self._insist(held, lambda: self._activation.lost(route, why))

    async def _kept(self, held: Held, outcome: Outcome) -> Outcome:
        """`durability: turn`: completed only after a checkpoint of what the turn left; `failed` when there is none by its deadline."""
        deadline = self._clock.monotonic() + max(0.0, held.record.deadline - self._clock.now_ms()) / 1000
        why, pause = "its sandbox did not answer", RETRY_S
        while (left := deadline - self._clock.monotonic()) > 0:
            self._stay(held)
            if held.cancelled:
                return Outcome(status="cancelled")
            try:
                if await self._saved(held, deadline, left):
                    return outcome
            except _Unkeepable as fault:
                why = str(fault)
                break
            except ApiError as problem:
                why = problem.message
            except ShimRefused as refusal:
                why = str(refusal)
                if refusal.word != "not_kept":
                    self._activation.forget(held.record.session)
            except ShimLost as fault:
                why = str(fault)
                if fault.refused and held.route is not None:
                    await self._mark_dead(held, held.route, why)
            await held.until_interrupt(pause)
            pause = min(2 * pause, LONGEST_S)
        return failed(
            "checkpoint_failed", f"The turn's files could not be kept (turn.durability in the manifest): {why}"
        )

    async def _saved(self, held: Held, deadline: float, left: float) -> bool:
        """Whether a checkpoint was made; `left` in seconds. Raises _Unkeepable, ApiError, ShimError."""
        route = await self._route(held, deadline)
        if route is None:
            return False
        if route.epoch != int(held.attempts[-1].get("epoch", 0)) and not route.kept:
            raise _Unkeepable("they were lost with their volume")
        call = Save(session=held.record.session, epoch=route.epoch, why="turn", deadline=min(left, SAVE_S))
        try:
            await self._shims.save(route, call)
        except ShimRefused as refusal:
            if refusal.word == "unfit":
                raise _Unkeepable(refusal.detail) from refusal
            raise
        return True
