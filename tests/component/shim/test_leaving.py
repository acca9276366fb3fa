"""A machine says that a pod ends: what runs is given up, what no checkpoint has seen is saved within the notice, and then it is over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from component.shim.test_pod import bound, children_of, pool, post
from fakes.checkpoint_gateway import CheckpointGateway, gateway
from fakes.shim_world import DONE, SESSION, Stream, World
from fakes.two_containers import TwoContainers
from fakes.ward import is_alive
from moorage_api.wire.hop import HopPool

__all__ = ["gateway", "pool"]

pytestmark = pytest.mark.component

NOTICE = 15.0


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[TwoContainers]:
    made = TwoContainers(tmp_path)
    for name in ("workspace", "home"):
        (tmp_path / "volume" / name).mkdir()
    (tmp_path / "volume" / "workspace" / "draft").write_text("as far as it came")
    yield made
    made.close()


class Session:
    """A session bound in a pod of two real processes, before a gateway that keeps checkpoints."""

    def __init__(self, pod: TwoContainers, pool: HopPool, gateway: CheckpointGateway, notice: float) -> None:
        self.agent = pod.agent()
        self.shim = pod.shim(gateways=[gateway.url], notice=notice, log_file=str(pod.folder / "log"))
        self._pool, self._endpoint = pool, pod.endpoint

    async def bind(self) -> Session:
        await bound(self._pool, self._endpoint)
        return self

    async def start(self, script: list[Any], fence: int = 10) -> Stream:
        answer = await post(
            self._pool, self._endpoint, "/shim/start",
            turn="t", attempt=1, session=SESSION, epoch=1, deadline=20, fence=fence, body={"script": script},
        )  # fmt: skip
        if answer.status != 200:
            raise AssertionError(await answer.read(100_000))
        return Stream(answer)

    async def turn(self) -> Session:
        """A turn that has ended, which no checkpoint has seen."""
        stream = await self.start([["event", DONE]])
        assert await stream.acknowledged() == 10
        _, end = await stream.rest()
        assert end.kind == "done"
        return self

    async def save(self) -> None:
        async with await post(
            self._pool, self._endpoint, "/shim/checkpoint", session=SESSION, epoch=1, why="asked", deadline=20
        ) as answer:
            assert answer.status == 200, await answer.read(100_000)

    def told(self) -> None:
        self.shim.send_signal(signal.SIGTERM)

    async def over(self) -> None:
        """Both containers have ended, the shim in good order."""
        for process in (self.shim, self.agent):
            await asyncio.to_thread(process.wait, 30)
        assert self.shim.returncode == 0


Begin = Callable[..., Awaitable[Session]]


@pytest.fixture
def begin(pod: TwoContainers, pool: HopPool, gateway: CheckpointGateway) -> Begin:
    return lambda notice=NOTICE: Session(pod, pool, gateway, notice).bind()


class Held:
    """Holds the gateway's answer to whatever is put, and says when it was asked for."""

    def __init__(self, gateway: CheckpointGateway) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def hold(call: int, method: str, path: str) -> None:
            if method == "PUT":
                self.asked.set()
                await self.go.wait()

        gateway.fault = hold

    async def until(self) -> None:
        async with asyncio.timeout(30):
            await self.asked.wait()


async def test_a_running_turn_is_given_up_and_its_files_are_saved_before_the_pod_ends(
    begin: Begin, gateway: CheckpointGateway, tmp_path: Path
) -> None:
    one = await begin()
    stream = await one.start([["wait", str(tmp_path / "never")]])
    assert await stream.acknowledged() == 10
    (process,) = children_of(one.agent.pid)
    held = Held(gateway)
    one.told()
    _, end = await stream.rest()
    assert end.kind == "orphaned", "the platform's fault: the turn goes on elsewhere"
    await held.until()
    assert not is_alive(process), "nothing writes any more to what is being saved"
    with pytest.raises(AssertionError, match="draining"):
        await one.start([["event", DONE]], fence=11)
    held.go.set()
    await one.over()
    (made,) = gateway.made
    assert (made.why, made.epoch, made.session, made.quiet, made.files) == ("hibernate", 1, SESSION, True, 1)


async def test_an_idle_sandbox_saves_what_no_checkpoint_has_seen(begin: Begin, gateway: CheckpointGateway) -> None:
    one = await (await begin()).turn()
    one.told()
    await one.over()
    assert [(made.why, made.quiet) for made in gateway.made] == [("hibernate", True)]


async def test_what_a_checkpoint_has_seen_is_not_saved_again(begin: Begin, gateway: CheckpointGateway) -> None:
    one = await (await begin()).turn()
    await one.save()
    await one.save()  # what ended within the millisecond in which one began counts as not seen by it
    one.told()
    await one.over()
    assert [made.why for made in gateway.made] == ["asked", "asked"]


async def test_without_notice_a_shim_ends_as_it_is_told(begin: Begin, gateway: CheckpointGateway) -> None:
    one = await (await begin(notice=0.0)).turn()
    one.told()
    await one.over()
    assert gateway.calls == []


async def test_a_store_that_does_not_answer_costs_the_notice_and_not_the_end(
    begin: Begin, gateway: CheckpointGateway, tmp_path: Path
) -> None:
    one = await (await begin(notice=2.0)).turn()
    Held(gateway)  # for ever: whether it is asked at all within the notice is the machine's affair
    one.told()
    await one.over()
    assert gateway.made == []
    assert "not in time" in (said := (tmp_path / "log").read_text()) or "was made in time" in said, (
        "not the store's patience"
    )


async def test_who_is_told_twice_ends_at_once(begin: Begin, gateway: CheckpointGateway) -> None:
    one, held = await (await begin(notice=600.0)).turn(), Held(gateway)
    one.told()
    await held.until()
    one.told()
    await one.over()
    assert gateway.made == []


async def test_a_start_that_was_on_its_way_is_refused_as_any_other_and_the_agent_is_not_blamed(tmp_path: Path) -> None:
    async with World(tmp_path, notice=NOTICE) as world:
        await world.bind()
        first = await world.start([["exit", 1]])
        assert await first.acknowledged() == 10
        _, end = await first.rest()
        assert end.kind == "exit", "the next start needs another process"
        world.init.env["NOT_READY"] = "1"
        spawned = world.init.calls.count("spawn")
        starting = asyncio.ensure_future(world.call("start", **world.start_body([["event", DONE]], fence=11)))
        async with asyncio.timeout(20):
            while world.init.calls.count("spawn") == spawned:
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)  # its handler is the shim's: it runs in this loop
        status, answer = await starting
        assert (status, answer["error"]) == (409, "draining")
