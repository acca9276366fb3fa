"""Which pods an operator that starts takes over as they are."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api import tokens
from moorage_api.kinds import parse
from moorage_api.provider.base import Revision
from moorage_operator import objects
from moorage_operator.machine import PodMachine
from moorage_operator.observed import Observed
from moorage_operator.settings import load

pytestmark = pytest.mark.unit

KEY = "ab" * 32
SETTINGS = load(
    {
        "MOORAGE_REDIS_URL": "redis://redis:6379/0",
        "MOORAGE_TOKEN_KEY": KEY,
        "MOORAGE_NAMESPACE": "moorage",
        "MOORAGE_NAMESPACES": "agents",
        "MOORAGE_SANDBOX_IMAGE": "reg.example/sandbox:1",
        "MOORAGE_SANDBOX_URL": "http://10.0.0.9:8081",
        "MOORAGE_GATEWAY_PODS": "app.kubernetes.io/component=gateway",
    }
)
PROGRAM = objects.Program("agents", "reg.example/agent:1", {"kind": "HostedAgent", "name": "a", "uid": "u"})


def body(sandbox: str, ready: str, since: int) -> dict[str, Any]:
    """A pod of the operator before this one, which runs; Ready is so since a second of one minute, its containers since the tenth."""
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "a"},
        "spec": {"image": PROGRAM.image},
    }  # fmt: skip
    revision = Revision("t", "a", "r1", parse(document).spec, "moorage", PROGRAM)
    told = {"token": tokens.sign(tokens.Identity(sandbox, "t", "a", "r1", f"ws-{sandbox}"), KEY), "contract": "moorage"}
    made = objects.pod(revision, sandbox, f"ws-{sandbox}", told, SETTINGS)
    made["metadata"] |= {"uid": sandbox, "resourceVersion": "1"}
    conditions = [("Initialized", "True", 10), ("Ready", ready, since)]
    made["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [
            {"type": kind, "status": word, "lastTransitionTime": f"2026-01-01T00:00:{second:02}Z"}
            for kind, word, second in conditions
        ],
        "containerStatuses": [{"name": name, "state": {"running": {}}} for name in ("agent", "shim")],
    }
    return made


async def test_what_was_ready_is_taken_over_though_its_node_was_not_heard_of_for_a_while() -> None:
    observed = Observed()
    for one in (body("sb-ready", "True", 12), body("sb-lapsed", "False", 50), body("sb-starting", "False", 5)):
        observed.pods.put(one)
    machine = PodMachine(
        None,
        observed,
        SETTINGS,
        tenants={"agents": "t"},
        place=lambda tenant, agent: PROGRAM,
        ledger=lambda: "",
        now=lambda: 0.0,
        wall=lambda: 0.0,
    )
    taken = {one.sandbox: one.endpoint for _, one in await machine.adopted()}
    assert taken == {"sb-ready": "http://10.0.0.1:8090", "sb-lapsed": "http://10.0.0.1:8090"}
    assert set(machine.strays()) == {"sb-ready", "sb-lapsed", "sb-starting"}
