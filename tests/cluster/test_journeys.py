"""The journeys of one machine on a cluster: the same files, the stock clients, the agents of `tests/agents` in pods, over both stores.

Left out, for they bring up a platform of their own with `moorage dev`: `test_dev` and `test_review_agent` (the laptop's own door; the
review agent is called in `test_sources` and `test_installed`), `test_checkpoints` (`test_sleeping` is its like here), `test_routines`,
`test_routine_invocations` and `test_routine_triage` (`tests/cluster/test_routines.py` has their like), and the journeys of boundary
calls (`test_agent_calls`, `test_approvals`, `test_consents`, `test_framework_toolboxes`, `test_frameworks`, `test_models`, `test_replay`,
`test_review_tools`, `test_stdio_tools`, `test_steps`, `test_tools`): their clients come from the package index, their servers listen on
loopback, and parts of the platform are killed. A model is asked, and its key changed, in `test_installed`.
And `test_routine_runs`, whose CLI looks at what a laptop's sandbox printed, and what `ELSEWHERE` names with its reason.
`tests/packaging/test_journeys.py` holds this list to the folder.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.made import hosted_agents
from cluster.node import images, plan
from cluster.node.node import Node
from cluster.operated import Operated, operated
from fakes.platform import AGENTS, free_ports
from fakes.s3 import S3Server, gateway_settings, s3_server
from tree import ROOT

__all__ = ["s3_server"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

IMAGE = "localhost/moorage-journeys:test"
JOURNEYS = (
    "cli",
    "clients",
    "invocations",
    "keys_and_audit",
    "refusals",
    "responses",
    "sessions",
    "telemetry",
    "turns",
    "wire",
)
OF_THEIR_OWN = (
    "agent_calls",
    "approvals",
    "checkpoints",
    "consents",
    "dev",
    "framework_toolboxes",
    "frameworks",
    "models",
    "replay",
    "review_agent",
    "review_tools",
    "routine_invocations",
    "routine_runs",
    "routine_triage",
    "routines",
    "stdio_tools",
    "steps",
    "tools",
)
ELSEWHERE = {"logs_are_followed": "a cluster's gateway reads no output of pods, and names the command that does"}
"""Parts of names of journeys that cannot be the cluster's, and why."""
IDLE = "45s"
"""A journey makes a session a test: on one node not all of them can keep a pod."""
SHORT = "20s"
"""A turn's time, where it is to be short: a pod that wakes is part of it, and takes longer than a process."""
WITHIN = 300
"""Seconds for a journey: one of them builds an environment."""


@pytest.fixture(scope="module")
def agents_image(node: Node, sandbox_image: str) -> str:
    """All agents of the journeys."""
    archive = plan.cache() / "journeys-test.oci.tar"
    images.build(IMAGE, ROOT / "tests/cluster/journeys/Dockerfile", ROOT / "tests", sandbox_image, archive)
    node.load(archive)
    return IMAGE


@pytest.fixture(scope="module", params=["folder", "s3"])
def home(
    request: pytest.FixtureRequest,
    node: Node,
    agents_image: str,
    sandbox_image: str,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: S3Server,
) -> Iterator[Path]:
    """A file that tells the journeys of a platform whose agents are ready."""
    hosted_agents(node)
    (port,) = free_ports(1)
    at = s3_server.made() if request.param == "s3" else None
    more = {"MOORAGE_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"} | (gateway_settings(at) if at is not None else {})
    folder = tmp_path_factory.mktemp("journeys")
    with operated(node, agents_image, sandbox_image, folder, f"moorage-journeys-{request.param}", more=more) as world:
        deploy(world)
        told = {
            "url": world.desk.url,
            "api_key": world.desk.key,
            "gateway_pid": world.desk.gateway_pid,
            "kubeconfig": str(node.kubeconfig),
            "namespace": world.namespace,
            "volumes": str(node.place.volumes),
            "store": str(folder / "store"),
            "s3": dataclasses.asdict(at) if at is not None else None,
            "collector_port": port,
        }
        file = folder / "platform.json"
        file.write_text(json.dumps(told))
        yield file


def deploy(world: Operated) -> None:
    """The agents, as their manifests say but for the program."""
    names = []
    for manifest in sorted(AGENTS.glob("*/agent.yaml")):
        body = yaml.safe_load(manifest.read_text())
        name, spec = body["metadata"]["name"], body["spec"]
        del spec["source"]
        spec["session"] = {"idleTimeout": IDLE} | spec.get("session", {})
        if "timeout" in spec.get("turn", {}):
            spec["turn"]["timeout"] = SHORT
        spec["env"] = [*spec.get("env", []), {"name": "AGENT", "value": manifest.parent.name}]
        world.apply(name, image=world.image, **spec)
        names.append(name)
    for name in names:
        world.until_ready(name, within=180)


def test_the_journeys_hold_in_pods(home: Path) -> None:
    files = [f"tests/journey/test_{name}.py" for name in JOURNEYS]
    without = " and ".join(f"not {name}" for name in ELSEWHERE)
    chosen = ["-m", "journey and not long", *(["-k", without] if without else [])]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--platform",
        str(home),
        f"--timeout={WITHIN}",
        *chosen,
    ]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    print(done.stdout[-400:])
