"""What the shim of a pod is told: its configuration, in which nothing is secret. Layer: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage_api import tokens
from moorage_api.provider.base import Revision
from moorage_operator import objects
from moorage_operator.settings import Settings


def told(revision: Revision, sandbox: str, volume: str, settings: Settings) -> Mapping[str, Any]:
    """`moorage_sandbox.config.ShimConfig` as JSON has it. The pod learns its own address only when it runs."""
    key = settings.token_key.get_secret_value()
    who = tokens.Identity(sandbox, revision.tenant, revision.agent, revision.revision, volume)
    spec = revision.spec
    found: dict[str, Any] = {
        "sandbox": sandbox,
        "tenant": revision.tenant,
        "agent": revision.agent,
        "revision": revision.revision,
        "endpoint": "",
        "secret_sha256": tokens.secret_sha256(tokens.sandbox_secret(sandbox, key)),
        "token": tokens.sign(who, key),
        "token_file": objects.TOKEN_FILE,
        "volume": "/volume",
        "gateways": [settings.sandbox_url],
        "egress": (settings.egress_url or "").removeprefix("http://") or None if spec.egress else None,
        "contract": revision.contract,
        "keeps": spec.workspace.file_system,
        "notice": objects.NOTICE_SECONDS,
    }
    foreign = {"port": 8080, "readiness": "/ping"} if revision.contract == "agentcore" else {}
    given = {"port": spec.port, "readiness": spec.readiness}
    found |= foreign | {name: value for name, value in given.items() if value is not None}
    if revision.door_variables:  # said only where there are some: shims of an older image know no such word
        found["variables"] = list(revision.door_variables)
    return found
