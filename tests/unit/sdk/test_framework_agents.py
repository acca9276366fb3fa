"""Frameworks' agents: told by what they have, their history from items, their state from turn to turn, their contents as events.

The frameworks themselves run in `journey/test_frameworks.py`; here stand objects with the attributes that the adapters look at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moorage import Context, TextDelta, ToolCall, ToolResult, Usage
from moorage.adapters import adapt, chat, graph_state
from moorage.adapters.agent_framework import AgentFrameworkAdapter
from moorage.adapters.agent_framework import _Telling as AgentTelling
from moorage.adapters.carried import KEPT, LIMIT, Carried
from moorage.adapters.factory import FactoryAdapter
from moorage.adapters.function import FunctionAdapter
from moorage.adapters.langgraph import LangGraphAdapter
from moorage.adapters.langgraph import _Telling as GraphTelling

pytestmark = pytest.mark.unit


class Agent:
    def run(self, messages: object = None, *, stream: bool = False, session: object = None) -> object: ...


class Workflow:
    def run(self, message: object = None, *, stream: bool = False) -> object: ...
    def as_agent(self) -> object: ...


class Graph:
    channels = {"messages": None}
    nodes: dict[str, Any] = {}

    def astream(self) -> object: ...
    def aget_state(self) -> object: ...
    def get_subgraphs(self, *, recurse: bool) -> list[Any]:
        return []


class Builder:
    def compile(self) -> object: ...
    def add_node(self) -> object: ...
    def add_edge(self) -> object: ...


class Wordless(Graph):
    channels = {"topic": None}


@pytest.mark.parametrize(
    ("agent", "adapter"),
    [
        (Agent(), AgentFrameworkAdapter),
        (Graph(), LangGraphAdapter),
        (lambda: Agent(), FactoryAdapter),
        (lambda items, ctx: "", FunctionAdapter),
        (lambda *given: "", FunctionAdapter),
    ],
)
def test_what_an_agent_is_is_told_by_what_it_has(agent: object, adapter: type) -> None:
    assert type(adapt(agent)) is adapter


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        (Builder(), "not compiled: give what its .compile() returns"),
        (Workflow(), "give what its .as_agent() returns"),
        (Wordless(), "no `messages`"),
        (3, "a compiled LangGraph graph"),
    ],
)
def test_what_cannot_run_is_refused_with_what_would(agent: object, says: str) -> None:
    with pytest.raises(TypeError, match=says.replace("(", r"\(").replace(")", r"\)")):
        adapt(agent)


async def test_a_function_that_makes_no_agent_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="gave a int; give a function agent"):
        async for _ in adapt(lambda: 3).run([], "s", context(tmp_path, "r1")):
            pass


def test_items_become_messages() -> None:
    items = [
        {"type": "message", "role": "developer", "content": "Be brief"},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "data:x"}],
        },
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
    ]
    assert chat.messages(items, strict=True) == [
        chat.Said("system", (chat.Part("text", text="Be brief"),)),
        chat.Said("user", (chat.Part("text", text="Look"), chat.Part("image", url="data:x"))),
        chat.Called("c1", "add", '{"a":1}'),
        chat.Returned("c1", "one"),
    ]


def test_input_that_no_framework_could_be_told_is_refused_and_history_is_not() -> None:
    for items in ([{"type": "computer_call"}], [{"role": "user", "content": [{"type": "input_audio"}]}]):
        with pytest.raises(ValueError, match="means nothing to this agent"):
            chat.messages(items, strict=True)
    assert chat.messages([{"type": "computer_call"}], strict=False) == []


def test_calls_without_results_and_results_without_calls_are_left_out_of_history() -> None:
    asked, answered, late = chat.Called("a", "f", "{}"), chat.Returned("a", "1"), chat.Returned("b", "2")
    assert chat.settled([asked, answered, late, chat.Called("c", "f", "{}")]) == [asked, answered]


def context(workspace: Path, response: str, previous: str | None = None) -> Context:
    request = {"previous_response_id": previous} if previous else {}
    return Context(session="s", workspace=workspace, response_id=response, request=request)


def test_every_attempt_starts_from_what_the_first_found_and_branches_have_states_of_their_own(tmp_path: Path) -> None:
    assert Carried(context(tmp_path, "r1"), "f").load() is None
    Carried(context(tmp_path, "r1"), "f").save({"n": 1})
    for _ in range(2):
        again = Carried(context(tmp_path, "r2", "r1"), "f")
        assert again.load() == {"n": 1}
        again.save({"n": 2})
    assert Carried(context(tmp_path, "r3", "r1"), "f").load() == {"n": 1}
    assert Carried(context(tmp_path, "r3", "r2"), "f").load() == {"n": 2}
    assert Carried(context(tmp_path, "r3", "r2"), "other").load() is None


def test_a_broken_state_is_none_and_states_are_bounded(tmp_path: Path) -> None:
    carried = Carried(context(tmp_path, "r1"), "f")
    carried.save({})
    (one,) = (tmp_path / ".moorage" / "f").iterdir()
    one.write_bytes(b"{")
    assert Carried(context(tmp_path, "r2", "r1"), "f").load() is None
    with pytest.raises(ValueError, match="put files in the workspace"):
        carried.save("x" * LIMIT)
    for n in range(KEPT + 3):
        Carried(context(tmp_path, f"n{n}"), "f").save(n)
    assert len(list((tmp_path / ".moorage" / "f").iterdir())) == KEPT


def content(kind: str, **values: Any) -> SimpleNamespace:
    base = {
        "text": None,
        "call_id": None,
        "name": None,
        "arguments": None,
        "merge_mode": None,
        "additional_properties": {},
    }
    return SimpleNamespace(type=kind, **(base | values))


def piece(index: int, arguments: str, call: str = "", name: str = "") -> SimpleNamespace:
    place = {"openai": {"tool_call_index": index}}
    return content(
        "function_call", call_id=call, name=name, arguments=arguments, merge_mode="append", additional_properties=place
    )


def test_calls_in_interleaved_pieces_are_told_whole_before_what_follows() -> None:
    telling = AgentTelling()
    pieces = [piece(0, "", "a", "f"), piece(1, "", "b", "g"), piece(0, '{"x"'), piece(1, "{}"), piece(0, ":1}")]
    assert list(telling.tell(pieces)) == []
    told = list(telling.tell([content("function_result", call_id="a", result="ok")]))
    assert told == [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"), ToolResult("a", "ok")]


def test_text_that_is_told_again_whole_is_told_once() -> None:
    telling = AgentTelling()
    pieces = [("append", "Hel"), ("append", "lo"), ("replace", "Hello!"), ("append", "Bye")]
    told = list(telling.tell(content("text", text=text, merge_mode=mode) for mode, text in pieces))
    assert told == [TextDelta("Hel"), TextDelta("lo"), TextDelta("!"), TextDelta("Bye")]


def test_tokens_that_are_told_as_the_sum_so_far_are_counted_once() -> None:
    telling = AgentTelling()
    counts = [("append", 3, 5), ("replace", 14, 10), ("replace", 14, 10), ("append", 1, 1), ("replace", 20, 12)]
    told = telling.tell(
        content("usage", usage_details={"input_token_count": into, "output_token_count": out}, merge_mode=mode)
        for mode, into, out in counts
    )
    assert list(told) == [Usage(3, 5), Usage(11, 5), Usage(0, 0), Usage(1, 1), Usage(5, 1)]


def test_arguments_that_come_again_whole_replace_their_pieces() -> None:
    telling = AgentTelling()
    again = content("function_call", call_id="a", name="f", arguments={"x": 1}, merge_mode="replace")
    assert list(telling.tell([piece(0, '{"x":', "a", "f"), again])) == []
    assert list(telling.end()) == [ToolCall("a", "f", '{"x": 1}')]


def message(kind: str, identity: str | None, text: Any = "", **values: Any) -> SimpleNamespace:
    return SimpleNamespace(
        type=kind, id=identity, content=text, **({"tool_calls": [], "usage_metadata": None} | values)
    )


def test_results_of_tools_that_run_at_once_are_told_in_the_order_of_their_calls() -> None:
    telling = GraphTelling("r1", frozenset())
    calls = [{"id": each, "name": "f", "args": {}} for each in "abc"]
    told = list(telling.patches({"think": {"messages": [message("ai", "m1", tool_calls=calls)]}}))
    for each in "cab":
        told += telling.patches({"tools": {"messages": [message("tool", each, f"did {each}", tool_call_id=each)]}})
    told += telling.end()
    assert told == [*(ToolCall(each, "f", {}) for each in "abc"), *(ToolResult(each, f"did {each}") for each in "abc")]


def test_a_message_is_told_once_whether_it_was_streamed_returned_or_kept() -> None:
    telling = GraphTelling("r1", frozenset({"old"}))
    used = {"input_tokens": 2, "output_tokens": 3, "input_token_details": {"cache_read": 1}}
    told = [*telling.piece(message("AIMessageChunk", "m1", "Hi"), {}), *telling.piece(message("ai", "old", "no"), {})]
    told += telling.patches(
        {"think": {"messages": [message("ai", "old", "no"), message("ai", "m1", "Hi")]}, "none": None}
    )
    told += telling.patches(
        {"end": {"messages": message("ai", "m2", [{"type": "text", "text": "Bye"}], usage_metadata=used)}}
    )
    assert told == [TextDelta("Hi"), TextDelta("\n\n"), TextDelta("Bye"), Usage(2, 3, 1, 0)]


def test_what_a_graph_asks_has_the_same_id_in_every_attempt() -> None:
    ids = []
    for framework_id in ("x", "y"):
        telling = GraphTelling("r1", frozenset())
        (call,) = telling.patches({"__interrupt__": (SimpleNamespace(id=framework_id, value="sure?"),)})
        assert isinstance(call, ToolCall) and (call.name, call.args) == ("interrupt", '{"value": "sure?"}')
        assert telling.interrupts == {call.id: framework_id}
        ids.append(call.id)
    assert ids[0] == ids[1]


class Saver:
    """The attributes of the framework's saver in memory that are read and written."""

    class serde:
        loads_typed: Callable[[Any], Any] = staticmethod(
            lambda typed: {"channel_versions": {"messages": typed[1].decode()}}
        )

    def __init__(self) -> None:
        self.storage: dict[str, dict[str, dict[str, Any]]] = {"s": {"": {}, "sub:1": {}}}
        self.writes: dict[Any, dict[Any, Any]] = {}
        self.blobs: dict[Any, Any] = {}


def grown(with_values: tuple[str, ...]) -> Saver:
    saver = Saver()
    for n, name in enumerate(("c1", "c2"), 1):
        saver.storage["s"][""][name] = (("k", str(n).encode()), ("k", b"meta"), "c1" if n == 2 else None)
        if name in with_values:
            saver.blobs[("s", "", "messages", str(n))] = ("k", f"value {n}".encode())
    saver.storage["s"]["sub:1"]["c9"] = (("k", b"1"), ("k", b""), None)
    return saver


def test_of_a_thread_only_the_last_checkpoint_is_kept() -> None:
    kept = graph_state.export(grown(("c1", "c2")), "s")
    assert [row[1] for row in kept["checkpoints"]] == ["c2"] and [row[2] for row in kept["values"]] == ["2"]
    again = Saver()
    assert graph_state.restore(again, "s", kept) and again.blobs[("s", "", "messages", "2")] == ("k", b"value 2")
    assert again.storage["s"][""]["c2"] == (("k", b"2"), ("k", b"meta"), None)


def test_all_of_a_thread_is_kept_where_a_channel_keeps_differences() -> None:
    kept = graph_state.export(grown(("c1",)), "s")
    assert [(row[1], row[4]) for row in kept["checkpoints"]] == [("c1", None), ("c2", "c1")]


def test_what_waits_for_an_answer_is_kept_with_the_graphs_inside() -> None:
    saver = grown(("c1", "c2"))
    saver.writes[("s", "", "c2")] = {("task", -3): ("task", "__interrupt__", ("k", b"q"), "")}
    saver.blobs[("s", "sub:1", "messages", "1")] = ("k", b"inner")
    kept = graph_state.export(saver, "s")
    assert {row[0] for row in kept["checkpoints"]} == {"", "sub:1"} and len(kept["writes"]) == 1
    again = Saver()
    again.writes = {("s", "", "c2"): {}}
    assert graph_state.restore(again, "s", kept)
    assert again.writes[("s", "", "c2")] == saver.writes[("s", "", "c2")]


@pytest.mark.parametrize("kept", [None, {}, {"checkpoints": [[1]], "values": [], "writes": []}, {"checkpoints": 3}])
def test_a_state_that_is_none_leaves_the_saver_empty(kept: object) -> None:
    saver = Saver()
    assert graph_state.restore(saver, "s", kept) is False and saver.storage["s"][""] == {}
