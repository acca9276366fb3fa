"""The review engine is an example's own package: it is put on the path here, as `python host.py` does for the agent."""

import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "review-agent"
if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))


@pytest.fixture
def example() -> Path:
    return EXAMPLE
