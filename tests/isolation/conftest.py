"""One isolated platform with a hostile agent and a quiet one; a machine that cannot isolate skips, or fails where it is required."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling
from fakes.http_door import HttpDoor
from fakes.platform import Platform, started
from fakes.prober import Prober, canary

AGENTS = Path(__file__).parent / "agents"
REQUIRED = "MOORAGE_REQUIRE_ISOLATION"
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


def write_agents(folder: Path, *, egress: list[str]) -> Path:
    """The two agents with their manifests, small limits so that reaching one takes no time."""
    small = {"memory": "160Mi", "cpu": "500m", "pids": 64, "ephemeralStorage": "32Mi"}
    specs = {
        "prober": {
            "resources": small,
            "workspace": {"size": "48Mi"},
            "pool": {"min": 2, "max": 4},
            "turn": {"maxAttempts": 2},
            "egress": egress,
        },
        "neighbour": {"pool": {"min": 1, "max": 2}},
    }
    for name, spec in specs.items():
        shutil.copytree(AGENTS / name, folder / name)
        document = {
            "apiVersion": bundling.API,
            "kind": "HostedAgent",
            "metadata": {"name": name},
            "spec": {"source": {"path": "."}, **spec},
        }
        (folder / name / "agent.yaml").write_text(json.dumps(document))
    return folder


def need_isolation(platform: Platform) -> None:
    """Skips or fails by what the platform itself printed."""
    said = platform.log.read_text()
    if "  isolation  isolated" in said:
        return
    message = f"no isolated mode on this machine: {said[said.find('  isolation') :][:400]}"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(message)
    pytest.skip(message)


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
from moorage import HostedAgent
print("warming up, please wait", flush=True)
HostedAgent(agent=lambda items, ctx: "never").serve()
"""


def _begin_never(door: HttpDoor, folder: Path) -> None:
    """Deploys `never`, whose readiness path answers 404; that it is given up takes a minute, so it begins first."""
    (folder / "host.py").write_text(NEVER)
    data = bundling.packed(folder)
    assert bundling.upload(door, "never", data).body["complete"]
    made = door.ask("PUT", "/v1/agents/never", bundling.manifest("never", data, readiness="/never"))
    assert made.status == 200, made.raw
