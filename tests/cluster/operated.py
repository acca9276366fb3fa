"""A platform on the node: the operator as a process beside it, with the node's own API, and a gateway and a Valkey on this machine.

Limits: operator and gateway run outside the cluster, as their administrator; what their pods may do is the chart's, and tried with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import OpenAI

from cluster.desk import TENANT, Desk, desk
from cluster.node import plan
from cluster.node.node import Node
from fakes.platform import poll
from moorage_operator import marks, pods

END_SECONDS = 20.0


@dataclass
class Operated:
    """`namespace`: of the agents; it belongs to the desk's tenant."""

    node: Node
    desk: Desk
    namespace: str
    image: str
    sandbox_image: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    token_key: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.desk.url}/v1", api_key=self.desk.key, max_retries=0)

    def ask(self, agent: str, text: str, session: str, timeout: float = 90) -> Any:
        return self.client.responses.create(
            model=agent, input=text, extra_headers={"x-agent-session-id": session}, timeout=timeout
        )

    # -- the operator

    def start(self) -> subprocess.Popen[bytes]:
        """An operator more."""
        env = {
            **os.environ,
            "KUBECONFIG": str(self.node.kubeconfig),
            "MOORAGE_REDIS_URL": self.desk.redis_url,
            "MOORAGE_TOKEN_KEY": self.token_key,
            "MOORAGE_NAMESPACE": self.namespace,
            "MOORAGE_NAMESPACES": self.namespace,
            "MOORAGE_SANDBOX_IMAGE": self.sandbox_image,
            "MOORAGE_SANDBOX_URL": self.desk.announce,
            "MOORAGE_GATEWAY_CIDR": f"{plan.HOST}/32",
            "MOORAGE_PUBLIC_URL": self.desk.url,
            "MOORAGE_HEALTH_HOST": "127.0.0.1",
            "MOORAGE_HEALTH_PORT": "0",
            "MOORAGE_EPHEMERAL_STORAGE": "false",
        }
        with (self.folder / f"operator-{len(self.processes)}.log").open("wb") as log:
            made = subprocess.Popen([sys.executable, "-m", "moorage_operator"], env=env, stdout=log, stderr=log)
        self.processes.append(made)
        return made

    def logs(self) -> str:
        """What the operators said last."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("operator-*.log")))

    def stop(self) -> None:
        """Ends all operators."""
        for one in self.processes:
            if one.poll() is None:
                one.terminate()
        for one in self.processes:
            try:
                one.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()

    # -- the cluster

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """kubectl in the agents' namespace."""
        return self.node.kubectl(*words, "-n", self.namespace, **({} if given is None else {"given": given}))

    def apply(self, agent: str, **spec: Any) -> None:
        """A HostedAgent of the test image."""
        body = {
            "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": agent},
            "spec": {"image": self.image, "pool": {"min": 1, "max": 2}, "workspace": {"size": "32Mi"}, **spec},
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", given=json.dumps(body))

    def agent(self, agent: str) -> dict[str, Any]:
        """Its object."""
        return dict(json.loads(self.kubectl("get", "hostedagent", agent, "-o", "json")))

    def condition(self, agent: str, kind: str = "Ready") -> dict[str, Any]:
        """One condition, {} before there is one."""
        held = (self.agent(agent).get("status") or {}).get("conditions", [])
        return next((dict(one) for one in held if one["type"] == kind), {})

    def until_ready(self, agent: str, within: float = 90) -> None:
        """Waits for the condition Ready of the newest spec."""

        def ready() -> bool:
            body = self.agent(agent)
            fresh = (body.get("status") or {}).get("observedGeneration") == body["metadata"]["generation"]
            return fresh and self.condition(agent).get("status") == "True"

        try:
            poll(f"{agent} is Ready", ready, within=within)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.agent(agent).get('status')}\n{self.logs()}") from fault

    def pods(self, agent: str) -> list[dict[str, Any]]:
        """Its pods, those that leave too."""
        return list(json.loads(self.kubectl("get", "pods", "-l", f"{marks.AGENT}={agent}", "-o", "json"))["items"])

    def claims(self, agent: str) -> list[dict[str, Any]]:
        """Its workspaces."""
        return list(json.loads(self.kubectl("get", "pvc", "-l", f"{marks.AGENT}={agent}", "-o", "json"))["items"])

    def ready_pods(self, agent: str) -> list[str]:
        """Names of those that are ready."""
        return sorted(one["metadata"]["name"] for one in self.pods(agent) if pods.seen(one).state == "ready")

    def sandbox(self, agent: str, session: str) -> str:
        """The sandbox of a session, as an operator's key shows it; "" without one."""
        found = self.client.get(f"/sessions?agent={agent}", cast_to=dict[str, Any])["data"]
        return next(((one.get("sandbox") or {}).get("id") or "" for one in found if one["id"] == session), "")


@contextlib.contextmanager
def operated(node: Node, image: str, sandbox_image: str, folder: Path, name: str) -> Iterator[Operated]:
    """A platform with one operator and a namespace that enforces restricted Pod Security."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", marks.TENANT: TENANT}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    node.kubectl("apply", "-f", "-", given=json.dumps(made))
    with desk(folder, None) as one:
        world = Operated(node, one, name, image, sandbox_image, folder)
        try:
            world.start()
            yield world
        finally:
            world.stop()
            node.kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s")
