"""One isolated platform with a hostile agent and a quiet one; a machine that cannot isolate skips, or fails where it is required."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling, models, tools
from fakes.http_door import HttpDoor
from fakes.isolated_agents import need_isolation, write_agents
from fakes.otlp import Collector, collecting
from fakes.platform import Platform, started
from fakes.prober import Prober, canary
from isolation import networks

CANARY = "canary-env-7a41c0ffee"
STATE_CANARY = "canary-state-0ddba11"
MODEL_CANARY = "canary-model/5e11ab1e-0042"
TOOL_CANARY = "canary-tool/ba5eba11-0017"


@dataclass
class World:
    """The platform, its owner's door and the hostile agent. `heard` is what reached a server on the host's loopback; `models`, `tools`
    and `spans` are what the platform speaks to for the agent, and where it tells of it."""

    platform: Platform
    door: HttpDoor
    prober: Prober
    port: int
    heard: list[bytes]
    models: models.Models
    tools: tools.Tools
    spans: Collector

    @property
    def key(self) -> str:
        """The owner's key."""
        return self.platform.api_key


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The platform; its environment and its state folder hold strings that no agent may ever see."""
    with ExitStack() as held:
        port, heard = held.enter_context(canary())
        served, desk, spans = (held.enter_context(each) for each in (models.serving(), tools.serving(), collecting()))
        folder = write_agents(
            tmp_path_factory.mktemp("agents"),
            egress=[f"localhost:{port}", f"*.localhost:{port}"],
            models=served.url,
            tools=desk.url,
        )
        keys = tmp_path_factory.mktemp("keys")
        for secret, value in (("chat", MODEL_CANARY), ("desk", TOOL_CANARY)):
            (keys / secret).mkdir()
            (keys / secret / "key").write_text(value + "\n")
        options = ("--credentials", str(keys), "--otlp", spans.url)
        env = {"MOORAGE_TEST_SECRET": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY}
        platform = held.enter_context(started(folder, *options, env=env))
        need_isolation(platform)
        (platform.state / "kept-by-the-owner").write_text(STATE_CANARY)
        door = HttpDoor(platform.url, platform.api_key)
        held.callback(door.close)
        _begin_never(door, tmp_path_factory.mktemp("never"))
        yield World(platform, door, Prober(door), port, heard, served, desk, spans)


@pytest.fixture
def told(world: World) -> Any:
    """`tell` of the hostile agent."""
    return world.prober.tell


@pytest.fixture(scope="session")
def outside(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[networks.Outside]:
    """Two joined networks; after `world`, so that the agents' environment is in the cache: there is no package index in there."""
    if (reason := networks.why_not()) is not None:
        pytest.skip(reason)
    folder = write_agents(tmp_path_factory.mktemp("agents"), egress=networks.EGRESS)
    with networks.joined(folder, tmp_path_factory.mktemp("outside")) as made:
        yield made


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
