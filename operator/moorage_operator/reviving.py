"""What an operator that starts reads off a pod's own marks: the revision in it, and whose sandbox it is. Layer: pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from moorage_api import tokens
from moorage_api.built import Built
from moorage_api.kinds import parse
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.provider.base import Revision
from moorage_operator import marks, objects
from moorage_operator.observed import sandbox_of


def revived(
    body: Mapping[str, Any], tenant: str, key: str, place: Callable[[str, str], objects.Program | None]
) -> tuple[Revision, tokens.Identity] | None:
    """Revision and identity in a tenant's pod, signed with `key`; None where its marks are spoilt. `place`: where an agent is, or None."""
    agent, sandbox = marks.text(body, "labels", marks.AGENT), sandbox_of(body)
    try:
        spec = _spec(agent, json.loads(marks.text(body, "annotations", marks.SPEC)))
        shim = json.loads(marks.text(body, "annotations", marks.SHIM))
        who = tokens.verify(str(shim["token"]), key)
        text = marks.text(body, "annotations", marks.BUILT)
        made = Built.from_json(text) if text else None
        image = _image(body)
    except (ValueError, KeyError, TypeError):
        return None
    if who is None or (who.tenant, who.agent, who.sandbox) != (tenant, agent, sandbox):
        return None
    if marks.edited(body, agent, sandbox):
        return None
    program = place(tenant, agent)
    if program is not None:
        program = objects.Program(program.namespace, image, program.owner, made)
    return Revision(tenant, agent, who.revision, spec, str(shim.get("contract", "moorage")), program), who


def _image(body: Mapping[str, Any]) -> str:
    """What its agent runs in: what was built of a source is for that very image, whichever is the stock one now. Raises ValueError."""
    for one in body["spec"]["containers"]:
        if one["name"] == "agent":
            return str(one["image"])
    raise ValueError("the pod has no agent")


def _spec(agent: str, wire: Mapping[str, Any]) -> HostedAgentSpec:
    document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": agent}, "spec": wire}
    return parse(document).spec
