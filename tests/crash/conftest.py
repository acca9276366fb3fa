"""A platform of this group's own: it gets its processes killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.platform import AGENTS, Platform, started


@pytest.fixture(scope="module")
def struck() -> Iterator[Platform]:
    """One platform a module; every test leaves it serving."""
    with started(AGENTS) as found:
        yield found
