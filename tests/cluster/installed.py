"""The chart on the node by helm: a release, its parts, and where it is reached.

Limits: one node, so nothing is spread; requests of CPU are small, and no ephemeral storage is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI

from chart import helm
from cluster.given import forwarded
from cluster.node import images, plan
from cluster.node.control import Given
from cluster.node.node import Node
from cluster.served import Served
from fakes.platform import poll
from fakes.s3 import S3Server
from tree import ROOT

PLATFORM = "moorage-platform"
AGENTS = "moorage-team"
RELEASE = "moorage"
PARTS = {"gateway": "gateway", "operator": "operator", "valkey": "valkey-image"}
COUNTED = "deployment,statefulset"
PORT = 8080


@dataclass
class Installed(Served):
    """A release and where it is reached: its Service's own address, since this machine is the node."""

    node: Node | Given
    helm: Path
    image: str
    values: Sequence[Path]
    namespace: str = AGENTS
    key: str = ""
    address: str = ""
    ways: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def client(self) -> OpenAI:
        return self.at(self.address)

    def at(self, address: str) -> OpenAI:
        """The stock client at one address, with its port: the Service's or a gateway's."""
        return OpenAI(base_url=f"http://{address}/v1", api_key=self.key, max_retries=0)

    def run(self, *words: str) -> str:
        """helm in the release's namespace; its output."""
        done = helm.run(
            self.helm, *words, "--namespace", PLATFORM, environment={"KUBECONFIG": str(self.node.kubeconfig)}
        )
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}\n{done.stderr}\n{self.state()}"
        return done.stdout

    def put(self, verb: str, chart: Path) -> None:
        """`verb`: install or upgrade. Waits until helm calls it done, and notes where the gateways are."""
        given = [part for file in self.values for part in ("-f", str(file))]
        self.run(verb, RELEASE, str(chart), *given, "--wait", "--timeout", "110s")
        self.address = self._reached()
        secret = json.loads(self.platform("get", "secret", f"{RELEASE}-first-key", "-o", "json"))
        self.key = base64.b64decode(secret["data"]["key"]).decode()

    def _reached(self) -> str:
        """The Service's own address where this machine is the node, else a way to it."""
        service = f"{RELEASE}-gateway"
        if isinstance(self.node, Given):
            self.ways.close()
            return self.ways.enter_context(forwarded(self.node.kubeconfig, PLATFORM, service, PORT))
        return f"{self.platform('get', 'service', service, '-o', 'jsonpath={.spec.clusterIP}')}:{PORT}"

    def platform(self, *words: str, given: str | None = None) -> str:
        """kubectl in the release's namespace."""
        return self.node.kubectl("-n", PLATFORM, *words, **({} if given is None else {"given": given}))

    def parts(self, part: str) -> list[dict[str, Any]]:
        """Pods of a part (gateway, operator, valkey) that are not leaving."""
        found = json.loads(self.platform("get", "pods", "-l", f"app.kubernetes.io/component={part}", "-o", "json"))
        return [dict(one) for one in found["items"] if not one["metadata"].get("deletionTimestamp")]

    def whole(self) -> bool:
        """Every replica that is wanted is there, new and ready, and none beside them."""
        found = json.loads(self.platform("get", COUNTED, "-o", "json"))["items"]
        return all(_complete(one) for one in found)

    def serves(self) -> bool:
        """Whether who calls the gateways' Service gets an answer, as soon as there is a key to call it with."""
        if not self.key:
            return True
        try:
            self.client.models.list()
        except (openai.APIConnectionError, openai.InternalServerError):
            return False
        return True

    def until_whole(self, within: float = 120) -> None:
        """Waits for it, and until their Service leads to one."""
        try:
            poll("every replica is ready", self.whole, within=within, every=0.5)
            poll("the gateways' Service answers", self.serves, within=within, every=0.5)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.state()}\n{self.logs()}") from fault

    def logs(self) -> str:
        return self.platform("logs", "-l", "app.kubernetes.io/component=operator", "--tail=30", "--prefix")

    def state(self) -> str:
        """Pods and events, for people."""
        return "\n".join(
            self.node.kubectl("get", "pods,events", "-n", name, "-o", "wide") for name in (PLATFORM, AGENTS)
        )


def _complete(one: Mapping[str, Any]) -> bool:
    wanted, status = one["spec"].get("replicas", 1), one.get("status") or {}
    if status.get("observedGeneration") != one["metadata"]["generation"]:
        return False
    counts = [status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")]
    return counts == [wanted] * len(counts)


def build_parts(node: Node, sandbox_image: str) -> dict[str, str]:
    """Builds and loads the platform's images; part → image."""
    named = {"sandbox": sandbox_image}
    for part, folder in PARTS.items():
        named[part] = f"localhost/moorage-{part}:test"
        archive = plan.cache() / f"{part}-test.oci.tar"
        images.build(named[part], ROOT / folder / "Dockerfile", ROOT, images.BASE, archive)
        node.load(archive)
    return named


def plain(named: Mapping[str, str]) -> dict[str, Any]:
    """Values for any cluster, beside the chart's own."""
    values: dict[str, Any] = {part: {"image": image} for part, image in named.items() if part in ("sandbox", *PARTS)}
    values["gateway"] |= {"publicUrl": "http://agents.example"}
    return values | {"namespaces": [{"name": AGENTS, "tenant": "acme", "create": True}]}


def small(named: Mapping[str, str]) -> dict[str, Any]:
    """Values for this node, beside the chart's own."""
    little = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    values = plain(named) | {"networkPolicy": {"apiServer": {"ports": [plan.API_PORT]}}}
    # It cannot measure ephemeral storage.
    values["operator"] |= {"ephemeralStorage": False, "resources": little}
    values["gateway"] |= {"resources": little}
    values["valkey"] |= {"resources": little}
    return values


def over_s3(node: Node, server: S3Server) -> dict[str, Any]:
    """The values of a store in that server's bucket, which is made, and the Secret that they name."""
    at, name = server.made(), "s3"
    _namespace(node)
    held = {"access-key": at.access_key, "secret-key": at.secret_key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": held}
    node.kubectl("apply", "-n", PLATFORM, "-f", "-", given=json.dumps(secret))
    return {"store": {"s3": {"endpoint": at.endpoint, "bucket": at.bucket, "existingSecret": name}}}


@contextlib.contextmanager
def installed(
    node: Node | Given,
    image: str,
    folder: Path,
    values: Mapping[str, Any],
    *,
    files: Sequence[Path] = (),
    chart: Path = helm.CHART,
) -> Iterator[Installed]:
    """A release, uninstalled at the end with its namespaces. `values` count more than `files`. Raises NoHelm."""
    own = folder / "values.json"
    own.write_text(json.dumps(values))
    made = Installed(node, helm.binary(), image, [*files, own])
    _namespace(node)
    try:
        made.put("install", chart)
        yield made
    finally:
        made.ways.close()
        environment = {"KUBECONFIG": str(node.kubeconfig)}
        helm.run(made.helm, "uninstall", RELEASE, "--namespace", PLATFORM, "--wait", environment=environment)
        for name in (AGENTS, PLATFORM):
            node.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true", "--timeout=120s")


def _namespace(node: Node | Given) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLATFORM}}
    node.kubectl("apply", "-f", "-", given=json.dumps(body))
