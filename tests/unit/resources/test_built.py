"""What a build says at its end fits where it is said, and is heard as it was meant."""

from __future__ import annotations

import pytest

from moorage_api import built
from moorage_api.built import Built

pytestmark = pytest.mark.unit

MESSAGE = 4096  # bytes of a pod's termination message


@pytest.mark.parametrize("letter", ["a", '"', "\\", "é", "\U0001f99c"])
def test_the_longest_entry_that_is_heard_fits(letter: str) -> None:
    entry = letter * (1024 // len(letter.encode()))
    made = Built("a" * 64, entry, "agentcore", "c" * 64)
    assert built.heard(built.told(made)) == made
    assert len(built.told(made).encode()) < 2 * len(entry.encode()) + 300 < MESSAGE, (
        "no letter takes more than twice its bytes"
    )
    longer = Built("a" * 64, entry + letter, "agentcore", "c" * 64)
    assert built.heard(built.told(longer)) is None, "a builder finds that out before it ends well"
