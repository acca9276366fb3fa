"""Real sandboxes keep what every provider promises, isolated where this machine allows it, and as plain processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from component.provider import worlds
from component.provider.conformance import *  # noqa: F403
from component.provider.conformance import World
from moorage_api import names, platform_wheel
from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import Revision
from moorage_gateway import package_index
from moorage_local import blueprint, machine, probe, processes, state
from moorage_local.environments import AgentEnvironment, BuildSettings, Environments
from moorage_local.isolation import Isolation
from moorage_local.program import Program

pytestmark = pytest.mark.provider

HOST = """
from moorage import HostedAgent

def agent(items, ctx):
    return "hello"

HostedAgent(agent=agent).serve()
"""
BROKEN = "raise ImportError('parrot')\n"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> AgentEnvironment:
    root = tmp_path_factory.mktemp("environments")
    index = package_index.read_settings(os.environ, Path.home())
    wheel = platform_wheel.build(root / "wheels")
    maker = Environments(root / "made", wheel, index, BuildSettings(), variables=os.environ)
    source = root / "source"
    source.mkdir()
    return asyncio.run(maker.of(source, requirements=None, python=None))


@pytest.fixture(scope="session", params=["isolated", "plain"])
def isolation(request: pytest.FixtureRequest) -> Iterator[Isolation]:
    want = request.param
    found = asyncio.run(probe.detect(instance=f"provider-{os.getpid()}", launcher=blueprint.LAUNCHER, want=_wish(want)))
    if found.mode != want:
        pytest.skip(f"no {want} mode on this machine: {found.why_plain}")
    yield found
    if found.groups is not None:
        asyncio.run(found.groups.close())


def _wish(mode: str) -> Any:
    return "auto" if mode == "isolated" else "plain"


class Hands:
    def __init__(self, held: state.State) -> None:
        self.held = held

    def place(self, one: Descriptor) -> Path:
        return self.held.volumes / one.tenant / one.agent / one.volume / "workspace"

    async def kill(self, one: Descriptor) -> None:
        os.kill(one.pids[-1], signal.SIGKILL)

    async def write(self, one: Descriptor, name: str, data: bytes) -> None:
        (self.place(one) / name).write_bytes(data)

    async def read(self, one: Descriptor, name: str) -> bytes | None:
        path = self.place(one) / name
        return path.read_bytes() if path.exists() else None

    async def call(self, one: Descriptor, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await worlds.call(one, path, body)

    def alive(self, one: Descriptor) -> bool:
        return any(processes.identify(pid) is not None for pid in one.pids)

    def fill(self, one: Descriptor) -> None:
        (self.place(one) / "big").write_bytes(bytes(24 * 2**20))

    def break_agent(self, agent: str) -> None:
        pass


@pytest.fixture
async def world(tmp_path: Path, environment: AgentEnvironment, isolation: Isolation) -> AsyncIterator[World]:
    def revision(agent: str, mode: str, broken: bool) -> Revision:
        code = tmp_path / "code" / agent
        code.mkdir(parents=True, exist_ok=True)
        (code / "host.py").write_text(BROKEN if broken else HOST)
        name = names.revision(json.dumps([agent, mode]).encode())
        spec = worlds.spec(agent, mode, workspace={"size": "16Mi"})
        return Revision("dev", agent, name, spec, "moorage", Program(code, environment.python, "host.py"))

    settings = machine.MachineSettings(gateways=tuple, egress=lambda: None)
    with state.hold(tmp_path / "state") as held:
        async with (
            machine.open_machine(held, isolation, settings) as real,
            worlds.world_of(held, real, Hands(held), revision, token_key=real.token_key) as one,
        ):
            yield one
        assert not real._running
