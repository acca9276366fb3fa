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

pytestmark = [pytest.mark.isolation, pytest.mark.journey]

CRASH = """
import sys
print("reading the configuration", flush=True)
raise RuntimeError("no such model: the-best-one")
"""
DIES = """
import os, threading
from moorage import HostedAgent
def die():
    print("cannot go on", flush=True)
    os._exit(7)
# Every process of the agent ends a moment after it began; the one it is forked from stays.
os.register_at_fork(after_in_child=lambda: threading.Timer(1.0, die).start())
HostedAgent(agent=lambda items, ctx: "never").serve()
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
    assert world.door.ask("GET", "/v1/agents/crashes").status == 404


def test_a_broken_new_revision_leaves_the_old_one_serving(world: Any, tmp_path: Path) -> None:
    good = "from moorage import HostedAgent\nHostedAgent(agent=lambda items, ctx: 'the old one').serve()\n"
    bundling.deploy(world.door, "mended", folder_of(tmp_path, "good", good))
    session = {"input": "x", "agent_session_id": "on-the-old-one"}
    assert "the old one" in world.door.ask("POST", "/v1/agents/mended/responses", session).raw.decode()
    _, message = bundling.refused(world.door, "mended", folder_of(tmp_path, "bad", CRASH))
    assert "no such model" in message
    for body in ({"input": "x"}, session):
        assert "the old one" in world.door.ask("POST", "/v1/agents/mended/responses", body).raw.decode()


def test_an_agent_whose_sandboxes_die_young_is_not_made_without_end(world: Any, tmp_path: Path) -> None:
    with watched(world.platform, world.key, "unready-neighbour") as watch:
        bundling.upload(world.door, "dies", data := bundling.packed(folder_of(tmp_path, "dies", DIES)))
        made = world.door.ask("PUT", "/v1/agents/dies", bundling.manifest("dies", data))
        assert made.status == 200, made.raw
        _, message = bundling.broken(world.door, "dies")
        assert "cannot go on" in message or "ended by itself" in message, message
    assert watch.wrong == []
    logs = list((world.platform.state / "logs").glob("dev.dies.*.log"))
    assert len(logs) < 12, "at most one a few seconds, and ever fewer"
    assert world.door.ask("DELETE", "/v1/agents/dies").status == 200


def test_an_agent_that_is_never_ready_holds_up_nobody_and_says_what_it_printed(world: Any) -> None:
    """Deployed before all other tests of this folder: an agent may take a minute."""
    reason, message = bundling.broken(world.door, "never", within=75)
    assert "warming up, please wait" in message and "/never" in message, (reason, message)
    poll("the others are ready", lambda: world.door.ask("GET", "/v1/agents/neighbour").body["ready"])
