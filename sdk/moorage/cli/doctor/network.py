"""Network policies, as far as a look tells: which network plugin runs. Layer: CLI; pure.

That a policy holds can only be tried (`probe`). That none can hold is known of some plugins.
"""

from __future__ import annotations

import re

from moorage.cli.doctor.asked import Answer
from moorage.cli.doctor.findings import Finding

CHECK = "network policies"
# Names alone: DaemonSets of a large cluster are long.
QUESTION = ("get", "daemonsets", "--all-namespaces", "-o", "custom-columns=NAME:.metadata.name", "--no-headers")
# Substrings of a DaemonSet's name. What runs inside another program (k3s) or outside the cluster is not seen.
ENFORCING = (
    "cilium",
    "calico",
    "canal",
    "antrea",
    "weave-net",
    "kube-router",
    "ovnkube",
    "azure-npm",
    "kube-network-policies",
)
SILENT = ("flannel",)
TRY = "To try it: moorage doctor --probe (two pods in an agents' namespace for some seconds)"


def judge(answer: Answer) -> Finding:
    """On the answer to QUESTION, when nothing was tried."""
    names = [line.strip() for line in answer.text.splitlines()] if answer.outcome == "answered" else []
    if found := _of(names, ENFORCING):
        return Finding(CHECK, "not tried", f"{found} is installed, which can enforce them.", (TRY,))
    if found := _of(names, SILENT):
        return Finding(
            CHECK,
            "wrong",
            f"{found} enforces none by itself, and nothing beside it is known to: sandboxes would reach the whole network.",
            ("Install a plugin that enforces NetworkPolicy, as Calico, Cilium or Antrea.", TRY),
        )
    return Finding(CHECK, "not tried", "Whether they hold is not known.", (TRY,))


def _of(names: list[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in names if re.search("|".join(known), name)), None)
