"""Sent again, a script answers the same and writes nothing (turns.md §1 c). Every script of the project is in the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from component.ledger.desk import (
    SESSION,
    WHO,
    Desk,
    Writer,
    acceptance,
    asking,
    begun,
    binding,
    claimed,
    descriptor,
    entry,
)
from moorage_api.catalog import RoutineEntry
from moorage_api.ledger import (
    agent_calls,
    approvals,
    journal_scripts,
    loss_scripts,
    move_scripts,
    progress,
    routine_scripts,
    run_leases,
    session_scripts,
    turn_scripts,
)
from moorage_api.ledger.agent_calls import AgentCallLedger
from moorage_api.ledger.approvals import ApprovalLedger, Request
from moorage_api.ledger.records import TurnRecord
from moorage_api.ledger.routines import HOLD_MS
from moorage_api.ledger.run_leases import RunLeases
from moorage_api.ledger.script import Script
from moorage_api.wire.calls import Progress

pytestmark = pytest.mark.component

Send = Callable[[], Awaitable[Any]]
Scene = Callable[[Desk, Writer], Awaitable[Send]]


async def _accept(desk: Desk, g: Writer) -> Send:
    return lambda: g.turns.accept(acceptance("r-1", idempotency="idem:1", idempotency_hash="h", retry="retry:1"))


async def _accept_waiting(desk: Desk, g: Writer) -> Send:
    await g.turns.accept(acceptance("r-0"))
    return lambda: g.turns.accept(acceptance("r-1"))


async def _join(desk: Desk, g: Writer) -> Send:
    await g.turns.accept(acceptance("r-0", retry="retry:1"))
    return lambda: g.turns.accept(acceptance("r-1", retry="retry:1", retry_count=1))


async def _begin(desk: Desk, g: Writer) -> Send:
    accepted = await g.turns.accept(acceptance("r-1"))
    epoch = await claimed(desk, g)
    return lambda: g.turns.begin("r-1", accepted.fence, epoch=epoch, attempt={"n": 1})


async def _note(desk: Desk, g: Writer) -> Send:
    fence, _ = await begun(desk, g)
    return lambda: g.turns.note("r-1", fence, 0, {"fault": "exit"})


async def _append(desk: Desk, g: Writer) -> Send:
    fence, _ = await begun(desk, g)
    return lambda: g.turns.append("r-1", fence, 1, [entry("a"), entry("b")])


async def _decide(desk: Desk, g: Writer) -> Send:
    fence, _ = await begun(desk, g)
    return lambda: g.turns.decide("r-1", fence, "completed", 1, "{}")


async def _close(desk: Desk, g: Writer) -> Send:
    fence, _ = await begun(desk, g)
    await g.turns.accept(acceptance("r-2"))
    await g.turns.decide("r-1", fence, "completed", 1, "{}")
    return lambda: g.turns.close("r-1", stored=True)


async def _flushed(desk: Desk, g: Writer) -> Send:
    fence, _ = await begun(desk, g)
    await g.turns.decide("r-1", fence, "completed", 1, "{}")
    await g.turns.close("r-1", stored=False)
    return lambda: g.turns.flushed("r-1")


async def _flag(desk: Desk, g: Writer) -> Send:
    await g.turns.accept(acceptance("r-1"))
    return lambda: g.turns.cancel("r-1", "cancelled", 0, "")


async def _acquire(desk: Desk, g: Writer) -> Send:
    other = await desk.writer("g2")
    await other.turns.accept(acceptance("r-1"))
    await desk.tick(11)
    return lambda: g.turns.acquire("r-1")


async def _renew(desk: Desk, g: Writer) -> Send:
    accepted = await g.turns.accept(acceptance("r-1"))
    return lambda: g.turns.renew([("r-1", accepted.fence)])


async def _release(desk: Desk, g: Writer) -> Send:
    accepted = await g.turns.accept(acceptance("r-1"))
    return lambda: g.turns.release("r-1", accepted.fence)


async def _delivered(desk: Desk, g: Writer) -> Send:
    await g.turns.accept(acceptance("r-1"))
    return lambda: g.turns.delivered("r-1")


async def _restore(desk: Desk, g: Writer) -> Send:
    record = TurnRecord.parse("r-1", {"state": "running", "session": SESSION, "fence": "50"})
    assert record is not None
    await g.turns.accept(acceptance("r-2"))
    where = {"state": "new", "epoch": "0"}
    return lambda: g.turns.restore(record, WHO, where, [entry("a")], [{"n": 1}])


async def _bar(desk: Desk, g: Writer) -> Send:
    return lambda: g.turns.bar("r-1")


async def _forget(desk: Desk, g: Writer) -> Send:
    await (await _close(desk, g))()
    return lambda: g.turns.forget("r-1")


async def _discard(desk: Desk, g: Writer) -> Send:
    accepted = await g.turns.accept(acceptance("r-1"))
    return lambda: g.turns.discard("r-1", accepted.fence)


async def _probe(desk: Desk, g: Writer) -> Send:
    return lambda: g.turns.probe()


async def _open(desk: Desk, g: Writer) -> Send:
    return lambda: g.sessions.open_session(SESSION, WHO)


async def _waking(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    return lambda: g.sessions.claim(SESSION, "r1", named=False)


async def _ready(desk: Desk, g: Writer) -> Send:
    asked = await (await _waking(desk, g))()
    return lambda: g.provider.ready(SESSION, asked.epoch, descriptor("sb-1"))


async def _unready(desk: Desk, g: Writer) -> Send:
    asked = await (await _waking(desk, g))()
    return lambda: g.provider.unready(SESSION, asked.epoch, "no memory")


async def _bound(desk: Desk, g: Writer) -> Send:
    await (await _ready(desk, g))()
    route = await g.sessions.claim(SESSION, "r1", named=False)
    return lambda: g.sessions.bound(SESSION, route.epoch)


async def _doom(desk: Desk, g: Writer) -> Send:
    return lambda: g.sessions.doom("sb-1", "why")


async def _gone_unclaimed(desk: Desk, g: Writer) -> Send:
    await g.provider.offer(descriptor("sb-1"))
    return lambda: g.provider.gone("sb-1", "exit")


async def _drain(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    epoch = await claimed(desk, g)
    return lambda: g.sessions.drain(SESSION, epoch, idle_before=0)


async def _undrain(desk: Desk, g: Writer) -> Send:
    await (await _drain(desk, g))()
    epoch = int((await desk.session("epoch"))[0])
    return lambda: g.sessions.undrain(SESSION, epoch)


async def _hibernated(desk: Desk, g: Writer) -> Send:
    await (await _drain(desk, g))()
    epoch = int((await desk.session("epoch"))[0])
    return lambda: g.sessions.hibernated(SESSION, epoch, "idle", "ck-1")


async def _stop(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    return lambda: g.sessions.request_stop(SESSION)


async def _delete(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    return lambda: g.sessions.delete_session(SESSION)


async def _removed(desk: Desk, g: Writer) -> Send:
    await (await _delete(desk, g))()
    return lambda: g.provider.removed(SESSION)


async def _defer(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    (seen,) = (await g.sessions.due(10**15, 1)).values()
    return lambda: g.sessions.defer(SESSION, seen, seen + 1)


async def _archive(desk: Desk, g: Writer) -> Send:
    await (await _hibernated(desk, g))()
    epoch = int((await desk.session("epoch"))[0])
    return lambda: g.sessions.archive(SESSION, epoch, "ck-1")


async def _unkept(desk: Desk, g: Writer) -> Send:
    await (await _archive(desk, g))()
    volume = (await g.provider.archived())[SESSION]
    return lambda: g.provider.unkept(SESSION, volume)


async def _out_of_reach(desk: Desk, g: Writer) -> Send:
    await g.sessions.open_session(SESSION, WHO)
    await claimed(desk, g)
    await desk.tick(60)  # its shim is not heard of
    return lambda: g.provider.out_of_reach("sb-1", "", "vol-sb-1", "its node is silent")


async def _move(desk: Desk, g: Writer) -> Send:
    await (await _out_of_reach(desk, g))()
    epoch = int((await desk.session("epoch"))[0])
    return lambda: g.sessions.move(SESSION, epoch, "vol-sb-1", restore=True)


async def _stay(desk: Desk, g: Writer) -> Send:
    await (await _out_of_reach(desk, g))()
    epoch = int((await desk.session("epoch"))[0])
    return lambda: g.sessions.stay(SESSION, epoch, "vol-sb-1", "it has no checkpoint")


async def _abandoned(desk: Desk, g: Writer) -> Send:
    await (await _move(desk, g))()
    return lambda: g.provider.abandoned("vol-sb-1")


async def _label(desk: Desk, g: Writer) -> Send:
    return lambda: g.provider.label(SESSION, 7, "v", WHO)


async def _call(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    return lambda: g.journal.start(binding(epoch), asking(fence), "g1:1")


async def _call_recorded(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    started = await g.journal.start(binding(epoch), asking(fence), "g1:1")
    await g.journal.complete(asking(fence), started, "g1:1", state="completed", answer=b"a")
    return lambda: g.journal.start(binding(epoch), asking(fence, 2), "g1:2")


async def _call_of_unknown_outcome(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    await g.journal.start(binding(epoch), asking(fence, permits="once"), "g1:1")
    await desk.tick(11)
    return lambda: g.journal.start(binding(epoch), asking(fence, permits="once"), "g1:2")


async def _complete(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    started = await g.journal.start(binding(epoch), asking(fence), "g1:1")
    return lambda: g.journal.complete(asking(fence), started, "g1:1", state="completed", answer=b"\xff\0")


async def _drop(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    started = await g.journal.start(binding(epoch), asking(fence), "g1:1")
    return lambda: g.journal.drop("r-1", started, "g1:1")


async def _hold(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    started = await g.journal.start(binding(epoch), asking(fence), "g1:1")
    return lambda: g.journal.hold([("r-1", started.entry, "g1:1"), ("r-1", "none.0", "g1:1")])


async def _remember(desk: Desk, g: Writer) -> Send:
    return lambda: AgentCallLedger(g.client).remember(SESSION, "team/worker", "r-1")


async def _progress(desk: Desk, g: Writer) -> Send:
    fence, epoch = await begun(desk, g)
    said = Progress(text="1 of 2", fraction=0.5)
    return lambda: progress.ProgressLedger(g.client).tell(binding(epoch), "r-1", fence, said)


async def _run_taken(desk: Desk, g: Writer) -> Send:
    return lambda: RunLeases(g.client).take("inv_1")


async def _run_freed(desk: Desk, g: Writer) -> Send:
    await RunLeases(g.client).take("inv_1")
    return lambda: RunLeases(g.client).free("inv_1")


async def _run_stopped(desk: Desk, g: Writer) -> Send:
    await RunLeases(g.client).take("inv_1")
    return lambda: RunLeases(g.client).stop("inv_1")


def wanted(call: str = "call_1", **over: Any) -> Request:
    """A call that a person must approve."""
    return Request(**({"print_": "p", "call": call, "response": "r-1", "box": "t", "tool": "put", "arguments": "{}"} | over))  # fmt: skip


async def _look(desk: Desk, g: Writer) -> Send:
    return lambda: ApprovalLedger(g.client).look(SESSION, wanted(), "id-1")


async def _approve(desk: Desk, g: Writer) -> Send:
    await ApprovalLedger(g.client).look(SESSION, wanted(), "id-1")
    return lambda: ApprovalLedger(g.client).answer(SESSION, "id-1", approve=True, reason="")


async def _let_through(desk: Desk, g: Writer) -> Send:
    await (await _approve(desk, g))()
    return lambda: ApprovalLedger(g.client).look(SESSION, wanted("call_2"), "id-2")


SCENES: tuple[tuple[Script, Scene], ...] = (
    (turn_scripts.ACCEPT, _accept),
    (turn_scripts.ACCEPT, _accept_waiting),
    (turn_scripts.ACCEPT, _join),
    (turn_scripts.BEGIN, _begin),
    (turn_scripts.NOTE, _note),
    (turn_scripts.APPEND, _append),
    (turn_scripts.DECIDE, _decide),
    (turn_scripts.CLOSE, _close),
    (turn_scripts.FLUSHED, _flushed),
    (turn_scripts.CANCEL, _flag),
    (turn_scripts.ACQUIRE, _acquire),
    (turn_scripts.RENEW, _renew),
    (turn_scripts.RELEASE, _release),
    (turn_scripts.DELIVERED, _delivered),
    (loss_scripts.RESTORE, _restore),
    (loss_scripts.BAR, _bar),
    (turn_scripts.FORGET, _forget),
    (loss_scripts.DISCARD, _discard),
    (loss_scripts.PROBE, _probe),
    (session_scripts.OPEN, _open),
    (session_scripts.ARCHIVE, _archive),
    (session_scripts.UNKEPT, _unkept),
    (move_scripts.OUT_OF_REACH, _out_of_reach),
    (move_scripts.MOVE, _move),
    (move_scripts.STAY, _stay),
    (move_scripts.ABANDONED, _abandoned),
    (session_scripts.CLAIM, _waking),
    (session_scripts.READY, _ready),
    (session_scripts.UNREADY, _unready),
    (session_scripts.BOUND, _bound),
    (session_scripts.DOOM, _doom),
    (session_scripts.GONE, _gone_unclaimed),
    (session_scripts.DRAIN, _drain),
    (session_scripts.UNDRAIN, _undrain),
    (session_scripts.HIBERNATED, _hibernated),
    (session_scripts.STOP, _stop),
    (session_scripts.DELETE, _delete),
    (session_scripts.REMOVED, _removed),
    (session_scripts.DEFER, _defer),
    (loss_scripts.LABEL, _label),
    (journal_scripts.START, _call),
    (journal_scripts.START, _call_recorded),
    (journal_scripts.START, _call_of_unknown_outcome),
    (journal_scripts.COMPLETE, _complete),
    (journal_scripts.DROP, _drop),
    (journal_scripts.HOLD, _hold),
    (agent_calls.REMEMBER, _remember),
    (progress.TELL, _progress),
    (run_leases.HOLD_RUN, _run_taken),
    (run_leases.HOLD_RUN, _run_freed),
    (run_leases.STOP_RUN, _run_stopped),
    (approvals.LOOK, _look),
    (approvals.LOOK, _let_through),
    (approvals.ANSWER, _approve),
)

# These say in their second answer that the first one took effect; the test below has the pairs.
TELLING = {
    session_scripts.OFFER.name, session_scripts.CLAIM.name, session_scripts.GONE.name, loss_scripts.ANNOUNCE.name,
    session_scripts.PUBLISH.name, turn_scripts.CANCEL.name,
    routine_scripts.PUBLISH_ROUTINE.name, routine_scripts.TAKE_ROUTINES.name, routine_scripts.PUT_ROUTINE.name,
}  # fmt: skip

# Sent once and never again: what is lost with it is a little of a limit.
SENT_ONCE = {journal_scripts.SPEND.name}


@pytest.mark.parametrize(("script", "scene"), SCENES, ids=lambda x: x.__name__.strip("_") if callable(x) else "")
async def test_sent_again_it_answers_the_same_and_writes_nothing(script: Script, scene: Scene, desk: Desk) -> None:
    g = await desk.writer("g1")
    send = await scene(desk, g)
    first = await send()
    held = await desk.state()
    assert await send() == first
    assert await desk.state() == held


async def test_a_second_answer_may_say_that_the_first_took_effect_but_writes_nothing(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.sessions.open_session(SESSION, WHO)
    await g.turns.accept(acceptance("r-8", "dev:p2"))
    await g.turns.accept(acceptance("r-9", "dev:p2"))
    steps: list[tuple[Send, str]] = [
        (lambda: g.run(session_scripts.OFFER, descriptor("sb-1").to_json()), "OK SEEN"),
        (lambda: g.run(session_scripts.CLAIM, SESSION, "r1", 0), "CLAIMED ROUTE"),
        (
            lambda: g.run(loss_scripts.ANNOUNCE, "dev:p3", 7, descriptor("sb-3").to_json(), WHO.to_json()),
            "RESTORED OK",
        ),
        (lambda: g.run(turn_scripts.CANCEL, "r-9", "cancelled", 2, "{}"), "CLOSING ENDED"),
        (lambda: g.run(session_scripts.PUBLISH, "dev/a", "{}"), "OK SAME"),
        (lambda: g.run(session_scripts.GONE, "sb-1", "exit"), "OK OK"),
        (lambda: g.run(routine_scripts.PUBLISH_ROUTINE, "dev/r", "{}"), "OK SAME"),
        (lambda: g.run(routine_scripts.PUT_ROUTINE, "dev/r", 0, "{}", "", ""), "OK MOVED"),
    ]
    for send, words in steps:
        first = await send()
        held = await desk.state()
        second = await send()
        assert f"{first[0].decode()} {second[0].decode()}" == words
        assert await desk.state() == held


async def test_what_was_taken_is_not_taken_again_and_a_routine_is_due_again_when_its_taker_died(desk: Desk) -> None:
    g = await desk.writer("g1")
    await g.provider.routines.publish(RoutineEntry("dev", "r", {}))
    now, (taken,) = await g.provider.routines.take(10)
    assert (taken.field, taken.version, taken.state, taken.since) == ("dev/r", 0, "", now)
    held = await desk.state()
    assert await g.provider.routines.take(10) == (now, [])
    assert await desk.state() == held
    await desk.tick(HOLD_MS / 1000)
    assert [one.field for one in (await g.provider.routines.take(10))[1]] == ["dev/r"]
    await g.provider.routines.unpublish("dev", "r")
    (gone,) = (await g.provider.routines.take(10))[1]
    assert gone.spec == "" and await g.provider.routines.put("dev/r", 0, "", None)
    assert await g.provider.routines.earliest() is None


def test_every_script_is_in_the_table() -> None:
    known = {
        x.name
        for module in (
            turn_scripts,
            session_scripts,
            loss_scripts,
            move_scripts,
            journal_scripts,
            routine_scripts,
            agent_calls,
            approvals,
            progress,
            run_leases,
        )
        for x in vars(module).values()
        if isinstance(x, Script)
    }
    assert known == {script.name for script, _ in SCENES} | TELLING | SENT_ONCE
