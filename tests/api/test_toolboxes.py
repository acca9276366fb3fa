"""Toolboxes on a real API server: what is filled in and refused, and an operator that brings them and what opens them to the gateways."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from api.test_model_endpoints import secret
from api.world import SECRETS, TOKEN_KEY, Means, until, world_of
from cluster.node.control import ControlPlane, Given
from moorage_api.kinds import parse_any
from moorage_api.kinds.stdio_server import StdioServer
from moorage_api.ledger import keys
from moorage_operator import marks, objects, program_objects
from moorage_operator.kube import ACCOUNTS, PODS, POLICIES, TOOLBOXES
from moorage_operator.program_objects import Program
from moorage_operator.settings import Settings

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

NAMESPACE = "moorage-tools"
KEY = "tok-canary-0123456789"
ONE = {"name": "one", "mcp": {"url": "https://tools.example.com/mcp"}}
API = {"server": "https://api.example.com/v1", "url": "https://api.example.com/openapi.json"}
OAUTH = {
    "tokenUrl": "https://login.example.com/token",
    "clientId": "m",
    "clientSecret": {"secret": "s"},
    "scopes": ["a"],
}


def document(name: str, spec: dict[str, Any], namespace: str = NAMESPACE) -> dict[str, Any]:
    """An object as a person writes it."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "Toolbox", "metadata": meta, "spec": spec}


@pytest.fixture(scope="module")
def api(api_server: ControlPlane | Given) -> Iterator[ControlPlane | Given]:
    """A namespace of an API server that knows Toolboxes."""
    api_server.kubectl("create", "namespace", NAMESPACE)
    yield api_server
    api_server.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize(
    "spec",
    [
        {"upstreams": [ONE]},
        {"upstreams": [{**ONE, "rename": {"a": "b"}, "pin": {"a": "sha256:" + "0" * 64}, "timeout": "2m"}], "breaker": {"failures": 2}},
        {"upstreams": [{**ONE, "credential": {"secret": "s", "scheme": ""}}, {**ONE, "name": "two", "prefix": ""}]},
        {"upstreams": [ONE, {"name": "two", "openapi": API, "oauth": OAUTH}]},
        {"upstreams": [ONE, {"name": "two", "openapi": {**API, "url": None, "document": {"paths": {"/a": {"get": {"x": [1]}}}}}}]},
        {"upstreams": [ONE, {"name": "two", "agent": {"name": "worker", "description": "Works."}, "timeout": "5m"}]},
        {"upstreams": [ONE, {"name": "two", "stdio": {"command": "python", "env": [{"name": "B", "secret": {"secret": "s"}}]}}]},
    ],
)  # fmt: skip
def test_what_is_filled_in_is_what_the_kind_itself_says(api: ControlPlane | Given, spec: dict[str, Any]) -> None:
    given = json.dumps(document("filled", spec))
    stored = json.loads(api.kubectl("apply", "-n", NAMESPACE, "-f", "-", "-o", "json", given=given))
    shown = api.kubectl("get", "tb", "filled", "-n", NAMESPACE)
    api.kubectl("delete", "toolbox", "filled", "-n", NAMESPACE)
    assert parse_any(stored).wire_spec() == parse_any(document("filled", spec)).wire_spec()
    assert ONE["mcp"]["url"] in shown  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "spec.upstreams"),
        ({"upstreams": []}, "spec.upstreams"),
        ({"upstreams": [{"name": "one"}]}, "exactly one of mcp, openapi, stdio and agent"),
        ({"upstreams": [{**ONE, "openapi": API}]}, "exactly one of mcp, openapi, stdio and agent"),
        ({"upstreams": [{**ONE, "agent": {"name": "worker"}}]}, "exactly one of mcp, openapi, stdio and agent"),
        ({"upstreams": [{"name": "one", "openapi": {"server": "https://a"}}]}, "openapi has either url or document"),
        ({"upstreams": [{**ONE, "oauth": OAUTH, "credential": {"secret": "s"}}]}, "either credential or oauth"),
        ({"upstreams": [{**ONE, "credential": {"secret": "s", "query": "q"}}]}, "credential.query is for openapi"),
        (
            {"upstreams": [{"name": "one", "mcp": {"url": "https://u:p@a"}}]},
            "what opens the server goes under credential",
        ),
        ({"upstreams": [{**ONE, "stdio": {"command": "python"}}]}, "exactly one of mcp, openapi, stdio and agent"),
        (
            {"upstreams": [{"name": "one", "stdio": {"command": "python"}, "credential": {"secret": "s"}}]},
            "goes into its environment: stdio.env",
        ),
        (
            {"upstreams": [{"name": "one", "stdio": {"command": "python", "env": [{"name": "A"}]}}]},
            "a variable has either value or secret",
        ),
        ({"upstreams": [ONE, ONE]}, "Duplicate value"),
        ({"upstreams": [{**ONE, "concurrency": 0}]}, "spec.upstreams[0].concurrency"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(api: ControlPlane | Given, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(says)):
        api.kubectl("apply", "-n", NAMESPACE, "-f", "-", given=json.dumps(document("wrong", spec)))


async def test_the_operator_brings_toolboxes_and_their_credentials_to_the_gateways(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"tb-{next(numbers)}", 10) as world:
        await world.kube.create(SECRETS, secret(world, "gateway-credentials", None))
        await world.kube.create(SECRETS, secret(world, "tools", {"api-key": KEY}))
        await world.kube.create(
            TOOLBOXES, document("t", {"upstreams": [{**ONE, "credential": {"secret": "tools"}}]}, world.namespace)
        )
        await world.kube.create(
            TOOLBOXES, document("none", {"upstreams": [{**ONE, "credential": {"secret": "absent"}}]}, world.namespace)
        )
        world.start(MOORAGE_GATEWAY_CREDENTIALS="gateway-credentials")

        async def said(name: str) -> Any:
            body = await world.kube.get(TOOLBOXES, world.namespace, name)
            assert body is not None
            return [(c["status"], c["reason"]) for c in (body.get("status") or {}).get("conditions", ())]

        await until("it is ready", lambda: _is(said("t"), [("True", "Serving")]))
        await until("the other says why not", lambda: _is(said("none"), [("False", "CredentialMissing")]))
        entries = await world.redis.hgetall(keys.TOOLBOXES)
        assert list(entries) == [b"dev/t"] and KEY.encode() not in b"".join(entries.values())
        held = await world.kube.get(SECRETS, world.namespace, "gateway-credentials")
        assert held is not None and held["data"] == {"dev_toolboxes_t_one": base64.b64encode(KEY.encode()).decode()}
        await world.kube.delete(TOOLBOXES, world.namespace, "t")
        await until("it is taken out", lambda: _is(world.redis.hgetall(keys.TOOLBOXES), {}))
        await world.kube.delete(TOOLBOXES, world.namespace, "none")


PROGRAM = {"command": "python", "args": ["server.py"], "image": "registry.example/notes:1"}


async def test_a_program_is_a_pod_that_only_gateways_reach_and_that_follows_its_manifest(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"tb-{next(numbers)}", 11) as world:
        space = world.namespace
        await world.kube.create(SECRETS, secret(world, "gateway-credentials", None))
        await world.kube.create(SECRETS, secret(world, "notes", {"api-key": KEY}))
        env = [{"name": "MODE", "value": "x"}, {"name": "API_TOKEN", "secret": {"secret": "notes"}}]
        spec = {"upstreams": [ONE, {"name": "notes", "stdio": {**PROGRAM, "env": env}}]}
        await world.kube.create(TOOLBOXES, document("t", spec, space))
        bare = {"upstreams": [{"name": "notes", "stdio": {"command": "python"}}]}
        await world.kube.create(TOOLBOXES, document("bare", bare, space))
        world.start(MOORAGE_GATEWAY_CREDENTIALS="gateway-credentials")

        async def said(name: str) -> tuple[str, str]:
            body = await world.kube.get(TOOLBOXES, space, name)
            (one,) = ((body or {}).get("status") or {}).get("conditions") or [{"reason": "", "message": ""}]
            return str(one["reason"]), str(one["message"])

        async def pods() -> list[dict[str, Any]]:
            every = [body async for body in world.kube.each(PODS, space, labels={marks.PART: marks.PROGRAM})]
            return [body for body in every if not body["metadata"].get("deletionTimestamp")]

        async def another(uid: str) -> dict[str, Any] | None:
            return next((body for body in await pods() if body["metadata"]["uid"] != uid), None)

        async def published() -> dict[str, Any]:
            raw = (await world.redis.hgetall(keys.TOOLBOXES)).get(b"dev/t")
            return dict(json.loads(raw)["places"]) if raw else {"none": ""}

        pod = await until("its pod is made", lambda: another(""))
        await until("it says so", lambda: _is(_first(said("t")), "ProgramNotReady"))
        assert await published() == {}, "what else the toolbox has may be used"
        reason, message = await said("bare")
        assert reason == "SpecRefused" and "stdio.image is missing" in message
        assert KEY not in json.dumps(pod)
        inner, (one,) = pod["spec"], pod["spec"]["containers"]
        assert not inner["automountServiceAccountToken"] and "serviceAccountToken" not in json.dumps(inner["volumes"])
        assert one["env"] == [
            {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "notes", "key": "api-key"}}}
        ] and one["image"] == PROGRAM["image"]  # fmt: skip
        assert (
            pod["metadata"]["ownerReferences"][0]["kind"] == "Toolbox" and marks.OURS not in pod["metadata"]["labels"]
        )
        policy = await world.kube.get(POLICIES, space, "moorage-t.programs")
        assert policy is not None and "egress" not in policy["spec"]
        assert policy["spec"]["ingress"] == [
            {"from": [{"ipBlock": {"cidr": "192.0.2.2/32"}}], "ports": [{"protocol": "TCP", "port": 8100}]}
        ]
        settings = Settings(
            redis_url=SecretStr("redis://x"), token_key=SecretStr(TOKEN_KEY), namespace=space, namespaces=(space,), sandbox_image="s",
            sandbox_url="http://192.0.2.2:8081", gateway_cidr="192.0.2.2/32",
        )  # fmt: skip
        owner = pod["metadata"]["ownerReferences"][0]
        same = Program(space, "dev", "t", "notes", StdioServer(command="python", image="x"), owner)
        assert objects.stands(policy, program_objects.policy(same, settings)), "it is not written at each look"
        held_account = await world.kube.get(ACCOUNTS, space, "moorage-t.programs")
        assert held_account is not None and objects.stands(held_account, program_objects.account(same))
        waits = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "name": "program"}
        held = {"ready": False, "restartCount": 0, "image": "", "imageID": ""}
        await _seen(world.kube, pod, {"containerStatuses": [waits | held]})
        await until("the image is named", lambda: _has(said("t"), "program notes: container program: ImagePullBackOff"))
        ready = {"type": "Ready", "status": "True"}
        await _seen(
            world.kube,
            pod,
            {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}], "conditions": [ready]},
        )
        await until("it is ready", lambda: _is(_first(said("t")), "Serving"))
        assert await published() == {"notes": "http://10.1.2.3:8100"}
        await world.kube.merge(SECRETS, space, "notes", {"data": {"api-key": base64.b64encode(b"another").decode()}})
        uid = pod["metadata"]["uid"]
        fresh = await until("a changed secret makes another pod", lambda: another(uid), within=90)
        await until("whose place is not known yet", lambda: _is(published(), {}))
        await world.kube.merge(TOOLBOXES, space, "t", {"spec": {"upstreams": [ONE]}})
        await until("nobody wants it any more", lambda: _is(pods(), []), within=90)
        assert fresh["metadata"]["name"] == pod["metadata"]["name"]
        for name in ("t", "bare"):
            await world.kube.delete(TOOLBOXES, space, name)


async def _seen(kube: Any, pod: dict[str, Any], status: dict[str, Any]) -> None:
    """As a node says it."""
    await kube.merge(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {"status": status}, part="status")


async def _first(found: Any) -> str:
    return str((await found)[0])


async def _has(found: Any, part: str) -> bool:
    return part in (await found)[1]


async def _is(found: Any, wanted: Any) -> bool:
    return bool(await found == wanted)
