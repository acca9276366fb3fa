"""The objects of a build: its Job and the policy of its pods. Layer: pure; plain dicts out.

Nothing here is secret. A build's pod reaches the gateways' sandbox and egress ports and nothing else, not even a name server: what it
fetches, it fetches through the egress proxy, which lets it reach the host of its repository and the package index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moorage_api import built, tokens
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.kinds.source import Git, Source
from moorage_api.kinds.values import PACKAGE_INDEX
from moorage_operator import marks, objects, parts
from moorage_operator.kube import Object
from moorage_operator.settings import Settings

CONTAINER = "build"
CONFIG = "/etc/moorage/build.json"
RETRIES = 2  # after a fault of the platform's; none after one of the source's
LAST_WORDS_SECONDS = 30  # between a build's own deadline, when it says what is wrong, and its pod's
START_SECONDS = 300  # for a pod to be placed, to pull its image and to start
WORK = "16Gi"


@dataclass(frozen=True)
class Ask:
    """A source that is to be built. `owner`: its HostedAgent's reference."""

    namespace: str
    tenant: str
    agent: str
    spec: HostedAgentSpec
    owner: Mapping[str, Any]

    @property
    def source(self) -> Source:
        """The source; only agents that have one are built."""
        assert self.spec.source is not None
        return self.spec.source


def job_name(ask: Ask, settings: Settings) -> str:
    """The same for the same HostedAgent, source and image: one build each."""
    made_of = [ask.owner["uid"], ask.source.model_dump(mode="json"), ask.spec.contract, settings.sandbox_image]
    return f"moorage-build-{_hash(made_of)}"


def git_name(ask: Ask) -> str:
    """Names what a ref is resolved for, "" without a git source."""
    return "" if ask.source.git is None else _hash(ask.source.git.model_dump(mode="json"))


def policy(ask: Ask, settings: Settings) -> Object:
    """Nothing in; out, the gateways' sandbox and egress ports. No agent's name has a dot: this is no agent's own policy."""
    ports = [urlsplit(url).port or 80 for url in (settings.sandbox_url, settings.egress_url) if url is not None]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": parts.meta(f"moorage-{ask.agent}.build", ask.namespace, marks.labels(ask.agent), ask.owner),
        "spec": {
            "podSelector": {"matchLabels": {marks.BUILD: ask.agent}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [
                {"to": [parts.gateways(settings)], "ports": [{"protocol": "TCP", "port": port} for port in ports]}
            ],
        },
    }


def made(ask: Ask, settings: Settings) -> str:
    """Names all that a Job is made from, placement and limits too, but the commit."""
    return _hash(_job(ask, "", settings))


def job(ask: Ask, commit: str, settings: Settings, *, lost: int = 0) -> Object:
    """The Job of one build. `commit`: what the ref was resolved to before, "" for the first time; `lost`: see `marks.LOST`."""
    annotations = {marks.GIT: git_name(ask), marks.MADE: made(ask, settings)}
    if lost:
        annotations[marks.LOST] = str(lost)
    meta = parts.meta(job_name(ask, settings), ask.namespace, marks.labels(ask.agent), ask.owner)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta | {"annotations": annotations}} | _job(
        ask, commit, settings
    )


def _job(ask: Ask, commit: str, settings: Settings) -> Object:
    """Its spec."""
    told = _told(ask, job_name(ask, settings), commit, settings)
    work = {"name": "work", "emptyDir": {"sizeLimit": WORK}}
    command = ["python", "-m", "moorage_sandbox.building", "--config", CONFIG, "--work", "/work"]
    mounts = {"told": "/etc/moorage", "work": "/work"}
    one = parts.container(
        CONTAINER, settings.sandbox_image, [*command, "--told", "/dev/termination-log"], mounts, settings
    )
    one["env"] = [{"name": name, "value": "/work"} for name in ("HOME", "TMPDIR")]  # all else is read-only
    one["resources"] = parts.resources("100m", "256Mi", "2", settings.build_memory)
    inner = parts.closed(objects.account_name(ask.agent)) | {
        "containers": [one],
        "volumes": [parts.told(marks.CONFIG, "build.json"), work],
        **parts.placement(ask.spec),
    }
    if settings.ephemeral_storage:
        inner = parts.with_room(inner)
    # Not the labels of sandboxes: nothing that looks for those may find a build.
    pod = {"labels": {marks.BUILD: ask.agent}, "annotations": {marks.CONFIG: told}}
    within = int(settings.build_seconds) + LAST_WORDS_SECONDS + START_SECONDS
    inner["activeDeadlineSeconds"] = within  # what a build does not end by itself, the cluster does
    return {
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": (RETRIES + 1) * within,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [built.FAULT]},
                    }
                ]
            },
            "template": {"metadata": pod, "spec": inner},
        },
    }


def reach(git: Git | None) -> tuple[str, ...]:
    """What a build connects to, in the words of `spec.egress`."""
    if git is None:
        return (PACKAGE_INDEX,)
    address = urlsplit(git.url)
    port = address.port or (443 if address.scheme == "https" else 80)
    return (f"{address.hostname}:{port}", PACKAGE_INDEX)


def _told(ask: Ask, name: str, commit: str, settings: Settings) -> str:
    source = ask.source
    who = tokens.BuildIdentity(
        name,
        objects.account_name(ask.agent),
        ask.tenant,
        ask.agent,
        (source.bundle or "").removeprefix("sha256:"),
        reach(source.git),
    )
    said = {
        "gateway": settings.sandbox_url,
        "egress": (settings.egress_url or "").removeprefix("http://"),
        "token": tokens.sign_build(who, settings.token_key.get_secret_value()),
        "token_file": objects.TOKEN_FILE,
        "source": source.model_dump(mode="json", exclude_none=True),
        "contract": ask.spec.contract,
        "commit": commit,
        "within": settings.build_seconds,
    }
    return json.dumps(said, separators=(",", ":"), sort_keys=True)


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
