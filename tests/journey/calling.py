"""What journeys of boundary calls share: a platform with agents of the test's own manifest, turns of them, and deaths in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from fakes.platform import Platform, poll, started


@contextlib.contextmanager
def deployed(
    source: Path, manifest: str, folder: Path, *options: str, env: dict[str, str] | None = None
) -> Iterator[Platform]:
    """A platform, made in `folder`, that serves the agents of `manifest` from a copy of `source`; `env` is further gateways' too."""
    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / source.name / "agent.yaml").write_text(manifest)
    wanted = {each["metadata"]["name"] for each in yaml.safe_load_all(manifest) if each["kind"] == "HostedAgent"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        with started(folder, *options) as found:
            assert {each["name"] for each in found.agents} == wanted, found.log.read_text()
            yield found


def name(prefix: str) -> str:
    """A text that no other test says."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def new_session() -> str:
    return f"session-{uuid.uuid4().hex}"


def ask(
    platform: Platform, *steps: str, agent: str, session: str | None = None, url: str | None = None, **more: Any
) -> Any:
    """A turn of these steps, in a session of its own unless one is given; `url`: another gateway's."""
    with platform.client(agent, url=url, timeout=120) as api:
        extra = {"agent_session_id": session or new_session()}
        return api.responses.create(model=agent, input="\n".join(steps), extra_body=extra, **more)


def ended(api: openai.OpenAI, response: str) -> Any:
    """The response of a turn in the background, once it has ended."""

    def look() -> Any:
        found = api.responses.retrieve(response)
        return found if found.status not in ("in_progress", "queued") else None

    return poll("the turn ends", look, within=90)


def lose_sandbox(platform: Platform, agent: str, session: str) -> None:
    """Kills a session's sandbox, and waits for its next one."""
    before = set(poll("it has a sandbox", lambda: platform.pids(agent, session)))
    platform.kill_sandbox(agent, session)
    poll("it has another", lambda: set(platform.pids(agent, session)) - before)


@contextlib.contextmanager
def losing_valkey(platform: Platform) -> Iterator[None]:
    """Kills Valkey, and after what is done without it waits for the next one."""
    before = platform.valkey_pid()
    os.kill(before, signal.SIGKILL)
    yield
    poll("Valkey runs again", lambda: platform.valkey_pid() != before)
