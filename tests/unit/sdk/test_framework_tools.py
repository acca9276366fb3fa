"""Function tools of frameworks as steps: which are marked to run again, what passes through, what a model is told. Kills: `journey/`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from moorage import AlreadyDone, OutcomeUnknown, StepFailed, read_only
from moorage.adapters import graph_tools
from moorage.adapters import once as once_module
from moorage.adapters.once import Told, once, reads_only

pytestmark = pytest.mark.unit


def writes(text: str) -> str:
    return text


@read_only
def looks(text: str) -> str:
    return text


class Gone(Exception):
    """How a framework goes elsewhere."""


def giving(value: object) -> Callable[[], Awaitable[Any]]:
    async def run() -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return run


async def made(value: object) -> Any:
    return await once("tool", {"text": "x"}, giving(value), lambda result: [result], (Gone,))


def test_a_mark_is_found_under_what_wraps_the_function() -> None:
    @functools.wraps(looks)
    def around(text: str) -> str:
        return looks(text)

    assert all(reads_only(each) for each in (looks, around, functools.partial(looks, "x")))
    assert not any(reads_only(each) for each in (writes, functools.partial(writes, "x"), None, 3))


async def test_a_result_is_kept_packed_and_a_failure_is_a_failed_step() -> None:
    assert await made("fine") == ["fine"]
    with pytest.raises(StepFailed, match="no lemons") as failed:
        await made(ValueError("no lemons"))
    assert isinstance(failed.value.__cause__, ValueError)


async def test_what_goes_elsewhere_passes_through_and_is_met_again_by_a_later_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = Gone("a person is asked")
    with pytest.raises(Gone) as met:
        await made(gone)
    assert met.value is gone

    async def recorded(*_: object) -> dict[str, str]:
        return {"passed": "Gone"}

    monkeypatch.setattr(once_module, "step", recorded)
    with pytest.raises(Gone):
        await made(gone)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OutcomeUnknown("tool"), {"error": "outcome_unknown"}),
        (
            AlreadyDone(
                "tool", {"args": [{"text": "y"}], "kwargs": {}}, known=True, result={"result": ["was"]}, failure=None
            ),
            {"error": "already_done_in_earlier_attempt", "call": {"text": "y"}, "result": "was"},
        ),
        (
            AlreadyDone("tool", None, known=True, result=None, failure=StepFailed("tool", "ValueError", "no lemons")),
            {"error": "already_done_in_earlier_attempt", "result": "Step 'tool'"},
        ),
        (
            AlreadyDone("tool", None, known=False, result=None, failure=None),
            {"error": "already_done_in_earlier_attempt"},
        ),
        (
            AlreadyDone("tool", {"sha256": "0"}, known=False, result=None, failure=None),
            {"error": "already_done_in_earlier_attempt"},
        ),
    ],
)
async def test_a_model_is_told_what_it_can_act_on(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, told: dict[str, Any]
) -> None:
    async def lost(*_: object) -> None:
        raise raised

    monkeypatch.setattr(once_module, "step", lost)
    found = await made("never")
    assert isinstance(found, Told)
    said = found.as_json(lambda kept: kept if isinstance(kept, str) else kept[0])
    assert len(said.pop("message")) > 20 and said.keys() == told.keys()
    assert all(str(said[key]).startswith(str(value)) for key, value in told.items())


def tool_node(**wrappers: object) -> Any:
    base = {"tools_by_name": {}, "_awrap_tool_call": None, "_wrap_tool_call": None, "name": "tools"}
    return SimpleNamespace(**(base | wrappers))


def graph(*nodes: Any, inner: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(
        nodes={str(n): SimpleNamespace(bound=node) for n, node in enumerate(nodes)},
        get_subgraphs=lambda recurse: [(str(n), each) for n, each in enumerate(inner)],
    )


async def test_tools_of_all_graphs_are_wrapped_once_inside_of_their_own_wrappers() -> None:
    seen = []

    async def own(request: Any, execute: Callable[[Any], Awaitable[Any]]) -> Any:
        seen.append("own")
        return await execute(request)

    async def execute(request: Any) -> str:
        seen.append("tool")
        return "done"

    outer, inside = tool_node(_awrap_tool_call=own), tool_node()
    whole = graph(outer, object(), inner=(graph(inside),))
    for _ in range(2):
        graph_tools.journal(whole)
    request = SimpleNamespace(
        tool_call={"name": "t", "args": {}, "id": "c"}, tool=SimpleNamespace(func=looks, coroutine=None)
    )
    assert await outer._awrap_tool_call(request, execute) == "done" and seen == ["own", "tool"]
    assert await inside._awrap_tool_call(request, execute) == "done"


def test_a_node_with_a_blocking_wrapper_only_is_refused_with_what_to_give() -> None:
    with pytest.raises(TypeError, match="awrap_tool_call as well"):
        graph_tools.journal(graph(tool_node(_wrap_tool_call=lambda request, execute: None)))
