"""The operator's own standing on a node: what the chart lets its service account do, and nothing more. Layer: I/O rim.

`charts/moorage/templates/operator/rights.yaml` is rendered by helm for namespaces of a test and applied; the operator gets a kubeconfig
that holds a token of that account in place of the administrator's certificate.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from chart import helm
from cluster.node.node import Node

RELEASE = "moorage"
ACCOUNT = f"{RELEASE}-operator"
TEMPLATE = "templates/operator/rights.yaml"
LASTS = "4h"
"""Longer than any module of tests runs."""


@contextlib.contextmanager
def granted(node: Node, own: str, served: Sequence[str], folder: Path) -> Iterator[Path]:
    """A kubeconfig of the operator of a release in namespace `own` that serves those namespaces, which are there; taken away at the end.

    Raises NoHelm.
    """
    rendered = rights(own, served)
    node.kubectl("apply", "-f", "-", given=rendered)
    try:
        token = node.kubectl("create", "token", ACCOUNT, "-n", own, f"--duration={LASTS}").strip()
        shown = json.loads(node.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        for user in shown["users"]:
            user["user"] = {"token": token}
        kubeconfig = folder / "operator.kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(shown))
        yield kubeconfig
    finally:
        node.kubectl("delete", "--ignore-not-found", "-f", "-", given=rendered)


def rights(own: str, served: Sequence[str]) -> str:
    """The chart's objects that give the operator its rights, as YAML. Raises NoHelm."""
    values = {"image": {"registry": "localhost"}, "namespaces": [{"name": name} for name in served]}
    given = [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
    done = helm.run(helm.binary(), "template", RELEASE, helm.CHART, "--namespace", own, "--show-only", TEMPLATE, *given)
    assert done.returncode == 0, done.stderr
    return done.stdout
