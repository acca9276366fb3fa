"""An agent that never gets ready, or crashes as soon as it starts: its condition and its callers see why, and nobody else does (F28)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling
from fakes.http_door import HttpDoor
from fakes.platform import poll
from fakes.prober import watched

pytestmark = pytest.mark.isolation

CRASH = """
import sys
print("reading the configuration", flush=True)
raise RuntimeError("no such model: the-best-one")
"""


def folder_of(tmp_path: Path, name: str, code: str) -> Path:
    """A folder with this program."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "host.py").write_text(code)
    return folder


@pytest.fixture
def hasty(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpDoor]:
    """A door at a gateway that waits three seconds for a sandbox, not sixty."""
    monkeypatch.setenv("MOORAGE_ACQUIRE_SECONDS", "3")
    gateway = world.platform.start_gateway()
    door = HttpDoor(gateway.url, world.key)
    yield door
    door.close()
    gateway.kill()


def test_a_crash_at_import_is_told_to_deployer_and_caller(world: Any, hasty: HttpDoor, tmp_path: Path) -> None:
    with watched(world.platform, world.key, "unready-neighbour") as watch:
        reason, message = bundling.refused(world.door, "crashes", folder_of(tmp_path, "crashes", CRASH))
        assert "no such model: the-best-one" in message and "reading the configuration" in message, (reason, message)
        agent = world.door.ask("GET", "/v1/agents/crashes").body
        assert agent["ready"] is False and "no such model" in agent["message"]
        for path, body in (("responses", {"input": "x"}), ("invocations", {})):
            began = time.monotonic()
            answer = hasty.ask("POST", f"/v1/agents/crashes/{path}", body)
            assert time.monotonic() - began < 30
            said = str(answer.body["error"]["message"])
            assert answer.status == 424 or answer.body["status"] == "failed", answer.raw
            assert "no such model" in said, answer.raw
    assert watch.wrong == []
    assert world.door.ask("DELETE", "/v1/agents/crashes").status == 200
    poll("it is gone", lambda: world.door.ask("GET", "/v1/agents/crashes").status == 404, within=10)


def test_a_broken_new_revision_leaves_the_old_one_serving(world: Any, tmp_path: Path) -> None:
    good = "from moorage import HostedAgent\nHostedAgent(agent=lambda items, ctx: 'the old one').serve()\n"
    bundling.deploy(world.door, "mended", folder_of(tmp_path, "good", good))
    session = {"input": "x", "agent_session_id": "on-the-old-one"}
    assert "the old one" in world.door.ask("POST", "/v1/agents/mended/responses", session).raw.decode()
    _, message = bundling.refused(world.door, "mended", folder_of(tmp_path, "bad", CRASH))
    assert "no such model" in message
    for body in ({"input": "x"}, session):
        assert "the old one" in world.door.ask("POST", "/v1/agents/mended/responses", body).raw.decode()


def test_an_agent_that_is_never_ready_holds_up_nobody_and_says_what_it_printed(world: Any) -> None:
    """Deployed before all other tests of this folder: an agent may take a minute."""
    reason, message = bundling.broken(world.door, "never", within=75)
    assert "warming up, please wait" in message and "/never" in message, (reason, message)
    poll("the others are ready", lambda: world.door.ask("GET", "/v1/agents/neighbour").body["ready"])
