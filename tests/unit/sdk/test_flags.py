"""The manifest is the truth: a flag that differs from it is found and its field named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorage import HostedAgent
from moorage.serve import settings
from moorage.serve.flags import Flags, difference

pytestmark = pytest.mark.unit

BOTH = ["responses", "invocations"]


@pytest.mark.parametrize(
    ("flags", "spec", "field"),
    [
        ({}, {}, None),
        ({"protocols": ("responses",)}, {"protocols": BOTH}, None),
        ({"protocols": ("responses",)}, {"protocols": ["responses"]}, None),
        (
            {"protocols": ("responses", "invocations"), "serves": ("responses", "invocations")},
            {"protocols": ["responses"]},
            "protocols",
        ),
        ({"serves": ("responses",)}, {"protocols": ["invocations"]}, "protocols"),
        ({"session_isolation": True}, {"session": {"isolation": "session"}}, None),
        ({"session_isolation": False}, {}, "session.isolation"),
        ({"durable_state": None}, {"turn": {"durableState": False}}, None),
        ({"durable_state": True}, {"turn": {"durableState": False}}, "turn.durableState"),
        ({"durable_state": False}, {"turn": {"durableState": True}}, "turn.durableState"),
        ({"file_system": True}, {"workspace": {"fileSystem": False}}, "workspace.fileSystem"),
        ({"file_system": False}, {"workspace": {"fileSystem": False}}, None),
    ],
)
def test_a_flag_that_differs_names_its_field(flags: dict[str, Any], spec: dict[str, Any], field: str | None) -> None:
    found = difference(Flags(**{"protocols": None, "serves": ("responses",), **flags}), spec)
    assert (found.field if found else None) == field


def test_an_agent_that_can_never_serve_is_refused_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="give agent="):
        HostedAgent()
    with pytest.raises(TypeError, match="function agent"):
        HostedAgent(agent=3)
    with pytest.raises(ValueError, match="not known"):
        HostedAgent(agent=lambda items, ctx: "", protocol="smtp")
    with pytest.raises(ValueError, match="needs invocations="):
        HostedAgent(agent=lambda items, ctx: "", protocol=("responses", "invocations"))


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"PORT": "x"}, "PORT"),
        ({"PORT": "70000"}, "PORT"),
        ({"MOORAGE_MANIFEST": "{"}, "MOORAGE_MANIFEST"),
        ({"MOORAGE_MANIFEST": "3"}, "MOORAGE_MANIFEST"),
    ],
)
def test_a_wrong_setting_is_named(env: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        settings.from_environ(env, platform=False, cwd=Path("/nowhere/agent"))


def test_the_platform_says_where_the_workspace_is() -> None:
    found = settings.from_environ({"MOORAGE_WORKSPACE": "/w", "HOME": "/h"}, platform=True, cwd=Path("/code"))
    assert (found.workspace, found.state_root, found.host, found.port) == (
        Path("/w"),
        Path("/h/.moorage"),
        "127.0.0.1",
        8088,
    )


def test_alone_the_workspace_lies_beside_the_program() -> None:
    found = settings.from_environ({}, platform=False, cwd=Path("/my/agent"))
    assert (found.workspace, found.agent, found.host) == (Path("/my/agent/workspace"), "agent", "127.0.0.1")
