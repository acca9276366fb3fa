"""What the agent server reads from its environment, once, after the fork. Layer: agent server; frozen values from here on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_PORT = 8088
PLATFORM_WORKSPACE = Path("/workspace")


@dataclass(frozen=True)
class Settings:
    """`platform`: a launcher started this process. `session` is None where one process serves many sessions (a laptop)."""

    platform: bool = False
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    agent: str = "agent"
    session: str | None = None
    workspace: Path = Path("workspace")
    state_root: Path = Path("workspace/.moorage")
    manifest: Mapping[str, Any] = field(default_factory=dict)
    grace: float = 30.0  # seconds that running turns get after SIGTERM
    keep_alive: float = 15.0  # seconds between comments on a silent stream
    max_body: int = 32 * 1024 * 1024
    max_running: int = 64  # turns at once in this process
    max_kept: int = 256  # ended responses kept for `previous_response_id` when standalone
    max_kept_bytes: int = 32 * 1024 * 1024
    max_log_bytes: int = 8 * 1024 * 1024  # events of one background response


def from_environ(env: Mapping[str, str], *, platform: bool, cwd: Path) -> Settings:
    """Settings of this process. Raises ValueError naming the variable that is wrong."""
    hosted = platform or bool(env.get("FOUNDRY_HOSTING_ENVIRONMENT"))
    workspace = _workspace(env, hosted, cwd)
    home = Path(env.get("HOME") or cwd)
    return Settings(
        platform=platform,
        host=env.get("HOST") or ("0.0.0.0" if hosted and not platform else "127.0.0.1"),
        port=_port(env.get("PORT")),
        agent=env.get("MOORAGE_AGENT") or env.get("FOUNDRY_AGENT_NAME") or cwd.name or "agent",
        session=env.get("MOORAGE_SESSION_ID") or env.get("FOUNDRY_AGENT_SESSION_ID") or None,
        workspace=workspace,
        state_root=(home if hosted else workspace) / ".moorage",
        manifest=_manifest(env.get("MOORAGE_MANIFEST")),
        grace=_seconds(env, "AGENTSERVER_GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS", 30.0),
    )


def _workspace(env: Mapping[str, str], hosted: bool, cwd: Path) -> Path:
    named = env.get("MOORAGE_WORKSPACE")
    if named:
        return Path(named)
    return PLATFORM_WORKSPACE if hosted and PLATFORM_WORKSPACE.is_dir() else cwd / "workspace"


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"PORT is {text!r}; give a number from 0 to 65535")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        return max(0.0, float(text))
    except ValueError as wrong:
        raise ValueError(f"{name} is {text!r}; give a number of seconds") from wrong


def _manifest(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as wrong:
        raise ValueError(f"MOORAGE_MANIFEST is not JSON: {wrong}") from wrong
    if not isinstance(found, dict):
        raise ValueError("MOORAGE_MANIFEST must be a JSON object")
    return found
