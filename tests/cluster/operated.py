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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openai import OpenAI

from cluster.desk import TENANT, Desk, desk
from cluster.node import plan
from cluster.node.node import Node
from cluster.served import Served
from moorage_operator import marks

END_SECONDS = 20.0


@dataclass
class Operated(Served):
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
            "MOORAGE_EGRESS_URL": self.desk.egress,
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
) -> Iterator[Operated]:
    """A platform with one operator and a namespace that enforces restricted Pod Security. `names`, `more`: see `desk`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", marks.TENANT: TENANT}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    node.kubectl("apply", "-f", "-", given=json.dumps(made))
    with desk(folder, None, names, more) as one:
        world = Operated(node, one, name, image, sandbox_image, folder)
        try:
            world.start()
            yield world
        finally:
            world.stop()
            node.kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s")
