"""The shim with the real launcher, plain and (where the machine gives it) isolated: the control channel as both sides understand it."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.shim_world import DONE, SECRET, SESSION, Stream, until
from fakes.ward import LAUNCHER, Ward, is_alive
from moorage_api.wire.hop import HopPool
from moorage_local import cgroups, probe, sandboxes, volumes
from moorage_local.shims import ShimForkserver, ShimProcess
from moorage_sandbox.config import ShimConfig

pytestmark = pytest.mark.component
FAKES = Path(__file__).parents[2] / "fakes"


def entry() -> str:
    """The scripted agent, stopped where `serve()` would stop it."""
    source = (FAKES / "scripted_agent.py").read_text()
    start = 'if __name__ == "__main__":\n'
    assert start in source
    return source.replace(start, f"{start}    import moorage_forkpoint\n    moorage_forkpoint.wait()\n")


@dataclass
class Place:
    shim: ShimProcess
    sandbox: sandboxes.Sandbox
    config: ShimConfig
    pool: HopPool
    workspace: str
    """As the agent sees it."""

    def inside(self, name: str) -> str:
        """A file in the workspace, by the agent's path."""
        return f"{self.workspace}/{name}"

    def processes(self) -> list[int]:
        """Everything in the sandbox but init."""
        return [pid for pid in self.sandbox.pids() if pid != self.sandbox.host_pid]

    async def post(self, path: str, **body: object):
        return await self.pool.request(
            self.config.endpoint,
            "POST",
            path,
            [(b"x-moorage-secret", SECRET.encode())],
            json.dumps(body).encode(),
            connect_timeout=5,
            head_timeout=20,
        )

    async def start(self, script: list[object], fence: int) -> Stream:
        fields = {"turn": "t", "attempt": 1, "session": SESSION, "epoch": 1, "deadline": 20}
        response = await self.post("/shim/start", fence=fence, body={"script": script}, **fields)
        assert response.status == 200, await response.read(100_000)
        return Stream(response)


@pytest.fixture(params=["plain", "isolated"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    wanted = "plain" if request.param == "plain" else "auto"
    kind = await probe.detect(instance=f"test-{os.getpid()}", launcher=LAUNCHER, want=wanted)
    if kind.mode != request.param:
        pytest.skip(f"no isolated mode on this machine: {kind.why_plain}")
    ward = Ward(tmp_path, kind, Path(sys.executable))
    zygote = await ward.zygote(ward.spec(source=entry()))
    server = ShimForkserver()
    await server.start()
    volume = zygote.spec.volumes / "v1"
    volumes.prepare(volume, uid=ward.uid, plain=kind.mode == "plain")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    config = ShimConfig(
        sandbox=f"sb-{secrets.token_hex(4)}",
        tenant="dev",
        agent="a",
        revision="r",
        endpoint=f"unix:{tmp_path}/s",
        secret=SECRET,
        token="t",
        volume=str(volume),
    )
    with ours, theirs:
        sandbox = await zygote.spawn(
            sandbox=config.sandbox, volume=volume, control_fd=theirs.fileno(), limits=cgroups.Limits()
        )
        shim = await server.spawn(config, control_fd=ours.fileno())
    await asyncio.wait_for(shim.ready, 20)
    pool = HopPool()
    made = Place(shim, sandbox, config, pool, str(volume / "workspace") if kind.mode == "plain" else "/workspace")
    bind = {"session": SESSION, "epoch": 1, "tenant": "dev", "agent": "a", "session_id": "s-12345678", "user": "u"}
    assert await (await made.post("/shim/bind", **bind)).read(1000) == b'{"bound":true,"epoch":1}'
    yield made
    await pool.close()
    await server.close()
    await ward.close()


async def test_a_turn_runs_in_a_process_forked_by_the_launcher(place):
    stream = await place.start([["print", "hello"], ["echo", "seen"], ["event", DONE]], 1)
    assert await stream.acknowledged() == 1
    assert "http_proxy" in (await stream.source())[1]["environ"]
    assert (await stream.rest())[1].kind == "done"
    assert place.shim.host_pids == [place.shim.pid, place.sandbox.host_pid]


async def test_a_kill_mid_stream_is_seen_and_every_process_is_gone_before_the_next_attempt(place):
    stream = await place.start([["child", place.inside("child")], ["echo", "seen"], ["wait", place.inside("go")]], 1)
    await stream.acknowledged()
    await stream.source()
    old = place.processes()
    assert len(old) == 2  # agent and child
    os.kill(min(old), signal.SIGKILL)
    _, end = await stream.rest()
    assert (end.kind, end.signal) == ("exit", 9)
    later = await place.start([["event", DONE]], 2)
    assert await later.acknowledged() == 2
    assert not any(map(is_alive, old))
    assert (await later.rest())[1].kind == "done"


async def test_the_end_of_the_shim_is_the_end_of_the_sandbox(place):
    pids = place.sandbox.pids()
    assert len(pids) >= 2
    place.shim.kill()
    await asyncio.wait_for(place.sandbox.ended(), 10)
    await until(lambda: not any(map(is_alive, pids)))


async def test_stop_leaves_nothing_of_the_attempt_alive(place):
    stream = await place.start([["child", place.inside("child")], ["echo", "seen"], ["wait", place.inside("go")]], 1)
    await stream.acknowledged()
    await stream.source()
    old = place.processes()
    answer = await place.post("/shim/stop", turn="t", fence=1, grace=1)
    assert json.loads(await answer.read(1000)) == {"stopped": True}
    assert not any(map(is_alive, old))
    assert (await stream.rest())[1].kind == "stopped"
