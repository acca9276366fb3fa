"""`moorage.step` at a door: what it says there, and what it makes of each answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import moorage
from fakes.step_door import StepDoor, opened

pytestmark = pytest.mark.component


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[StepDoor]:
    with opened() as made:
        monkeypatch.setenv("MOORAGE_STEPS_URL", made.url)
        yield made


async def both(name: str, ran: list[Any], *args: Any) -> list[Any]:
    """The outcome of the plain and of the async way."""

    def plain(*given: Any) -> int:
        ran.append(given)
        return 7

    async def later(*given: Any) -> int:
        ran.append(given)
        return 7

    found: list[Any] = []
    for way in (lambda: asyncio.to_thread(moorage.step, name, plain, *args), lambda: moorage.step(name, later, *args)):
        try:
            found.append(await way())
        except moorage.MoorageError as fault:
            found.append(fault)
    return found


async def test_it_is_begun_run_and_its_result_told_before_it_is_returned(door: StepDoor) -> None:
    ran: list[Any] = []
    door.runs(2)
    assert await both("mail", ran, "ann", [1]) == [7, 7] and ran == [("ann", [1])] * 2
    begin = ("/steps/begin", {"name": "mail", "arguments": {"args": ["ann", [1]], "kwargs": {}}})
    assert door.said == [
        begin, ("/steps/end", {"step": "mark-0", "result": 7}), begin, ("/steps/end", {"step": "mark-1", "result": 7}),
    ]  # fmt: skip


async def test_a_recorded_outcome_is_had_without_running(door: StepDoor) -> None:
    ran: list[Any] = []
    for _ in range(2):
        door.begins({"state": "completed", "outcome": {"result": {"id": 3}}})
    assert await both("mail", ran) == [{"id": 3}] * 2
    for _ in range(2):
        door.begins({"state": "completed", "outcome": {"error": {"type": "ValueError", "message": "no"}}})
    for fault in await both("mail", ran):
        assert isinstance(fault, moorage.StepFailed) and (fault.type, fault.reason) == ("ValueError", "no")
    assert ran == [] and len(door.said) == 4


async def test_an_unknown_outcome_and_an_earlier_step_are_exceptions_to_act_on(door: StepDoor) -> None:
    ran: list[Any] = []
    for _ in range(2):
        door.begins({"state": "outcome_unknown"})
    for fault in await both("mail", ran):
        assert isinstance(fault, moorage.OutcomeUnknown) and fault.name == "mail" and "again" in fault.hint
    told: dict[str, Any] = {"state": "already_done_in_earlier_attempt"}
    earlier = {"name": "mail", "arguments": {"args": [1], "kwargs": {}}}
    for _ in range(2):
        door.begins(told | {"call": earlier, "outcome": {"result": 5}})
    for fault in await both("mail", ran, 2):
        assert isinstance(fault, moorage.AlreadyDone) and fault.known and fault.result == 5
        assert fault.arguments == earlier["arguments"] and fault.failure is None
    door.begins(told | {"call": None, "outcome": {"error": {"type": "E", "message": "m"}}})
    door.begins(told | {"call": None, "outcome": None})
    failed, unknown = await both("mail", ran, 2)
    assert isinstance(failed.failure, moorage.StepFailed) and failed.arguments is None
    assert not unknown.known and unknown.result is None
    assert ran == []


async def test_outside_of_a_turn_it_runs_and_tells_nothing(door: StepDoor) -> None:
    ran: list[Any] = []
    for value, status in (({"state": "free"}, 200), ({"error": {"code": "unbound", "message": "…"}}, 503)):
        for _ in range(2):
            door.begins(value, status)
        assert await both("mail", ran) == [7, 7]
    assert len(ran) == 4 and all(path == "/steps/begin" for path, _ in door.said)


async def test_a_failure_is_told_and_raised(door: StepDoor) -> None:
    def fails() -> None:
        raise OSError("full")

    door.runs()
    with pytest.raises(moorage.StepFailed) as caught:
        moorage.step("save", fails)
    assert isinstance(caught.value.__cause__, OSError)
    assert door.said[1] == ("/steps/end", {"step": "mark-0", "error": {"type": "OSError", "message": "full"}})


async def test_a_refusal_and_a_door_that_breaks_are_told_before_or_after_it_ran(door: StepDoor) -> None:
    ran: list[Any] = []
    for _ in range(2):
        door.begins({"error": {"message": "as many calls as one may", "code": "journal_full"}}, 429)
    for fault in await both("mail", ran):
        assert isinstance(fault, moorage.ApiStatusError) and fault.code == "journal_full"
    for fault in await both("mail", ran):
        assert isinstance(fault, moorage.ConnectionLost) and "did not run" in fault.message
    assert ran == []
    for _ in range(2):
        door.begins({"state": "run", "step": "m"})
    for fault in await both("mail", ran):
        assert isinstance(fault, moorage.ConnectionLost) and "has run" in fault.message
    assert len(ran) == 2


async def test_arguments_count_where_they_are_json(door: StepDoor) -> None:
    door.runs(3)
    for argument in (object(), "x" * 100_000, {2: (1,)}):
        moorage.step("mail", lambda _: None, argument)
    told = [body["arguments"] for path, body in door.said if path == "/steps/begin"]
    assert told[0] is None and len(told[1]["sha256"]) == 64 and told[2] == {"args": [{"2": [1]}], "kwargs": {}}


async def test_a_step_that_is_cancelled_as_it_is_recorded_is_recorded(door: StepDoor) -> None:
    door.runs()
    door.held["/steps/end"] = threading.Event()

    async def quick() -> int:
        return 1

    task = asyncio.ensure_future(moorage.step("mail", quick))
    async with asyncio.timeout(10):
        while len(door.said) < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    door.held["/steps/end"].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.answers["/steps/end"] == [], "its outcome was told, and taken"


async def test_a_step_that_is_cancelled_as_it_runs_tells_nothing(door: StepDoor) -> None:
    door.runs()
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(moorage.step("mail", slow))
    await asyncio.wait_for(started.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path for path, _ in door.said] == ["/steps/begin"]
