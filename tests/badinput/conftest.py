"""One platform for everything that is wrong with what reaches it, and a gateway of its own with small limits beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.http_door import HttpDoor
from fakes.platform import AGENTS, Gateway, Platform, started

BROKEN = """\
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: misspelt}
spec:
  source: {path: .}
  sesion: {idleTimeout: 5m}
"""
TYPO_BELOW = """\
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: misspelt-below}
spec:
  source: {path: .}
  resources: {memroy: 1Gi}
"""
NOT_YAML = "apiVersion: [\n"
SMALL = {
    "MOORAGE_HEADER_SECONDS": "1",
    "MOORAGE_BODY_GRACE": "1",
    "MOORAGE_KEEP_ALIVE_SECONDS": "2",
    "MOORAGE_SLOW_READER_SECONDS": "2",
    "MOORAGE_HEADER_BYTES": "8192",
    "MOORAGE_HEADER_COUNT": "40",
    "MOORAGE_INPUT_BYTES": "65536",
    "MOORAGE_BODY_BYTES": "1048576",
    "MOORAGE_COMMENT_SECONDS": "1",
}


@dataclass
class World:
    """The platform, its folder of agents, a door, and a further gateway whose limits are reached soon."""

    platform: Platform
    folder: Path
    door: HttpDoor
    small: Gateway
    doors: list[HttpDoor] = field(default_factory=list)

    def small_door(self) -> HttpDoor:
        """A door at the gateway with small limits."""
        self.doors.append(HttpDoor(self.small.url, self.platform.api_key))
        return self.doors[-1]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two agents that work, and three manifests that do not."""
    folder = tmp_path_factory.mktemp("agents")
    for name in ("paced", "shapes"):
        shutil.copytree(AGENTS / name, folder / name)
    for name, text in (("misspelt", BROKEN), ("misspelt-below", TYPO_BELOW), ("not-yaml", NOT_YAML)):
        (folder / name).mkdir()
        (folder / name / "host.py").write_text("")
        (folder / name / "agent.yaml").write_text(text)
    with started(folder) as platform, pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setenv(name, value)
        world = World(platform, folder, HttpDoor(platform.url, platform.api_key), platform.start_gateway())
        yield world
        for door in (world.door, *world.doors):
            door.close()
