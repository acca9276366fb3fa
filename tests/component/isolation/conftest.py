"""Fixtures of the isolation tests: what this machine gives, and wards that end what they started."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.ward import LAUNCHER, Ward
from moorage_local import probe
from moorage_local.isolation import Isolation

REQUIRED = "MOORAGE_REQUIRE_ISOLATION"


@pytest.fixture(scope="session")
def machine() -> Iterator[Isolation]:
    """What the probe says of this machine, in whatever mode it gives."""
    found = asyncio.run(probe.detect(instance=f"test-{os.getpid()}", launcher=LAUNCHER))
    yield found
    if found.groups is not None:
        asyncio.run(found.groups.close())


@pytest.fixture(scope="session")
def isolated(machine: Isolation) -> Isolation:
    """Isolated mode; without it the test is skipped, or fails where it is required."""
    if machine.mode != "isolated":
        message = f"no isolated mode on this machine: {machine.why_plain}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    return machine


@pytest.fixture(scope="session")
def plain(machine: Isolation) -> Isolation:
    """Plain mode with the control groups of this machine."""
    described = asyncio.run(probe.detect(instance=f"test-{os.getpid()}", launcher=LAUNCHER, want="plain"))
    return replace(described, groups=machine.groups)


@pytest.fixture
def python() -> Path:
    """The interpreter of the agents: the environment of the tests, which has none of their modules."""
    return Path(sys.executable)


@pytest.fixture
async def ward(tmp_path: Path, isolated: Isolation, python: Path) -> AsyncIterator[Ward]:
    """Sandboxes in isolated mode."""
    one = Ward(tmp_path, isolated, python)
    yield one
    await one.close()


@pytest.fixture
async def plain_ward(tmp_path: Path, plain: Isolation, python: Path) -> AsyncIterator[Ward]:
    """Sandboxes in plain mode."""
    one = Ward(tmp_path, plain, python)
    yield one
    await one.close()


@pytest.fixture
async def bare_ward(tmp_path: Path, plain: Isolation, python: Path) -> AsyncIterator[Ward]:
    """Plain mode without control groups: what an ordinary user on an ordinary machine has."""
    limits = dict(plain.limits) | {"memory": "rlimit", "pids": "rlimit"}
    one = Ward(tmp_path, replace(plain, groups=None, limits=limits), python)
    yield one
    await one.close()
