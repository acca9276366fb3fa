"""The agents of the sweep, a row each, and the platform that serves them. A further agent is a row and its file in `agents/`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crash.sweep import plan
from fakes import tools
from fakes.effects import Effects, counting
from fakes.models import Models, serving
from fakes.platform import Platform, poll, started

AGENTS = Path(__file__).with_name("agents")
READY_S = 400.0  # five environments are made, on a machine that may have other work


@dataclass(frozen=True)
class Row:
    """One agent: its file, the endpoint that it asks, the set of packages that it needs beside the plain ones.

    `over_mcp`: its effects that are tools of a toolbox; the others are steps. `by_model`: its model says what is called, one question after
    the other, and the answer is the last one's; otherwise its own code does (`agents/work.py`). `twice`: it calls the toolbox within
    steps, so that such a tool is told as unknown when the sandbox dies.
    """

    name: str
    file: str
    endpoint: str = "chat"
    needs: str = ""
    over_mcp: frozenset[int] = frozenset()
    by_model: bool = False
    twice: bool = False

    @property
    def requirements(self) -> str:
        """The file that lists them."""
        return f"requirements-{self.needs}.txt" if self.needs else "requirements.txt"


def _framework(name: str, file: str) -> Row:
    return Row(name, file, needs=name, over_mcp=plan.OVER_MCP, by_model=True)


ROWS = (
    Row("plain-openai", "plain_openai.py"),
    Row("plain-anthropic", "plain_anthropic.py", "messages"),
    Row("plain-mcp", "plain_mcp.py", over_mcp=frozenset(range(1, 6))),
    Row("plain-http", "in_pod.py", over_mcp=frozenset(range(1, 6)), twice=True),
    _framework("agent-framework", "by_agent_framework.py"),
    _framework("langgraph", "by_langgraph.py"),
    _framework("openai-agents", "in_openai_agents.py"),
    _framework("pydantic-ai", "in_pydantic_ai.py"),
)

AGENT = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: {row.name}}}
spec:
  source: {{path: ., entrypoint: {row.file}, requirements: {row.requirements}}}
  pool: {{min: 1, max: 6}}
  models: [{row.endpoint}]
  toolboxes: [desk, all]
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
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: all}}
spec:
  upstreams: [{{name: desk, mcp: {{url: "{tools}"}}, readOnly: [is_there]}}]
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: desk}}
spec:
  upstreams: [{{name: desk, mcp: {{url: "{tools}"}}, allow: [{few}]}}]
"""
POSTING = {
    "type": "object",
    "properties": {"key": {"type": "string"}, "note": {"type": "string"}},
    "required": ["key", "note"],
}
FEW = ("book", *(f"post_{n}" for n in sorted(plan.OVER_MCP)))
OFFERED = ("book", "post", "is_there", *(f"post_{n}" for n in range(1, 6)))


@dataclass(frozen=True)
class Servers:
    """Who counts: the scripted models, and the ledger of effects."""

    models: Models
    effects: Effects


@dataclass(frozen=True)
class Ground(Servers):
    """The platform beside them. Plain processes: an isolated one does not reach a ledger on this machine's loopback."""

    platform: Platform


@contextlib.contextmanager
def posting(effects: Effects, host: str = "127.0.0.1") -> Iterator[tools.Tools]:
    """A server of tools whose calls are posts."""
    with tools.serving(host=host) as desk:
        desk.posts = effects
        desk.tools = [{"name": name, "description": "Posts a key.", "inputSchema": POSTING} for name in OFFERED]
        yield desk


@contextlib.contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """A platform with every agent of the table."""
    with serving() as models, counting() as effects, posting(effects) as desk, pytest.MonkeyPatch.context() as patch:
        models.script = plan.read
        place = folder / "sweep"
        shutil.copytree(AGENTS, place, ignore=shutil.ignore_patterns("__pycache__"))
        documents = [AGENT.format(row=row, ledger=effects.url) for row in ROWS]
        documents.append(ENDPOINTS.format(models=models.url, tools=desk.url, few=", ".join(FEW)))
        (place / "agent.yaml").write_text("---".join(documents))
        patch.setenv("MOORAGE_ALLOWED_UPSTREAMS", f"{models.named},{desk.named}")
        with started(folder, "--plain", within=READY_S) as platform:
            names = {row.name for row in ROWS}
            poll("the agents serve", lambda: names <= {a["name"] for a in platform.agents}, within=READY_S)
            yield Ground(models, effects, platform)
