"""Shims as processes: forked in milliseconds, reported when they end, gone with their provider."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.init import FakeInit
from fakes.shim_world import DONE, SECRET, SESSION, Stream, until
from moorage_api.wire.hop import HopPool
from moorage_local.shims import ShimFailed, ShimForkserver, ShimProcess
from moorage_sandbox.config import ShimConfig

pytestmark = pytest.mark.component

MAX_PRIVATE_KIB = 9 * 1024
"""Gate on the memory that a forked idle shim has for itself; 5.6 MiB were measured."""


class Fleet:
    """A forkserver and the sandboxes made with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ShimForkserver()
        self.inits: list[FakeInit] = []
        self.pool = HopPool()
        self.said: list[str] = []

    async def spawn(self, name: str = "sb-1", **env: str) -> tuple[ShimProcess, FakeInit, ShimConfig]:
        init = FakeInit(env)
        self.inits.append(init)
        config = ShimConfig(
            sandbox=name,
            tenant="dev",
            agent="a",
            revision="r",
            endpoint=f"unix:{self.folder}/{name}",
            secret=SECRET,
            token="t",
            volume=str(self.folder / f"{name}.volume"),
            ready_timeout=20,
        )
        shim = await self.server.spawn(config, control_fd=init.theirs.fileno(), on_log=self.said.append)
        init.theirs.close()
        init.hello()
        return shim, init, config

    async def post(self, config: ShimConfig, path: str, **body: object):
        head = [(b"x-moorage-secret", SECRET.encode())]
        return await self.pool.request(
            config.endpoint, "POST", path, head, json.dumps(body).encode(), connect_timeout=5, head_timeout=20
        )


@pytest.fixture
async def fleet(tmp_path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    await made.server.start()
    yield made
    await made.pool.close()
    await made.server.close()
    for init in made.inits:
        await init.close()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


async def test_a_forked_shim_serves_a_turn(fleet):
    shim, _, config = await fleet.spawn()
    await asyncio.wait_for(shim.ready, 20)
    assert shim.host_pids[0] == shim.pid
    bind = {"session": SESSION, "epoch": 1, "tenant": "dev", "agent": "a", "session_id": "s-12345678", "user": "u"}
    assert await (await fleet.post(config, "/shim/bind", **bind)).read(1000) == b'{"bound":true,"epoch":1}'
    start = {"turn": "t", "fence": 1, "attempt": 1, "session": SESSION, "epoch": 1, "deadline": 20}
    stream = Stream(await fleet.post(config, "/shim/start", **start, body={"script": [["event", DONE]]}))
    assert await stream.acknowledged() == 1
    assert (await stream.rest())[1].kind == "done"
    assert os.stat(config.endpoint[5:]).st_mode & 0o777 == 0o600


async def test_a_killed_shim_is_reported_and_its_init_is_hung_up_on(fleet):
    shim, init, _ = await fleet.spawn()
    other, _, _ = await fleet.spawn("sb-2")
    await asyncio.wait_for(shim.ready, 20)
    shim.kill()
    assert (await asyncio.wait_for(shim.exited, 5)).signal == signal.SIGKILL
    await asyncio.wait_for(init.hung_up.wait(), 5)
    await asyncio.wait_for(other.ready, 20)
    assert not other.exited.done()


async def test_a_shim_told_to_end_leaves_no_agent_process(fleet):
    shim, init, _ = await fleet.spawn()
    await asyncio.wait_for(shim.ready, 20)
    shim.terminate()
    assert (await asyncio.wait_for(shim.exited, 10)).status == 0
    assert shim.reason == "the shim was told to end"
    assert init.alive() == []


async def test_an_agent_that_cannot_start_is_told_with_its_last_words(fleet):
    shim, _, _ = await fleet.spawn(DIE_AT_START="5")
    with pytest.raises(ShimFailed) as caught:
        await asyncio.wait_for(shim.ready, 20)
    assert caught.value.log_tail == ["cannot start"]
    assert (await asyncio.wait_for(shim.exited, 5)).status == 3


async def test_when_the_forkserver_dies_every_shim_dies_and_the_provider_knows(fleet):
    shim, _, _ = await fleet.spawn()
    await asyncio.wait_for(shim.ready, 20)
    os.kill(fleet.server.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(fleet.server.lost), 5)
    assert shim.exited.done()
    await until(lambda: not alive(shim.pid))
    with pytest.raises(ShimFailed):
        await fleet.spawn("sb-2")


async def test_a_provider_that_is_killed_leaves_no_forkserver(tmp_path):
    """The kernel tells the forkserver, whatever the provider was doing."""
    code = (
        "import asyncio\nfrom moorage_local.shims import ShimForkserver\n"
        "async def main():\n s=ShimForkserver()\n await s.start()\n print(s.pid, flush=True)\n await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdout is not None
        pid = int(await asyncio.to_thread(provider.stdout.readline))
        assert alive(pid)
        provider.kill()
        await until(lambda: not alive(pid))


async def test_a_nonsense_configuration_is_refused_by_name(fleet):
    with pytest.raises(ShimFailed, match="not a request"):
        await fleet.server._ask(99, {"op": "fork", "id": 99, "config": {"nonsense": 1}, "fds": []}, [])


async def test_an_idle_shim_needs_little_memory_of_its_own(fleet):
    shim, _, _ = await fleet.spawn()
    await asyncio.wait_for(shim.ready, 20)
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{shim.pid}/smaps_rollup").read_text().splitlines()[1:])
    assert int(fields["Private_Dirty"].split()[0]) <= MAX_PRIVATE_KIB
