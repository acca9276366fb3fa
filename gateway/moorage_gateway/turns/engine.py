"""Drives one owned turn to its end: sandbox, attempt, log, outcome, close. The order of writes is turns.md §2.

Every step may meet a lost Redis (the call is sent again), a higher fence (the turn is dropped), or a cancel (the attempt is
stopped, then the outcome decided). The ports are handed in, so that the simulation drives this very code.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson

from moorage_api.errors import ApiError
from moorage_api.ledger.records import Entry
from moorage_api.wire import headers
from moorage_api.wire.shim import Attach, Start, Stop
from moorage_gateway.conversation import for_agent
from moorage_gateway.turns import rules
from moorage_gateway.turns.consuming import Inbox
from moorage_gateway.turns.held import Dropped, Held
from moorage_gateway.turns.lane import Lane
from moorage_gateway.turns.normalise import Normaliser, Outcome
from moorage_gateway.turns.placing import RETRY_S, Placing
from moorage_gateway.turns.rules import Fault, blamed
from moorage_gateway.turns.source_reader import SourceReader, ending, failed
from moorage_gateway.turns.steps import Attempted
from moorage_gateway.upstream import Frames, Route, ShimError, ShimLost, ShimRefused

STOP_GRACE_S = 5.0
END_WAIT_S = 2.0  # for the agent's stream to end after its terminal event
REATTACH = 3  # tries to reach a sandbox whose connection broke, before it is given up
VAIN = 10  # refusals in a row: a sandbox that was drained for good, say, in a past that Redis has lost
LIFECYCLE = frozenset({"response.created", "response.queued", "response.in_progress"})


class Engine(Placing):
    """Drives turns; one `drive` a held turn. Cancelling `drive` drops the turn without deciding it."""

    async def drive(self, held: Held) -> None:
        """Takes the turn from wherever it is to closed. Returns early, without an outcome, when the turn was dropped."""
        try:
            if held.record.state != "closing":
                outcome, normaliser = await self._attempts(held)
                if held.limits.checkpoint and outcome.status == "completed":
                    outcome = await self._kept(held, outcome)
                await self._decide(held, outcome, normaliser)
            await self._settle(held)
        except Dropped:
            return

    # -- attempts -----------------------------------------------------------------------------------------------------

    async def _attempts(self, held: Held) -> tuple[Outcome, Normaliser | None]:
        """Attempts until one has an outcome, or the turn is cancelled, given up or past its deadline."""
        deadline = self._clock.monotonic() + max(0.0, held.record.deadline - self._clock.now_ms()) / 1000
        attach, vain = held.taken_over and held.begun > 0, 0
        while True:
            if held.cancelled:
                return Outcome(status="cancelled"), None
            self._stay(held)
            if self._clock.monotonic() >= deadline:
                return failed(
                    "turn_timeout", "The turn ran past its deadline (turn.timeout in the agent's manifest)."
                ), None
            if not attach:
                progress = len(held.log) + await self._recorded(held)
                verdict = rules.next_attempt(
                    held.attempts, progress, held.limits.max_attempts, durable=held.limits.durable
                )
                if isinstance(verdict, rules.GiveUp):
                    return failed(verdict.code, verdict.message), None
                if verdict.delay and await held.until_interrupt(verdict.delay):
                    continue
            result = await (self._attach(held, deadline) if attach else self._attempt(held, deadline))
            attach = False
            vain = vain + 1 if result is None else 0
            if vain > 1:  # refused again: what it waits for takes a moment
                await held.until_interrupt(RETRY_S)
            if vain > VAIN and held.route is not None and not held.interrupted:
                await self._mark_dead(held, held.route, "it refuses to start anything")
                vain = 0
            if isinstance(result, tuple):
                return result
            if result is not None and result.cause == "generation":
                return failed("ledger_lost", result.detail), None
            if result is not None:
                await self._fault(held, result)

    async def _attempt(self, held: Held, deadline: float) -> tuple[Outcome, Normaliser | None] | Fault | None:
        """One try. None: nothing was begun (cancelled, route stale, not acknowledged); look again."""
        if held.record.generation != self._generation():
            return Fault(
                "generation", "Redis lost its data while the turn waited for its sandbox; send the request again."
            )
        try:
            route = await self._route(held, deadline)
        except ApiError as problem:
            return failed("session_not_ready", problem.message), None
        if route is None:
            return None
        wait = self._calm()
        if wait > 0 and await held.until_interrupt(wait):
            return None
        number = sum(1 for a in held.attempts if a.get("started")) + 1
        with self._observer.attempt(held, number) as seen:
            record = {
                "at": self._clock.now_ms(),
                "sandbox": route.sandbox,
                "epoch": route.epoch,
                "revision": held.identity.revision,
                "base": len(held.log),
            }
            word = await self._begin(held, route, record)
            if word == "GENERATION":
                return Fault(
                    "generation", "Redis lost its data, so no further attempt of this turn may begin; send it again."
                )
            if word != "OK":
                return None
            call = Start(
                turn=held.response,
                fence=held.fence,
                attempt=number,
                session=held.record.session,
                epoch=route.epoch,
                deadline=max(1.0, deadline - self._clock.monotonic()),
                headers=self._headers(held, seen),
                body=dict(held.template.body) | {"input": for_agent(held.input_items)},
                history=await self._history(held),
                workspace="restore" if held.limits.restores else "keep",
            )
            result = await self._consume(held, route, self._shims.start(route, call), deadline)
            if isinstance(result, Fault):
                seen.fault = result.cause
            elif result is not None:
                seen.outcome = result[0].status
            return result

    async def _attach(self, held: Held, deadline: float) -> tuple[Outcome, Normaliser | None] | Fault | None:
        """Goes on with the attempt a former owner began; a takeover is not an attempt."""
        begun_at = held.attempts[-1].get("epoch", 0) if held.attempts else 0
        try:
            route = await self._route(held, deadline)
            if route is not None and route.epoch < begun_at:  # what this process remembers is older than the attempt
                self._activation.forget(held.record.session)
                route = await self._route(held, deadline)
        except ApiError as problem:
            return Fault("lost", problem.message)
        if route is None:
            return None
        if route.epoch != begun_at:
            held.attempts[-1:] = [held.attempts[-1] | {"started": True}] if held.attempts else []
            return Fault("sandbox_lost", "the sandbox was gone when another gateway took the turn over")
        call = Attach(turn=held.response, fence=held.fence, begun=held.begun, src=0)
        return await self._consume(held, route, self._shims.attach(route, call), deadline)

    async def _begin(self, held: Held, route: Route, record: dict[str, Any]) -> str:
        word, fence, _ = await self._insist(
            held, lambda: self._ledger.begin(held.response, held.fence, epoch=route.epoch, attempt=record)
        )
        match word:
            case "OK":
                held.fence = held.begun = fence
                held.attempts.append(record)
                held.record = replace(
                    held.record,
                    fence=fence,
                    begun=fence,
                    attempt=held.record.attempt + 1,
                    raw=held.record.raw
                    | {"fence": str(fence), "begun": str(fence), "attempt": str(held.record.attempt + 1), "prev": ""},
                )
            case "CANCEL":
                held.interrupt(cancelled=True)
            case "EPOCH":
                self._activation.forget(held.record.session)
            case "FENCED" | "ABSENT" | "STATE":
                held.interrupt(fenced=True)
                self._stay(held)
        return word

    # -- one attempt's frames -----------------------------------------------------------------------------------------

    async def _consume(
        self, held: Held, route: Route, frames: Frames, deadline: float
    ) -> tuple[Outcome, Normaliser | None] | Fault | None:
        """Logs what the attempt says until it has an outcome, breaks, or is interrupted."""
        base = int(held.attempts[-1].get("base", len(held.log))) if held.attempts else len(held.log)
        baseline = [orjson.loads(e.data) for e in held.log[:base]]
        normaliser = Normaliser(held.template, baseline, continues=any(e["type"] not in LIFECYCLE for e in baseline))
        reader = SourceReader(held, normaliser, position=base)
        for _ in range(REATTACH):
            try:
                result = await self._follow(held, reader, frames, deadline)
            except ShimRefused as refusal:
                result = self._refused(held, refusal, reader)
            except ShimLost as fault:
                result = await self._broken(held, route, fault, reader)
                if result is None and not held.interrupted:
                    frames = self._shims.attach(
                        route, Attach(turn=held.response, fence=held.fence, begun=held.begun, src=reader.src)
                    )
                    continue
            if held.interrupted and not isinstance(result, tuple):
                await self._leave(held, route)
                self._stay(held)
                return Outcome(status="cancelled"), normaliser
            if isinstance(result, tuple) and normaliser.outcome is None and result[0].status == "failed":
                await self._stop(held, route)  # ended by us: past its deadline, or too large
            return result
        await self._mark_dead(held, route, "the sandbox's connection keeps breaking")
        return Fault("sandbox_lost", "the connection to the sandbox keeps breaking")

    async def _follow(
        self, held: Held, reader: SourceReader, source: Frames, deadline: float
    ) -> tuple[Outcome, Normaliser | None] | Fault | None:
        inbox = Inbox()
        lane = Lane(held, reader, self._ledger, self._recovery, inbox.wake)
        inbox.first = lane.offer
        pump = asyncio.ensure_future(inbox.pump(source))
        unwatch = held.watch(inbox.wake)
        timer = asyncio.get_running_loop().call_later(max(0.0, deadline - self._clock.monotonic()), inbox.wake)
        try:
            result = await self._read(held, reader, inbox, lane, deadline)
            await self._append_groups(held, await lane.stop())
            return result
        except ShimError:
            await self._append_groups(held, await lane.stop())  # read already: a new stream goes on behind it
            raise
        finally:
            timer.cancel()
            unwatch()
            lane.shut()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _read(
        self, held: Held, reader: SourceReader, inbox: Inbox, lane: Lane, deadline: float
    ) -> tuple[Outcome, Normaliser | None] | Fault | None:
        """What the lane does not take, until something ends this."""
        while not held.interrupted:
            if self._clock.monotonic() >= deadline:
                return failed(
                    "turn_timeout", "The turn ran past its deadline (turn.timeout in the manifest)."
                ), reader.normaliser
            frames = await inbox.take()
            await self._append_groups(held, await lane.stop())
            if frames is None:
                return Fault("cut", "the sandbox's stream ended without saying how")
            end = reader.read(frames)
            if reader.contradicted:
                return Fault("lost", "the log was closed over this attempt by a former owner")
            await self._append(held, reader.drain())
            if held.log_bytes > held.limits.log_bytes:
                return failed(
                    "output_too_large", "The turn's events are larger than the platform stores."
                ), reader.normaliser
            outcome = reader.normaliser.outcome
            if outcome is not None and (end is not None or reader.linger(self._clock.monotonic(), END_WAIT_S)):
                return outcome, reader.normaliser
            if end is not None:
                return ending(end, reader.normaliser)
            if outcome is not None:
                asyncio.get_running_loop().call_later(END_WAIT_S, inbox.wake)
            else:
                lane.start()
                inbox.hand_over()
        return None

    async def _append_groups(self, held: Held, groups: list[list[Entry]]) -> None:
        for group in groups:
            await self._append(held, group)

    def _refused(self, held: Held, refusal: ShimRefused, reader: SourceReader) -> Fault | None:
        """What a refusal of start or attach means."""
        self._activation.forget(held.record.session)
        match refusal.word:
            case "unknown":  # attach: the shim has lost the attempt (it was begun; whether it ran, nobody knows)
                self._acknowledge(held)
                return Fault("lost", "the sandbox no longer has the attempt")
            case "fenced":
                held.interrupt(fenced=True)
                return None
            case "not_ready":
                self._acknowledge(held)
                return Fault("not_ready", refusal.detail or "the agent did not become ready", refusal.log_tail)
            case _:
                return None  # stale_epoch, other_session, draining, unbound: not begun there; ask for the route again

    async def _broken(self, held: Held, route: Route, fault: ShimLost, reader: SourceReader) -> Fault | None:
        """A connection that broke: None to try again at the same sandbox, a fault once it is seen dead."""
        if not reader.started and not fault.refused:
            reader.started = self._acknowledge(held)  # it may have begun: the next owner of this thought is attach
        if fault.refused:
            await self._mark_dead(held, route, str(fault))
            return Fault("sandbox_lost", "the sandbox is gone") if reader.started else None
        await held.until_interrupt(RETRY_S)
        return None

    def _acknowledge(self, held: Held) -> bool:
        if held.attempts:
            held.attempts[-1] = held.attempts[-1] | {"started": True}
        return True

    async def _leave(self, held: Held, route: Route) -> None:
        """Stops a cancelled attempt at the shim, within its grace; a fenced or released one is left to its new owner."""
        if held.cancelled and not held.fenced and not held.releasing:
            await self._stop(held, route)

    async def _stop(self, held: Held, route: Route) -> None:
        call = Stop(turn=held.response, fence=held.fence, grace=STOP_GRACE_S)
        try:
            await self._shims.stop(route, call)
        except ShimRefused:
            return
        except ShimLost as fault:
            why = str(fault)
            if fault.refused:
                await self._insist(held, lambda: self._activation.lost(route, why))

    async def _fault(self, held: Held, fault: Fault) -> None:
        """Puts the fault beside the attempt it ended."""
        if not held.attempts:
            return
        if fault.cause in ("orphaned", "sandbox_lost"):  # ended under it: by whom, and for what?
            last = held.attempts[-1]
            reason = await self._activation.end_reason(held.record.session, str(last.get("sandbox", "")))
            if reason:  # it is ending, perhaps not dead yet: an attempt begun there would be blamed for the same end
                held.dead_epoch = int(last.get("epoch", 0))
                self._activation.forget(held.record.session)
            fault = blamed(fault, reason)
        held.attempts[-1] = held.attempts[-1] | {
            "ended": self._clock.now_ms(),
            "fault": fault.cause,
            "detail": fault.detail[:2000],
            "log_tail": list(fault.log_tail[-50:]),
            "progress": len(held.log),
            "calls": await self._insist(held, lambda: self._calls(held.response)),
        }
        await self._note(held)

    async def _recorded(self, held: Held) -> int:
        """Calls that the turn's journal holds; not asked for before anything went wrong."""
        if not any(a.get("fault") for a in held.attempts):
            return 0
        return await self._insist(held, lambda: self._calls(held.response))

    def _headers(self, held: Held, seen: Attempted) -> dict[str, str]:
        found = dict(held.record.meta.get("headers") or {})
        found[headers.AGENT_USER_ID] = str(held.record.meta.get("user", ""))
        if seen.traceparent:
            found[headers.TRACEPARENT] = seen.traceparent
        return found
