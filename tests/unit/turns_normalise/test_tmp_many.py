"""Any agent, any chunks, any number of interruptions anywhere: the stream is valid, says nothing twice and takes nothing back."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_gateway.turns.book import Book
from moorage_gateway.turns.normalise import Normaliser, response_from_log
from unit.turns_normalise.stock import read_by_stock_client
from unit.turns_normalise.streams import TEMPLATE, Event, Turn, began, check_stream, completed

pytestmark = pytest.mark.unit

BOUNDED = settings(
    derandomize=False, max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

FIELDS = {
    "function_call": "arguments",
    "mcp_call": "arguments",
    "custom_tool_call": "input",
    "code_interpreter_call": "code",
}
STEMS = {
    "output_text": ("response.output_text", "content_index", "text"),
    "refusal": ("response.refusal", "content_index", "refusal"),
    "reasoning_text": ("response.reasoning_text", "content_index", "text"),
    "summary_text": ("response.reasoning_summary_text", "summary_index", "text"),
}


@dataclass(frozen=True)
class Spec:
    """What one item says: its type, its parts as (kind, text), or the text of its field."""

    kind: str
    parts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    name: str = "n"
    call_id: str = "c"

    def item(self, source_id: str, *, whole: bool) -> dict[str, Any]:
        item: dict[str, Any] = {"type": self.kind, "id": source_id, "status": "completed" if whole else "in_progress"}
        said = [{"type": kind, STEMS[kind][2]: text} for kind, text in self.parts] if whole else []
        if self.kind == "message":
            item |= {"role": "assistant", "content": said}
        elif self.kind == "reasoning":
            item["summary"] = [part for part in said if part["type"] == "summary_text"]
            item["content"] = [part for part in said if part["type"] == "reasoning_text"]
        elif self.kind in FIELDS:
            item |= {"name": self.name, "call_id": self.call_id, FIELDS[self.kind]: self.text if whole else ""}
        else:
            item |= {"action": {"type": "search", "query": self.text}}
        return item


@dataclass
class Agent:
    """How an agent sends: its chunks, and which events it leaves out."""

    seed: int
    leaves_out: frozenset[str] = frozenset()
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def stream(self, specs: list[Spec]) -> list[Event]:
        events = began()
        for index, spec in enumerate(specs):
            if spec.kind == "acme:note":
                events.append({"type": "acme:note", "text": spec.text})
            else:
                events += self._item(spec, index)
        events.append(completed({"input_tokens": self.seed, "output_tokens": 1}))
        return [event for event in events if event["type"].removeprefix("response.") not in self.leaves_out]

    def _item(self, spec: Spec, index: int) -> list[Event]:
        source_id = f"i{index}-{self.seed}"
        at = {"item_id": source_id, "output_index": index}
        events: list[Event] = [
            {"type": "response.output_item.added", "output_index": index, "item": spec.item(source_id, whole=False)}
        ]
        counts: dict[str, int] = {}
        for kind, text in spec.parts:
            stem, key, name = STEMS[kind]
            here = {**at, key: counts.get(key, 0)}
            counts[key] = here[key] + 1
            part = "response.reasoning_summary_part" if key == "summary_index" else "response.content_part"
            events.append({"type": f"{part}.added", **here, "part": {"type": kind, name: ""}})
            events += [{"type": f"{stem}.delta", **here, "delta": piece} for piece in self._pieces(text)]
            events.append({"type": f"{stem}.done", **here, name: text})
            events.append({"type": f"{part}.done", **here, "part": {"type": kind, name: text}})
        if spec.kind in FIELDS:
            stem = f"response.{spec.kind}_{FIELDS[spec.kind]}"
            events += [{"type": f"{stem}.delta", **at, "delta": piece} for piece in self._pieces(spec.text)]
            events.append({"type": f"{stem}.done", **at, FIELDS[spec.kind]: spec.text})
        elif spec.kind == "web_search_call":
            events += [{"type": f"response.web_search_call.{verb}", **at} for verb in ("in_progress", "completed")]
        events.append(
            {"type": "response.output_item.done", "output_index": index, "item": spec.item(source_id, whole=True)}
        )
        return events

    def _pieces(self, text: str) -> list[str]:
        found, at = [], 0
        while at < len(text):
            size = self.rng.randint(1, 5)
            found.append(text[at : at + size])
            at += size
        return found


WORDS = st.text(alphabet="ab üß🙂", max_size=12)


def _specs() -> st.SearchStrategy[Spec]:
    message = st.lists(st.tuples(st.sampled_from(["output_text", "refusal"]), WORDS), min_size=1, max_size=3).map(
        lambda parts: Spec("message", tuple(parts))
    )
    reasoning = st.tuples(st.lists(WORDS, max_size=2), st.lists(WORDS, max_size=2)).map(
        lambda both: Spec(
            "reasoning", tuple(("summary_text", t) for t in both[0]) + tuple(("reasoning_text", t) for t in both[1])
        )
    )
    call = st.builds(
        lambda kind, text, name: Spec(kind, (), text, name),
        st.sampled_from(sorted(FIELDS)),
        WORDS,
        st.sampled_from("nm"),
    )
    other = st.builds(lambda kind, text: Spec(kind, (), text), st.sampled_from(["web_search_call", "acme:note"]), WORDS)
    return st.one_of(message, message, reasoning, call, other)


SPECS = st.lists(_specs(), min_size=1, max_size=5).map(
    lambda specs: [replace(spec, call_id=f"c{index}") for index, spec in enumerate(specs)]
)
OMISSIONS = st.sets(
    st.sampled_from(
        [
            "created",
            "content_part.added",
            "content_part.done",
            "output_text.done",
            "output_item.done",
            "output_text.delta",
        ]
        + ["reasoning_summary_part.added", "function_call_arguments.delta", "function_call_arguments.done"]
    ),
    max_size=2,
).map(frozenset)
CUT = st.floats(0, 1)


@dataclass(frozen=True)
class Try:
    """One attempt: how it is sent, where it is cut, and from which item on it says something else (None: nowhere)."""

    seed: int
    cut: float
    keep: float
    changed: Spec | None
    at: int


TRIES = st.lists(
    st.builds(Try, st.integers(0, 9), CUT, CUT, st.none() | _specs(), st.integers(0, 4)), min_size=1, max_size=4
)


def run(turn: Turn, sources: list[Event], one: Try | None) -> None:
    """One attempt; when it is not the last, a takeover in its middle must come to the same log."""
    if one is None:
        turn.attempt(sources)
        return
    sources = sources[: int(len(sources) * one.cut)]
    baseline = copy.deepcopy(turn.log)
    probe = Turn(log=copy.deepcopy(turn.log))
    whole = probe.attempt(sources)
    turn.attempt(sources, keep=int(len(whole) * one.keep + 0.5))
    check_stream(turn.log, ended=False)
    owner = Normaliser(TEMPLATE, baseline, continues=True)
    assert [event for source in sources for event in owner.feed(source)] == whole


def ends(turn: Turn) -> list[dict[str, Any]]:
    """Ends the turn, checks the stream by our checker and by the stock client, returns the output."""
    log = len(turn.log)
    seen = copy.deepcopy(turn.log)
    finish = turn.finish()
    assert turn.log[:log] == seen
    done = check_stream(turn.log)
    read = read_by_stock_client(turn.log)
    assert (read is None) == (finish.response["status"] != "completed")
    assert response_from_log(TEMPLATE, turn.log, status="x") == finish.response
    assert finish.response["output"] == [done[index] for index in sorted(done)]
    return list(finish.response["output"])


def said(spec: Spec) -> tuple[Any, ...]:
    """What an item must say in the end, apart from ids."""
    return (spec.kind, spec.parts, spec.text if spec.kind in FIELDS or spec.kind == "web_search_call" else "")


def says(item: dict[str, Any]) -> tuple[Any, ...]:
    parts = tuple((p["type"], p[STEMS[p["type"]][2]]) for p in [*item.get("summary", ()), *(item.get("content") or ())])
    text = item.get(FIELDS.get(item["type"], ""), item.get("action", {}).get("query", ""))
    return (item["type"], parts, text)


@BOUNDED
@given(SPECS, OMISSIONS, TRIES)
def test_an_agent_that_says_the_same_in_any_chunks_is_heard_once(
    specs: list[Spec], leaves_out: frozenset[str], tries: list[Try]
) -> None:
    reference = Turn()
    reference.attempt(Agent(77, leaves_out).stream(specs))
    wanted = ends(reference)
    turn = Turn()
    for one in tries:
        run(turn, Agent(one.seed, leaves_out).stream(specs), one)
    run(turn, Agent(99, leaves_out).stream(specs), None)
    assert ends(turn) == wanted
    assert not any("supersedes" in event for event in turn.log)
    assert sum(e["type"] == "acme:note" for e in turn.log) == sum(spec.kind == "acme:note" for spec in specs)


@BOUNDED
@given(SPECS, OMISSIONS, TRIES)
def test_an_agent_that_says_something_else_each_time_is_heard_whole_in_the_end(
    specs: list[Spec], leaves_out: frozenset[str], tries: list[Try]
) -> None:
    turn = Turn()
    telling = specs
    for number, one in enumerate(tries):
        if one.changed is not None:
            telling = list(telling)
            telling[one.at % len(telling)] = replace(one.changed, call_id=f"c{one.at}-{number % 2}")
        run(turn, Agent(one.seed, leaves_out).stream(telling), one)
    run(turn, Agent(99, leaves_out).stream(telling), None)
    output = ends(turn)
    told = [said(spec) for spec in telling if spec.kind != "acme:note"]
    line = [output[index] for index in Book(turn.log).line][: len(told)]  # behind it: what this telling never reached
    assert [says(item) for item in line] == told
    assert all(item["status"] == "completed" for item in line)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NAMES = st.sampled_from(
    "type id item_id output_index content_index summary_index delta text refusal arguments part item content summary response "
    "output error code message annotation annotations logprobs call_id role status usage command_index".split()
)
TYPES = st.sampled_from(
    "response.created response.in_progress response.output_item.added response.output_item.done response.content_part.added "
    "response.content_part.done response.output_text.delta response.output_text.done response.refusal.delta "
    "response.reasoning_text.delta response.reasoning_summary_part.added response.reasoning_summary_part.done "
    "response.reasoning_summary_text.delta response.function_call_arguments.delta response.function_call_arguments.done "
    "response.output_text.annotation.added response.web_search_call.searching response.completed response.failed error "
    "response.shell_call_command.delta acme:x message reasoning function_call output_text refusal shell_call_output".split()
)
MEMBERS = st.dictionaries(
    NAMES,
    st.deferred(
        lambda: st.one_of(JSON, TYPES, st.integers(0, 2), st.sampled_from("ab"), MEMBERS, st.lists(MEMBERS, max_size=2))
    ),
    max_size=6,
)


@BOUNDED
@given(st.lists(st.builds(lambda kind, event: event | {"type": kind}, TYPES, MEMBERS), max_size=14), st.integers(0, 14))
def test_whatever_an_agent_sends_the_stream_is_valid(events: list[Event], cut: int) -> None:
    turn = Turn()
    turn.attempt(events[:cut])
    check_stream(turn.log, ended=False)
    turn.attempt([*events, completed()])
    ends(turn)
