"""An API server and etcd without a node: what operator tests run on. Layer: composition of this package.

with ControlPlane.started(folder) as plane:      the API answers, HostedAgents are known
    plane.kubectl("apply", "-f", …)
On loopback, on free ports, as any user; several may run beside each other and beside a node. Three controllers run: the one that ends
what an owner leaves, the one that empties namespaces, and the one that keeps a claim for as long as a pod has it. Nothing runs a pod.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.node import build, configs, identity, plan
from cluster.node.api import Api
from cluster.node.children import Children
from fakes.ports import free_port

HOST = "127.0.0.1"
READY_SECONDS = 90.0
STEP = 0.05
CONTROLLERS = "garbage-collector-controller,namespace-controller,persistentvolumeclaim-protection-controller"
OPERATOR = "system:serviceaccount:moorage:operator"
"""Who the operator under test is to this API server: its requests, and nobody else's, stand in the audit log. It may do everything, but
its requests are queued as any service account's, which those of `system:masters` are not."""

CLIENTS = (
    identity.Client("admin", "moorage-admin", "system:masters"),
    identity.Client("controller-manager", "system:kube-controller-manager"),
    identity.Client("operator", OPERATOR, "system:serviceaccounts"),
    identity.Client("api-to-kubelet", "moorage-api", "system:masters"),
)
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}


class NotUp(Exception):
    """The API server did not get ready in time; the message holds its last lines."""


class ControlPlane:
    """See the module. `kubeconfig`: the administrator's; `operator_kubeconfig`: of the operator under test."""

    def __init__(self, folder: Path) -> None:
        self.place = plan.Place(folder, HOST, free_port())
        self.kubeconfig = self.place.kubeconfig
        self.operator_kubeconfig = identity.kubeconfig(self.place, "operator")
        self.audit = self.place.logs / "audit.log"
        self.api = Api(self.place)
        self._children = Children(self.place.logs)

    @classmethod
    @contextmanager
    def started(cls, folder: Path, *manifests: Path) -> Iterator[ControlPlane]:
        """One that answers. `manifests` are applied before the controllers start. Raises Missing, NotUp, Died."""
        plane = cls(folder)
        try:
            plane._start(build.api_binary(), manifests)
            yield plane
        finally:
            plane._children.stop_all()
            shutil.rmtree(folder, ignore_errors=True)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """kubectl as the administrator; its output. Raises RuntimeError with what it said."""
        return kubectl(self.kubeconfig, *arguments, given=given)

    def pids(self) -> list[int]:
        """Of the API server and etcd."""
        return [self._children.pid(name) for name in ("apiserver", "etcd")]

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Meanwhile the API server is there and answers nobody."""
        self._children.send("apiserver", signal.SIGSTOP)
        try:
            yield
        finally:
            self._children.send("apiserver", signal.SIGCONT)

    def _start(self, kube: Path, manifests: tuple[Path, ...]) -> None:
        place, children = self.place, self._children
        place.make()
        identity.make(place, CLIENTS)
        (place.config / "audit.json").write_text(json.dumps(AUDIT))
        etcd = free_port()
        children.start("etcd", configs.etcd(place, etcd, free_port()))
        audit = [f"--audit-policy-file={place.config}/audit.json", f"--audit-log-path={self.audit}"]
        # A loopback address is no endpoint that the Service `kubernetes` may name.
        lone = ["--endpoint-reconciler-type=none", *audit]
        children.start("apiserver", [*configs.apiserver(place, kube, etcd), *lone])
        self._until("the API server is ready", self._is_ready)
        self.kubectl("create", "clusterrolebinding", "operator", "--clusterrole=cluster-admin", f"--user={OPERATOR}")
        for manifest in manifests:
            self.kubectl("apply", "--server-side", "-f", str(manifest))
            self.kubectl("wait", "--for=condition=Established", "-f", str(manifest), "--timeout=30s")
        few = [f"--controllers={CONTROLLERS}", f"--secure-port={free_port()}"]
        children.start("controller-manager", [*configs.controllers(place, kube), *few])

    def _is_ready(self) -> bool:
        try:
            return bool(self.kubectl("get", "--raw", "/readyz"))
        except RuntimeError:
            return False

    def _until(self, what: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not look():
            self._children.check()
            if time.monotonic() > deadline:
                raise NotUp(f"not within {READY_SECONDS:g} s: {what}\n{self._children.tail('apiserver')}")
            time.sleep(STEP)


class Given:
    """A cluster that KUBECONFIG names: only asked as its administrator, for tests that need no more than an API server."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """As a control plane's."""
        return kubectl(self.kubeconfig, *arguments, given=given)


def kubectl(kubeconfig: Path, *arguments: str, given: str | None = None) -> str:
    """kubectl with that configuration. Raises RuntimeError with what it said."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "--request-timeout", "20s", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=kubeconfig.parent)
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
