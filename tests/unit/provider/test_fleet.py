"""The fleet knows the sandboxes of each revision without looking at those of all others, and when an agent's entry may have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from moorage_api import conditions
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import Revision
from moorage_api.provider.fleet import AgentState, Fleet, Held, RevisionState, mark_pool

pytestmark = pytest.mark.unit


def held(sandbox: str, revision: str) -> Held:
    return Held(Descriptor(sandbox, "dev", "a", revision, "http://h:1", "s", f"ws-{sandbox}", ()), revision, 1.0)


def test_a_revisions_sandboxes_are_its_own_in_the_order_they_came() -> None:
    fleet = Fleet()
    for number, revision in enumerate(("r1", "r2", "r1", "r1")):
        fleet.sandboxes[f"sb-{number}"] = held(f"sb-{number}", revision)
    assert [one.descriptor.sandbox for one in fleet.of_revision("r1")] == ["sb-0", "sb-2", "sb-3"]
    assert [one.descriptor.sandbox for one in fleet.of_revision("r2")] == ["sb-1"]
    assert fleet.of_revision("r3") == []
    assert [one.descriptor.sandbox for one in fleet.sandboxes.of_agent("dev", "a")] == ["sb-0", "sb-1", "sb-2", "sb-3"]
    assert fleet.sandboxes.of_agent("dev", "b") == fleet.sandboxes.of_agent("other", "a") == []
    assert list(fleet.sandboxes) == ["sb-0", "sb-1", "sb-2", "sb-3"] and len(fleet.sandboxes.values()) == 4


def test_a_sandbox_that_went_or_came_again_is_in_one_place_or_none() -> None:
    fleet = Fleet()
    fleet.sandboxes["sb-1"] = held("sb-1", "r1")
    fleet.sandboxes["sb-1"] = fresh = held("sb-1", "r2")
    assert fleet.of_revision("r1") == [] and fleet.of_revision("r2") == fleet.sandboxes.of_agent("dev", "a") == [fresh]
    assert fleet.sandboxes.pop("sb-1", None) is fresh
    assert fleet.sandboxes.pop("sb-1", None) is None
    assert (
        fleet.of_revision("r2") == fleet.sandboxes.of_agent("dev", "a") == []
        and len(fleet.sandboxes) == 0
        and "sb-1" not in fleet.sandboxes
    )


def revision(name: str, **spec: object) -> Revision:
    return Revision("dev", "a", name, HostedAgentSpec.model_validate({"image": "i", **spec}), "moorage")


def serving() -> tuple[Fleet, AgentState]:
    """An agent with two revisions, the newest of which has not served yet."""
    fleet = Fleet()
    agent = fleet.agent("dev", "a")
    agent.revisions = [RevisionState(revision("r2")), RevisionState(revision("r1"), proven=True)]
    mark_pool(agent, now=1.0)
    return fleet, agent


def served(agent: AgentState) -> None:
    agent.revisions[0].served()
    mark_pool(agent, now=2.0)


def broke(agent: AgentState) -> None:
    agent.revisions[0].error = "no such module"
    mark_pool(agent, now=2.0)


def refused(agent: AgentState) -> None:
    agent.conditions = conditions.mark_false(agent.conditions, conditions.SOURCE_RESOLVED, "SpecRefused", "no", now=2.0)


def respecified(agent: AgentState) -> None:
    agent.revisions[0].revision = revision("r2", pool={"min": 3, "max": 4})


def went(agent: AgentState) -> None:
    agent.revisions.pop()


def never_ran(agent: AgentState) -> None:
    agent.revisions, agent.spec = [], {"image": "of another"}


@pytest.mark.parametrize("change", [served, broke, refused, respecified, went, never_ran])
def test_whatever_changes_an_entry_is_seen_before_it_is_made(change: Callable[[AgentState], None]) -> None:
    fleet, agent = serving()
    plans = fleet.plans(agent)
    entry, made_of = fleet.entry(agent, plans), fleet.made_of(agent, plans)
    change(agent)
    plans = fleet.plans(agent)
    assert fleet.entry(agent, plans) != entry, "the test changes nothing else"
    assert fleet.made_of(agent, plans) != made_of


def test_a_weight_that_moves_is_seen() -> None:
    fleet, agent = serving()
    plans = fleet.plans(agent)
    assert fleet.made_of(agent, plans) != fleet.made_of(agent, [replace(one, weight=7) for one in plans])


def test_a_look_at_which_nothing_is_new_marks_nothing() -> None:
    fleet, agent = serving()
    seen, made_of = agent.conditions, fleet.made_of(agent, fleet.plans(agent))
    mark_pool(agent, now=9.0)
    assert agent.conditions is seen
    assert fleet.made_of(agent, fleet.plans(agent)) == made_of
