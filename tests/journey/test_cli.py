"""The command line end to end: a fresh folder is up and spoken to at the first try; every command, with --json and when it fails."""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.commands import MOORAGE, Commands
from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey

HOST = """
from moorage import HostedAgent, text_of


def count(items, ctx):
    said = text_of(items)
    print("asked", said, flush=True)
    yield f"{len(ctx.history)} items ago: {said}"


HostedAgent(agent=count).serve()
"""
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: NAME}
spec:
  source: {path: .}
  pool: {min: 1, max: 1}
"""


def write_agent(folder: Path, name: str, *, host: str = HOST, manifest: str = MANIFEST) -> Path:
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(manifest.replace("NAME", name))
    (folder / "host.py").write_text(host)
    return folder


@pytest.fixture
def background(platform: Platform) -> Any:
    """A response that runs for some seconds."""
    with platform.client("paced") as api:
        made = api.responses.create(model="paced", input="40 words every 50 ms", background=True)
        yield made
        api.responses.cancel(made.id)


def test_a_fresh_folder_is_up_and_answers_at_the_first_try(
    commands: Commands, platform: Platform, tmp_path: Path
) -> None:
    folder = write_agent(tmp_path / "fresh", "fresh")
    up = commands.run("up", str(folder))
    assert f"fresh is ready at {platform.url}/v1/agents/fresh" in up.out
    assert "moorage chat fresh" in up.err and "uploading" in up.err
    snippet = up.out.split("ready at", 1)[1].split("\n", 1)[1]
    spoken = subprocess.run(
        [str(MOORAGE.parent / "python"), "-c", snippet], capture_output=True, text=True, timeout=60, check=False
    )
    assert spoken.stdout.strip() == "0 items ago: Hello", spoken

    chat = commands.run("chat", "fresh", said="first\nsecond\n")
    assert chat.out.splitlines() == ["0 items ago: first", "2 items ago: second"], chat
    assert "(session " in chat.err
    once = commands.run("chat", "fresh", "just this")
    assert once.out.strip() == "0 items ago: just this"
    events = [json.loads(line) for line in commands.run("chat", "fresh", "again", "--json").out.splitlines()]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    after = commands.run("chat", "fresh", "third", "--after", events[-1]["response"]["id"])
    assert after.out.strip() == "2 items ago: third"

    again = commands.json("up", str(folder))["agents"]
    assert [(a["name"], a["responses_url"]) for a in again] == [("fresh", f"{platform.url}/v1/agents/fresh/responses")]
    changed = HOST.replace("items ago", "things ago")
    (folder / "host.py").write_text(changed)
    newer = commands.json("up", str(folder))["agents"][0]
    assert newer["revision"] != again[0]["revision"]
    assert commands.run("chat", "fresh", "hi").out.strip() == "0 things ago: hi"

    assert commands.json("agents", "show", "fresh")["revision"] == newer["revision"]
    printed = commands.run("logs", "fresh", fails=not platform.local)
    elsewhere = "--selector moorage.dev/agent=fresh --container shim"  # a cluster's gateway reads no output of pods
    assert "asked first" in printed.out if platform.local else elsewhere in printed.err
    assert commands.json("agents", "delete", "fresh", "--yes")["deleted"] is True
    actions = {(r["action"], r["object"].partition("@")[0]) for r in commands.json("audit", "--since", "10m")["data"]}
    assert {("agent.deploy", "agent/fresh"), ("agent.delete", "agent/fresh")} <= actions
    gone = commands.run("chat", "fresh", "hi", fails=True)
    assert "no agent named 'fresh'" in gone.err
    assert "fresh" not in {a["name"] for a in commands.json("agents")}


def test_what_cannot_come_up_says_why_and_what_to_do(commands: Commands, platform: Platform, tmp_path: Path) -> None:
    nothing = commands.run("up", str(tmp_path / "nowhere"), fails=True)
    assert nothing.code == 1 and "agent.yaml" in nothing.err
    typo = write_agent(tmp_path / "typo", "typo", manifest=MANIFEST + "  sesion: {queue: 2}\n")
    told = commands.run("up", str(typo), fails=True)
    assert "sesion" in told.err and "session" in told.err and str(typo / "agent.yaml") in told.err.replace("\n", "")
    broken = write_agent(tmp_path / "broken", "broken", host="import nothing_of_that_name\n")
    told = commands.run("up", str(broken), "--timeout", "60", fails=True)
    assert told.code == 1 and "nothing_of_that_name" in told.err, told.err
    shown = commands.json("agents", "show", "broken")
    assert shown["ready"] is False and "nothing_of_that_name" in shown["message"]
    commands.run("agents", "delete", "broken", "--yes")


def test_a_response_is_shown_followed_cancelled_and_rated(
    commands: Commands, background: Any, platform: Platform
) -> None:
    followed = commands.start("responses", "follow", background.id)
    shown = commands.json("responses", "show", background.id, "--agent", "paced")
    assert shown["response"]["id"] == background.id and shown["record"]["agent"] == "paced"
    out, err = followed.communicate(timeout=60)
    assert followed.returncode == 0, err
    assert out.split() == [f"w{n}" for n in range(40)]
    lines = commands.run("responses", "follow", background.id, "--after", "40", "--json").out.splitlines()
    assert json.loads(lines[0])["sequence_number"] == 41
    human = commands.run("responses", "show", background.id)
    assert "completed" in human.out and "w39" in human.out
    assert commands.json("responses", "cancel", background.id)["status"] == "completed"

    kept = commands.json("responses", "feedback", background.id, "positive", "-m", "well done")
    assert (kept["rating"], kept["comment"]) == ("positive", "well done")
    commands.run("responses", "feedback", background.id, "--score", "0.25")
    given = platform.record("paced", background.id)["feedback"]
    assert [(f.get("rating"), f.get("score"), f["by"]) for f in given] == [
        ("positive", None, "dev"),
        (None, 0.25, "dev"),
    ]
    unsaid = commands.run("responses", "feedback", background.id, fails=True)
    assert unsaid.code == 2 and "--score" in unsaid.err
    unknown = commands.run("responses", "show", "caresp_" + "0" * 18 + "A" * 32, fails=True)
    assert unknown.code == 1 and "Check the id" in unknown.err


def test_a_running_response_is_cancelled_from_the_command_line(commands: Commands, platform: Platform) -> None:
    with platform.client("paced") as api:
        running = api.responses.create(model="paced", input="1500 words every 50 ms", background=True)
    assert f"{running.id} is cancelled." in commands.run("responses", "cancel", running.id).out
    followed = commands.run("responses", "follow", running.id, fails=True)
    assert followed.code == 1


def test_logs_are_followed_while_the_agent_speaks(commands: Commands, platform: Platform) -> None:
    session, mark = f"session-{uuid.uuid4().hex}", f"mark-{uuid.uuid4().hex}"
    with platform.client("shapes") as api:
        extra = {"agent_session_id": session}
        api.responses.create(model="shapes", input=f"print {mark} one", extra_body=extra)
        follower = commands.start("logs", session, "-f", "--json")
        lines: list[dict[str, Any]] = []
        assert follower.stdout is not None and follower.stderr is not None
        reader = threading.Thread(target=lambda: [lines.append(json.loads(line)) for line in follower.stdout])  # type: ignore[union-attr]
        reader.start()
        try:
            poll("what was printed before is shown", lambda: [x for x in lines if x["text"] == f"{mark} one"])
            api.responses.create(model="shapes", input=f"print {mark} two", extra_body=extra)
            found = poll("what is printed now is shown", lambda: [x for x in lines if x["text"] == f"{mark} two"])
            assert found[0]["session"] == session and found[0]["stream"] in ("stdout", "stderr")
        finally:
            follower.terminate()
            follower.wait(timeout=30)
            reader.join(timeout=10)
            follower.stdout.close()
            follower.stderr.close()
    assert f"{mark} one" in commands.run("logs", "shapes", "--tail", "1000").out
    neither = commands.run("logs", "nobody-of-this-name", fails=True)
    assert "neither an agent nor a session" in neither.err and "moorage agents" in neither.err


def test_agents_and_sessions_are_listed_for_people_and_for_programs(commands: Commands, platform: Platform) -> None:
    session = f"session-{uuid.uuid4().hex}"
    commands.run("chat", "shapes", "hello", "--session", session)
    listed = {a["name"]: a for a in commands.json("agents")}
    assert listed["shapes"]["ready"] is True and listed["shapes"]["protocols"] == ["invocations", "responses"]
    assert "shapes" in commands.run("agents").out
    mine = {s["id"]: s for s in commands.json("sessions", "list", "--agent", "shapes")}
    assert mine[session]["agent"] == "shapes" and mine[session]["sandbox"]["id"]
    assert session in commands.run("sessions").out.replace("\n", "")
    assert commands.json("sessions", "stop", session)["id"] == session
    poll("the session hibernates", lambda: platform.call(f"/v1/sessions/{session}")[1]["status"] == "hibernated")
    assert commands.json("sessions", "delete", session, "--yes")["deleted"] is True
    gone = commands.run("sessions", "show", session, fails=True)
    assert gone.code == 1 and "no such session" in gone.err


def test_a_login_is_remembered_for_its_own_platform_only(commands: Commands, platform: Platform) -> None:
    refused = commands.run("login", "--url", platform.url, said="mk_wrong\n", fails=True)
    assert refused.code == 1 and "key" in refused.err
    kept = commands.json("login", "--url", platform.url, said=f"{platform.api_key}\n")
    assert kept["url"] == platform.url and kept["agents"] >= 6
    assert platform.api_key not in json.dumps(kept)
    assert oct(Path(kept["file"]).stat().st_mode & 0o777) == "0o600"
    unset = replace(commands, url="", key="")
    assert "shapes" in unset.run("agents").out
    elsewhere = replace(commands, url=platform.url.replace("127.0.0.1", "localhost"), key="")
    assert elsewhere.run("agents", fails=True).code == 1


def test_a_platform_that_is_not_there_is_named_with_the_way_to_start_one(tmp_path: Path) -> None:
    away = Commands("http://127.0.0.1:9", "key", tmp_path)
    told = away.run("agents", fails=True)
    assert told.code == 1 and "127.0.0.1:9" in told.err and "moorage dev" in told.err
