"""One isolated platform with a hostile agent and a quiet one; a machine that cannot isolate skips, or fails where it is required."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling
from fakes.http_door import HttpDoor
from fakes.isolated_agents import need_isolation, write_agents
from fakes.platform import Platform, started
from fakes.prober import Prober, canary

CANARY = "canary-env-7a41c0ffee"
STATE_CANARY = "canary-state-0ddba11"


@dataclass
class World:
    """The platform, its owner's door and the hostile agent. `heard` is what reached a server on the host's loopback."""

    platform: Platform
    door: HttpDoor
    prober: Prober
    port: int
    heard: list[bytes]

    @property
    def key(self) -> str:
        """The owner's key."""
        return self.platform.api_key


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The platform; its environment and its state folder hold strings that no agent may ever see."""
    with canary() as (port, heard):
        folder = write_agents(tmp_path_factory.mktemp("agents"), egress=[f"localhost:{port}", f"*.localhost:{port}"])
        with started(folder, env={"MOORAGE_TEST_SECRET": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY}) as platform:
            need_isolation(platform)
            (platform.state / "kept-by-the-owner").write_text(STATE_CANARY)
            door = HttpDoor(platform.url, platform.api_key)
            _begin_never(door, tmp_path_factory.mktemp("never"))
            yield World(platform, door, Prober(door), port, heard)
            door.close()


@pytest.fixture
def told(world: World) -> Any:
    """`tell` of the hostile agent."""
    return world.prober.tell


NEVER = """
import moorage_forkpoint
from moorage import HostedAgent
forked = moorage_forkpoint.wait
def wait():
    forked()
    print("warming up, please wait", flush=True)
moorage_forkpoint.wait = wait
HostedAgent(agent=lambda items, ctx: "never").serve()
"""


def _begin_never(door: HttpDoor, folder: Path) -> None:
    """Deploys `never`, whose readiness path answers 404; that it is given up takes a minute, so it begins first."""
    (folder / "host.py").write_text(NEVER)
    data = bundling.packed(folder)
    assert bundling.upload(door, "never", data).body["complete"]
    made = door.ask("PUT", "/v1/agents/never", bundling.manifest("never", data, readiness="/never"))
    assert made.status == 200, made.raw
