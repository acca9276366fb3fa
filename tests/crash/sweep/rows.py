"""The agents of the sweep, a row each, and the platform that serves them. A further agent is a row and its file in `agents/`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.effects import Effects, counting
from fakes.models import Models, serving
from fakes.platform import Platform, poll, started

AGENTS = Path(__file__).with_name("agents")


@dataclass(frozen=True)
class Row:
    """One agent: its file, and the endpoint that it asks."""

    name: str
    file: str
    endpoint: str


ROWS = (
    Row("plain-openai", "plain_openai.py", "chat"),
    Row("plain-anthropic", "plain_anthropic.py", "messages"),
)

AGENT = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: {row.name}}}
spec:
  source: {{path: ., entrypoint: {row.file}}}
  pool: {{min: 2, max: 6}}
  models: [{row.endpoint}]
  env: [{{name: LEDGER_URL, value: "{ledger}"}}]
"""
ENDPOINTS = """
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: chat}}
spec: {{protocol: compatible, baseUrl: "{models}/v1"}}
---
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: messages}}
spec: {{protocol: anthropic, baseUrl: "{models}"}}
"""


@dataclass(frozen=True)
class Ground:
    """The platform and both servers. Plain processes: an isolated one does not reach a ledger on this machine's loopback."""

    platform: Platform
    models: Models
    effects: Effects


@contextlib.contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """A platform with every agent of the table."""
    with serving() as models, counting() as effects, pytest.MonkeyPatch.context() as patch:
        place = folder / "sweep"
        shutil.copytree(AGENTS, place, ignore=shutil.ignore_patterns("__pycache__"))
        documents = [AGENT.format(row=row, ledger=effects.url) for row in ROWS]
        documents.append(ENDPOINTS.format(models=models.url))
        (place / "agent.yaml").write_text("---".join(documents))
        patch.setenv("MOORAGE_ALLOWED_UPSTREAMS", f"127.0.0.1:{models.port}")
        with started(folder, "--plain") as platform:
            names = {row.name for row in ROWS}
            poll("the agents serve", lambda: names <= {a["name"] for a in platform.agents}, within=240)
            yield Ground(platform, models, effects)
