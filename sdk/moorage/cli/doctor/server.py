"""The cluster itself: whether kubectl reaches it, and whether its version is supported. Layer: CLI; pure."""

from __future__ import annotations

import re

from moorage.cli.doctor.asked import Answer
from moorage.cli.doctor.findings import Finding, unseen

CHECK = "cluster"
QUESTION = ("get", "--raw", "/version")
OLDEST = (1, 30)
"""As the chart's `kubeVersion` says."""


def judge(answer: Answer) -> Finding:
    """On the answer to QUESTION."""
    if answer.outcome == "no kubectl":
        return Finding(CHECK, "wrong", answer.why, ("Install kubectl, and name the cluster by KUBECONFIG.",))
    if answer.outcome == "forbidden":
        return unseen(CHECK, "get /version", answer)
    if answer.outcome != "answered":
        return Finding(
            CHECK,
            "wrong",
            f"No API server answers: {answer.why}",
            (
                "See which cluster is asked: kubectl config current-context; another one by KUBECONFIG.",
                "kubectl version",
            ),
        )
    said = str((answer.object() or {}).get("gitVersion", ""))
    found = re.match(r"v(\d+)\.(\d+)", said)
    if found is None:
        return Finding(CHECK, "could not look", "What answers names no version of Kubernetes.", ("kubectl version",))
    if (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding(
            CHECK, "wrong", f"Kubernetes {said} is too old.", (f"Upgrade the cluster to {oldest} or newer.",)
        )
    return Finding(CHECK, "ok", f"Kubernetes {said}")
