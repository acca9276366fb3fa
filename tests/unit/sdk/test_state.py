"""A session's state survives its turns, and each attempt starts from what the first one found."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.serve.state import StateFile

pytestmark = pytest.mark.unit


def test_the_next_turn_finds_what_the_last_one_left(tmp_path: Path) -> None:
    StateFile(tmp_path, "s1").save("t1", {}, {"n": 1})
    assert StateFile(tmp_path, "s1").load("t2") == {"n": 1}
    assert StateFile(tmp_path, "s2").load("t2") == {}


def test_another_attempt_at_the_same_turn_starts_from_before_it(tmp_path: Path) -> None:
    kept = StateFile(tmp_path, "s1")
    kept.save("t1", {}, {"n": 1})
    kept.save("t2", {"n": 1}, {"n": 2})
    assert kept.load("t2") == {"n": 1}
    assert kept.load("t3") == {"n": 2}


def test_a_turn_that_changed_nothing_writes_nothing(tmp_path: Path) -> None:
    StateFile(tmp_path, "s1").save("t1", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_an_empty_state(tmp_path: Path) -> None:
    kept = StateFile(tmp_path, "s1")
    kept.save("t1", {}, {"n": 1})
    next((tmp_path / "state").iterdir()).write_text("{")
    assert kept.load("t2") == {}


def test_a_state_over_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workspace"):
        StateFile(tmp_path, "s1").save("t1", {}, {"x": "y" * 2_000_000})
