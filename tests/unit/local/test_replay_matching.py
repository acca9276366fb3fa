"""Which recorded call a request is, and what is said of the first that is none."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from moorage_local.replay.matching import LINES, Matching

pytestmark = pytest.mark.unit


def call(entry: str, text: str | None = "q", *, answer: bytes | None = b"a") -> dict[str, Any]:
    told = (
        {"status": 200, "headers": [["content-type", "text/plain"]], "body": base64.b64encode(answer).decode()}
        if answer
        else None
    )
    request = {"body": {"messages": [text]}} if text is not None else None
    return {"entry": entry, "what": {"kind": "model", "model": "m"}, "request": request, "answer": told}


def of(*calls: dict[str, Any]) -> Matching:
    return Matching.of({"calls": list(calls)})


SHOWN = {"body": {"messages": ["other"]}}


def test_equal_calls_are_met_in_their_order_whatever_comes_between() -> None:
    matching = of(call("a.0", answer=b"1"), call("b.0", answer=b"2"), call("a.1", answer=b"3"))
    found = [matching.ask(each, SHOWN) for each in ("b", "a", "a")]
    assert [each.answer[2] for each in found if each is not None and each.answer] == [b"2", b"1", b"3"]
    assert matching.ended() is None


def test_the_first_difference_stands_against_the_first_call_that_was_not_met() -> None:
    matching = of(call("a.0"), call("b.0", "second"), call("c.0"))
    assert matching.ask("a", SHOWN) is not None and matching.ask("x", SHOWN) is None
    first = matching.difference
    assert first is not None and first.number == 2
    assert '-      "second"' in first.lines and '+      "other"' in first.lines
    assert matching.ask("y", SHOWN) is None and matching.ended() is first, "the first one stays"


def test_a_call_too_many_and_one_too_few_are_told() -> None:
    matching = of(call("a.0"))
    matching.ask("a", SHOWN)
    assert matching.ask("a", SHOWN) is None and matching.difference is not None
    assert "was not made in the recorded run" in matching.difference.sentence
    short = of(call("a.0"), call("b.0"))
    short.ask("a", SHOWN)
    ended = short.ended()
    assert ended is not None and "after 1 calls of 2" in ended.sentence


def test_what_the_journal_does_not_hold_is_said_and_a_long_difference_is_cut() -> None:
    matching = of(call("a.0", None))
    assert matching.ask("x", SHOWN) is None and matching.difference is not None
    assert "too large" in matching.difference.sentence and matching.difference.lines == []
    gone = of(call("a.0", answer=None))
    assert (
        gone.ask("a", SHOWN) is None
        and gone.difference is not None
        and "not there any more" in gone.difference.sentence
    )
    long = of(call("a.0"))
    long.ask("x", {"body": [str(n) for n in range(10_000)]})
    assert long.difference is not None and len(long.difference.lines) == LINES
    other = of(call("a.0"))
    other.unknown("POST /tools/x")
    assert other.difference is not None and "/tools/x" in other.difference.sentence


@pytest.mark.parametrize(
    "journal", [{}, {"calls": [{}]}, {"calls": [{**call("a.0"), "answer": {"status": "x"}}]}, {"calls": 3}]
)
def test_what_is_no_journal_is_refused(journal: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Matching.of(journal)
