"""The local platform for whole-way tests: `moorage dev` as a process of its own, driven by its fixed face only.

Another home of the platform (a cluster) is another fixture with the same `Platform`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.commands import Commands
from fakes.otlp import Collector, collecting
from fakes.platform import AGENTS, Platform, started


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the platform's spans go."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="session")
def platform(collector: Collector) -> Iterator[Platform]:
    """One platform with the agents of `tests/agents`, for tests that leave it serving."""
    with started(AGENTS, env={"MOORAGE_OTLP_ENDPOINT": collector.url}) as found:
        yield found


@pytest.fixture
def commands(platform: Platform, tmp_path: Path) -> Commands:
    """The command line, pointed at the platform."""
    return Commands(platform.url, platform.api_key, tmp_path / "config")
