"""What must be true after a point of the sweep, whatever was killed in it. Raises AssertionError."""

from __future__ import annotations

from crash.stream import Seen
from crash.sweep.points import Point, effect
from crash.sweep.rows import Row, Servers

OWN = (("q1",), ("e1",), ("q2", "e2", "e3"), ("q3",), ("e4",), ("q4", "q5"), ("e5",))
BY_MODEL = (("q1",), ("e1",), ("q2",), ("e2", "e3"), ("q3",), ("e4",), ("q4",), ("e5",), ("q5",))
"""What is under way together, by who says what comes next (`Row.by_model`)."""
REACH = 3
"""Stages that a gateway may carry something of, when it dies a moment after an answer of the first of them."""


def judge(servers: Servers, point: Point, run: str, seen: Seen) -> int:
    """The stream is whole, the turn completed, every effect there once, no question paid again that need not be. How many effects were
    told as unknown."""
    seen.check()
    assert seen.events[-1].type == "response.completed", seen.events[-1]
    done = [servers.effects.counts[f"{run}-{n}"] for n in range(1, 6)]
    assert done == [1] * 5, done
    unknown = _judge_unknown(servers, point, run)
    if point.row.by_model and len(point.blows) == 2 and unknown:
        # Told twice that an outcome is not known, it looks twice, by a function of its own that is in no journal: the second time it finds
        # what it did after the first. So its model is asked in another conversation, and answers anew.
        return unknown
    _judge_questions(servers, point, run)
    if point.mode == "same" or not point.row.by_model:
        _judge_answer(servers, point, run, seen)
    return unknown


def _judge_unknown(servers: Servers, point: Point, run: str) -> int:
    """An effect is told as unknown where its carrier died under it, and only there. Who is told so, looks."""
    looked = {n for n in range(1, 6) if servers.effects.looked[f"{run}-{n}"]}
    blow, row = point.blows[0], point.row
    if blow.victim == "valkey":
        assert not looked, looked
    elif blow.victim == "gateway":
        must = {effect(blow.event)} & row.over_mcp if blow.edge == "asked" else set()
        may = {effect(event) for event in _carried(point)} & row.over_mcp
        assert must <= looked <= may, (must, looked, may)
    elif not row.twice:
        lost = {effect(each.event) for each in point.blows if each.lost}
        assert looked & row.over_mcp <= lost, (looked, lost)
    return len(looked)


def _judge_questions(servers: Servers, point: Point, run: str) -> None:
    """Who asks the same is answered from the journal; where a gateway dies, what it carried may be asked again."""
    texts = [each["text"] for each in servers.models.asked if each["text"].startswith(f"{run} ")]
    gateway = point.blows[0].victim == "gateway"
    again = len(texts) - len(set(texts))
    assert again <= (_together(point) if gateway else 0), texts
    asked = sorted(text.split()[1] for text in texts if "." not in text.split()[1])
    if gateway or point.mode == "fresh":
        return
    if point.mode == "same":
        assert asked == [f"q{n}" for n in range(1, 6)], texts
    else:
        alone = [stage[0] for stage in stages(point.row) if len(stage) == 1 and stage[0].startswith("q")]
        assert [each for each in asked if each in alone] == alone, texts


def _judge_answer(servers: Servers, point: Point, run: str, seen: Seen) -> None:
    """The model's own counters stand in what the client was told."""
    messages = [item for item in seen.events[-1].response.output if item.type == "message"]
    last = messages[-1]
    assert last.status == "completed", messages
    lines = [line.strip() for line in last.content[0].text.splitlines()]
    did = [f"did {run}-{n}" for n in range(1, 6)]
    if point.mode != "same":
        assert [line for line in lines if line.startswith("did ")] == did, lines
        return
    answers = [[f"answer {n} to {run} q{k}" for n in servers.models.numbers(f"{run} q{k}")] for k in range(1, 6)]
    if point.row.by_model:
        order = [answers[4]]
    else:
        d = [[each] for each in did]
        order = [answers[0], d[0], answers[1], d[1], d[2], answers[2], d[3], answers[3], answers[4], d[4]]
    assert len(lines) == len(order) and all(line in may for line, may in zip(lines, order, strict=True)), (lines, order)
    if point.blows[0].victim != "gateway":
        assert len(messages) == 1, messages


def stages(row: Row) -> tuple[tuple[str, ...], ...]:
    """Events in the order in which they come, those together that are under way together."""
    return BY_MODEL if row.by_model else OWN


def _carried(point: Point) -> list[str]:
    """Events that may be under way when the first blow falls."""
    found, blow = stages(point.row), point.blows[0]
    at = next(n for n, stage in enumerate(found) if blow.event in stage)
    reach = 1 if blow.edge == "asked" else REACH
    return [event for stage in found[at : at + reach] for event in stage]


def _together(point: Point) -> int:
    """The most questions that were under way at once, then."""
    carried = _carried(point)
    return max(sum(event in carried and event.startswith("q") for event in stage) for stage in stages(point.row))
