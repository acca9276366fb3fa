"""The local platform for whole-way tests: `moorage dev` as a process of its own, driven by its fixed face only.

Another home of the platform (a cluster) is another fixture with the same `Platform`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.platform import AGENTS, Platform, started


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """One platform with the agents of `tests/agents`, for tests that do not break it."""
    with started(AGENTS) as found:
        yield found
