"""Two agents whose requirements contradict each other run side by side, each with its own version."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling

pytestmark = pytest.mark.isolation

HOST = """
import pinned
from moorage import HostedAgent
HostedAgent(agent=lambda items, ctx: pinned.VERSION).serve()
"""


def wheel(folder: Path, version: str) -> str:
    """A wheel of the package `pinned` in that version, so that no index is asked."""
    name = f"pinned-{version}-py3-none-any.whl"
    info = f"pinned-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("pinned/__init__.py", f"VERSION = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pinned\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"pinned/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return name


def test_agents_with_contradicting_versions_run_side_by_side(world: Any, tmp_path: Path) -> None:
    versions = {"pinned-a": "1.4.0", "pinned-b": "2.0.1"}
    for agent, version in versions.items():
        folder = tmp_path / agent
        folder.mkdir()
        (folder / "host.py").write_text(HOST)
        (folder / "requirements.txt").write_text(f"./{wheel(folder, version)}\n")
        bundling.deploy(world.door, agent, folder)
    for _ in range(2):
        for agent, version in versions.items():
            answer = world.door.ask("POST", f"/v1/agents/{agent}/responses", {"input": "which one?"})
            assert answer.body["status"] == "completed", answer.raw
            assert version in answer.raw.decode()
    both = tmp_path / "both"
    both.mkdir()
    (both / "host.py").write_text(HOST)
    (both / "requirements.txt").write_text("".join(f"./{wheel(both, one)}\n" for one in versions.values()))
    _, message = bundling.refused(world.door, "pinned-both", both)
    assert "requirements.txt" in message and "pinned" in message, "the condition names the file and the package"
