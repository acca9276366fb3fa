"""Real sandboxes, in each isolation mode: from a request to the agent's first event, an agent process by fork, memory of an idle one.

The whole path is real: gateway process, Valkey (`appendfsync always`), local provider, zygote, shim, and the SDK's hello agent in an
environment of its own. The provider runs in this process, on no core in particular.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis.asyncio as aioredis

from bench import figures, processes, subjects
from bench.effort import Effort
from bench.report import Line, skipped
from fakes.valkey import Valkey
from fakes.ward import Guest, Ward
from moorage_api import platform_wheel
from moorage_api.kinds import parse
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.provider.base import Revision
from moorage_api.provider.loop import Provider
from moorage_gateway import package_index
from moorage_gateway.ledger_client import LedgerClient
from moorage_local import blueprint, environments, machine, probe, state
from moorage_local.isolation import Isolation
from moorage_local.program import Program

HELLO = Path(__file__).resolve().parents[3] / "examples" / "hello"
TENANT, AGENT, REVISION = subjects.TENANT, "hello", "r1"
POOL = 4
WITHIN = 60.0
MEGA = 2**20
MODES: tuple[Literal["isolated", "plain"], ...] = ("isolated", "plain")


def measure(effort: Effort) -> list[Line]:
    """Every mode that this machine gives."""
    return asyncio.run(_measure(effort))


async def _measure(effort: Effort) -> list[Line]:
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # isolated agents run as another user and must reach their code
        python = await _environment(folder)
        for mode in MODES:
            found = await probe.detect(
                instance=f"bench-{os.getpid()}-{mode}",
                launcher=blueprint.LAUNCHER,
                want="plain" if mode == "plain" else "auto",
            )
            try:
                if found.mode != mode:
                    lines += skipped([f"sandbox-start-{mode}", f"sandbox-memory-{mode}"], found.why_plain)
                    continue
                lines += await _forks(folder / f"ward-{mode}", found, python, effort)
                lines += await _sessions(folder / mode, found, python, effort)
            finally:
                if found.groups is not None:
                    await found.groups.close()
    return lines


async def _environment(folder: Path) -> Path:
    """The interpreter of hello's environment, made as a deployment makes it."""
    index = package_index.read_settings(os.environ, Path.home())
    wheel = platform_wheel.build(folder / "wheels")
    settings = environments.BuildSettings()
    maker = environments.Environments(folder / "made", wheel, index, settings, variables=os.environ)
    source = folder / "source"
    source.mkdir()
    try:
        made = await maker.of(source, requirements=None, python=None)
    except environments.BuildError as error:
        raise subjects.CannotRun(f"the agent's environment cannot be made: {str(error).splitlines()[0]}") from error
    return made.python


# -- an agent process by fork


async def _forks(folder: Path, isolation: Isolation, python: Path, effort: Effort) -> list[Line]:
    """From the order to the first 200 of readiness, in a sandbox whose last agent process was killed."""
    folder.mkdir()
    folder.chmod(0o755)
    ward = Ward(folder, isolation, python)
    times = []
    try:
        zygote = await ward.zygote(ward.spec(source=(HELLO / "host.py").read_text()))
        guest = await ward.guest(zygote, agent=False)
        for _ in range(effort.starts):
            began = time.perf_counter()
            await guest.start_agent()
            await _ready(guest)
            times.append((time.perf_counter() - began) * 1000)
            await guest.kill_all()
    finally:
        await ward.close()
    return [
        Line(
            f"sandbox-agent-ready-{isolation.mode}",
            figures.median(times),
            "ms",
            goal=25,
            note=f"p95 {figures.short(figures.percentile(times, 95))}; {len(times)} forks of the pre-imported hello agent",
        )
    ]


async def _ready(guest: Guest) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            reply = await guest.control.call("connect", WITHIN, port=guest.port)
            if reply.body["op"] == "connected":
                break
            await asyncio.sleep(0.0005)
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=reply.fds[0]))
        writer.write(b"GET /readiness HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"readiness answered {answer[:80]!r}")


# -- whole sessions


@dataclass
class _World:
    """A running platform with a filled pool."""

    gateway: subjects.Gateway
    load: subjects.Load
    key: str
    ledger: ProviderLedger
    sandboxes: SessionLedger

    async def pool(self, size: int) -> list[str]:
        """The pool's sandboxes, once there are `size` of them."""
        async with asyncio.timeout(WITHIN):
            while len(found := await self.ledger.pool(TENANT, AGENT, REVISION)) < size:
                await asyncio.sleep(0.02)
        return found


async def _sessions(folder: Path, isolation: Isolation, python: Path, effort: Effort) -> list[Line]:
    async with _world(folder, isolation, python) as world:
        memory = await _memory(world, isolation)
        firsts, spoken = [], []
        for _ in range(effort.starts):
            await world.pool(1)
            found = await asyncio.to_thread(
                world.load.run,
                target=world.gateway.target,
                requests=[_hello(world.key)],
                count=1,
                mark='"response.output_text.delta"',
            )
            firsts.append(found["first_us"][0] / 1000)
            spoken.append(found["marked_us"][0] / 1000)
    return [
        Line(
            f"sandbox-first-event-{isolation.mode}",
            figures.median(firsts),
            "ms",
            note=f"response.created, accepted and logged; p95 {figures.short(figures.percentile(firsts, 95))}",
        ),
        Line(
            f"sandbox-start-{isolation.mode}",
            figures.median(spoken),
            "ms",
            goal=25,
            note=f"new session, claimed from the pool → the agent's first delta; p95 {figures.short(figures.percentile(spoken, 95))}",
        ),
        *memory,
    ]


def _hello(key: str) -> str:
    return subjects.request(f"/v1/agents/{AGENT}/responses", b'{"input":"ada","stream":true}', key)


async def _memory(world: _World, isolation: Isolation) -> list[Line]:
    """Proportional memory of what stands idle in the pool; a page shared by n processes counts 1/n to each."""
    pids: set[int] = set()
    kinds: dict[str, int] = {}
    names = await world.pool(POOL)
    for name in names:
        one = await world.sandboxes.sandbox(name)
        assert one is not None
        shim, init = one.pids
        pids |= {shim, *processes.tree(init)}
        kinds["shim"] = kinds.get("shim", 0) + processes.pss(shim)
        kinds["init and agent"] = kinds.get("init and agent", 0) + sum(map(processes.pss, processes.tree(init)))
    whole = sum(kinds.values()) / len(names) / MEGA
    parts = ", ".join(f"{kind} {size / len(names) / MEGA:.1f}" for kind, size in kinds.items())
    return [
        Line(
            f"sandbox-memory-{isolation.mode}",
            whole,
            "MB PSS",
            goal=15,
            gate=45,
            note=f"{parts}; {len(names)} idle beside each other, {len(pids)} processes",
        )
    ]


@contextlib.asynccontextmanager
async def _world(folder: Path, isolation: Isolation, python: Path) -> AsyncIterator[_World]:
    folder.mkdir()
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        valkey = Valkey()
        stack.callback(valkey.close)
        client = LedgerClient(aioredis.Redis.from_url(valkey.url), who="bench-provider")
        await client.found()
        key = await subjects.make_key(client, folder / "store")
        held = stack.enter_context(state.hold(folder / "state"))
        load = subjects.Load()
        stack.callback(load.close)
        gateway = await asyncio.to_thread(subjects.Gateway, folder, valkey.url)
        stack.callback(gateway.close)
        settings = machine.MachineSettings(
            gateways=lambda: (f"http://127.0.0.1:{gateway.sandbox_port}",), egress=lambda: None
        )
        async with machine.open_machine(held, isolation, settings) as real:
            ledger = ProviderLedger(client)
            provider = Provider(ledger, real, now=time.monotonic, found=client.found, token_key=real.token_key)
            provider.deploy(_revision(folder, python), generation=1)
            task = asyncio.create_task(provider.run())
            try:
                yield _World(gateway, load, key, ledger, SessionLedger(client))
            finally:
                task.cancel()
                await asyncio.wait([task])
        await client.aclose()


def _revision(folder: Path, python: Path) -> Revision:
    code = folder / "code"
    shutil.copytree(HELLO, code)
    document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": AGENT}}
    spec = parse({**document, "spec": {"source": {"path": "."}, "pool": {"min": POOL, "max": 2 * POOL}}}).spec
    return Revision(TENANT, AGENT, REVISION, spec, "moorage", Program(code, python, "host.py"))
