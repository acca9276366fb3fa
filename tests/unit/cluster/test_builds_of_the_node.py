"""The node's programs are built once, whoever asks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.node import build
from fakes.platform import poll

pytestmark = pytest.mark.unit

GO = """#!/bin/sh
echo "$*" >> "$CALLS"
while [ ! -e "$GATE" ]; do sleep 0.02; done
while [ "$1" != -o ]; do shift; done
touch "$2"
"""


def test_two_that_ask_at_once_get_one_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, gate, programs = tmp_path / "calls", tmp_path / "gate", tmp_path / "programs"
    programs.mkdir()
    (programs / "go").write_text(GO)
    (programs / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MOORAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("GATE", str(gate))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(build.name_server) for _ in range(2)]
        try:
            poll("one builds", calls.exists)
        finally:
            gate.touch()
        first, second = (each.result(timeout=30) for each in asked)
    assert first == second and first.exists()
    assert len(calls.read_text().splitlines()) == 1
