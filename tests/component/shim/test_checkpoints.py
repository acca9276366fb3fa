"""Saving and restoring in a child: what fails leaves the old files and the old checkpoint, never a mix of two."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.checkpoint_gateway import CheckpointGateway, gateway
from moorage_api.wire.checkpoints import Saved
from moorage_api.wire.shim import Bind
from moorage_sandbox import child, keeping
from moorage_sandbox.clock import SystemClock
from moorage_sandbox.errors import Refused
from moorage_sandbox.files import Files
from moorage_sandbox.keeping import Keeping, NotKept
from moorage_sandbox.proof import Proof

__all__ = ["gateway"]

pytestmark = pytest.mark.component

BOUND = Bind(session="t:p", epoch=7, tenant="t", agent="a", session_id="s", user="u")
WITHIN = 30.0


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    for name in ("workspace", "home", ".moorage"):
        (made / name).mkdir(parents=True)
    return made


@pytest.fixture
async def kept(gateway: CheckpointGateway, volume: Path) -> AsyncIterator[Keeping]:
    made = Keeping(str(volume), Proof("a.b", None), lambda: [gateway.url], SystemClock())
    yield made
    await made.close()


def write(volume: Path, **files: str) -> None:
    for name, text in files.items():
        (volume / "workspace" / name).write_text(text)


def read(volume: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((volume / "workspace").iterdir())}


async def save(kept: Keeping, *, quiet: bool = True, seconds: float = WITHIN) -> Saved:
    return await kept.save(BOUND, "asked", "", lambda: quiet, seconds)


async def test_files_come_back_as_they_were(kept: Keeping, gateway: CheckpointGateway, volume: Path) -> None:
    write(volume, a="one", b="two")
    first = await save(kept)
    write(volume, a="changed", c="new")
    (volume / "workspace" / "b").unlink()
    second = await save(kept, quiet=False)
    assert [(one.id, one.quiet) for one in gateway.made] == [(first.id, True), (second.id, False)]
    assert (first.files, second.hashed) == (2, 2)
    folder = (volume / "workspace").stat().st_ino
    await kept.restore(first.id, WITHIN)
    assert read(volume) == {"a": "one", "b": "two"}
    assert (volume / "workspace").stat().st_ino == folder  # it is mounted in a running sandbox
    await kept.restore(second.id, WITHIN)
    assert read(volume) == {"a": "changed", "c": "new"}


async def test_what_did_not_change_is_neither_read_nor_put_again(
    kept: Keeping, gateway: CheckpointGateway, volume: Path
) -> None:
    write(volume, a="one" * 1000)
    await save(kept)
    again = await save(kept)
    assert (again.hashed, again.packs, len(gateway.puts())) == (0, 0, 1)


async def test_packs_that_the_store_lost_are_put_again(kept: Keeping, gateway: CheckpointGateway, volume: Path) -> None:
    write(volume, a="one")
    await save(kept)
    gateway.blobs.clear()
    again = await save(kept)
    assert again.hashed == 1 and len(gateway.made) == 2
    await kept.restore(again.id, WITHIN)
    assert read(volume) == {"a": "one"}


@pytest.mark.parametrize("status", [0, 503])
async def test_a_gateway_that_fails_at_any_call_costs_time_and_nothing_else(
    kept: Keeping, gateway: CheckpointGateway, volume: Path, status: int
) -> None:
    write(volume, a="one")
    for number in range(1, 3):
        gateway.calls.clear()
        gateway.fault = lambda call, method, path, n=number: status if call == n else None  # type: ignore[misc]
        write(volume, a=f"version {number}")
        one = await save(kept)
        gateway.calls.clear()
        write(volume, a="other")
        await kept.restore(one.id, WITHIN)
        assert read(volume) == {"a": f"version {number}"}


async def test_a_checkpoint_that_is_refused_at_any_call_is_none_and_the_older_stands(
    kept: Keeping, gateway: CheckpointGateway, volume: Path
) -> None:
    write(volume, a="one")
    first = await save(kept)
    for number in range(1, 4):  # pack, manifest, pointer
        write(volume, a=f"version {number}")
        gateway.calls.clear()
        gateway.fault = lambda call, method, path, n=number: 403 if call == n else None  # type: ignore[misc]
        with pytest.raises(NotKept):
            await save(kept)
        assert [one.id for one in gateway.made] == [first.id]
    gateway.fault = lambda call, method, path: None
    last = await save(kept)
    write(volume, a="other")
    await kept.restore(last.id, WITHIN)
    assert read(volume) == {"a": "version 3"}


@pytest.mark.parametrize("kind", ["packs", "manifests"])
async def test_a_damaged_checkpoint_is_told_and_the_files_stay(
    kept: Keeping, gateway: CheckpointGateway, volume: Path, kind: str
) -> None:
    write(volume, a="one")
    made = await save(kept)
    write(volume, a="now")
    for name in [name for name in gateway.blobs if name.startswith(kind)]:
        gateway.blobs[name] = b"other bytes"
    with pytest.raises(NotKept) as caught:
        await kept.restore(made.id, WITHIN)
    assert caught.value.damaged
    assert read(volume) == {"a": "now"}
    with pytest.raises(NotKept) as caught:
        await kept.restore("before:nothing", WITHIN)
    assert caught.value.damaged


@pytest.mark.parametrize("seconds", [0.0, 0.6])
async def test_a_store_that_is_away_past_the_deadline_is_told_and_is_not_damage(
    kept: Keeping, gateway: CheckpointGateway, volume: Path, seconds: float
) -> None:
    write(volume, a="one")
    made = await save(kept)
    gateway.fault = lambda call, method, path: 503
    with pytest.raises(NotKept):
        await save(kept, seconds=seconds)
    with pytest.raises(NotKept) as caught:
        await kept.restore(made.id, seconds)
    assert not caught.value.damaged
    assert read(volume) == {"a": "one"}


async def test_a_store_that_is_away_is_not_waited_for_as_long_as_a_large_tree(
    kept: Keeping, gateway: CheckpointGateway, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PATIENCE_SECONDS", 0.3)
    write(volume, a="one")
    gateway.fault = lambda call, method, path: 503
    async with asyncio.timeout(WITHIN):  # of the hour that the whole may take
        with pytest.raises(NotKept):
            await save(kept, seconds=3600.0)


async def test_a_child_that_is_killed_is_told_and_the_next_one_does_it(
    kept: Keeping, gateway: CheckpointGateway, volume: Path
) -> None:
    write(volume, a="one")
    came = asyncio.Event()

    def hold(call: int, method: str, path: str) -> int | None:
        came.set()
        return 503

    gateway.fault = hold
    before = children()
    saving = asyncio.ensure_future(save(kept))
    async with asyncio.timeout(WITHIN):
        await came.wait()
    (made,) = children() - before
    os.kill(made, signal.SIGKILL)
    with pytest.raises(NotKept):
        await saving
    gateway.fault = lambda call, method, path: None
    assert (await save(kept)).files == 1


class Agents:
    """An agent of which only its end and its beginning matter."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        self.said.append("stopped")
        yield
        self.said.append("may run")

    def warm(self) -> None:
        self.said.append("warm")


async def asked(files: Files, call: Bind) -> str:
    """What a bind is told until something else than `starting`: the refusal's word, or `bound`."""
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            files.require(call)
        except Refused as refusal:
            if refusal.word != "starting":
                return refusal.word
        else:
            return "bound"
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_sandbox_is_bound_only_with_its_files_and_to_nobody_else_meanwhile(
    kept: Keeping, gateway: CheckpointGateway, volume: Path
) -> None:
    write(volume, a="one")
    made = await save(kept)
    write(volume, a="other")
    agents: Any = Agents()
    output: Any = SimpleNamespace(shim=lambda line: None)
    files = Files(kept, agents, output, asyncio.Lock(), lambda why: None)
    files.require(BOUND)  # it asks for no files
    call = BOUND.model_copy(update={"restore": made.id})
    blobs, gateway.blobs = gateway.blobs, dict.fromkeys(gateway.blobs, b"damaged")
    assert await asked(files, call) == "damaged"
    gateway.blobs = blobs
    with pytest.raises(Refused) as caught:
        files.require(call)  # asked again it begins anew
    assert caught.value.word == "starting"
    for other in (BOUND.model_copy(update={"session": "t:other"}), call.model_copy(update={"session": "t:other"})):
        with pytest.raises(Refused) as caught:
            files.require(other)
        assert caught.value.word == "other_session"
    assert await asked(files, call) == "bound"
    assert read(volume) == {"a": "one"} and agents.said[-3:] == ["stopped", "may run", "warm"]
    with pytest.raises(Refused) as caught:
        files.require(BOUND.model_copy(update={"session": "t:other"}))  # the files are there, bound or not
    assert caught.value.word == "other_session"
    await files.close()


async def test_cancelled_work_leaves_no_child() -> None:
    before = children()
    running = asyncio.ensure_future(child.run(_forever, WITHIN))
    deadline = time.monotonic() + WITHIN
    while children() == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children() == before


async def test_what_the_work_raises_is_told_by_name() -> None:
    with pytest.raises(child.ChildFailed) as caught:
        await child.run(_raises, WITHIN)
    assert (caught.value.kind, caught.value.detail) == ("KeyError", "'no'")


async def test_a_child_has_none_of_the_parents_descriptors() -> None:
    found = await child.run(_descriptors, WITHIN)
    assert len(found["fds"]) <= 5  # the standard three, the pipe, and the folder that is being listed


async def test_the_last_manifest_is_the_committed_ones(kept: Keeping, gateway: CheckpointGateway, volume: Path) -> None:
    write(volume, a="one")
    await save(kept)
    held = (volume / ".moorage" / "checkpoint").read_bytes()
    write(volume, a="two")
    gateway.fault = lambda call, method, path: 403 if method == "POST" else None
    with pytest.raises(NotKept):
        await save(kept)
    assert (volume / ".moorage" / "checkpoint").read_bytes() == held
    assert keeping._last(volume) is not None


def children() -> set[int]:
    """Of this process, as the kernel says; other tests' servers among them."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def _forever() -> dict[str, object]:
    signal.pause()
    return {}


def _raises() -> dict[str, object]:
    return {}["no"]  # type: ignore[return-value]


def _descriptors() -> dict[str, object]:
    return {"fds": os.listdir("/proc/self/fd")}
