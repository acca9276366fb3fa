"""`moorage.progress` at a door: what it says there, and that nothing comes of a door that is not there."""

from __future__ import annotations

from typing import Any

import pytest

import moorage
from fakes.step_door import opened

pytestmark = pytest.mark.component


def test_a_word_is_a_line_with_a_part_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as door:
        monkeypatch.setenv("MOORAGE_STEPS_URL", door.url)
        door.answers["/steps/progress"] = [(202, {})] * 4
        moorage.progress("12 of 30 issues", fraction=0.4)
        moorage.progress("a\nb\x1b[2J", fraction=7)
        moorage.progress("x" * 10_000, fraction=float("nan"))
        moorage.progress("done")
        assert [said for _, said in door.said] == [
            {"text": "12 of 30 issues", "fraction": 0.4},
            {"text": "a b [2J", "fraction": 1.0},
            {"text": "x" * 400, "fraction": None},
            {"text": "done", "fraction": None},
        ]


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1/steps"])
def test_without_a_door_nothing_happens(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MOORAGE_STEPS_URL", url)
    moorage.progress("nobody hears it", fraction=0.5)


def test_a_door_that_is_silent_or_refuses_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as door:
        monkeypatch.setenv("MOORAGE_STEPS_URL", door.url)
        door.answers["/steps/progress"] = [(503, {"error": {}})]
        moorage.progress("refused")
        moorage.progress("the connection breaks")
        assert len(door.said) == 2


@pytest.mark.parametrize("given", [{"text": 3}, {"text": "a", "fraction": "half"}, {"text": "a", "fraction": True}])
def test_what_is_no_word_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(moorage.Misuse):
        moorage.progress(**given)
