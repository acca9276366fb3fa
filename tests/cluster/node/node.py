"""One Kubernetes node, up and down. Layer: composition of this package.

with Node.started(folder) as node:      the API answers, the node is Ready
    node.kubectl("apply", "-f", …)
On the way out every process, mount, network namespace, bridge and control group it made is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.node import archives, build, configs, dns, identity, network, plan
from cluster.node.api import Api
from cluster.node.children import Children
from cluster.node.policies import Enforcer
from cluster.node.volumes import Provisioner
from fakes.ports import free_port

READY_SECONDS = 90.0
DRAIN_SECONDS = 30.0
STEP = 0.1
GROUPS = Path("/sys/fs/cgroup")
POD_GROUP = "kubepods"


class NotUp(Exception):
    """The node did not get ready in time; the message says what was missing."""


class StillMounted(Exception):
    """A mount outlived the node; its folder is left, since removing it might remove what is mounted there."""


class Node:
    """See the module. `kubeconfig`: the administrator's."""

    def __init__(self, folder: Path) -> None:
        self.place = plan.Place(folder)
        self.kubeconfig = self.place.kubeconfig
        self._children = Children(self.place.logs)
        self._etcd_port = 0
        self._api = Api(self.place)
        self._policies = Enforcer(self._api, self.place.logs / "policies.log")
        self._volumes = Provisioner(self._api, self.place.volumes, self.place.logs / "volumes.log")

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Node]:
        """A node that is Ready. Raises Missing, Taken, NotUp, Died."""
        node = cls(folder)
        node.up()
        try:
            yield node
        finally:
            node.down()

    @property
    def ours(self) -> bool:
        """Its components were started by this object, which may therefore end them."""
        return self._etcd_port != 0

    @property
    def _before(self) -> Path:
        return self.place.folder / "before.json"

    # -- up

    def up(self) -> None:
        """Starts everything; on any failure nothing is left."""
        build.check_programs()
        if any((controller / POD_GROUP).exists() for controller in _controllers()):
            raise network.Taken(f"a kubelet of this machine owns the control group {POD_GROUP}")
        kube, name_server = build.binary(), build.name_server()
        network.check_free()
        self.place.make()
        network.Before.seen().save(self._before)
        try:
            network.up(self.place.config)
            identity.make(self.place)
            configs.write(self.place)
            self._start(kube, name_server)
        except BaseException:
            self.down()
            raise

    def _start(self, kube: Path, name_server: Path) -> None:
        place, children = self.place, self._children
        self._etcd_port = free_port()
        children.start("etcd", configs.etcd(place, self._etcd_port, free_port()))
        children.start("containerd", ["containerd", "--config", place.config / "containerd.toml"])
        self.start_apiserver(kube)
        self._until("containerd answers", lambda: self.ctr("version").returncode == 0)
        self._load_pause()
        children.start("controller-manager", configs.controllers(place, kube))
        children.start("scheduler", configs.scheduler(place, kube))
        children.start("kubelet", configs.kubelet_command(place, kube))
        children.start("proxy", configs.proxy(place, kube))
        for collection, right in dns.RIGHTS:
            self._api.create(collection, right)
        children.start("dns", dns.command(place, name_server))
        self._until("the node is Ready", self._is_ready)
        self._until("the name server is ready", dns.is_ready)
        self._until("the default service account exists", lambda: self._try("get", "serviceaccount", "default"))
        self._policies.start()
        self._volumes.start()

    def start_apiserver(self, kube: Path | None = None) -> None:
        """Starts the API server (again) and waits until it answers."""
        self._children.start("apiserver", configs.apiserver(self.place, kube or build.binary(), self._etcd_port))
        self._until("the API server is ready", lambda: self._try("get", "--raw", "/readyz"))

    def stop_apiserver(self) -> None:
        """Ends the API server; everything else goes on without it."""
        self._children.stop("apiserver", signal.SIGKILL)

    def restart_kubelet(self) -> None:
        """Ends the kubelet and starts it again; containers live on."""
        self._children.stop("kubelet")
        self._children.start("kubelet", configs.kubelet_command(self.place, build.binary()))
        self._until("the node is Ready", self._is_ready)

    def _is_ready(self) -> bool:
        done = self._ask("get", "node", plan.NODE, "-o", "json")
        if done.returncode:
            return False
        conditions = json.loads(done.stdout)["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _load_pause(self) -> None:
        archive = plan.cache() / "pause-1.oci.tar"
        if not archive.exists():
            source = plan.MODULE.parent / "pause"
            binary = self.place.folder / "pause"
            subprocess.run(
                ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), "."],
                cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, check=True,
            )  # fmt: skip
            fresh = archive.with_suffix(f".{os.getpid()}")
            archives.write(fresh, configs.PAUSE, {"/pause": binary.read_bytes()}, ["/pause"])
            os.replace(fresh, archive)
        self.load(archive)

    # -- in use

    def load(self, archive: Path) -> None:
        """Gives the node an image, from an OCI or Docker archive. Raises RuntimeError."""
        done = self.ctr("images", "import", str(archive))
        if done.returncode:
            raise RuntimeError(f"{archive} could not be loaded: {done.stderr.strip()}")

    def ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """containerd's client, in the namespace of Kubernetes."""
        command = ["ctr", "--address", str(self.place.containerd_socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """kubectl as the administrator; its output. Raises RuntimeError with what it said."""
        done = self._ask(*arguments, given=given)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def check(self) -> None:
        """Raises Died when a component has ended."""
        self._children.check()

    def _ask(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "--request-timeout", "20s", *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=self.place.folder)

    def _try(self, *arguments: str) -> bool:
        return self._ask(*arguments).returncode == 0

    def _until(self, what: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not look():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self._children.tail(name)}" for name in ("apiserver", "kubelet"))
                raise NotUp(f"not within {READY_SECONDS:g} s: {what}\n{logs}")
            time.sleep(STEP)

    # -- down

    def down(self) -> None:
        """Ends everything and removes the folder. Comes back when nothing is left; may be called again."""
        self._policies.stop()
        self._volumes.stop()
        for name in ("dns", "proxy", "kubelet", "scheduler", "controller-manager"):
            self._children.stop(name)
        self._remove_containers()
        self._children.stop_all()
        before = network.Before.load(self._before)
        if before is not None:
            network.down(before)
        _unmount(self.place.folder)
        for controller in _controllers():
            _remove_groups(controller / POD_GROUP)
        if _mounts(self.place.folder):
            raise StillMounted(f"not removed, for something is still mounted below it: {self.place.folder}")
        shutil.rmtree(self.place.folder, ignore_errors=True)

    def _remove_containers(self) -> None:
        """The kubelet is gone: what it had started is ended here, tasks first."""
        if not self.place.containerd_socket.exists():
            return
        deadline = time.monotonic() + DRAIN_SECONDS
        if self.ctr("version").returncode:
            # It died with the keeper; the containers did not, and only containerd knows them.
            self._children.start("containerd", ["containerd", "--config", self.place.config / "containerd.toml"])
            while self.ctr("version").returncode and time.monotonic() < deadline:
                time.sleep(STEP)
        while time.monotonic() < deadline:
            tasks = self.ctr("tasks", "list", "--quiet").stdout.split()
            if not tasks:
                break
            for task in tasks:
                self.ctr("tasks", "delete", "--force", task)
        for container in self.ctr("containers", "list", "--quiet").stdout.split():
            self.ctr("containers", "delete", container)


def _controllers() -> list[Path]:
    return [path for path in GROUPS.iterdir() if path.is_dir()] if GROUPS.is_dir() else []


def _unmount(folder: Path) -> None:
    """Whatever is mounted below the folder, the deepest first."""
    for mount in sorted(_mounts(folder), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _mounts(folder: Path) -> list[str]:
    """Mount points below the folder."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def _remove_groups(group: Path) -> None:
    if not group.is_dir():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_groups(child)
    with suppress(OSError):
        group.rmdir()
