"""API keys by API and CLI, what each may do, and the audit chain: complete, without content, and proof against a pen."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import openai
import pytest

from fakes.commands import Commands
from fakes.objects import changed
from fakes.platform import Platform, poll

pytestmark = pytest.mark.journey


def make_key(platform: Platform, **fields: Any) -> dict[str, Any]:
    code, made = platform.call("/v1/keys", method="POST", body=fields)
    assert code == 201, made
    return dict(made)


def test_a_key_opens_what_it_names_and_nothing_else(platform: Platform) -> None:
    made = make_key(platform, name="narrow", user="ada", agents=["shapes"], scopes=["invoke"])
    key = made["key"]
    with platform.client("shapes", api_key=key) as api:
        response = api.responses.create(model="shapes", input="request")
        told = json.loads(response.output_text)
        assert told["user"] == "ada" and key not in response.output_text
        assert [model.id for model in openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key).models.list()] == [
            "shapes"
        ]
    with platform.client("paced", api_key=key) as api, pytest.raises(openai.NotFoundError):
        api.responses.create(model="paced", input="1")
    for path, method in (("/v1/keys", "GET"), ("/v1/audit", "GET"), ("/v1/agents/shapes/logs", "GET")):
        assert platform.call(path, method=method, api_key=key)[0] == 403, path
    assert platform.call("/v1/agents/shapes", method="DELETE", api_key=key)[0] == 403
    assert all(one["sandbox"] is None for one in platform.sessions("shapes", api_key=key)), "sandboxes are operators'"
    with platform.client("shapes") as api, pytest.raises(openai.NotFoundError):
        api.responses.retrieve(response.id)  # another user's, though of the same tenant


def test_a_key_is_listed_without_its_text_and_ends_when_revoked(platform: Platform) -> None:
    made = make_key(platform, name="short-lived", scopes=["invoke"])
    code, listed = platform.call("/v1/keys")
    assert code == 200 and made["key"] not in json.dumps(listed)
    assert {one["id"]: one["revoked_at"] for one in listed["data"]}[made["id"]] is None
    assert platform.call("/v1/agents", api_key=made["key"])[0] == 200
    code, revoked = platform.call(f"/v1/keys/{made['id']}", method="DELETE")
    assert code == 200 and revoked["revoked_at"]
    poll("the key opens nothing", lambda: platform.call("/v1/agents", api_key=made["key"])[0] == 401, within=5)
    assert platform.call("/v1/keys/key_nothing", method="DELETE")[0] == 404


def test_a_keys_text_lies_nowhere(platform: Platform) -> None:
    made = make_key(platform, name="secret", scopes=["invoke"])
    assert platform.holding(made["key"].encode()) == []


def test_the_command_line_makes_lists_and_revokes_keys(platform: Platform, commands: Commands) -> None:
    made = commands.json("keys", "create", "by-cli", "--user", "bob", "--agent", "shapes", "--scope", "invoke")
    assert (made["user"], made["agents"], made["scopes"]) == ("bob", ["shapes"], ["invoke"])
    plain = commands.run("keys", "create", "printed-once")
    assert plain.out.strip().count("\n") == 0 and "cannot be shown again" in plain.err
    assert platform.call("/v1/agents", api_key=plain.out.strip())[0] == 200
    assert made["id"] in {one["id"] for one in commands.json("keys", "list")}
    assert "by-cli" in commands.run("keys", "list").out
    assert platform.call("/v1/agents/shapes", api_key=made["key"])[0] == 200
    assert commands.json("keys", "revoke", made["id"])["revoked_at"]
    poll("the key opens nothing", lambda: platform.call("/v1/agents", api_key=made["key"])[0] == 401, within=5)
    refused = commands.run("keys", "list", key=made["key"], fails=True)
    assert refused.code == 1 and "moorage login" in refused.err, refused.err


def test_the_audit_log_tells_who_did_what_without_content(platform: Platform, commands: Commands) -> None:
    mark, session = f"mark-{uuid.uuid4().hex}", f"session-{uuid.uuid4().hex}"
    began = int(time.time()) - 1
    key = make_key(platform, name=mark, scopes=["invoke"])
    platform.call(f"/v1/keys/{key['id']}", method="DELETE")
    with platform.client("shapes") as api:
        extra = {"agent_session_id": session}
        response = api.responses.create(model="shapes", input=f"write {mark}", extra_body=extra)
        api.responses.cancel(response.id)
        feedback = {"rating": "negative", "comment": mark}
        where = f"/v1/agents/shapes/responses/{response.id}"
        assert platform.call(f"{where}/feedback", method="POST", body=feedback)[0] == 200
        api.responses.delete(response.id)
    platform.call(f"/v1/sessions/{session}", method="DELETE")
    platform.call("/v1/sessions/session-never-there", method="DELETE")
    code, found = platform.call(f"/v1/audit?since={began}&limit=1000")
    assert code == 200
    seen = [(r["action"], r["object"], r["outcome"]) for r in found["data"]]
    for expected in (
        ("key.create", f"key/{key['id']}", "ok"),
        ("key.revoke", f"key/{key['id']}", "ok"),
        ("response.cancel", response.id, "ok"),
        ("response.feedback", response.id, "ok"),
        ("response.delete", response.id, "ok"),
        ("session.delete", f"session/{session}", "ok"),
        ("session.delete", "session/session-never-there", "not_found"),
    ):
        assert expected in seen, (expected, seen)
    record = next(r for r in found["data"] if r["action"] == "response.cancel" and r["object"] == response.id)
    assert (record["tenant"], record["user"]) == ("dev", "dev") and record["key"] and len(record["trace_id"]) == 32
    told = json.dumps(found)
    assert platform.api_key not in told and mark not in told
    assert commands.json("audit", "--since", "10m")["data"][-1]["sequence"]
    assert response.id in commands.run("audit", "--since", "10m").out.replace("\n", "")
    assert commands.json("audit", "--since", "2099-01-01")["data"] == []
    assert "write 30m" in commands.run("audit", "--since", "yesterday", fails=True).err.replace("\n", " ")


def segments(platform: Platform) -> list[str]:
    """The audit chain's objects, oldest first; there must be at least two for the tests below."""
    for _ in range(2):
        make_key(platform, name="noise")
        assert platform.call("/v1/audit?limit=1")[0] == 200  # listing flushes
    found = [name for name in platform.stored.names("audit/") if name.endswith(".jsonl")]
    assert len(found) >= 2, found
    return found


def without_its_tail(platform: Platform) -> dict[str, Any] | None:
    """What the platform says of its chain without the last object; None where another one was added behind that."""
    last = segments(platform)[-1]
    with changed(platform.stored, last, None):
        found: dict[str, Any] = platform.call("/v1/audit/verify")[1]
        later = [name for name in platform.stored.names("audit/") if name.endswith(".jsonl") and name > last]
    return None if later else found


def verified(commands: Commands) -> tuple[bool, str]:
    """Whether `moorage audit --verify` holds, and what it says."""
    found = commands.run("audit", "--since", "1m", "--verify", fails=None)
    assert found.code in (0, 1), found
    return found.code == 0, " ".join(found.out.split())


def test_the_chain_verifies_and_an_altered_record_or_a_cut_tail_is_found(
    platform: Platform, commands: Commands
) -> None:
    chain = segments(platform)
    assert verified(commands)[0]
    stored = platform.stored
    altered = stored.read(chain[-2]).replace(b'"outcome":"ok"', b'"outcome":"no"', 1)
    assert altered != stored.read(chain[-2])
    with changed(stored, chain[-2], altered):
        held, said = verified(commands)
        assert not held and "BROKEN" in said and "altered" in said, said
    with changed(stored, chain[-2], None):
        found = platform.call("/v1/audit/verify")[1]
        assert not found["ok"] and "missing" in json.dumps(found["data"]), found
    found = poll("nobody adds to the chain meanwhile", lambda: without_its_tail(platform))
    assert not found["ok"] and "the tail is cut" in json.dumps(found["data"]), found
    proof = commands.json("audit", "--since", "1m", "--verify")["verification"]
    assert proof["ok"] and all(one["anchored"] for one in proof["data"])
