"""The control API as its callers see it: agents, sessions, keys, audit, logs; what each refuses and how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from fakes.control_app import ControlApp
from fakes.control_worlds import World
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.logs import LogLine, PodLogs
from moorage_gateway.store import MemoryStore, StoreUnavailable

pytestmark = pytest.mark.component

MANIFEST = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "HostedAgent",
    "metadata": {"name": "made"},
    "spec": {"image": "registry.example/made:1"},
}


@pytest.fixture
async def app(ledger: LedgerClient) -> AsyncIterator[ControlApp]:
    world = World(ledger, MemoryStore())
    yield ControlApp(world)
    await world.records.aclose()


def problem(answer: Any) -> dict[str, Any]:
    return dict(answer.json()["error"])


async def test_agents_and_models_of_the_own_tenant_are_listed(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        listed = (await client.get("/v1/agents")).json()
        assert [one["name"] for one in listed["data"]] == ["hello", "review-agent"]
        assert listed["data"][0]["responses_url"] == "http://gateway.test/v1/agents/hello/responses"
        one = (await client.get("/v1/agents/hello")).json()
        assert one["ready"] and one["revision"] == "rev1"
        assert [m["id"] for m in (await client.get("/v1/models")).json()["data"]] == ["hello", "review-agent"]
        assert (await client.get("/v1/models/hello")).json()["owned_by"] == "acme"
        for path in ("/v1/agents/nope", "/v1/models/nope", "/v1/agents/%2e%2e", "/v1/agents/HELLO"):
            assert (await client.get(path)).status_code == 404


async def test_a_key_for_some_agents_sees_those_alone(app: ControlApp) -> None:
    async with app.client(await app.key("acme", "ann", "admin", agents=["hello"])) as client:
        assert [one["name"] for one in (await client.get("/v1/agents")).json()["data"]] == ["hello"]
        for path in ("/v1/agents/review-agent", "/v1/models/review-agent", "/v1/agents/review-agent/sessions"):
            assert (await client.get(path)).status_code == 404
        assert (await client.put("/v1/agents/review-agent", json=MANIFEST)).status_code == 404
        widened = await client.post("/v1/keys", json={"agents": ["review-agent"]})
        assert widened.status_code == 403
        assert (await client.post("/v1/keys", json={})).json()["agents"] == ["hello"]


async def test_without_a_valid_key_everything_is_401(app: ControlApp) -> None:
    document = app.control.openapi()
    for key in (None, "mk_nonsense"):
        async with app.client(key) as client:
            for path, operations in document["paths"].items():
                for method in operations:
                    answer = await client.request(
                        method, path.format(name="hello", id="x" * 16, toolbox="t", upstream="u")
                    )
                    assert answer.status_code == 401, (method, path)


async def test_each_route_refuses_a_key_without_its_scope(app: ControlApp) -> None:
    async with app.client(await app.key("acme", "ann", "invoke")) as client:
        for method, path in [
            ("PUT", "/v1/agents/made"), ("DELETE", "/v1/agents/hello"), ("POST", "/v1/agents/hello/bundles"),
            ("GET", "/v1/agents/hello/logs"), ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/keys/x"),
            ("DELETE", "/v1/keys/x"), ("GET", "/v1/audit"), ("GET", "/v1/audit/verify"),
            ("HEAD", "/v1/bundles/uploads/x"),
        ]:  # fmt: skip
            body = {"digest": "0" * 64, "size": 1} if path.endswith("bundles") else MANIFEST
            answer = await client.request(
                method, path, json=body if method in ("PUT", "POST") and "keys" not in path else None
            )
            assert answer.status_code == 403, (method, path, answer.text)
        assert (await client.get("/v1/sessions")).status_code == 200


async def test_sessions_are_made_listed_stopped_and_deleted(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        made = await client.post("/v1/sessions", json={"agent": "hello", "agent_session_id": "my-session"})
        assert made.status_code == 201 and made.json()["id"] == "my-session"
        fresh = await client.post("/v1/agents/review-agent/sessions")
        assert fresh.status_code == 201
        assert len((await client.get("/v1/sessions")).json()["data"]) == 2
        assert len((await client.get("/v1/sessions?agent=hello&status=new")).json()["data"]) == 1
        assert len((await client.get("/v1/agents/review-agent/sessions")).json()["data"]) == 1
        assert (await client.post("/v1/sessions/my-session/stop")).status_code == 200
        async with app.providing(lambda _: {"ok": True}):
            deleted = await client.delete("/v1/sessions/my-session")
        assert deleted.json() == {
            "id": "my-session", "object": "session.deleted", "deleted": True,
        }  # fmt: skip
        assert (await client.get("/v1/sessions/my-session")).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"agent": 7}, "agent"),
        ({}, "agent"),
        ({"agent": "hello", "agent_session_id": "short"}, "agent_session_id"),
        ({"agent": "hello", "agent_session_id": None, "extra": 1}, "extra"),
        ({"agent": "hello", "agent_session_id": "x" * 129}, "agent_session_id"),
    ],
)
async def test_a_wrong_field_is_400_and_named(app: ControlApp, body: Any, param: str) -> None:
    async with app.client(await app.key()) as client:
        answer = await client.post("/v1/sessions", json=body)
        assert answer.status_code == 400 and problem(answer)["param"] == param


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b"[]", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b'{"a":' * 500 + b"1" + b"}" * 500, 400),
     (b'{"x": "' + b"y" * 600_000 + b'"}', 413), (b"NaN", 400), (b'{"agent": "\\ud800"}', 400)],
)  # fmt: skip
async def test_a_body_that_is_no_small_json_object_is_refused(app: ControlApp, content: bytes, status: int) -> None:
    async with app.client(await app.key()) as client:
        for method, path in (("POST", "/v1/sessions"), ("POST", "/v1/keys"), ("PUT", "/v1/agents/made")):
            answer = await client.request(method, path, content=content)
            assert answer.status_code == status, (path, answer.text)


@pytest.mark.parametrize(
    "path",
    ["/v1/sessions?limit=0", "/v1/sessions?limit=x", "/v1/sessions?status=odd", "/v1/audit?since=-1",
     "/v1/audit?since=99999999999999999999", "/v1/agents/hello/logs?tail=-5"],
)  # fmt: skip
async def test_a_wrong_query_is_400_and_named(app: ControlApp, path: str) -> None:
    async with app.client(await app.key()) as client:
        answer = await client.get(path)
        assert answer.status_code == 400 and problem(answer)["param"]


async def test_unknown_addresses_and_methods_have_the_one_error_shape(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        for method, path, status in [
            ("GET", "/v1/nothing", 404), ("PATCH", "/v1/agents", 405), ("GET", "/v1/agents/", 404), ("GET", "/v1//agents", 404),
        ]:  # fmt: skip
            answer = await client.request(method, path)
            assert answer.status_code == status and set(problem(answer)) == {"message", "type", "param", "code"}


async def test_a_key_lives_from_creation_to_revocation_and_is_shown_once(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        made = (await client.post("/v1/keys", json={"name": "ci", "scopes": ["invoke"], "user": "robot"})).json()
        text = made.pop("key")
        assert text.startswith(f"mk_{made['id']}_")
        listed = await client.get("/v1/keys")
        assert made in listed.json()["data"] and text.split("_")[2] not in listed.text
        async with app.client(text) as robot:
            assert (await robot.get("/v1/agents")).status_code == 200
            assert (await client.delete(f"/v1/keys/{made['id']}")).json()["revoked_at"]
            assert (await robot.get("/v1/agents")).status_code == 401
        for wrong in ({"scopes": ["root"]}, {"scopes": []}, {"user": "a b"}, {"agents": ["../x"]}, {"tenant": "rival"}):
            assert (await client.post("/v1/keys", json=wrong)).status_code == 400, wrong


async def test_another_tenants_keys_sessions_and_uploads_are_404_or_absent(app: ControlApp) -> None:
    mine, theirs = app.client(await app.key()), app.client(await app.key("rival", "ann"))
    async with mine, theirs:
        key = (await mine.post("/v1/keys", json={})).json()["id"]
        await mine.post("/v1/sessions", json={"agent": "hello", "agent_session_id": "my-session"})
        upload = (await mine.post("/v1/agents/hello/bundles", json={"digest": "0" * 64, "size": 10})).json()["id"]
        for method, path in [
            ("GET", f"/v1/keys/{key}"), ("DELETE", f"/v1/keys/{key}"), ("GET", "/v1/sessions/my-session"),
            ("DELETE", "/v1/sessions/my-session"), ("POST", "/v1/sessions/my-session/stop"),
            ("GET", "/v1/sessions/my-session/logs"), ("GET", "/v1/agents/hello/sessions/my-session"),
            ("DELETE", "/v1/agents/hello/sessions/my-session"), ("POST", "/v1/agents/hello/sessions/my-session/stop"),
            ("GET", "/v1/agents/hello/sessions/my-session/logs"), ("HEAD", f"/v1/bundles/uploads/{upload}"),
            ("PATCH", f"/v1/bundles/uploads/{upload}"),
        ]:  # fmt: skip
            answer = await theirs.request(method, path, headers={"upload-offset": "0"})
            assert answer.status_code == 404, (method, path, answer.text)
        assert (await theirs.get("/v1/sessions")).json()["data"] == []
        assert key not in (await theirs.get("/v1/keys")).text
        await mine.get("/v1/audit")
        assert {record["outcome"] for record in (await theirs.get("/v1/audit")).json()["data"]} == {"not_found"}


async def test_every_change_leaves_an_audit_record_with_caller_outcome_and_ids(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        key = (await client.post("/v1/keys", json={"name": "content-canary"})).json()["id"]
        await client.delete(f"/v1/keys/{key}")
        await client.delete("/v1/keys/0000000000000000")
        await client.post("/v1/sessions", json={"agent": "hello", "agent_session_id": "my-session"})
        await client.post("/v1/sessions/my-session/stop")
        await client.put("/v1/agents/made", json={})
        listed = (await client.get("/v1/audit")).json()
        assert [(r["action"], r["object"], r["outcome"]) for r in listed["data"]] == [
            ("key.create", f"key/{key}", "ok"),
            ("key.revoke", f"key/{key}", "ok"),
            ("key.revoke", "key/0000000000000000", "not_found"),
            ("session.create", "session/my-session", "ok"),
            ("session.stop", "session/my-session", "ok"),
            ("agent.deploy", "agent/made", "unprocessable"),
        ]
        first = listed["data"][0]
        assert (first["user"], first["request_id"], first["trace_id"]) == ("ann", "req-1", "trace-1")
        assert "canary" not in str(listed)
        chains = (await client.get("/v1/audit/verify")).json()
        assert chains["ok"] and chains["data"][0]["anchored"]


async def test_a_manifest_is_handed_to_the_provider_and_its_revision_returned(app: ControlApp) -> None:
    async with app.client(await app.key()) as client, app.providing(lambda _: {"ok": True, "revision": "abc123"}):
        answer = await client.put("/v1/agents/made", json=MANIFEST)
        assert answer.status_code == 200, answer.text
        assert answer.json()["revision"] == "abc123"
        assert (await client.delete("/v1/agents/made")).json()["deleted"]
    apply, delete = app.requests
    assert (apply["verb"], apply["tenant"], apply["agent"], apply["by"]) == ("apply", "acme", "made", "ann")
    assert apply["manifest"] == MANIFEST and delete["verb"] == "delete"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"spec": {"image": "x", "sesion": {}}}, "spec.sesion"),
        ({"spec": {"source": {"path": "/etc"}}}, "spec.source.path"),
        ({"spec": {"source": {"git": {"url": "file:///srv/other"}}}}, "spec.source.git.url"),
        ({"spec": {"image": "x", "mounts": [{"path": "/etc", "mount": "/data"}]}}, "spec.mounts"),
        ({"spec": {"source": {"bundle": "sha256:" + "0" * 64}}}, "spec.source.bundle"),
        ({"metadata": {"name": "other"}}, "metadata.name"),
        ({"kind": "Deployment"}, "kind"),
        ({"spec": None}, "spec"),
    ],
)
async def test_a_wrong_manifest_is_422_and_names_the_field(app: ControlApp, change: Any, param: str) -> None:
    async with app.client(await app.key()) as client:
        answer = await client.put("/v1/agents/made", json={**MANIFEST, **change})
        assert answer.status_code == 422 and problem(answer)["param"] == param
    assert app.requests == []


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ({"ok": False, "error": "spec.port is set by another", "field": "spec.port", "owner": "argocd"}, 409, "argocd"),
        ({"ok": False, "error": "no such entrypoint", "field": "spec.source.entrypoint"}, 422, "entrypoint"),
        ({"ok": False, "error": "nope"}, 400, "nope"),
        ({"ok": False, "kind": "not_found"}, 404, "made"),
        ({"ok": False}, 400, "provider"),
    ],
)
async def test_the_providers_refusal_reaches_the_caller(app: ControlApp, said: Any, status: int, words: str) -> None:
    async with app.client(await app.key()) as client, app.providing(lambda _: said):
        answer = await client.put("/v1/agents/made", json=MANIFEST)
        assert answer.status_code == status and words in problem(answer)["message"]


async def test_a_provider_that_does_not_answer_is_504_and_the_request_is_taken_back(ledger: LedgerClient) -> None:
    app = ControlApp(World(ledger, MemoryStore()), within=0.2)
    async with app.client(await app.key()) as client:
        answer = await client.put("/v1/agents/made", json=MANIFEST)
        assert answer.status_code == 504 and "GET /v1/agents/made" in problem(answer)["message"]
        assert int(await ledger.read("LLEN", "applies")) == 0
        for _ in range(200):
            await ledger.read("RPUSH", "applies", "{}")
        assert (await client.put("/v1/agents/made", json=MANIFEST)).status_code == 503


async def test_logs_are_a_stream_of_events_of_ones_own_session_or_for_operators(app: ControlApp) -> None:
    async with app.client(await app.key()) as client:
        await client.post("/v1/sessions", json={"agent": "hello", "agent_session_id": "my-session"})
        key, _ = await app.world.control.find((await app.keys.list("acme"))[0].principal(), "my-session")
        app.logs.add("acme", "hello", key, LogLine(1, "stdout", "one\ntwo", "my-session"))
        app.logs.add("acme", "hello", "acme:other", LogLine(2, "stderr", "other", "other"))
        mine = await client.get("/v1/sessions/my-session/logs")
        assert mine.headers["content-type"].startswith("text/event-stream")
        assert mine.text.count("data: ") == 2 and '"one\\ntwo"' in mine.text and "other" not in mine.text
        assert "other" in (await client.get("/v1/agents/hello/logs?tail=1")).text


class Pods:
    """A cluster with these namespaces, each with its tenant."""

    def __init__(self, namespaces: Mapping[str, str]) -> None:
        self.pod_tokens = PodTokens("issuer", "moorage", {"keys": []}, namespaces)


async def test_where_no_gateway_reads_logs_the_command_that_does_is_told_to_operators(ledger: LedgerClient) -> None:
    app = ControlApp(World(ledger, MemoryStore()), kept=PodLogs(Pods({"team-a": "acme", "others": "other"})))
    lines = "kubectl logs --namespace team-a --selector moorage.dev/agent=hello --container shim --tail=7"
    async with app.client(await app.key()) as client, app.client(await app.key("acme", "ann", "invoke")) as user:
        await client.post("/v1/sessions", json={"agent": "hello", "agent_session_id": "my-session"})
        ways = ["/v1/agents/hello", "/v1/sessions/my-session", "/v1/agents/hello/sessions/my-session"]
        for way in ways:
            answer = await client.get(f"{way}/logs?tail=7")
            assert answer.status_code == 404 and problem(answer)["code"] == "logs_elsewhere"
            assert problem(answer)["message"].splitlines()[1:] == [f"{lines} --prefix"]
        followed = problem(await client.get("/v1/agents/hello/logs?tail=7&follow=true"))["message"]
        assert followed.splitlines()[1:] == [f"{lines} --follow --prefix --max-log-requests=50"]
        for way in ways[1:]:
            told = problem(await user.get(f"{way}/logs"))["message"]
            assert "Ask who operates it" in told and "team-a" not in told
        assert (await user.get("/v1/agents/hello/logs")).status_code == 403
        assert problem(await client.get("/v1/agents/nobody/logs"))["code"] != "logs_elsewhere"


async def test_a_store_that_is_down_is_503_with_a_time_to_retry(ledger: LedgerClient) -> None:
    class Down(MemoryStore):
        down = False

        async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
            if self.down:
                raise StoreUnavailable("down")
            return await super().list(prefix, after, limit)

    store = Down()
    app = ControlApp(World(ledger, store))
    async with app.client(await app.key()) as client:
        assert (await client.get("/v1/agents")).status_code == 200
        store.down = True
        for path in ("/v1/keys", "/v1/sessions", "/v1/audit"):
            answer = await client.get(path)
            assert answer.status_code == 503 and answer.headers["retry-after"]
