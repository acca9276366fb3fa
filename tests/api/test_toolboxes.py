"""Toolboxes on a real API server: what is filled in and refused, and an operator that brings them and what opens them to the gateways."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from api import published
from api.published import conditions, namespace, refused, secret, shown
from api.world import SECRETS, TOKEN_KEY, Means, until, world_of
from cluster.node.control import ControlPlane, Given
from moorage_api.kinds.stdio_server import StdioServer
from moorage_api.ledger import keys
from moorage_operator import marks, objects, program_objects
from moorage_operator.kube import ACCOUNTS, PODS, POLICIES, TOOLBOXES, Kind
from moorage_operator.program_objects import Program
from moorage_operator.settings import Settings

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

NAMESPACE = "moorage-tools"
CONFIG_MAPS = Kind("v1", "configmaps")
KEY = "tok-canary-0123456789"
ONE = {"name": "one", "mcp": {"url": "https://tools.example.com/mcp"}}
API = {"server": "https://api.example.com/v1", "url": "https://api.example.com/openapi.json"}
OAUTH = {
    "tokenUrl": "https://login.example.com/token",
    "clientId": "m",
    "clientSecret": {"secret": "s"},
    "scopes": ["a"],
}


IDENTITY = {"tokenUrl": "https://login.example.com/token", "clientId": "c"}


document = functools.partial(published.document, "Toolbox")


@pytest.fixture(scope="module")
def api(api_server: ControlPlane | Given) -> Iterator[ControlPlane | Given]:
    """A namespace of an API server that knows Toolboxes."""
    with namespace(api_server, NAMESPACE) as made:
        yield made


@pytest.mark.parametrize(
    "spec",
    [
        {"upstreams": [ONE]},
        {"upstreams": [{**ONE, "rename": {"a": "b"}, "pin": {"a": "sha256:" + "0" * 64}, "timeout": "2m"}], "breaker": {"failures": 2}},
        {"upstreams": [{**ONE, "examples": {"a": ["close a ticket", "be done with one"], "b": ["list all"]}}]},
        {"upstreams": [{**ONE, "credential": {"secret": "s", "scheme": ""}}, {**ONE, "name": "two", "prefix": ""}]},
        {"upstreams": [ONE, {"name": "two", "openapi": API, "oauth": OAUTH}]},
        {"upstreams": [{**ONE, "workloadIdentity": IDENTITY}]},
        {"upstreams": [ONE, {"name": "two", "openapi": {**API, "url": None, "document": {"paths": {"/a": {"get": {"x": [1]}}}}}}]},
        {"upstreams": [ONE, {"name": "two", "agent": {"name": "worker", "description": "Works."}, "timeout": "5m"}]},
        {"upstreams": [ONE, {"name": "two", "stdio": {"command": "python", "env": [{"name": "B", "secret": {"secret": "s"}}]}}]},
    ],
)  # fmt: skip
def test_what_is_filled_in_is_what_the_kind_itself_says(api: ControlPlane | Given, spec: dict[str, Any]) -> None:
    told = shown(api, "tb", document("filled", spec, NAMESPACE))
    assert ONE["mcp"]["url"] in told  # type: ignore[index]


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
        ({"upstreams": [{**ONE, "oauth": OAUTH, "workloadIdentity": IDENTITY}]}, "in place of credential and oauth"),
        (
            {"upstreams": [{"name": "one", "agent": {"name": "worker"}, "workloadIdentity": IDENTITY}]},
            "workloadIdentity is for mcp and openapi",
        ),
        (
            {"upstreams": [{**ONE, "workloadIdentity": {**IDENTITY, "tokenUrl": "https://u:p@a"}}]},
            "what opens the server goes under credential",
        ),
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
        ({"upstreams": [{**ONE, "examples": {"a": ["x"] * 4}}]}, "spec.upstreams[0].examples"),
        ({"upstreams": [{**ONE, "examples": {"a": ["x" * 201]}}]}, "spec.upstreams[0].examples"),
        ({"upstreams": [ONE, ONE]}, "Duplicate value"),
        ({"upstreams": [{**ONE, "concurrency": 0}]}, "spec.upstreams[0].concurrency"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(api: ControlPlane | Given, spec: dict[str, Any], says: str) -> None:
    refused(api, document("wrong", spec, NAMESPACE), says)


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
        said = functools.partial(conditions, world, TOOLBOXES)
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
        name = fresh["metadata"]["name"]
        await world.kube.merge(PODS, space, name, {"metadata": {"finalizers": ["tests.moorage.dev/ends-slowly"]}})
        await world.kube.merge(TOOLBOXES, space, "t", {"spec": {"upstreams": [ONE]}})
        await until("nobody wants it any more", lambda: _is(pods(), []), within=90)
        await world.kube.create(TOOLBOXES, document("later", {"upstreams": [ONE]}, space))
        await until("another look has been taken", lambda: _is(_first(said("later")), "Serving"), within=90)

        async def guards() -> list[bool]:
            found = [await world.kube.get(kind, space, "moorage-t.programs") for kind in (POLICIES, ACCOUNTS)]
            return [each is not None for each in found]

        assert await guards() == [True, True], "a pod that ends is guarded to its end"
        await world.kube.merge(PODS, space, name, {"metadata": {"finalizers": None}})
        await until("with its last program they are gone", lambda: _is(guards(), [False, False]), within=90)
        assert fresh["metadata"]["name"] == pod["metadata"]["name"]
        for name in ("t", "bare"):
            await world.kube.delete(TOOLBOXES, space, name)


async def test_the_policy_of_programs_outlives_their_toolbox_until_the_last_pod_is_gone(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"tb-{next(numbers)}", 12) as world:
        space, kube, guard = world.namespace, world.kube, "moorage-t.programs"
        await kube.create(TOOLBOXES, document("t", {"upstreams": [{"name": "notes", "stdio": PROGRAM}]}, space))
        world.start()

        async def pod() -> dict[str, Any] | None:
            return await anext(kube.each(PODS, space, labels={marks.PART: marks.PROGRAM}), None)

        async def owned(kind: Kind) -> bool:
            body = await kube.get(kind, space, guard)
            return body is None or "ownerReferences" in body["metadata"]

        async def gone(kind: Kind, name: str) -> bool:
            return await kube.get(kind, space, name) is None

        made = await until("its pod is made", pod)
        name, owner = made["metadata"]["name"], made["metadata"]["ownerReferences"]
        for kind in (POLICIES, ACCOUNTS):  # as an older operator left them
            await kube.merge(kind, space, guard, {"metadata": {"ownerReferences": owner}})
        for kind in (POLICIES, ACCOUNTS):
            await until("nobody owns it any more", lambda kind=kind: _is(owned(kind), False), within=60)
        await kube.merge(PODS, space, name, {"metadata": {"finalizers": ["tests.moorage.dev/ends-slowly"]}})
        beside = {"metadata": {"name": "beside", "namespace": space, "ownerReferences": owner}}
        await kube.create(CONFIG_MAPS, beside)
        await kube.delete(TOOLBOXES, space, "t")
        await until("what the Toolbox owned is collected", lambda: gone(CONFIG_MAPS, "beside"), within=90)
        await kube.create(TOOLBOXES, document("later", {"upstreams": [ONE]}, space))
        said = functools.partial(conditions, world, TOOLBOXES)
        await until("another look has been taken", lambda: _is(said("later"), [("True", "Serving")]), within=90)
        ending = await kube.get(PODS, space, name)
        assert ending is not None and ending["metadata"].get("deletionTimestamp")
        assert not await gone(POLICIES, guard), "a pod that ends has its policy to its end"
        await kube.merge(PODS, space, name, {"metadata": {"finalizers": None}})
        for kind in (POLICIES, ACCOUNTS):
            await until("then it is gone", lambda kind=kind: gone(kind, guard), within=90)
        await kube.delete(TOOLBOXES, space, "later")


async def _seen(kube: Any, pod: dict[str, Any], status: dict[str, Any]) -> None:
    """As a node says it."""
    await kube.merge(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {"status": status}, part="status")


async def _first(found: Any) -> str:
    return str((await found)[0])


async def _has(found: Any, part: str) -> bool:
    return part in (await found)[1]


async def _is(found: Any, wanted: Any) -> bool:
    return bool(await found == wanted)
