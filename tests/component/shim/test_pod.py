"""Launcher and shim as two containers of a pod run them: two programs that share a folder with a socket, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fakes.platform import poll
from fakes.shim_world import DONE, SECRET, SESSION, Stream
from fakes.two_containers import SANDBOX, TwoContainers
from fakes.ward import is_alive
from moorage_api.wire.hop import HopError, HopPool
from moorage_api.wire.shim import ALIVE, Source
from moorage_sandbox.__main__ import bring

pytestmark = pytest.mark.component


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[TwoContainers]:
    made = TwoContainers(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def pool() -> AsyncIterator[HopPool]:
    made = HopPool()
    yield made
    await made.close()
    await asyncio.sleep(0)  # the transports' own last step


async def post(pool: HopPool, endpoint: str, path: str, **body: object):
    return await pool.request(
        endpoint, "POST", path, [(b"x-moorage-secret", SECRET.encode())], json.dumps(body).encode(),
        connect_timeout=5, head_timeout=20,
    )  # fmt: skip


async def bound(pool: HopPool, endpoint: str) -> None:
    """Binds as soon as the shim listens and its agent is there."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            async with await post(
                pool, endpoint, "/shim/bind",
                session=SESSION, epoch=1, tenant="t", agent="a", session_id="s", user="u", gateways=[],
            ) as answer:  # fmt: skip
                if answer.status == 200:
                    return
                last = f"{answer.status}"
        except HopError as fault:
            last = str(fault)
        assert asyncio.get_running_loop().time() < deadline, f"never bound: {last}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("order", ["agent first", "shim first"])
async def test_a_turn_runs_in_the_agents_container_whichever_starts_first(
    pod: TwoContainers, pool: HopPool, order: str
) -> None:
    agent = pod.agent() if order == "agent first" else None
    shim = pod.shim()
    agent = agent or pod.agent()
    await bound(pool, pod.endpoint)
    answer = await post(
        pool, pod.endpoint, "/shim/start",
        turn="t", attempt=1, session=SESSION, epoch=1, deadline=20, fence=10, body={"script": [["echo", "seen"], ["event", DONE]]},
    )  # fmt: skip
    assert answer.status == 200, await answer.read(100_000)
    stream = Stream(answer)
    assert await stream.acknowledged() == 10
    sources, end = await stream.rest()
    assert sources and end.kind == "done"
    assert not pod.socket.exists(), "nobody else may come to init"
    assert (agent.poll(), shim.poll()) == (None, None)


async def test_what_an_agent_prints_is_printed_by_its_shims_container_a_line_as_json(
    pod: TwoContainers, pool: HopPool
) -> None:
    pod.agent()
    pod.shim()
    await bound(pool, pod.endpoint)
    answer = await post(
        pool, pod.endpoint, "/shim/start",
        turn="t", attempt=1, session=SESSION, epoch=1, deadline=20, fence=10, body={"script": [["print", "héllo"], ["event", DONE]]},
    )  # fmt: skip
    stream = Stream(answer)
    assert await stream.acknowledged() == 10
    await stream.rest()

    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in pod.printed().splitlines() if "héllo" in line]

    (line,) = await asyncio.to_thread(poll, "it is printed", lines)
    assert {name: line[name] for name in ("stream", "session", "sandbox", "line")} == {
        "stream": "stdout", "session": "s", "sandbox": SANDBOX, "line": "héllo",
    }  # fmt: skip


async def test_variables_of_the_platform_reach_the_agent_beside_its_own(
    pod: TwoContainers, pool: HopPool, tmp_path: Path
) -> None:
    given = tmp_path / "variables.json"
    given.write_text(json.dumps({"PIP_INDEX_URL": "http://index.example/simple", "TMPDIR": "/nowhere"}))
    pod.shim()
    pod.agent("--variables", str(given))
    await bound(pool, pod.endpoint)
    answer = await post(
        pool, pod.endpoint, "/shim/start",
        turn="t", attempt=1, session=SESSION, epoch=1, deadline=20, fence=10, body={"script": [["echo", "seen"], ["event", DONE]]},
    )  # fmt: skip
    stream = Stream(answer)
    assert await stream.acknowledged() == 10
    seen = await stream.next()
    assert isinstance(seen, Source) and b"PIP_INDEX_URL" in seen.data
    await stream.rest()


@pytest.mark.parametrize(("kills", "kind"), [(1, "oom"), (0, "exit")])
async def test_an_agent_that_was_killed_for_its_memory_is_told_from_any_other(
    pod: TwoContainers, pool: HopPool, tmp_path: Path, kills: int, kind: str
) -> None:
    """The kernel's part is played: the count of the container's control group rises as its agent is killed."""
    count = tmp_path / "memory.events"
    count.write_text("oom 0\noom_kill 0\n")
    agent = pod.agent("--memory", str(count))
    pod.shim()
    await bound(pool, pod.endpoint)
    answer = await post(
        pool, pod.endpoint, "/shim/start",
        turn="t", attempt=1, session=SESSION, epoch=1, deadline=20, fence=10, body={"script": [["wait", str(tmp_path / "never")]]},
    )  # fmt: skip
    stream = Stream(answer)
    assert await stream.acknowledged() == 10
    (victim,) = await asyncio.to_thread(poll, "the agent process runs", lambda: children_of(agent.pid))
    count.write_text(f"oom {kills}\noom_kill {kills}\n")
    os.kill(victim, signal.SIGKILL)
    _, end = await stream.rest()
    assert end.kind == kind


@pytest.mark.parametrize("way", [(), ("--exec",)], ids=["imported", "as a program"])
def test_without_a_shim_the_container_ends_and_says_why(pod: TwoContainers, way: tuple[str, ...]) -> None:
    bring(pod.folder / "launcher")  # and then it died
    agent = pod.agent("--wait", "0.5", *way)
    _, said = agent.communicate(timeout=30)
    assert agent.returncode == 1
    assert b"no shim came to" in said and b"Traceback" not in said


def test_without_an_init_the_shim_ends_and_says_why(pod: TwoContainers) -> None:
    shim = pod.shim(ready_timeout=0.5)
    _, said = shim.communicate(timeout=30)
    assert shim.returncode == 1
    assert b"init did not listen at" in said


@pytest.mark.parametrize("victim", ["agent", "shim"])
async def test_when_one_container_dies_the_other_ends_and_leaves_nothing(
    pod: TwoContainers, pool: HopPool, victim: str
) -> None:
    agent, shim = pod.agent(), pod.shim()
    await bound(pool, pod.endpoint)
    children = poll("the agent process runs", lambda: children_of(agent.pid))
    dies, stays = (agent, shim) if victim == "agent" else (shim, agent)
    os.kill(dies.pid, signal.SIGKILL)
    assert await asyncio.to_thread(stays.wait, 30) in (0, 3)
    poll("every agent process is gone", lambda: not any(is_alive(pid) for pid in children))


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_shim_says_that_it_lives_to_whoever_asks_and_one_that_stands_still_only_takes_the_connection(
    pod: TwoContainers, pool: HopPool
) -> None:
    shim = pod.shim()
    pod.agent()
    await bound(pool, pod.endpoint)
    async with await pool.request(pod.endpoint, "GET", ALIVE, [], b"", connect_timeout=5, head_timeout=20) as answer:
        assert (answer.status, await answer.read(100)) == (200, b'{"alive":true}')
    for method, path in (("POST", ALIVE), ("GET", "/shim/status")):
        async with await pool.request(
            pod.endpoint, method, path, [], b"", connect_timeout=5, head_timeout=20
        ) as answer:
            assert answer.status == 401
    shim.send_signal(signal.SIGSTOP)
    try:
        host, port = pod.endpoint.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            pass  # what a probe of its port alone would be content with
        with pytest.raises(HopError):
            await pool.request(pod.endpoint, "GET", ALIVE, [], b"", connect_timeout=5, head_timeout=1)
    finally:
        shim.send_signal(signal.SIGCONT)
