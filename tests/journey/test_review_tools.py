"""The review agent with its tools and a model, as `with-tools.yaml` gives them, and its sandbox killed within one call after another.

The tool server is the example's own, in this process so that a call can be held; the model is the scripted one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from cluster.reviewed import PLANTED
from fakes.models import Models, serving
from fakes.platform import ROOT, Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

EXAMPLE = ROOT / "examples" / "review-agent"
ASKED = "Review tools:quayside v1.0.0..v1.1.0"
TOOLS = ["git_commit", "git_commit", "git_files", "git_files", "package_licence", "git_note"]
SECTIONS = ["## Test coverage", "## New dependencies", "## Breaking API changes"]
HELD_S = 60.0


@dataclass
class Gates:
    """Calls by what is called and the how-manieth it is; `held` ones wait, begun, until they are let go."""

    held: dict[tuple[str, int], threading.Event] = field(default_factory=dict)
    reached: set[tuple[str, int]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, *points: tuple[str, int]) -> None:
        """From now on calls are counted anew, and these are held."""
        with self.lock:
            self.counts, self.reached = {}, set()
            self.held = {point: threading.Event() for point in points}

    def call(self, what: str) -> None:
        """A call began."""
        with self.lock:
            point = (what, self.counts.get(what, 0) + 1)
            self.counts[what] = point[1]
            self.reached.add(point)
            gate = self.held.get(point)
        if gate is not None:
            gate.wait(HELD_S)


@dataclass
class World:
    """The platform with the agent, its tools' log, and its model."""

    platform: Platform
    gates: Gates
    log: list[dict[str, Any]]
    models: Models

    def began(self) -> list[dict[str, Any]]:
        """Calls of tools as they began."""
        return [line for line in self.log if "began" in line]


@contextlib.contextmanager
def workshop(folder: Path, gates: Gates, log: list[dict[str, Any]]) -> Iterator[int]:
    """The example's tool server over the sample repository; its port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(EXAMPLE)])
        from workshop.__main__ import made  # type: ignore[import-not-found]
        from workshop.server import served  # type: ignore[import-not-found]

    async def note(line: dict[str, Any]) -> None:
        log.append(line)
        if "began" in line:
            await asyncio.to_thread(gates.call, line["tool"])

    listener = socket.create_server(("127.0.0.1", 0))
    app = served(made(folder, None), note).streamable_http_app(stateless_http=True, json_response=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        gates.arm()
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


def manifest(tools: int, models: Models) -> str:
    """`with-tools.yaml` with these servers, and the model that it names behind marks of comments."""
    agent, toolbox, endpoint = yaml.safe_load_all((EXAMPLE / "with-tools.yaml").read_text())
    agent["spec"]["env"].append({"name": "REVIEW_MODEL", "value": "m-1"})
    agent["spec"]["models"] = [endpoint["metadata"]["name"]]
    toolbox["spec"]["upstreams"][0]["mcp"]["url"] = f"http://127.0.0.1:{tools}/mcp"
    endpoint["spec"]["baseUrl"] = f"{models.url}/v1"
    return yaml.safe_dump_all([agent, toolbox, endpoint])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, gates, log = tmp_path_factory.mktemp("reviewed"), Gates(), list[dict[str, Any]]()
    shutil.copytree(EXAMPLE, folder / "agent", ignore=shutil.ignore_patterns("__pycache__", "workspace"))
    with serving() as models, workshop(folder / "shelf", gates, log) as port:
        models.watch = lambda edge, _: gates.call("model") if edge == "asked" else None
        (folder / "agent" / "agent.yaml").write_text(manifest(port, models))
        with started(folder / "agent", env={"OPENAI_API_KEY": "sk-scripted"}) as platform:
            poll("the agent serves", lambda: platform.agents, within=240)
            yield World(platform, gates, log, models)


def ended(api: Any, response: str) -> Any:
    found = api.responses.retrieve(response)
    return found if found.status not in ("in_progress", "queued") else None


def review(world: World, *killed: tuple[str, int]) -> tuple[Any, int]:
    """A review whose sandbox is killed within each of these calls; the response, and its attempts."""
    session, platform = f"session-{uuid.uuid4().hex}", world.platform
    world.gates.arm(*killed)
    with platform.client("review-agent", timeout=120) as api:
        extra = {"agent_session_id": session}
        made = api.responses.create(model="review-agent", input=ASKED, background=True, extra_body=extra)
        for point in killed:
            poll(f"the call {point} is in flight", lambda: point in world.gates.reached, within=60)  # noqa: B023
            before = set(platform.pids("review-agent", session))
            platform.kill_sandbox("review-agent", session)
            poll("it has another sandbox", lambda: set(platform.pids("review-agent", session)) - before)  # noqa: B023
            world.gates.held[point].set()
        done = poll("the review ends", lambda: ended(api, made.id), within=120)
    return done, len(platform.record("review-agent", made.id)["attempts"])


def test_a_sandbox_killed_within_its_calls_makes_each_call_once_and_tells_one_whole_review(world: World) -> None:
    done, attempts = review(
        world, ("git_commit", 2), ("git_files", 1), ("model", 1), ("package_licence", 1), ("model", 3), ("git_note", 1)
    )
    text = done.output_text
    assert done.status == "completed", done
    assert attempts == 7, "one for each death, and the last"
    assert [line["tool"] for line in world.began()] == TOOLS
    assert len({line["id"] for line in world.began()} - {None}) == len(TOOLS), "the platform names each call"
    assert [each["text"].partition("\n")[0] for each in world.models.asked] == SECTIONS
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert [fact for fact in PLANTED[1:] if fact not in text] == []
    assert re.findall(r"\*\*In words:\*\* answer (\d)", text) == ["1", "2", "3"]
    assert "as review 1 of it" in text

    again, _ = review(world)
    assert "as review 2 of it" in again.output_text, "a note that is written twice shows"
    same = re.sub(r"answer \d", "answer", again.output_text.replace("review 2", "review 1"))
    assert same == re.sub(r"answer \d", "answer", text), "what died is not told"
