"""A platform on the node: the operator as a process beside it, with the node's own API, and a gateway and a Valkey on this machine.

The operator asks as the chart's service account, with the chart's rights. Limits: operator and gateway run outside the cluster, hence
under no policy of the chart's.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from openai import OpenAI

from cluster.desk import TENANT, Desk, desk
from cluster.node import plan
from cluster.node.node import Node
from cluster.rights import granted
from cluster.served import Served
from moorage_operator import marks

END_SECONDS = 20.0


@dataclass
class Operated(Served):
    """`namespace`: of the agents that are applied and called here; `spaces`: all that are served, each with its tenant."""

    node: Node
    desk: Desk
    namespace: str
    image: str
    sandbox_image: str
    folder: Path
    kubeconfig: Path
    spaces: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    token_key: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def client(self) -> OpenAI:
        return OpenAI(
            base_url=f"{self.desk.url}/v1", api_key=self.desk.keys[self.spaces[self.namespace]], max_retries=0
        )

    def seen_from(self, namespace: str) -> Operated:
        """The same platform as the tenant of another served namespace has it."""
        return replace(self, namespace=namespace)

    # -- the operator

    @property
    def told(self) -> dict[str, str]:
        """What an operator is told."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "MOORAGE_REDIS_URL": self.desk.redis_url,
            "MOORAGE_TOKEN_KEY": self.token_key,
            "MOORAGE_NAMESPACE": next(iter(self.spaces)),
            "MOORAGE_NAMESPACES": ",".join(self.spaces),
            "MOORAGE_SANDBOX_IMAGE": self.sandbox_image,
            "MOORAGE_SANDBOX_URL": self.desk.announce,
            "MOORAGE_EGRESS_URL": self.desk.egress,
            "MOORAGE_GATEWAY_CIDR": f"{plan.HOST}/32",
            "MOORAGE_PUBLIC_URL": self.desk.url,
            "MOORAGE_HEALTH_HOST": "127.0.0.1",
            "MOORAGE_HEALTH_PORT": "0",
            "MOORAGE_EPHEMERAL_STORAGE": "false",
            "MOORAGE_SANDBOX_CPU_REQUEST": "5m",  # by 50m, two cores are full of 28 pods, and the next waits until one sleeps
        }

    def start(self) -> subprocess.Popen[bytes]:
        """An operator more."""
        env = os.environ | self.told
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


@contextlib.contextmanager
def operated(
    node: Node,
    image: str,
    sandbox_image: str,
    folder: Path,
    name: str,
    *,
    names: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
) -> Iterator[Operated]:
    """A platform with one operator and a namespace that enforces restricted Pod Security. `names`, `more`: see `desk`.

    `others`: further namespaces, each with the tenant that it belongs to. Raises NoHelm.
    """
    spaces = {name: TENANT, **(others or {})}
    for space, tenant in spaces.items():
        labels = {"pod-security.kubernetes.io/enforce": "restricted", marks.TENANT: tenant}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}
        node.kubectl("apply", "-f", "-", given=json.dumps(made))
    try:
        with (
            granted(node, name, list(spaces), folder) as kubeconfig,
            desk(folder, None, names, more, tenants=(others or {}).values()) as one,
        ):
            world = Operated(node, one, name, image, sandbox_image, folder, kubeconfig, spaces)
            try:
                world.start()
                yield world
            finally:
                world.stop()
    finally:
        for space in spaces:
            node.kubectl("delete", "namespace", space, "--wait=true", "--timeout=120s")
