"""What an agent printed is shown in errors and in `status`, and steers nobody's terminal there."""

from __future__ import annotations

import pytest

from moorage_api.provider.base import MakeFailed

pytestmark = pytest.mark.unit


def test_last_lines_of_an_agent_are_lines_and_nothing_else() -> None:
    said = MakeFailed("it ended", ["\x1b[2Jred\x9b31m", "two\nIt is ready.", "ende \u20ac \u202e"])
    assert str(said).splitlines() == [
        "it ended", "Its last lines:", "  |  [2Jred 31m", "  | two It is ready.", "  | ende \u20ac  ",
    ]  # fmt: skip
