"""A later attempt against the log: what was seen stays true, nothing is said twice, what differs follows in new items."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_gateway.turns import items
from moorage_gateway.turns.normalise import Normaliser
from unit.turns_normalise.streams import (
    TEMPLATE,
    Event,
    Turn,
    began,
    call,
    check_stream,
    completed,
    kinds,
    message,
    texts,
)

pytestmark = pytest.mark.unit

HELLO = "hello wonderful world"
CLOSED = ["output_text.done", "content_part.done", "output_item.done"]
NEW = ["output_item.added", "content_part.added", "output_text.delta"]


def two(first: list[Event], second: list[Event], *, keep: int | None = None) -> tuple[Turn, list[Event]]:
    """A first attempt cut off, then a second to its end; returns the turn and what the second added to the log."""
    turn = Turn()
    turn.attempt(first, keep=keep)
    start = len(turn.log)
    turn.attempt([*began(), *second, completed()])
    turn.finish()
    check_stream(turn.log)
    return turn, turn.log[start:-1]


def output(turn: Turn) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = turn.log[-1]["response"]["output"]
    return made


@pytest.mark.parametrize("cut", range(2, 13))
@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 99])
def test_the_same_answer_in_any_chunks_repeats_no_character(cut: int, chunk: int) -> None:
    first = [*began(), *message(HELLO, chunk=4)]
    turn, _ = two(first[:cut], message(HELLO, chunk=chunk))
    assert texts(output(turn)) == [("completed", HELLO)]
    said = "".join(e["delta"] for e in turn.log if e["type"] == "response.output_text.delta")
    assert said == HELLO


@pytest.mark.parametrize("keep", range(0, 16))
def test_a_log_that_stops_between_any_two_events_is_gone_on_from(keep: int) -> None:
    turn, _ = two([*began(), *message("abc def", "ghi")], message("abc def", "ghi", chunk=2), keep=keep)
    assert [part["text"] for part in output(turn)[0]["content"]] == ["abc def", "ghi"]
    assert len(output(turn)) == 1


def test_a_complete_item_that_is_the_same_again_is_not_said_again() -> None:
    turn, added = two(message("one"), [*message("one", chunk=1), *message("two", source_id="m2", index=1)])
    assert kinds(added) == [*NEW, *CLOSED]
    assert texts(output(turn)) == [("completed", "one"), ("completed", "two")]


def test_a_difference_closes_the_open_item_and_tells_the_new_one_whole() -> None:
    turn, added = two(message(HELLO)[:5], message("hello wicked world", chunk=9))
    assert kinds(added) == [*CLOSED, *NEW, "output_text.delta", *CLOSED]
    assert texts(output(turn)) == [("incomplete", "hello wonder"), ("completed", "hello wicked world")]
    assert next(e for e in added if e["type"].endswith("item.added"))["supersedes"] == [0]


def test_an_early_end_closes_the_open_item_and_tells_the_new_one_whole() -> None:
    turn, added = two(message(HELLO)[:5], message("hello", chunk=9))
    assert kinds(added) == [*CLOSED, *NEW, *CLOSED]
    assert texts(output(turn)) == [("incomplete", "hello wonder"), ("completed", "hello")]


def test_an_end_without_done_events_counts_as_an_early_end() -> None:
    turn, _ = two(message(HELLO)[:5], message("hello")[:4])
    assert texts(output(turn)) == [("incomplete", "hello wonder"), ("completed", "hello")]


def test_a_complete_item_that_is_contradicted_stays_and_the_new_one_follows() -> None:
    turn, added = two(message("hello"), message("help"))
    assert kinds(added) == [*NEW, *CLOSED]
    assert texts(output(turn)) == [("completed", "hello"), ("completed", "help")]


def test_a_complete_item_that_grows_is_told_whole_anew() -> None:
    turn, _ = two(message("hello"), message("hello again"))
    assert texts(output(turn)) == [("completed", "hello"), ("completed", "hello again")]


def test_after_a_difference_every_later_item_is_new() -> None:
    first = [*message("a"), *message("b", source_id="m2", index=1), *message("cc", source_id="m3", index=2)[:3]]
    second = [*message("A"), *message("b", source_id="m2", index=1), *message("cc", source_id="m3", index=2)]
    turn, _ = two(first, second)
    assert texts(output(turn)) == [
        ("completed", "a"),
        ("completed", "b"),
        ("incomplete", "cc"),
        ("completed", "A"),
        ("completed", "b"),
        ("completed", "cc"),
    ]


def test_an_attempt_that_ends_sooner_leaves_the_rest_incomplete() -> None:
    turn, _ = two([*message("a"), *message("b", source_id="m2", index=1)[:3]], message("a"))
    assert texts(output(turn)) == [("completed", "a"), ("incomplete", "b")]


def test_an_attempt_that_fails_midway_repeats_nothing() -> None:
    turn = Turn()
    turn.attempt(message("hello world"))
    failure: Event = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}}
    turn.attempt([*message("hello world")[:4], failure])
    turn.finish()
    check_stream(turn.log)
    assert texts(output(turn)) == [("completed", "hello world")]


CALL = call('{"q": 1}')  # added, two deltas, arguments done, done


@pytest.mark.parametrize(
    ("again", "differs_from"),
    [
        (call('{"q": 1}', chunk=1), None),
        (call('{"q": 1}', source_id="other", chunk=2), None),
        (call('{"q": 2}'), 3),
        (call('{"q": 1}', name="find"), 1),
        (call('{"q": 1}', call_id="c9"), 1),
        (message('{"q": 1}'), 1),
    ],
    ids=["re-chunked", "another item id", "arguments", "name", "call_id", "type"],
)
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_call_is_the_same_only_with_equal_type_name_call_id_and_arguments(
    again: list[Event], differs_from: int | None, cut: int
) -> None:
    turn, _ = two(CALL[:cut], again)
    differs = differs_from is not None and cut >= differs_from
    assert len(output(turn)) == (2 if differs else 1)
    assert output(turn)[0]["status"] == ("incomplete" if differs and cut < 5 else "completed")


def test_a_call_that_differs_under_its_old_call_id_gets_another_and_its_output_follows() -> None:
    result = {"type": "function_call_output", "id": "o", "call_id": "c1", "output": "42"}
    done = {"type": "response.output_item.done", "output_index": 1, "item": result}
    turn, _ = two([*CALL, done], [*call('{"q": 2}'), done])
    assert [item["call_id"] for item in output(turn)] == ["c1", "c1", "c1_2", "c1_2"]
    turn.log.pop()
    turn.attempt([*call('{"q": 2}', chunk=1), done, completed()])
    turn.finish()
    check_stream(turn.log)
    assert len(output(turn)) == 4


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [("output", "43", False), ("output", "42", True), ("error", None, True), ("created_by", "x", True)],
)
def test_other_fields_of_a_complete_item_are_compared_when_they_carry_meaning(
    field: str, value: Any, same: bool
) -> None:
    item = {"type": "mcp_call", "id": "m", "name": "n", "server_label": "s", "arguments": "{}", "output": "42"}
    done = {"type": "response.output_item.done", "output_index": 0}
    turn, _ = two([{**done, "item": item}], [{**done, "item": {**item, field: value}}])
    assert len(output(turn)) == (1 if same else 2)


def test_an_item_cut_off_is_never_taken_for_a_whole_one() -> None:
    cut = message("hello")
    cut[-1]["item"]["status"] = "incomplete"
    turn, _ = two(cut, message("hello"))
    assert texts(output(turn)) == [("incomplete", "hello"), ("completed", "hello")]


def test_fewer_parts_than_the_log_has_are_a_difference() -> None:
    turn, _ = two(message("a", "b")[:7], message("a"))
    assert [item["status"] for item in output(turn)] == ["incomplete", "completed"]


def test_more_parts_than_the_log_has_go_on() -> None:
    turn, _ = two(message("a", "b")[:5], message("a", "b", "c"))
    assert [part["text"] for part in output(turn)[0]["content"]] == ["a", "b", "c"]


def test_a_contradiction_in_a_later_part_tells_the_earlier_ones_again() -> None:
    turn, _ = two(message("first", "second")[:9], message("first", "third"))
    assert [[p["text"] for p in item["content"]] for item in output(turn)] == [["first", "second"], ["first", "third"]]


def test_a_difference_in_one_of_two_items_at_once_leaves_the_other_in_peace() -> None:
    def at_once(one: str, other: str) -> list[Event]:
        pair = zip(message(one, index=0), message(other, source_id="m2", index=1), strict=True)
        return [event for both in pair for event in both]

    first = at_once("aaaa bbbb", "cccc dddd")
    turn, _ = two(first[:8], at_once("aaaa xxxx", "cccc dddd"))
    told = [("incomplete", "aaaa bbb"), ("completed", "cccc dddd"), ("completed", "aaaa xxxx")]
    assert texts(output(turn)) == told
    turn.log.pop()
    turn.attempt([*at_once("aaaa xxxx", "cccc dddd"), completed()])
    turn.finish()
    check_stream(turn.log)
    assert texts(output(turn)) == told


def test_the_next_attempt_is_compared_with_the_newest_telling() -> None:
    turn = Turn()
    turn.attempt(message("one two")[:3])
    turn.attempt([*message("uno due"), *message("tre", source_id="m2", index=1)[:3]])
    start = len(turn.log)
    turn.attempt([*message("uno due", chunk=1), *message("tre quattro", source_id="m2", index=1), completed()])
    turn.finish()
    check_stream(turn.log)
    assert "output_item.added" not in kinds(turn.log[start:])
    assert texts(output(turn)) == [("incomplete", "one "), ("completed", "uno due"), ("completed", "tre quattro")]


def test_items_of_an_abandoned_telling_are_never_matched_again() -> None:
    turn = Turn()
    turn.attempt([*message("a"), *message("b", source_id="m2", index=1)])
    turn.attempt(message("A"))
    turn.attempt([*message("A"), *message("b", source_id="m2", index=1), completed()])
    turn.finish()
    check_stream(turn.log)
    assert [text for _, text in texts(output(turn))] == ["a", "b", "A", "b"]


def test_interruptions_in_a_row_add_nothing_when_nothing_is_new() -> None:
    turn = Turn()
    turn.attempt(message(HELLO)[:5])
    length = len(turn.log)
    for chunk in (1, 2, 3, 7):
        assert (turn.attempt([*began(), *message(HELLO, chunk=chunk)[:4]]) == []) == (chunk < 7)
        assert turn.last is not None and turn.last.progressed == (len(turn.log) > length)
    turn.run([*message(HELLO), completed()])
    assert texts(output(turn)) == [("completed", HELLO)]


def test_progress_is_what_is_new_to_the_log() -> None:
    turn = Turn()
    turn.attempt(began())
    assert turn.last is not None and not turn.last.progressed
    turn.attempt(message("hello")[:3])
    assert turn.last.progressed
    turn.attempt(message("hello")[:3])
    assert not turn.last.progressed
    turn.attempt(message("hello")[:4])
    assert turn.last.progressed


def note(step: int, **more: Any) -> Event:
    return {"type": "acme:note", "step": step, **more}


def test_custom_events_the_log_has_are_held_back_and_others_follow() -> None:
    _, added = two([note(1), note(2), note(3)], [note(1), note(2), note(9), note(4)])
    assert [e["step"] for e in added] == [9, 4]


def test_custom_texts_are_compared_as_text() -> None:
    def words(*pieces: str) -> list[Event]:
        return [{"type": "response.audio.transcript.delta", "delta": piece} for piece in pieces]

    _, added = two(words("hel", "lo w"), words("h", "ello", " worl", "d"))
    assert [e["delta"] for e in added] == ["orl", "d"]


def test_progress_events_of_an_item_are_held_back_by_order() -> None:
    search = {"type": "web_search_call", "id": "w", "action": {"type": "search", "query": "q"}}
    at = {"item_id": "w", "output_index": 0}
    sources: list[Event] = [
        {"type": "response.output_item.added", "output_index": 0, "item": search},
        {"type": "response.web_search_call.in_progress", **at},
        {"type": "response.web_search_call.searching", **at},
        {"type": "response.web_search_call.completed", **at},
        {"type": "response.output_item.done", "output_index": 0, "item": search},
    ]
    for cut in range(1, 6):
        turn, added = two(sources[:cut], sources)
        assert kinds(turn.log[2:-1]) == kinds(sources)
        assert len(added) == 5 - cut


def test_a_shell_command_in_other_chunks_repeats_nothing_and_a_different_one_parts() -> None:
    def shell(*pieces: str) -> list[Event]:
        item = {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": ["".join(pieces)]}}
        at = {"output_index": 0, "command_index": 0}
        return [
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "action": {"commands": []}}},
            {"type": "response.shell_call_command.added", **at, "command": ""},
            *({"type": "response.shell_call_command.delta", **at, "delta": piece} for piece in pieces),
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]

    turn, added = two(shell("ls ", "-la")[:3], shell("l", "s -", "la"))
    assert [e["delta"] for e in added if "delta" in e] == ["-", "la"]
    turn, added = two(shell("ls ", "-la")[:3], shell("rm ", "-rf"))
    assert [e["delta"] for e in added if "delta" in e] == ["rm ", "-rf"]
    assert [item["status"] for item in output(turn)] == ["incomplete", "completed"]


def test_annotations_the_log_has_stand_and_later_ones_follow() -> None:
    at = {"item_id": "m1", "output_index": 0, "content_index": 0}

    def cite(name: str) -> Event:
        return {
            "type": "response.output_text.annotation.added",
            **at,
            "annotation": {"type": "file_path", "file_id": name},
        }

    body = message("hello")
    turn, added = two([*body[:3], cite("a")], [*body[:4], cite("a2"), cite("b"), *body[4:]])
    marks = output(turn)[0]["content"][0]["annotations"]
    assert [mark["file_id"] for mark in marks] == ["a", "b"]


def test_a_new_owner_that_feeds_the_attempt_from_its_start_gets_the_same_events() -> None:
    turn = Turn()
    turn.attempt(message("hello world")[:4])
    baseline = list(turn.log)
    second = [*began(), *message("help me", "please"), *call("{}", source_id="f", index=1)]
    made = turn.attempt(second[:9])
    owner = Normaliser(TEMPLATE, baseline, continues=True)
    again = [event for source in second for event in owner.feed(source)]
    assert again[: len(made)] == made
    turn.log += [event for event in again if event["sequence_number"] >= len(turn.log)]
    turn.last = owner
    owner.feed(completed())
    turn.finish()
    check_stream(turn.log)


def test_a_wrong_word_about_what_went_before_repeats_nothing() -> None:
    turn = Turn()
    turn.attempt(message("hello")[:3])
    normaliser = Normaliser(TEMPLATE, turn.log, continues=False)
    assert [event for source in message("hello")[:3] for event in normaliser.feed(source)] == []


def test_ids_are_the_same_in_every_attempt() -> None:
    turn, _ = two([], message("hello", source_id="never-the-same"))
    assert output(turn)[0]["id"] == items.item_id(TEMPLATE.response_id, 0, "message")
