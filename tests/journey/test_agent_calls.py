"""An agent asks another one by a stock MCP client, and parts die in the middle: the work is done once, and the answer is whole."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.otlp import Collector, collecting
from fakes.platform import Platform, poll
from fakes.tools import Tools, serving
from journey import calling
from journey.calling import deployed, lose_sandbox, name, new_session

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

AGENT = Path(__file__).with_name("tools_agent")
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: caller}}
spec:
  source: {{path: ., entrypoint: host.py}}
  pool: {{min: 1, max: 8}}
  toolboxes: [team]
---
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: worker}}
spec:
  source: {{path: ., entrypoint: host.py}}
  pool: {{min: 1, max: 8}}
  toolboxes: [desk]
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: desk}}
spec:
  upstreams:
    - {{name: new, mcp: {{url: "{url}"}}, prefix: new_}}
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: team}}
spec:
  upstreams:
    - {{name: worker, agent: {{name: worker, description: Works.}}, timeout: 2m}}
    - {{name: fresh, agent: {{name: worker, session: fresh}}, timeout: 2m}}
    - {{name: hasty, agent: {{name: worker}}, timeout: 2s}}
    - {{name: self, agent: {{name: caller}}, timeout: 2m}}
    - {{name: gone, agent: {{name: nobody}}}}
"""


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    """What the worker works on."""
    with serving("new") as made:
        yield made


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where spans go."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def platform(tools: Tools, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    env = {"MOORAGE_ALLOWED_UPSTREAMS": tools.named, "MOORAGE_OTLP_ENDPOINT": collector.url}
    with deployed(AGENT, MANIFEST.format(url=tools.url), tmp_path_factory.mktemp("team"), env=env) as found:
        yield found


ask = functools.partial(calling.ask, agent="caller")


def ended(platform: Platform, response: str) -> Any:
    with platform.client("caller", timeout=120) as api:
        return calling.ended(api, response)


def called(platform: Platform, response: str) -> list[dict[str, Any]]:
    """Records of the turns that this one's agent made of others."""
    found = []
    for path in platform.stored.names("t/dev/responses/"):
        with contextlib.suppress(AssertionError):  # another agent's
            record = platform.record("worker", path.split("/")[3])
            if path.endswith("/response.json") and record.get("called_by", {}).get("response") == response:
                found.append(record)
    return found


def test_an_agent_asks_another_which_remembers_and_knows_the_user(platform: Platform, tools: Tools) -> None:
    text, session = name("work"), new_session()
    made = ask(platform, f"ask worker call new_add {text};past", "ask worker past", session=session)
    first, second, third = made.output_text.splitlines()
    assert first.endswith(text) and tools.times(text) == 1
    user = second.partition(":")[0]
    assert second == f"{user}: ''" and user != "None"
    assert text in third and third.startswith(f"{user}: ")
    later = ask(platform, "ask worker past", session=session)
    assert text in later.output_text, "the calling session has one session of the called agent"
    assert ask(platform, "ask worker past").output_text.strip() == f"{user}: ''", "another one has another"
    fresh = ask(platform, "asks fresh past | past", "ask fresh past").output_text
    assert text not in fresh and fresh.count("''") == 3
    records = called(platform, made.id)
    assert len(records) == 2 and len({each["session"] for each in records}) == 1
    assert {each["trace_id"] for each in records} == {platform.record("caller", made.id)["trace_id"]}
    assert records[0]["called_by"]["agents"] == ["caller"]


def test_a_called_agents_work_is_in_the_trace_below_the_calling_attempt(
    platform: Platform, collector: Collector
) -> None:
    made = ask(platform, "ask worker past")
    trace = platform.record("caller", made.id)["trace_id"]

    def spans(name: str) -> list[Any]:
        return [span for span in collector.trace(trace) if span.name == name]

    (inner,) = poll("the called agent's span is there", lambda: spans("invoke_agent worker"))
    (outer,) = poll("the calling agent's span is there", lambda: spans("invoke_agent caller"))
    (called,) = poll("the call's span is there", lambda: spans("execute_tool worker_ask"))
    assert inner.parent_id == called.parent_id
    above = {span.span_id: span.parent_id for span in collector.trace(trace)}
    assert outer.span_id in (inner.parent_id, above.get(inner.parent_id))


def test_what_fails_is_told_in_words(platform: Platform, tools: Tools) -> None:
    failed, nobody, empty = ask(platform, "ask worker nonsense", "ask gone x", "ask worker").output_text.splitlines()
    assert failed.startswith("[agent 'worker' failed: ") and "no agent named 'nobody'" in nobody
    assert "give input, a text that is not empty" in empty
    door = name("door")
    late = ask(platform, f"ask hasty call new_add pause {door}").output_text
    tools.release(door)
    assert "it had not ended within 2 s and was stopped" in late


def test_agents_that_call_each_other_in_a_circle_are_told_so(platform: Platform) -> None:
    told = ask(platform, "ask self " * 5 + "past").output_text
    assert "4 deep at most, and this would be caller → caller → caller → caller → caller → caller" in told
    assert ask(platform, "ask self " * 4 + "past").output_text.strip().endswith(": ''")


def test_a_cancelled_turn_stops_those_that_it_made(platform: Platform, tools: Tools) -> None:
    door = name("door")
    made = ask(platform, f"ask worker call new_add pause {door}", background=True)
    poll("the worker works", lambda: tools.times(f"pause {door}") == 1)
    with platform.client("caller", timeout=120) as api:
        assert api.responses.cancel(made.id).status == "cancelled"
    found = poll("the inner turn has ended", lambda: called(platform, made.id))
    tools.release(door)
    assert [each["status"] for each in found] == ["cancelled"]


@pytest.mark.parametrize("victim", ["caller", "worker"])
def test_a_killed_sandbox_on_either_side_costs_nothing(platform: Platform, tools: Tools, victim: str) -> None:
    text, door, session = name("kill"), name("door"), new_session()
    steps = f"ask worker call new_add {text}-1;call new_add pause {door};call new_add {text}-2"
    known = {each["id"] for each in platform.sessions("worker")}
    made = ask(platform, steps, "ask worker past", session=session, background=True)
    poll("the worker is in the middle", lambda: tools.times(f"pause {door}") == 1)
    if victim == "worker":
        (session,) = {each["id"] for each in platform.sessions("worker")} - known
    lose_sandbox(platform, victim, session)
    tools.release(door)
    done = ended(platform, made.id)
    assert done.status == "completed", done
    assert [tools.times(each) for each in (f"{text}-1", f"pause {door}", f"{text}-2")] == [1, 1, 1]
    lines = done.output_text.splitlines()
    assert [line.rpartition(" ")[2] for line in lines[:3]] == [f"{text}-1", door, f"{text}-2"], lines
    assert lines[3].count(f"{text}-1") == 2, "asked and answered once, in the conversation too"
    assert len(called(platform, made.id)) == 2, "one turn a call"


def test_a_gateway_that_dies_leaves_the_call_to_another_which_joins_it(platform: Platform, tools: Tools) -> None:
    other = platform.start_gateway()
    text, door = name("gate"), name("door")
    steps = f"ask worker call new_add {text}-1;call new_get_one pause {door};call new_add {text}-2"
    made = ask(platform, steps, background=True, url=other.url)
    poll("the worker is in the middle", lambda: tools.times(f"pause {door}") >= 1)
    other.kill()
    tools.release(door)
    done = ended(platform, made.id)
    assert done.status == "completed", done
    assert [tools.times(f"{text}-{n}") for n in (1, 2)] == [1, 1]
    assert "outcome_unknown: the call of 'worker_ask'" not in done.output_text
    lines = done.output_text.splitlines()
    assert lines[0].endswith(f"{text}-1") and lines[-1].endswith(f"{text}-2"), lines
    assert len(called(platform, made.id)) == 1
