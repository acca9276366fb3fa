"""Looks at sessions: one that takes long holds up no other, ends with its owner, and what fails comes again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.ledger.records import SessionRecord
from moorage_api.ledger.script import Unreachable
from moorage_gateway import lifecycle
from moorage_gateway.lifecycle import Lifecycle
from moorage_gateway.upstream import ShimRefused

pytestmark = pytest.mark.unit

NOW = 1_000_000_000


class Ledger:
    """Two sessions, asked to stop; `drained` are those that were let go."""

    def __init__(self) -> None:
        self.drained: list[str] = []
        self.doomed: list[str] = []
        self.saved: list[str] = []
        self.state = "claimed"
        self.out: dict[str, str] = {}
        self.stuck: dict[str, str] = {}
        self.next: dict[str, int] = {}

    async def due(self, now: int, limit: int) -> dict[str, int]:
        return {"dev:slow": 5, "dev:quick": 6}

    async def session(self, key: str) -> SessionRecord | None:
        raw = {
            "state": self.state,
            "epoch": "7",
            "tenant": "dev",
            "agent": "a",
            "stop": "1",
            "active": "1",
            "claimed": "1",
            "out": self.out.get(key, ""),
            "stuck": self.stuck.get(key, ""),
        }
        return SessionRecord.parse(key, raw)

    async def defer(self, key: str, seen_ms: int, next_ms: int) -> None:
        assert seen_ms == {"dev:slow": 5, "dev:quick": 6}.get(key, 0)
        self.next[key] = next_ms - NOW

    async def drain(self, key: str, epoch: int, *, idle_before: int) -> str:
        return "OK"

    async def hibernated(self, key: str, epoch: int, reason: str, saved: str) -> str:
        self.drained.append(key)
        self.saved.append(saved)
        return "OK"

    async def doom(self, sandbox: str, reason: str) -> None:
        self.doomed.append(sandbox)


class Files:
    """Keeping `dev:slow` takes until it is told to go on; archiving it fails."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.kept: list[str] = []
        self.cancelled: list[str] = []

    async def keep(self, record: SessionRecord, route: Any, why: str) -> str:
        assert why == "hibernate"
        try:
            if record.key == "dev:slow":
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(record.key)
            raise
        self.kept.append(record.key)
        return f"ck of {record.key}"

    async def archive(self, record: SessionRecord) -> bool:
        self.kept.append(record.key)
        if record.key == "dev:slow":
            raise Unreachable("not now")
        return True

    async def move(self, record: SessionRecord) -> bool:
        self.kept.append(f"{record.key} moves")
        if record.key == "dev:slow":
            await self.go.wait()
        return True


async def quiet(*about: Any) -> bool:
    return True


async def nothing(*about: Any) -> None:
    return


async def unbound(*about: Any) -> bool:
    raise ShimRefused("unbound")


def made(ledger: Ledger, files: Files, archive_ms: int = 0, drain: Any = quiet) -> Lifecycle:
    clock: Any = SimpleNamespace(now_ms=lambda: NOW, sleep=nothing)
    shims: Any = SimpleNamespace(drain=drain)
    catalog: Any = SimpleNamespace(get=lambda tenant, agent: None)
    recovery: Any = SimpleNamespace(recover=nothing)
    return Lifecycle(ledger, shims, catalog, clock, recovery, nothing, files, archive_ms)  # type: ignore[arg-type]


async def test_a_slow_checkpoint_holds_up_no_other_session_and_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "TOGETHER_S", 0.01)
    ledger, files = Ledger(), Files()
    one = made(ledger, files)
    async with asyncio.timeout(10):
        await one.look()
        assert ledger.drained == ["dev:quick"]
        await one.look()
        assert ledger.drained == ["dev:quick", "dev:quick"]  # due again; the slow one is still at it
        files.go.set()
        while "dev:slow" not in ledger.drained:
            await asyncio.sleep(0)
    assert files.kept.count("dev:slow") == 1


async def test_what_still_runs_ends_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "TOGETHER_S", 0.01)
    ledger, files = Ledger(), Files()
    running = asyncio.ensure_future(made(ledger, files).run())
    async with asyncio.timeout(10):
        while not ledger.drained:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert files.cancelled == ["dev:slow"] and ledger.drained.count("dev:slow") == 0


async def test_a_sandbox_that_was_never_bound_is_ended_and_does_not_become_the_sessions_workspace() -> None:
    ledger, files = Ledger(), Files()
    async with asyncio.timeout(10):
        await made(ledger, files, drain=unbound).look()
    assert len(ledger.doomed) == 2 and ledger.drained == [] and files.kept == []


async def test_what_was_saved_is_noted_with_the_sleep() -> None:
    ledger, files = Ledger(), Files()
    files.go.set()
    async with asyncio.timeout(10):
        await made(ledger, files).look()
    assert sorted(ledger.saved) == ["ck of dev:quick", "ck of dev:slow"]


async def test_archives_are_few_at_a_time_and_hold_up_no_drain() -> None:
    ledger, files = Ledger(), Files()
    held = asyncio.Event()
    begun = []

    async def slow(record: SessionRecord) -> bool:
        begun.append(record.key)
        await held.wait()
        return True

    async def many(now: int, limit: int) -> dict[str, int]:
        return dict.fromkeys((f"dev:{number}" for number in range(10)), 0)

    files.archive, ledger.due, ledger.state = slow, many, "hibernated"  # type: ignore[method-assign]
    one = made(ledger, files, archive_ms=1000)
    async with asyncio.timeout(10):
        await one.look()
        await one.look()
        assert len(begun) == lifecycle.ARCHIVES
        ledger.state = "claimed"
        files.go.set()
        await one.look()
        assert len(ledger.drained) == 10
        held.set()


async def test_an_archive_that_fails_holds_up_no_other_and_is_tried_again() -> None:
    ledger, files = Ledger(), Files()
    ledger.state = "hibernated"
    one = made(ledger, files, archive_ms=1000)
    async with asyncio.timeout(10):
        for _ in range(2):
            await one.look()
            while one._archiving:
                await asyncio.sleep(0)
    assert sorted(files.kept) == ["dev:quick", "dev:quick", "dev:slow", "dev:slow"]


async def test_a_session_whose_volume_is_out_of_reach_is_moved_and_not_drained() -> None:
    ledger, files = Ledger(), Files()
    ledger.out = {"dev:slow": "its node is not heard of"}
    one = made(ledger, files)
    async with asyncio.timeout(10):
        files.go.set()
        await one.look()
        while one._moving:
            await asyncio.sleep(0)
    assert ledger.drained == ["dev:quick"] and "dev:slow moves" in files.kept
    assert ledger.next["dev:slow"] == lifecycle.MOVE_AGAIN_MS


async def test_one_that_waits_for_its_volume_has_its_checkpoints_read_again_seldom() -> None:
    ledger, files = Ledger(), Files()
    ledger.out = ledger.stuck = {"dev:slow": "its node is not heard of"}
    one = made(ledger, files)
    async with asyncio.timeout(10):
        files.go.set()
        await one.look()
        while one._moving:
            await asyncio.sleep(0)
    assert ledger.next["dev:slow"] == lifecycle.STUCK_AGAIN_MS > lifecycle.MOVE_AGAIN_MS


async def test_one_that_sleeps_leaves_nothing_whatever_its_record_says() -> None:
    ledger, files = Ledger(), Files()
    ledger.state, ledger.out = "hibernated", {"dev:slow": "its node is not heard of"}
    one = made(ledger, files, archive_ms=1000)
    async with asyncio.timeout(10):
        files.go.set()
        await one.look()
        while one._archiving:
            await asyncio.sleep(0)
    assert sorted(files.kept) == ["dev:quick", "dev:slow"], "both are archived"


async def test_moves_are_few_at_a_time_and_the_others_come_soon() -> None:
    ledger, files = Ledger(), Files()
    many = {f"dev:{number}": 0 for number in range(6)}
    held = asyncio.Event()

    async def due(now: int, limit: int) -> dict[str, int]:
        return many

    async def slow(record: SessionRecord) -> bool:
        files.kept.append(record.key)
        await held.wait()
        return True

    ledger.due, files.move = due, slow  # type: ignore[method-assign]
    ledger.out = dict.fromkeys(many, "its node is not heard of")
    one = made(ledger, files)
    async with asyncio.timeout(10):
        await one.look()
        await one.look()
        while len(files.kept) < lifecycle.MOVES:
            await asyncio.sleep(0)
        assert len(files.kept) == lifecycle.MOVES and ledger.drained == []
        assert sorted(ledger.next.values()).count(lifecycle.MOVE_SOON_MS) == len(many)  # those under way as well
        held.set()
        while one._moving:
            await asyncio.sleep(0)
