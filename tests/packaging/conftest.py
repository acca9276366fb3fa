"""The chart as the pinned helm renders it, once for every test of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chart import helm
from chart.matrix import MATRIX


@pytest.fixture(scope="session")
def binary() -> Path:
    """helm; skipped, with the reason, where there is none."""
    try:
        return helm.binary()
    except helm.NoHelm as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def texts(binary: Path) -> dict[str, str]:
    """What helm prints for each row of the matrix."""
    found = {}
    for name, values in MATRIX.items():
        done = helm.template(binary, values)
        assert done.returncode == 0, done.stderr
        found[name] = done.stdout
    return found
