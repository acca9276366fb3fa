"""What a shim does with attempts, against a scripted agent process (turns.md §3)."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.shim_world import DONE, FAST, World, until
from moorage_api.wire.shim import End, Source

pytestmark = pytest.mark.component


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as made:
        assert await made.bind() == (200, {"bound": True, "epoch": 1})
        yield made


def text(number: int) -> list:
    return ["event", {"type": "response.output_text.delta", "delta": str(number)}]


async def test_a_turn_comes_through_event_by_event(world):
    stream = await world.start([text(1), text(2), ["event", DONE]])
    assert await stream.acknowledged() == 10
    assert await stream.source() == (1, text(1)[1])
    numbers, end = await stream.rest()
    assert (numbers, end) == ([2, 3], End("done"))


async def test_the_agent_is_told_of_its_turn_and_nothing_it_must_not_know(world):
    headers = {"traceparent": "00-1", "x-client-a": "b", "x-moorage-secret": "z", "authorization": "no", "cookie": "no"}
    history = [{"type": "message"}]
    stream = await world.start([["echo", "seen"], ["event", DONE]], headers=headers, history=history, attempt=2)
    await stream.acknowledged()
    _, event = await stream.source()
    seen = dict(event["headers"])
    assert seen["x-agent-response-id"] == seen["x-moorage-turn"] == "caresp_1"
    assert (seen["x-agent-user-id"], seen["x-moorage-session"]) == ("ada", "session-1234")
    assert (seen["x-moorage-attempt"], seen["x-moorage-epoch"]) == ("2", "1")
    assert (seen["traceparent"], seen["x-client-a"]) == ("00-1", "b")
    assert not {"x-moorage-secret", "authorization", "cookie"} & set(seen)
    assert event["body"]["stream"] is True
    assert "model" not in event["body"]
    assert event["body"]["moorage"] == {"history": history, "attempt": 2}
    await stream.rest()


async def test_an_agent_killed_mid_stream_ends_the_attempt_with_signal_and_last_words(world):
    stream = await world.start([text(1), ["print", "last words"], ["kill"]])
    await stream.acknowledged()
    await stream.source()
    end = await stream.next()
    assert isinstance(end, End)
    assert (end.kind, end.signal) == ("exit", 9)
    assert end.log_tail[-1] == "last words"


async def test_an_agent_that_exits_tells_its_status(world):
    numbers, end = await skip(await world.start([text(1), ["exit", 7]]))
    assert (numbers, end.kind, end.status) == ([1], "exit", 7)


async def test_a_kill_for_memory_is_told_apart(world):
    world.init.next_exit_is_oom = True
    _, end = await skip(await world.start([text(1), ["kill"]]))
    assert end.kind == "oom"


async def skip(stream):
    await stream.acknowledged()
    return await stream.rest()


@pytest.mark.parametrize("last", [["raw", ": bye\n\n"], ["close"]], ids=["in good order", "broken off"])
async def test_a_stream_without_terminal_event_is_cut(world, last):
    numbers, end = await skip(await world.start([text(1), last]))
    assert (numbers, end.kind) == ([1], "cut")


async def test_a_refusal_of_the_agent_is_handed_on(world):
    numbers, end = await skip(await world.start([["http", 422, "no such thing"]]))
    assert (numbers, end.kind, end.status, end.body) == ([], "http", 422, "no such thing")


@pytest.mark.parametrize(
    ("status", "event", "kind"),
    [
        ("completed", "response.completed", "done"),
        ("failed", "response.failed", "done"),
        ("cancelled", "response.failed", "done"),
        ("incomplete", "response.incomplete", "done"),
        ("in_progress", None, "cut"),
    ],
)
async def test_a_plain_json_answer_becomes_one_event(world, status, event, kind):
    stream = await world.start([["json", {"id": "r", "status": status}]])
    await stream.acknowledged()
    if event is not None:
        assert await stream.source() == (1, {"type": event, "response": {"id": "r", "status": status}})
    assert (await stream.rest())[1].kind == kind


async def test_an_agent_that_is_never_done_ends_at_the_deadline(world):
    _, end = await skip(await world.start([text(1), ["wait", world.gate("never")]], deadline=0.3))
    assert end.kind == "hang"


async def test_an_event_over_the_limit_ends_the_attempt(world):
    numbers, end = await skip(await world.start([text(1), ["big", 9_000_000], ["event", DONE]]))
    assert (numbers, end.kind) == ([1], "cut")
    assert "longer than" in end.detail


async def test_what_is_no_json_is_passed_over(world):
    script = [["raw", ': hi\ndata: nonsense\n\ndata: [1]\n\ndata: [DONE]\n\ndata: {"type":\r\ndata: "x"}\r\n\r\n']]
    stream = await world.start([*script, ["event", DONE]])
    await stream.acknowledged()
    assert await stream.source() == (1, {"type": "x"})
    assert (await stream.rest())[1].kind == "done"


# -- owners


async def test_a_new_owner_goes_on_exactly_where_it_says(world):
    first = await world.start([text(1), text(2), text(3), ["wait", world.gate("a")], text(4), ["event", DONE]])
    await first.acknowledged()
    for _ in range(2):
        await first.source()
    await first.leave()
    second = await world.attach(2)
    assert await second.acknowledged() == 10
    assert (await second.source())[0] == 3
    world.pass_gate("a")
    numbers, end = await second.rest()
    assert (numbers, end.kind) == ([4, 5], "done")


async def test_the_former_owner_is_told_and_gets_nothing_more(world):
    first = await world.start([text(1), ["wait", world.gate("a")], text(2), ["event", DONE]])
    await first.acknowledged()
    await first.source()
    second = await world.attach(0)
    assert (await first.rest()) == ([], End("superseded", "another gateway owns the turn"))
    world.pass_gate("a")
    await second.acknowledged()
    assert (await second.rest())[0] == [1, 2, 3]


async def test_an_ended_attempt_can_still_be_read(world):
    await skip(await world.start([text(1), ["event", DONE]]))
    numbers, end = await skip(await world.attach(1))
    assert (numbers, end.kind) == ([2], "done")


@pytest.mark.parametrize(
    "change", [{"begun": 9}, {"src": 7}, {"turn": "caresp_2"}], ids=["other attempt", "a later src", "other turn"]
)
async def test_an_attach_to_what_is_not_there_is_unknown(world, change):
    stream = await world.start([text(1), ["event", DONE]])
    await skip(stream)
    status, answer = await world.call("attach", **{"turn": "caresp_1", "fence": 11, "begun": 10, "src": 0, **change})
    assert (status, answer["error"]) == (404, "unknown")


async def test_a_start_of_the_attempt_it_runs_attaches_from_the_beginning(world):
    script = [["echo", "pid"], ["wait", world.gate("a")], ["event", DONE]]
    first = await world.start(script)
    await first.acknowledged()
    _, one = await first.source()
    second = await world.start(script)
    await second.acknowledged()
    assert (await first.rest())[1].kind == "superseded"
    assert (await second.source())[1]["pid"] == one["pid"]
    world.pass_gate("a")
    assert await second.rest() == ([2], End("done"))


async def test_two_starts_at_once_run_one_attempt(world):
    script = [["print", "ran"], ["event", DONE]]
    streams = await asyncio.gather(*(world.start(script) for _ in range(4)))
    ends = [(await skip(stream))[1].kind for stream in streams]
    assert sorted(ends) == ["done", "superseded", "superseded", "superseded"]
    assert (await world.status_page())["log_tail"].count("ran") == 1


@pytest.mark.parametrize("path", ["start", "attach", "stop"])
async def test_a_lower_fence_is_refused(world, path):
    await skip(await world.start([["event", DONE]], fence=20))
    body = {
        "start": world.start_body([], fence=19),
        "attach": {"turn": "caresp_1", "fence": 19, "begun": 20, "src": 0},
        "stop": {"turn": "caresp_1", "fence": 19},
    }[path]
    status, answer = await world.call(path, **body)
    assert (status, answer["error"]) == (409, "fenced")


async def test_an_attach_bars_the_former_owners_fence(world):
    first = await world.start([["wait", world.gate("a")], ["event", DONE]])
    await first.acknowledged()
    second = await world.attach(0, fence=11)
    status, answer = await world.call("start", **world.start_body([], fence=10))
    assert (status, answer["error"]) == (409, "fenced")
    world.pass_gate("a")
    assert (await skip(second))[1].kind == "done"


async def test_an_attempt_without_owner_ends_after_its_time(tmp_path):
    async with World(tmp_path, limits=replace(FAST, silence=1e9)) as world:
        await world.bind()
        stream = await world.start([text(1), ["wait", world.gate("never")]])
        await stream.acknowledged()
        await stream.source()
        await stream.leave()
        await world.until_status(owned=False)
        world.clock.ahead = 119
        announced = len(world.gateway.heard) + 2
        await until(lambda: len(world.gateway.heard) > announced)  # ten looks at the clock
        assert world.gateway.heard[-1]["turn"] == "caresp_1"
        world.clock.ahead = 121
        await until(lambda: "killall" in world.init.calls)
        numbers, end = await skip(await world.attach(0))
        assert (numbers, end.kind) == ([1], "orphaned")


async def test_a_silent_stream_shows_signs_of_life(tmp_path):
    async with World(tmp_path, limits=replace(FAST, keepalive=0.02)) as world:
        await world.bind()
        stream = await world.start([["wait", world.gate("a")], ["event", DONE]])
        await stream.acknowledged()
        for _ in range(3):
            assert await stream.response.next_chunk(idle=2) == b".\n"
        world.pass_gate("a")
        assert (await stream.rest())[1].kind == "done"


# -- processes


async def test_a_clean_end_keeps_the_process_for_the_next_turn(world):
    pids = []
    for fence in (10, 20):
        stream = await world.start([["echo", "pid"], ["event", DONE]], fence=fence)
        await stream.acknowledged()
        pids.append((await stream.source())[1]["pid"])
        await stream.rest()
    assert pids[0] == pids[1]
    assert "killall" not in world.init.calls


async def test_a_later_attempt_begins_when_every_process_of_the_earlier_is_dead(world):
    child = world.gate("child")
    stream = await world.start([["child", child], ["echo", "pid"], ["wait", world.gate("never")]])
    await stream.acknowledged()
    _, event = await stream.source()
    old = {event["pid"], int(Path(child).read_text())}
    assert old <= set(world.init.alive())
    later = await world.start([["echo", "pid"], ["event", DONE]], fence=20, attempt=2)
    assert (await stream.rest())[1].kind == "stopped"
    assert await later.acknowledged() == 20
    assert not old & set(world.init.alive())
    assert (await later.source())[1]["pid"] not in old
    assert world.init.calls.index("killall") < len(world.init.calls) - world.init.calls[::-1].index("spawn") - 1
    await later.rest()


async def test_no_attempt_begins_while_a_process_will_not_die(world):
    stream = await world.start([text(1), ["wait", world.gate("never")]])
    await stream.acknowledged()
    world.init.unkillable = 1
    status, answer = await world.call("start", **world.start_body([["event", DONE]], fence=20))
    assert (status, answer["error"]) == (503, "not_ready")
    assert "could not be killed" in answer["detail"]
    world.init.unkillable = 0
    assert (await skip(await world.start([["event", DONE]], fence=21)))[1].kind == "done"


async def test_the_children_of_a_dead_agent_are_killed_before_the_next_attempt(world):
    child = world.gate("child")
    _, end = await skip(await world.start([["child", child], text(1), ["exit", 1]]))
    assert end.kind == "exit"
    await skip(await world.start([["event", DONE]], fence=20))
    assert int(Path(child).read_text()) not in world.init.alive()


async def test_stop_closes_the_request_and_leaves_no_process_alive(world):
    stream = await world.start([["echo", "pid"], ["wait", world.gate("never")]])
    await stream.acknowledged()
    pid = (await stream.source())[1]["pid"]
    assert await world.call("stop", turn="caresp_1", fence=10, grace=2) == (200, {"stopped": True})
    assert pid not in world.init.alive()
    assert (await stream.rest())[1].kind == "stopped"


async def test_after_stop_the_same_fence_begins_nothing(world):
    assert (await world.call("stop", turn="caresp_1", fence=10))[0] == 200
    status, answer = await world.call("start", **world.start_body([], fence=10))
    assert (status, answer["error"]) == (409, "fenced")


async def test_stop_of_another_turn_leaves_the_running_one(world):
    stream = await world.start([["wait", world.gate("a")], ["event", DONE]])
    await stream.acknowledged()
    assert (await world.call("stop", turn="caresp_0", fence=10))[0] == 200
    world.pass_gate("a")
    assert (await stream.rest())[1].kind == "done"


async def test_an_agent_that_dies_at_start_up_is_not_ready_and_says_why(tmp_path):
    world = World(tmp_path)
    world.env["DIE_AT_START"] = "4"
    async with world:
        news = await until(lambda: [each for each in world.status() if each["op"] == "failed"])
        assert "status 4" in news[0]["detail"]
        assert news[0]["log_tail"] == ["cannot start"]
        assert await world.task == 3


async def test_an_agent_that_never_says_ready_is_given_up(tmp_path):
    world = World(tmp_path, ready_timeout=3)
    world.env["NOT_READY"] = "1"
    async with world:
        news = await until(lambda: [each for each in world.status() if each["op"] == "failed"])
        assert "/readiness answered 503" in news[0]["detail"]


async def test_output_lands_in_the_log_with_its_session(world):
    await skip(await world.start([["print", "hello\nworld"], ["event", DONE]]))

    def lines():
        with open(world.config.log_file) as file:
            return [each for each in map(json.loads, file) if each["stream"] == "stdout"]

    await until(lambda: len(lines()) == 2)
    line = lines()[1]
    assert (line["line"], line["session"], line["sandbox"]) == ("world", "session-1234", "sb-1")


# -- back-pressure


async def test_without_owner_the_agent_is_read_up_to_the_buffers_size_and_no_further(tmp_path):
    floods = [step for part in range(40) for step in (["flood", 50, 16_000], ["print", f"part {part}"])]
    async with World(tmp_path, limits=replace(FAST, buffer=300_000, window=100_000)) as world:
        await world.bind()
        stream = await world.start([text(1), ["wait", world.gate("a")], *floods, ["event", DONE]])
        await stream.acknowledged()
        await stream.source()
        await stream.leave()
        await world.until_status(owned=False)
        world.pass_gate("a")
        seen, last = None, []
        while seen != last or not last:  # until the agent stands still
            seen, last = last, (await world.status_page())["log_tail"]
            await asyncio.sleep(0.3)
        assert "part 39" not in last
        again = await world.attach(1)
        await again.acknowledged()
        numbers, end = await again.rest()
        assert (numbers, end.kind) == (list(range(2, 2003)), "done")


async def test_a_slow_owner_gets_everything_in_order(world):
    stream = await world.start([["flood", 300, 20_000], ["event", DONE]])
    await stream.acknowledged()
    for number in range(1, 4):
        frame = await stream.next()
        assert isinstance(frame, Source)
        assert frame.src == number
        await asyncio.sleep(0.02)
    assert (await stream.rest())[0] == list(range(4, 302))
