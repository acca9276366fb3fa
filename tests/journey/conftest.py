"""The local platform for whole-way tests: `moorage dev` as a process of its own, driven by its fixed face only.

With `--platform FILE` it is one that runs elsewhere: the cluster tier drives the same journeys so (tests/cluster/test_journeys.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.commands import Commands
from fakes.elsewhere import Elsewhere
from fakes.otlp import Collector, collecting
from fakes.platform import AGENTS, Platform, started


@pytest.fixture(scope="session")
def elsewhere(request: pytest.FixtureRequest) -> Elsewhere | None:
    """The platform that `--platform FILE` tells of."""
    file = request.config.getoption("--platform")
    return Elsewhere.described(Path(file)) if file else None


@pytest.fixture(scope="session")
def collector(elsewhere: Elsewhere | None) -> Iterator[Collector]:
    """Where the platform's spans go."""
    with collecting(0 if elsewhere is None else elsewhere.collector_port) as found:
        yield found


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, elsewhere: Elsewhere | None) -> Iterator[Platform]:
    """One platform with the agents of `tests/agents`, for tests that leave it serving."""
    if elsewhere is not None:
        yield elsewhere
        return
    collector = request.getfixturevalue("collector")
    with started(AGENTS, env={"MOORAGE_OTLP_ENDPOINT": collector.url}) as found:
        yield found


@pytest.fixture
def commands(platform: Platform, tmp_path: Path) -> Commands:
    """The command line, pointed at the platform."""
    return Commands(platform.url, platform.api_key, tmp_path / "config")
