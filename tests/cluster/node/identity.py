"""Certificates and kubeconfigs of the node, from a certificate authority of its own. Layer: I/O rim (openssl)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.node import plan

DAYS = "30"


@dataclass(frozen=True)
class Client:
    """Who a component is to the API server: common name and group."""

    name: str
    common: str
    group: str = ""


NAME_SERVER = Client("dns", "moorage-test-dns")

CLIENTS = (
    Client("admin", "moorage-admin", "system:masters"),
    Client("controller-manager", "system:kube-controller-manager"),
    Client("scheduler", "system:kube-scheduler"),
    Client("kubelet", f"system:node:{plan.NODE}", "system:nodes"),
    Client("proxy", "system:kube-proxy"),
    NAME_SERVER,
    Client("api-to-kubelet", "moorage-api", "system:masters"),
)
"""`system:masters` is for the test's own administrator and for the API server's way to the kubelet only."""

SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{plan.DNS_DOMAIN}",
    "localhost",
    plan.NODE,
)
SERVER_ADDRESSES = ("127.0.0.1", plan.HOST, plan.API_SERVICE)


def make(place: plan.Place, clients: Sequence[Client] = CLIENTS) -> None:
    """Writes keys, certificates and kubeconfigs into `place.pki`; the administrator's kubeconfig to `place.kubeconfig`."""
    pki = place.pki
    for name in ("ca", "front-proxy-ca"):
        _key(pki / f"{name}.key")
        subject = f"/CN=moorage-{name}"
        _openssl(
            "req",
            "-x509",
            "-new",
            "-key",
            pki / f"{name}.key",
            "-subj",
            subject,
            "-days",
            DAYS,
            "-out",
            pki / f"{name}.crt",
        )
    names = [f"DNS:{name}" for name in SERVER_NAMES] + [f"IP:{address}" for address in SERVER_ADDRESSES]
    _certificate(pki, "server", "/CN=kube-apiserver", "ca", ",".join(names))
    _certificate(pki, "front-proxy", "/CN=front-proxy-client", "front-proxy-ca")
    _openssl("genrsa", "-out", pki / "service-account.key", "2048")
    _openssl("rsa", "-in", pki / "service-account.key", "-pubout", "-out", pki / "service-account.pub")
    for client in clients:
        group = f"/O={client.group}" if client.group else ""
        _certificate(pki, client.name, f"{group}/CN={client.common}", "ca")
        target = place.kubeconfig if client.name == "admin" else kubeconfig(place, client.name)
        target.write_text(json.dumps(_kubeconfig(place, client.name), indent=1))
        target.chmod(0o600)


def kubeconfig(place: plan.Place, name: str) -> Path:
    """The kubeconfig of one component."""
    return place.pki / f"{name}.kubeconfig"


def _kubeconfig(place: plan.Place, name: str) -> dict[str, object]:
    pki = place.pki
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "node",
                "cluster": {
                    "server": f"https://{place.host}:{place.port}",
                    "certificate-authority": str(pki / "ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")},
            }
        ],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": name}}],
        "current-context": "node",
    }


def _certificate(pki: Path, name: str, subject: str, authority: str, names: str = "") -> None:
    _key(pki / f"{name}.key")
    extensions = pki / f"{name}.ext"
    lines = ["keyUsage=digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"]
    extensions.write_text("\n".join([*lines, *([f"subjectAltName={names}"] if names else [])]) + "\n")
    request = pki / f"{name}.csr"
    _openssl("req", "-new", "-key", pki / f"{name}.key", "-subj", subject, "-out", request)
    _openssl(
        "x509", "-req", "-in", request, "-CA", pki / f"{authority}.crt", "-CAkey", pki / f"{authority}.key", "-CAcreateserial",
        "-days", DAYS, "-extfile", extensions, "-out", pki / f"{name}.crt",
    )  # fmt: skip


def _key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
