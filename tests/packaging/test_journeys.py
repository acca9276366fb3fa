"""Which journeys run on a cluster is said of each: a new one is named there, or said why not."""

from __future__ import annotations

import pytest

from cluster.test_journeys import JOURNEYS, OF_THEIR_OWN
from tree import ROOT

pytestmark = pytest.mark.packaging


def test_no_journey_is_left_out_unnamed() -> None:
    found = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests" / "journey").glob("test_*.py"))
    assert found == sorted([*JOURNEYS, *OF_THEIR_OWN])
