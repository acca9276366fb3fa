"""What the test node is made of: versions, addresses, places. Layer: floor; values only."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

KUBE_VERSION = "1.36.3"
MODULE = Path(__file__).resolve().parent.parent / "kube"
"""The Go module whose one binary is every Kubernetes component."""
DNS_MODULE = MODULE.parent / "dns"
"""The Go module of the name server: of its own, so that a change of it does not build Kubernetes again."""

NODE = "moorage-node"
BRIDGE = "moor0"
HOST = "198.18.0.1"
"""The bridge's address and the node's: what pods reach the machine by. 198.18.0.0/15 is the benchmarking range: nobody's real network."""
PODS = "198.18.0.0/17"
SERVICES = "198.19.0.0/16"
API_SERVICE = "198.19.0.1"
DNS_DOMAIN = "cluster.local"
DNS_PORT = 53
API_PORT = 16443
KUBELET_PORT = 16450
DNS_READY_PORT = 16453
PROXY_HEALTH_PORT = 16456
PROXY_METRICS_PORT = 16457

PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "mount": "mount",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "kubectl": "kubernetes-client",
}
"""Programs the node and its images need, and the Debian package of each."""
CNI_BIN = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins lie."""


def cache() -> Path:
    """Where built binaries and base images are kept between runs, outside the work tree."""
    base = os.environ.get("MOORAGE_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "moorage"
    )
    return Path(base) / "cluster"


def module_key(module: Path) -> str:
    """Names a build of a Go module by what goes into it."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((module / name).read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Place:
    """The folder of one node; everything it writes lies in it. `host`, `port`: where its API server answers."""

    folder: Path
    host: str = HOST
    port: int = API_PORT

    @property
    def pki(self) -> Path:
        """Keys, certificates, kubeconfigs."""
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.folder / "logs"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.folder / "config"

    @property
    def volumes(self) -> Path:
        """A folder a volume, for pods' users to reach."""
        return self.folder / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        """The kubelet's own files, pod volumes among them."""
        return self.folder / "kubelet"

    def make(self) -> None:
        """Makes the folders."""
        for folder in (self.folder, self.pki, self.logs, self.config, self.kubelet_root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.volumes.mkdir(exist_ok=True)
        for folder in (self.folder, self.volumes):
            folder.chmod(0o711)  # whoever knows a volume's name gets to it; what else lies here is closed by itself
