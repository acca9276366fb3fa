"""Files that outlive their volumes: archived and woken, restored, forked; turns that end with a checkpoint or begin from one."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.commands import Commands
from fakes.platform import AGENTS, Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

COUNTS = """
import os, signal
from moorage import HostedAgent, text_of

def counts(items, ctx):
    place = ctx.workspace / "lines"
    with place.open("a") as file:
        file.write(f"{text_of(items)} {ctx.attempt}\\n")
    if text_of(items) == "die" and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return place.read_text()

HostedAgent(agent=counts).serve()
"""
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: {name}}}
spec:
  source: {{path: .}}
  pool: {{min: 1, max: 2}}
  {more}
"""
AGENTS_HERE = {
    "restoring": "turn: {retryWorkspace: restore}",
    "keeping": "turn: {retryWorkspace: keep}",
    "thorough": "turn: {durability: turn, timeout: 60s}",
    "scratch": "workspace: {fileSystem: false}",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose hibernated sessions are archived after a second."""
    folder = tmp_path_factory.mktemp("agents")
    shutil.copytree(AGENTS / "shapes", folder / "shapes")
    for name, more in AGENTS_HERE.items():
        (folder / name).mkdir()
        (folder / name / "host.py").write_text(COUNTS)
        (folder / name / "agent.yaml").write_text(MANIFEST.format(name=name, more=more))
    with started(folder, env={"MOORAGE_ARCHIVE_SECONDS": "1"}) as found:
        yield found


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


def say(platform: Platform, agent: str, session: str, text: str) -> str:
    with platform.client(agent) as api:
        answer = api.responses.create(model=agent, input=text, extra_body={"agent_session_id": session})
    assert answer.status == "completed", answer.error
    return str(answer.output_text)


def status_of(platform: Platform, session: str) -> str:
    code, found = platform.call(f"/v1/sessions/{session}")
    assert code == 200, found
    return str(found["status"])


def checkpoints(platform: Platform, session: str) -> list[dict[str, Any]]:
    code, found = platform.call(f"/v1/sessions/{session}/checkpoints")
    assert code == 200, found
    return list(found["data"])


def volumes(platform: Platform, agent: str, session: str) -> list[Path]:
    """The folders that hold this session's binding."""
    found = (platform.state / "volumes" / "dev" / agent).glob("v-*/.moorage/binding.json")
    return [path.parent.parent for path in found if session in path.read_text()]


def archived(platform: Platform, agent: str, session: str) -> None:
    """Lets the sandbox go, and waits until the volume went too."""
    assert platform.call(f"/v1/sessions/{session}/stop", method="POST")[0] == 200
    poll("the session is archived", lambda: status_of(platform, session) == "archived")
    poll("its volume is gone", lambda: not volumes(platform, agent, session))


def test_an_archived_session_wakes_on_a_fresh_volume_with_its_files(place: Platform) -> None:
    session = new_session()
    assert say(place, "shapes", session, "write kept for long") == "written"
    archived(place, "shapes", session)
    newest = checkpoints(place, session)[0]
    assert (newest["reason"], newest["quiet"], newest["files"]) == ("hibernate", True, 1)
    assert say(place, "shapes", session, "read") == "kept for long"
    assert len(volumes(place, "shapes", session)) == 1
    assert say(place, "shapes", session, "write more") == "written"
    archived(place, "shapes", session)
    assert say(place, "shapes", session, "read") == "more"


def test_its_files_come_back_though_redis_was_emptied_meanwhile(place: Platform) -> None:
    session = new_session()
    assert say(place, "shapes", session, "write outlives redis") == "written"
    archived(place, "shapes", session)
    import redis

    with redis.Redis.from_url(place.redis_url()) as client:
        client.flushall()
    assert say(place, "shapes", session, "read") == "outlives redis"


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_none_left_is_said(place: Platform) -> None:
    session = new_session()
    assert say(place, "shapes", session, "write first") == "written"
    assert place.call(f"/v1/sessions/{session}/checkpoints", method="POST")[0] == 201
    assert say(place, "shapes", session, "write second") == "written"
    archived(place, "shapes", session)
    found = checkpoints(place, session)
    assert len(found) == 2
    root = next(
        path
        for path in place.objects().glob("t/dev/checkpoints/*/pointers")
        if (path / f"{found[0]['id']}.json").exists()
    )
    older, newer = ((root / f"{one['id']}.json").read_text() for one in reversed(found))
    packs = list((root.parent / "packs").iterdir())
    for pack in packs:
        if pack.name in newer and pack.name not in older:
            pack.write_bytes(b"not what it was")
    assert say(place, "shapes", session, "read") == "first"
    archived(place, "shapes", session)
    for pack in (root.parent / "packs").iterdir():
        pack.write_bytes(b"not what it was")
    code, body = place.call(
        "/v1/agents/shapes/responses", method="POST", body={"input": "read", "agent_session_id": session}
    )
    assert code != 200 or body["status"] == "failed"
    assert "damaged" in str(body)


def test_restore_puts_the_files_of_a_checkpoint_back(place: Platform, tmp_path: Path) -> None:
    run = Commands(place.url, place.api_key, tmp_path / "config")
    session = new_session()
    say(place, "shapes", session, "write one")
    made = run.json("sessions", "checkpoint", session)
    assert (made["files"], made["reason"]) == (1, "asked")
    say(place, "shapes", session, "write two")
    assert run.json("sessions", "restore", session, "--yes", "--from", made["id"])["id"] == made["id"]
    assert say(place, "shapes", session, "read") == "one"
    assert [one["id"] for one in run.json("sessions", "checkpoints", session)][-1] == made["id"]
    code, refused = place.call(f"/v1/sessions/{session}/restore", method="POST", body={"checkpoint": "ck-1"})
    assert (code, refused["error"]["param"]) == (400, "checkpoint")
    gone = f"ck-{1:020d}-{1:016d}"
    assert place.call(f"/v1/sessions/{session}/restore", method="POST", body={"checkpoint": gone})[0] == 404


def test_a_fork_begins_with_the_files_and_goes_its_own_way(place: Platform, tmp_path: Path) -> None:
    run = Commands(place.url, place.api_key, tmp_path / "config")
    session, other = new_session(), new_session()
    say(place, "shapes", session, "write common")
    assert run.json("sessions", "fork", session, "--to", other)["status"] == "archived"
    assert say(place, "shapes", other, "read") == "common"
    say(place, "shapes", other, "write changed")
    assert say(place, "shapes", session, "read") == "common"
    code, refused = place.call(f"/v1/sessions/{session}/fork", method="POST", body={"agent_session_id": other})
    assert (code, refused["error"]["code"]) == (409, "conflict")
    assert place.call(f"/v1/sessions/{session}", method="DELETE")[0] == 200
    archived(place, "shapes", other)
    assert say(place, "shapes", other, "read") == "changed"


def test_a_session_without_files_to_save_says_so(place: Platform) -> None:
    session = new_session()
    assert place.call("/v1/sessions", method="POST", body={"agent": "shapes", "agent_session_id": session})[0] == 201
    assert place.call(f"/v1/sessions/{session}/checkpoints", method="POST")[0] == 409
    assert place.call(f"/v1/sessions/{session}/fork", method="POST")[0] == 409
    assert place.call(f"/v1/sessions/{session}/restore", method="POST")[0] == 404
    assert place.call(f"/v1/sessions/{new_session()}/checkpoints")[0] == 404


@pytest.mark.parametrize(
    ("agent", "lines"), [("keeping", "first 1\ndie 1\ndie 2\n"), ("restoring", "first 1\ndie 2\n")]
)
def test_what_a_later_attempt_finds_in_the_workspace(place: Platform, agent: str, lines: str) -> None:
    session = new_session()
    say(place, agent, session, "first")
    assert say(place, agent, session, "die") == lines


def test_with_durability_turn_every_completed_turn_has_a_checkpoint(place: Platform) -> None:
    session = new_session()
    for count in (1, 2):
        say(place, "thorough", session, f"turn {count}")
        found = [one for one in checkpoints(place, session) if one["reason"] == "turn"]
        assert len(found) == count and found[0]["quiet"]


def test_an_agent_without_a_file_system_has_no_checkpoints(place: Platform) -> None:
    session = new_session()
    say(place, "scratch", session, "gone soon")
    assert place.call(f"/v1/sessions/{session}/stop", method="POST")[0] == 200
    poll("it hibernates", lambda: status_of(place, session) == "hibernated")
    assert checkpoints(place, session) == []
    assert say(place, "scratch", session, "anew") == "anew 1\n"


def test_a_deleted_sessions_checkpoints_go_with_it(place: Platform) -> None:
    session = new_session()
    say(place, "shapes", session, "write secret")
    before = {path.parent.name for path in place.objects().glob("t/dev/checkpoints/*/pointers")}
    assert place.call(f"/v1/sessions/{session}/checkpoints", method="POST")[0] == 201
    mine = {path.parent.name for path in place.objects().glob("t/dev/checkpoints/*/pointers")} - before
    assert len(mine) == 1
    assert place.call(f"/v1/sessions/{session}", method="DELETE")[0] == 200
    poll("they are gone", lambda: not (place.objects() / "t/dev/checkpoints" / mine.pop()).exists() if mine else True)
