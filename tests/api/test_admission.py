"""Every kind of pod that the operator makes, before a server that enforces restricted Pod Security; and what none of them says."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.scenarios import source
from api.world import TOKEN_KEY, Means, World, world_of
from moorage_api import tokens
from moorage_operator import marks
from moorage_operator.kube import ACCOUNTS, CLAIMS, JOBS, NAMESPACES, PODS, Kube, KubeError

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

Pod = dict[str, Any]


async def made(world: World) -> dict[str, Pod]:
    """One of each kind, as the operator made it: kind → pod."""
    world.start()
    await world.apply("hello", pool={"min": 1, "max": 1})
    await world.apply("sourced", source=source("main"), pool={"min": 1, "max": 1})
    small = {
        "cpu": "20m",
        "memory": "48Mi",
        "ephemeralStorage": "32Mi",
    }  # less than a pod asks for where more is allowed
    own = {"workspace": {"fileSystem": False, "size": "16Mi"}, "egress": ["package-index"], "resources": small}
    await world.apply("scratch", pool={"min": 1, "max": 1}, **own)
    for agent in ("hello", "sourced", "scratch"):
        await world.until_ready(agent, warm=1)
    key = await world.open("first", "hello")
    await world.claim(key, "hello")
    await world.until_noted(key)
    await world.hibernate(key)
    await world.until_ready("hello", warm=1, hibernated=1)
    await world.claim(key, "hello")
    woken = (await world.record(key)).sandbox
    pods = {one["metadata"]["name"]: one for one in await world.pods()}
    found = {"woken": pods.pop(woken)}
    for agent in ("hello", "sourced", "scratch"):
        found[f"pool of {agent}"] = next(
            one for one in pods.values() if marks.text(one, "labels", marks.AGENT) == agent
        )
    (job,) = await world.all(JOBS, {})
    template = job["spec"]["template"]
    return found | {"build": {"metadata": template["metadata"], "spec": template["spec"]}}


def fresh(pod: Pod, namespace: str) -> Pod:
    """The same pod for another namespace, without what a server and a scheduler added."""
    meta = {name: pod["metadata"][name] for name in ("labels", "annotations") if name in pod["metadata"]}
    spec = {
        name: part for name, part in copy.deepcopy(pod["spec"]).items() if name not in ("nodeName", "serviceAccount")
    }
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "tried-", "namespace": namespace, **meta}, "spec": spec,
    }  # fmt: skip


async def admitted(kube: Kube, pod: Pod) -> str:
    """What the server says to it in a dry run; "" when it takes it."""
    try:
        await kube.call("POST", PODS.path(pod["metadata"]["namespace"]), query=[("dryRun", "All")], body=pod)
    except KubeError as fault:
        assert fault.status == 403, fault.message
        return fault.message
    return ""


def loosened(pod: Pod) -> Iterator[tuple[str, Pod]]:
    """The pod with one restriction less at a time, each of which the admission is to refuse."""
    for number, one in enumerate(pod["spec"]["containers"]):
        for name in ("allowPrivilegeEscalation", "capabilities"):
            other = copy.deepcopy(pod)
            del other["spec"]["containers"][number]["securityContext"][name]
            yield f"{one['name']} without {name}", other
    for name in ("runAsNonRoot", "seccompProfile"):
        other = copy.deepcopy(pod)
        del other["spec"]["securityContext"][name]
        yield f"without {name}", other


async def test_every_kind_of_pod_is_admitted_where_restricted_pod_security_is_enforced(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"op-{next(numbers)}", 12) as world:
        kinds = await made(world)
        assert len({json.dumps(pod["spec"], sort_keys=True) for pod in kinds.values()}) == len(kinds) == 5
        space = f"{world.namespace}-tried"
        labels = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn", "audit")}
        meta = {"name": space, "namespace": "", "labels": labels}
        await means.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        try:
            for name in {pod["spec"]["serviceAccountName"] for pod in kinds.values()}:
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}
                await means.kube.create(ACCOUNTS, account)
            for kind, pod in kinds.items():
                tried = fresh(pod, space)
                assert await admitted(means.kube, tried) == "", kind
                for how, loose in loosened(tried):
                    assert "violates PodSecurity" in await admitted(means.kube, loose), f"{kind} {how}"
        finally:
            await means.kube.delete(NAMESPACES, "", space)


async def test_no_object_of_the_operators_says_what_opens_anything(means: Means, numbers: Iterator[int]) -> None:
    async with world_of(means, f"op-{next(numbers)}", 12) as world:
        await made(world)
        pods, jobs, claims = await world.pods(), await world.all(JOBS, {}), await world.all(CLAIMS, {})
        secrets = {one["metadata"]["name"]: tokens.sandbox_secret(one["metadata"]["name"], TOKEN_KEY) for one in pods}
        text = json.dumps([pods, jobs, claims, [await world.agent(name) for name in ("hello", "sourced", "scratch")]])
        for name, secret in secrets.items():
            assert secret not in text, f"what opens {name}"
            assert tokens.secret_sha256(secret) in text, "of which its shim is told the hash"
        assert TOKEN_KEY not in text and str(means.socket) not in text
