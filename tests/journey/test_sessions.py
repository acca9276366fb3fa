"""Sessions by the control API: made, listed, stopped, woken with their files, deleted with everything of theirs."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import openai
import pytest

from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


def say(platform: Platform, agent: str, session: str, text: str) -> str:
    with platform.client(agent) as api:
        extra = {"agent_session_id": session}
        return str(api.responses.create(model=agent, input=text, extra_body=extra).output_text)


def status_of(platform: Platform, session: str) -> str:
    code, found = platform.call(f"/v1/sessions/{session}")
    assert code == 200, found
    return str(found["status"])


def test_a_session_is_made_before_its_first_turn_and_found_again(platform: Platform) -> None:
    session = new_session()
    code, made = platform.call("/v1/sessions", method="POST", body={"agent": "shapes", "agent_session_id": session})
    assert (code, made["id"], made["agent"], made["status"]) == (201, session, "shapes", "new")
    code, again = platform.call("/v1/agents/shapes/sessions", method="POST", body={"agent_session_id": session})
    assert (code, again["id"], again["created_at"]) == (201, session, made["created_at"])
    assert platform.call(f"/v1/sessions/{session}")[1]["id"] == session
    assert platform.call(f"/v1/agents/shapes/sessions/{session}")[0] == 200
    assert platform.call(f"/v1/agents/paced/sessions/{session}")[0] == 404
    assert say(platform, "shapes", session, "session") == session
    code, unnamed = platform.call("/v1/agents/shapes/sessions", method="POST", body={})
    assert code == 201 and len(unnamed["id"]) == 63


def test_the_list_shows_state_and_sandbox_and_is_filtered_and_paged(platform: Platform) -> None:
    """Other journeys' sessions may come to its front meanwhile, and none behind one that rests."""
    code, older = platform.call("/v1/agents/paced/sessions", method="POST", body={})
    assert code == 201
    session = new_session()
    with platform.client("paced") as api:
        extra = {"agent_session_id": session}
        running = api.responses.create(model="paced", input="99 words every 50 ms", background=True, extra_body=extra)

        def found() -> Any:
            code, page = platform.call("/v1/sessions?agent=paced&status=active")
            assert code == 200 and page["object"] == "list"
            mine = [one for one in page["data"] if one["id"] == session and one["sandbox"]]
            return mine[0] if mine else None

        seen = poll("the running session is listed with its sandbox", found)
        assert seen["response_id"] == running.id
        assert seen["sandbox"]["id"].startswith("sb-") and seen["sandbox"]["epoch"] > 0
        assert seen["sandbox"]["pids"] or not platform.local, "pods tell none"
        api.responses.cancel(running.id)
    poll("the session is idle", lambda: status_of(platform, session) == "idle")
    names = [one["id"] for one in platform.sessions("paced")]
    first = platform.call("/v1/sessions?agent=paced&limit=1")[1]
    assert first["has_more"] is True and len(first["data"]) == 1
    after = platform.call(f"/v1/sessions?agent=paced&limit=1000&after={session}")[1]
    behind = [one["id"] for one in after["data"]]
    assert older["id"] in behind and behind == [one for one in names[names.index(session) + 1 :] if one in behind]
    page = platform.call(f"/v1/sessions?agent=paced&limit=1&after={session}")[1]
    assert page["has_more"] is (len(behind) > 1) and [one["id"] for one in page["data"]] == behind[:1]
    code, refused = platform.call("/v1/sessions?status=sleepy")
    assert (code, refused["error"]["param"]) == (400, "status")


def test_a_stopped_session_lets_its_sandbox_go_and_wakes_with_its_files(platform: Platform) -> None:
    session = new_session()
    assert say(platform, "shapes", session, "write kept") == "written"
    first = platform.call(f"/v1/sessions/{session}")[1]["sandbox"]
    assert platform.call(f"/v1/sessions/{session}/stop", method="POST")[0] == 200
    poll("the session hibernates", lambda: status_of(platform, session) == "hibernated")
    assert platform.call(f"/v1/sessions/{session}")[1]["sandbox"] is None
    assert say(platform, "shapes", session, "read") == "kept"
    second = platform.call(f"/v1/sessions/{session}")[1]["sandbox"]
    assert second["id"] != first["id"] and second["epoch"] > first["epoch"]


def test_a_session_with_a_running_turn_is_not_stopped(platform: Platform) -> None:
    session = new_session()
    with platform.client("paced") as api:
        extra = {"agent_session_id": session}
        running = api.responses.create(model="paced", input="99 words every 50 ms", background=True, extra_body=extra)
        code, refused = platform.call(f"/v1/sessions/{session}/stop", method="POST")
        assert (code, refused["error"]["code"]) == (409, "session_busy")
        api.responses.cancel(running.id)


def test_an_idle_session_hibernates_by_itself_and_wakes_with_workspace_and_home(platform: Platform) -> None:
    session = new_session()
    assert say(platform, "brief", session, "write kept") == "written"
    poll("the idle session hibernates", lambda: status_of(platform, session) == "hibernated")
    assert platform.call(f"/v1/sessions/{session}")[1]["reason"] == "idle"
    found = json.loads(say(platform, "brief", session, "read"))
    assert found == {"workspace": "kept", "home": "kept", "tmp": None}


def test_a_turn_longer_than_the_idle_time_is_not_put_to_sleep(platform: Platform) -> None:
    session = new_session()
    assert say(platform, "brief", session, "x") == "ok"  # a sandbox is part of the turn's time, where it has to be made
    with platform.client("brief") as api:
        response = api.responses.create(model="brief", input="wait", extra_body={"agent_session_id": session})
    assert response.error is not None and "deadline" in response.error.message  # three seconds, past the two of idling
    assert len(platform.record("brief", response.id)["attempts"]) == 1


def test_a_deleted_session_takes_its_turns_responses_and_files_along(platform: Platform) -> None:
    session, mark = new_session(), f"mark-{uuid.uuid4().hex}"
    assert say(platform, "shapes", session, f"write {mark}") == "written"
    assert holding(platform, mark), "its workspace lies where workspaces do"
    with platform.client("shapes") as api:
        kept = api.responses.create(model="shapes", input="hello", extra_body={"agent_session_id": session})
        code, done = platform.call(f"/v1/sessions/{session}", method="DELETE")
        assert (code, done["deleted"]) == (200, True)
        with pytest.raises(openai.NotFoundError):
            api.responses.retrieve(kept.id)
        with pytest.raises(openai.BadRequestError):
            api.responses.create(model="shapes", input="hello", previous_response_id=kept.id)
    assert platform.call(f"/v1/sessions/{session}")[0] == 404
    assert session not in {one["id"] for one in platform.sessions("shapes")}
    poll("the files are gone", lambda: not holding(platform, mark))
    assert not [name for name in platform.stored.names() if kept.id in name]


def test_a_session_is_deleted_while_its_turn_runs(platform: Platform) -> None:
    session = new_session()
    with platform.client("paced") as api:
        extra = {"agent_session_id": session}
        running = api.responses.create(model="paced", input="99 words every 50 ms", background=True, extra_body=extra)
        assert platform.call(f"/v1/sessions/{session}", method="DELETE")[0] == 200
        with pytest.raises(openai.NotFoundError):
            api.responses.retrieve(running.id)
    assert platform.call(f"/v1/sessions/{session}")[0] == 404


def test_sessions_that_are_not_there_are_not_found(platform: Platform) -> None:
    for path, method in (("", "GET"), ("", "DELETE"), ("/stop", "POST"), ("/logs", "GET")):
        assert platform.call(f"/v1/sessions/{new_session()}{path}", method=method)[0] == 404


def holding(platform: Platform, mark: str) -> list[Path]:
    """Files in workspaces that hold `mark`."""
    return [path for path in platform.workspace_files("note.txt") if said_in(path) == mark]


def said_in(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""  # other workspaces go meanwhile
