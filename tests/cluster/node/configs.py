"""Command lines and configuration files of the node's components. Layer: pure, but that `write` writes the files.

The settings that this kind of machine needs (cgroup v1, no right to lower OOM scores, no swap control) stand with their reason.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster.node import dns, identity, plan

PAUSE = "localhost/pause:1"


def write(place: plan.Place) -> None:
    """The files that the command lines name."""
    (place.config / "containerd.toml").write_text(containerd(place))
    (place.config / "Corefile").write_text(dns.corefile(place))
    (place.config / "kubelet.json").write_text(json.dumps(kubelet(place), indent=1))


def containerd(place: plan.Place) -> str:
    """containerd 1.6; everything it keeps lies in the node's folder."""
    return f"""version = 2
root = "{place.folder}/containerd"
state = "{place.folder}/containerd-state"
[grpc]
  address = "{place.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # runc dies with "can't get final child's PID from pipe" where it may not lower the OOM score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plan.CNI_BIN}"
    conf_dir = "{place.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def kubelet(place: plan.Place) -> dict[str, object]:
    """KubeletConfiguration."""
    pki = place.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.HOST,
        "port": plan.KUBELET_PORT,
        "healthzPort": 0,
        "authentication": {"webhook": {"enabled": True}, "x509": {"clientCAFile": str(pki / "ca.crt")}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "server.crt"),
        "tlsPrivateKeyFile": str(pki / "server.key"),
        "containerRuntimeEndpoint": f"unix://{place.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,  # no quota on this filesystem
        "clusterDNS": [plan.HOST],
        "clusterDomain": plan.DNS_DOMAIN,
        "resolvConf": "/etc/resolv.conf",
        # A test node must not throw pods out because the machine's disk is nearly full.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 250,
        "serializeImagePulls": False,
        "volumePluginDir": str(place.folder / "volume-plugins"),
    }  # fmt: skip


def etcd(place: plan.Place, port: int, peer: int) -> list[str | Path]:
    """One member; without fsync, for a node that is thrown away."""
    url = f"http://127.0.0.1:{port}"
    return [
        "etcd", "--name", "node", "--data-dir", place.folder / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", url, "--advertise-client-urls", url,
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"node=http://127.0.0.1:{peer}",
    ]  # fmt: skip


def apiserver(place: plan.Place, kube: Path, etcd_port: int) -> list[str | Path]:
    """kube-apiserver, on the place's own address only."""
    pki = place.pki
    return [
        kube, "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--bind-address={place.host}", f"--advertise-address={place.host}", f"--secure-port={place.port}",
        f"--service-cluster-ip-range={plan.SERVICES}", "--allow-privileged=true",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
        f"--kubelet-client-certificate={pki}/api-to-kubelet.crt", f"--kubelet-client-key={pki}/api-to-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        # No name server of this machine knows the node by its name: `logs` and `exec` go by address.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt", f"--proxy-client-key-file={pki}/front-proxy.key",
    ]  # fmt: skip


def controllers(place: plan.Place, kube: Path) -> list[str | Path]:
    """kube-controller-manager."""
    pki = place.pki
    return [
        kube, "kube-controller-manager", f"--kubeconfig={identity.kubeconfig(place, 'controller-manager')}",
        f"--authentication-kubeconfig={identity.kubeconfig(place, 'controller-manager')}",
        f"--authorization-kubeconfig={identity.kubeconfig(place, 'controller-manager')}",
        f"--bind-address={place.host}", "--leader-elect=false", "--use-service-account-credentials=true",
        f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/service-account.key",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
        f"--service-cluster-ip-range={plan.SERVICES}", f"--cluster-cidr={plan.PODS}",
        f"--flex-volume-plugin-dir={place.folder}/volume-plugins",
        # A claim that binds costs six requests: with the default of 20 a second the fifth claim in a row waits for the fourth.
        "--kube-api-qps=200", "--kube-api-burst=400",
    ]  # fmt: skip


def scheduler(place: plan.Place, kube: Path) -> list[str | Path]:
    """kube-scheduler."""
    config = identity.kubeconfig(place, "scheduler")
    return [
        kube, "kube-scheduler", f"--kubeconfig={config}", f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}", f"--bind-address={plan.HOST}", "--leader-elect=false",
    ]  # fmt: skip


def kubelet_command(place: plan.Place, kube: Path) -> list[str | Path]:
    """kubelet."""
    return [
        kube, "kubelet", f"--config={place.config}/kubelet.json", f"--kubeconfig={identity.kubeconfig(place, 'kubelet')}",
        f"--root-dir={place.kubelet_root}", f"--hostname-override={plan.NODE}", f"--node-ip={plan.HOST}",
        f"--cert-dir={place.pki}", "--v=1",
    ]  # fmt: skip


def proxy(place: plan.Place, kube: Path) -> list[str | Path]:
    """kube-proxy with nftables."""
    return [
        kube, "kube-proxy", f"--kubeconfig={identity.kubeconfig(place, 'proxy')}", "--proxy-mode=nftables",
        "--conntrack-max-per-core=0", f"--cluster-cidr={plan.PODS}", f"--hostname-override={plan.NODE}",
        f"--healthz-bind-address={plan.HOST}:{plan.PROXY_HEALTH_PORT}", f"--metrics-bind-address={plan.HOST}:{plan.PROXY_METRICS_PORT}",
    ]  # fmt: skip
