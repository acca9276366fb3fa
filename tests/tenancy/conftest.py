"""Two tenants on one platform, and in the first one two users; what the victim owns, and the callers that want it.

tenant `dev`    ann (victim), bob (every scope), narrow keys of ann
tenant `rival`  ann (the same user name, every scope); an agent `paced` as `dev` has one, and `vault`, which only `rival` has
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fakes import bundling
from fakes.http_door import HttpDoor
from fakes.platform import AGENTS, Platform, poll, started
from fakes.platform_keys import key_of

ALL = ["invoke", "deploy", "operator", "admin"]
SESSION = "victims-session-0001"
CONVERSATION = "conv_victims_conversation_1"
SECRET = "the-victims-secret-5c1e"


TOOLBOX = """
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {name: shapes}
spec: {upstreams: [{name: nobody, mcp: {url: "http://127.0.0.1:9/mcp"}}]}
"""


@dataclass
class World:
    """The platform, one door a caller, and ids by what they name."""

    platform: Platform
    doors: dict[str, HttpDoor]
    ids: dict[str, str] = field(default_factory=dict)

    def door(self, who: str) -> HttpDoor:
        """A caller by name."""
        return self.doors[who]

    def key(self, *, user: str, scopes: list[str], agents: list[str] | None = None) -> dict[str, Any]:
        """A further key of the tenant `dev`, made through the API."""
        made = self.door("admin").ask("POST", "/v1/keys", {"user": user, "scopes": scopes, "agents": agents})
        assert made.status == 201, made.raw
        return dict(made.body)

    def joins(self, who: str, **key: Any) -> HttpDoor:
        """A caller with a fresh key of the tenant `dev`."""
        self.doors[who] = HttpDoor(self.platform.url, self.key(**key)["key"])
        return self.doors[who]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that serves `paced` and `shapes`."""
    folder = tmp_path_factory.mktemp("agents")
    for name in ("paced", "shapes"):
        shutil.copytree(AGENTS / name, folder / name)
    (folder / "toolboxes.yaml").write_text(TOOLBOX)
    with started(folder) as found:
        yield found


@pytest.fixture(scope="session")
def world(platform: Platform) -> Iterator[World]:
    """Everybody and everything, made once; no test may spend what the victim owns."""
    doors = {
        "admin": HttpDoor(platform.url, platform.api_key),
        "rival": HttpDoor(platform.url, key_of(platform, "rival", "ann")),
        "nobody": HttpDoor(platform.url),
    }
    world = World(platform, doors)
    try:
        world.joins("ann", user="ann", scopes=ALL)
        world.joins("bob", user="bob", scopes=ALL)
        for name in ("paced", "vault"):
            bundling.deploy(doors["rival"], name, AGENTS / "paced")
        _possessions(world)
        yield world
        doors["ann"].ask("POST", f"/v1/responses/{world.ids['running']}/cancel")  # else the end waits for it
    finally:
        for door in world.doors.values():
            door.close()


def _possessions(world: World) -> None:
    ann, ids = world.door("ann"), world.ids
    ids["session"] = SESSION
    wrote = _create(ann, "shapes", {"input": f"write {SECRET}", "agent_session_id": SESSION})
    ids["finished"] = wrote["id"]
    kept = _create(ann, "shapes", {"input": f"write {SECRET}", "conversation": CONVERSATION})
    ids["in a conversation"] = kept["id"]
    ids["unstored"] = _create(ann, "shapes", {"input": "hello", "store": False})["id"]
    ids["deleted"] = _create(ann, "shapes", {"input": "hello"})["id"]
    assert ann.ask("DELETE", f"/v1/responses/{ids['deleted']}").status == 200
    # Long enough to run through every test; ended with the platform.
    ids["running"] = _create(ann, "paced", {"input": "3000 words every 100 ms", "background": True})["id"]
    poll(
        "the long turn runs", lambda: ann.ask("GET", f"/v1/responses/{ids['running']}").body["status"] == "in_progress"
    )
    begun = ann.ask("POST", "/v1/agents/shapes/bundles", {"digest": hashlib.sha256(b"ann").hexdigest(), "size": 9})
    assert begun.status == 201, begun.raw
    ids["upload"] = begun.body["id"]
    data = bundling.packed(AGENTS / "other")
    assert bundling.upload(ann, "uploaded", data).body["complete"]
    ids["digest"], ids["bundle size"] = hashlib.sha256(data).hexdigest(), str(len(data))
    ids["key"] = world.key(user="ann", scopes=["invoke"])["id"]


def _create(door: HttpDoor, agent: str, body: dict[str, Any]) -> dict[str, Any]:
    made = door.ask("POST", f"/v1/agents/{agent}/responses", body)
    assert made.status == 200, made.raw
    return dict(made.body)
