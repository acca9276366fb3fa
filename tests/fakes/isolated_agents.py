"""The folder of agents of the isolation tests: a hostile one and a quiet one, with small limits; and whether this machine isolates."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fakes import bundling
from fakes.platform import Platform

REQUIRED = "MOORAGE_REQUIRE_ISOLATION"
AGENTS = Path(__file__).parent.parent / "isolation" / "agents"


def write_agents(folder: Path, *, egress: list[str], models: str = "", tools: str = "") -> Path:
    """The two agents with their manifests, small limits so that reaching one takes no time. `models` and `tools` are where the hostile
    one's model endpoint `chat` and its toolbox `desk` lead, each with a credential of that name."""
    small = {"memory": "160Mi", "cpu": "500m", "pids": 64, "ephemeralStorage": "32Mi"}
    specs = {
        "prober": {
            "resources": small,
            "workspace": {"size": "48Mi"},
            "pool": {"min": 2, "max": 4},
            "turn": {"maxAttempts": 2},
            "egress": egress,
            **({"models": ["chat"]} if models else {}),
            **({"toolboxes": ["desk"]} if tools else {}),
        },
        "neighbour": {"pool": {"min": 1, "max": 2}},
    }
    for name, spec in specs.items():
        shutil.copytree(AGENTS / name, folder / name)
        document = {
            "apiVersion": bundling.API,
            "kind": "HostedAgent",
            "metadata": {"name": name},
            "spec": {"source": {"path": "."}, **spec},
        }
        (folder / name / "agent.yaml").write_text(json.dumps(document))
    credential = {"secret": "chat", "key": "key"}
    endpoint = {
        "protocol": "compatible",
        "baseUrl": f"{models}/v1",
        "credential": credential,
        "retries": {"attempts": 0},
    }
    upstream = {"name": "desk", "mcp": {"url": tools}, "credential": credential | {"secret": "desk"}}
    for file, kind, name, spec in (
        ("models", "ModelEndpoint", "chat", endpoint if models else None),
        ("toolboxes", "Toolbox", "desk", {"upstreams": [upstream]} if tools else None),
    ):
        if spec is not None:
            document = {"apiVersion": bundling.API, "kind": kind, "metadata": {"name": name}, "spec": spec}
            (folder / f"{file}.yaml").write_text(json.dumps(document))
    return folder


def need_isolation(platform: Platform) -> None:
    """Skips or fails by what the platform itself printed."""
    said = platform.log.read_text()
    if "  isolation  isolated" in said:
        return
    message = f"no isolated mode on this machine: {said[said.find('  isolation') :][:400]}"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(message)
    pytest.skip(message)
