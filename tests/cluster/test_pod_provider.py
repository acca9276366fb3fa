"""Pods keep what every provider promises: the conformance suite on a real node.

The gateway's half is the suite's own; the shims' gateway is nobody, so no sandbox here may live for a minute without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from cluster.made import hosted_agents
from cluster.node import plan
from cluster.node.node import Node
from cluster.rights import granted
from component.provider import worlds
from component.provider.conformance import *  # noqa: F403
from component.provider.conformance import World
from moorage_api import names
from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import Revision
from moorage_local import state
from moorage_operator import marks, objects, pods
from moorage_operator.kube import Kube, KubeError
from moorage_operator.machine import PodMachine
from moorage_operator.observed import Observed
from moorage_operator.relisting import relist
from moorage_operator.settings import Settings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
NAMESPACE = "moorage-conformance"
KEY = "00" * 32


async def test_a_sandbox_over_its_disk_quota_is_ended_with_the_reason() -> None:
    """In place of the suite's: a claim bounds itself, where its storage does."""
    pytest.skip("the node's volumes are folders, which bound nothing")


@pytest.fixture(scope="module")
def namespace(node: Node) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    node.kubectl("apply", "-f", "-", given=json.dumps(made))
    # The operator looks at these too, when it looks at everything.
    hosted_agents(node)
    yield NAMESPACE
    node.kubectl("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=120s")


@pytest.fixture(scope="module")
def kubeconfig(node: Node, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The operator's own."""
    with granted(node, namespace, [namespace], tmp_path_factory.mktemp("rights")) as given:
        yield given


class PodHands:
    """Acts on pods with kubectl, and on volumes where the node keeps them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def kill(self, one: Descriptor) -> None:
        await asyncio.to_thread(
            self.node.kubectl,
            "delete",
            "pod",
            one.sandbox,
            "-n",
            NAMESPACE,
            "--grace-period=0",
            "--force",
            "--wait=true",
        )

    async def write(self, one: Descriptor, name: str, data: bytes) -> None:
        place = await asyncio.to_thread(self._workspace, one)
        (place / name).write_bytes(data)

    async def read(self, one: Descriptor, name: str) -> bytes | None:
        path = await asyncio.to_thread(self._workspace, one) / name
        return path.read_bytes() if path.exists() else None

    async def call(self, one: Descriptor, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await worlds.call(one, path, body)

    def alive(self, one: Descriptor) -> bool:
        found = self.node.kubectl("get", "pod", one.sandbox, "-n", NAMESPACE, "--ignore-not-found", "-o", "json")
        return bool(found) and pods.seen(json.loads(found)).state not in ("gone", "ended")

    def fill(self, one: Descriptor) -> None:
        raise NotImplementedError  # never asked for: the quota's test is skipped, since the node's volumes are folders without a size

    def break_agent(self, agent: str) -> None:
        pass

    def _workspace(self, one: Descriptor) -> Path:
        claim = json.loads(self.node.kubectl("get", "pvc", one.volume, "-n", NAMESPACE, "-o", "json"))
        volume = json.loads(self.node.kubectl("get", "pv", claim["spec"]["volumeName"], "-o", "json"))
        return Path(volume["spec"]["hostPath"]["path"]) / "workspace"


@contextlib.asynccontextmanager
async def machine_of(kubeconfig: Path, settings: Settings) -> AsyncIterator[PodMachine]:
    """The operator's machine in this process, with the chart's rights. It looks at the cluster again and again: kopf, which it is told by
    elsewhere, ends every task of its loop that it did not find there.
    """
    configuration = Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    observed = Observed()
    async with ApiClient(configuration=configuration) as api:
        kube = Kube(api)
        machine = PodMachine(
            kube,
            observed,
            settings,
            tenants={NAMESPACE: "dev"},
            place=lambda tenant, agent: None,
            ledger=lambda: "",
            now=time.monotonic,
            wall=time.time,
        )

        async def look() -> None:
            while True:
                with contextlib.suppress(KubeError):
                    await relist(kube, observed, settings.namespaces)
                await asyncio.sleep(0.1)

        await relist(kube, observed, settings.namespaces)
        looking = asyncio.create_task(look())
        try:
            yield machine
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


@pytest.fixture
async def world(
    node: Node, namespace: str, kubeconfig: Path, agent_image: str, sandbox_image: str, tmp_path: Path
) -> AsyncIterator[World]:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
    node.kubectl("apply", "-n", NAMESPACE, "-f", "-", given=json.dumps(owner))
    uid = node.kubectl("get", "configmap", "owner", "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}

    def revision(agent: str, mode: str, broken: bool) -> Revision:
        name = names.revision(json.dumps([agent, mode, broken]).encode())
        spec = worlds.spec(agent, "broken" if broken else mode, workspace={"size": "16Mi"})
        return Revision("dev", agent, name, spec, "moorage", objects.Program(NAMESPACE, agent_image, reference))

    settings = Settings(
        redis_url="redis://unused", token_key=KEY, namespace=NAMESPACE, namespaces=(NAMESPACE,),
        sandbox_image=sandbox_image, sandbox_url=f"http://{plan.HOST}:9", gateway_cidr=f"{plan.HOST}/32",
        ephemeral_storage=False,
    )  # fmt: skip
    with state.hold(tmp_path / "state") as held:
        async with (
            machine_of(kubeconfig, settings) as machine,
            worlds.world_of(held, machine, PodHands(node), revision, token_key=KEY) as one,
        ):
            yield one
    ours = ["-n", NAMESPACE, "-l", f"{marks.OURS}={marks.MANAGER}", "--wait=true", "--timeout=90s"]
    node.kubectl("delete", "pod", "--grace-period=1", *ours)
    node.kubectl("delete", "pvc,networkpolicy,serviceaccount", *ours)
