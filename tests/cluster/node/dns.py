"""The cluster's name server: CoreDNS as a process of the node, on the bridge's address. Layer: pure, but that `is_ready` asks it.

It answers for the cluster's names and says of every other that there is none: a test node has no way to the outside.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cluster.node import identity, plan
from cluster.node.api import Object

ASK_SECONDS = 2.0
USER = identity.NAME_SERVER.common
_RBAC = "/apis/rbac.authorization.k8s.io/v1"

RIGHTS: Sequence[tuple[str, Object]] = (
    (
        f"{_RBAC}/clusterroles",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": USER},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
    ),
    (
        f"{_RBAC}/clusterrolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        },
    ),
)
"""What the name server may read: collection → object to make."""


def corefile(place: plan.Place) -> str:
    """Its configuration. Nothing is cached: a test sees a change when the cluster does.

    Two blocks, for within one the template would be asked before the cluster.
    """
    return f"""{plan.DNS_DOMAIN}:{plan.DNS_PORT} in-addr.arpa:{plan.DNS_PORT} {{
  bind {plan.HOST}
  errors
  ready {plan.HOST}:{plan.DNS_READY_PORT}
  kubernetes {plan.DNS_DOMAIN} in-addr.arpa {{
    kubeconfig {identity.kubeconfig(place, identity.NAME_SERVER.name)}
    ttl 0
  }}
}}
.:{plan.DNS_PORT} {{
  bind {plan.HOST}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def command(place: plan.Place, coredns: Path) -> list[str | Path]:
    """CoreDNS."""
    return [coredns, "-conf", place.config / "Corefile"]


def is_ready() -> bool:
    """Whether it has seen the cluster's services."""
    with closing(http.client.HTTPConnection(plan.HOST, plan.DNS_READY_PORT, timeout=ASK_SECONDS)) as connection:
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
