"""What the provider holds of its agents: revisions, pools, failures, conditions, and the catalog entry made of them.

Layer: the floor, no I/O (`now` is an argument). The loop in `loop.py` reads and changes it; nobody else does.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any

from moorage_api import conditions
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.conditions import Conditions
from moorage_api.ledger.records import Descriptor
from moorage_api.provider import decide
from moorage_api.provider.base import Revision
from moorage_api.provider.decide import Failures


@dataclass(eq=False)
class Held:
    """A sandbox that runs: in a pool (`session` empty) or made for a session."""

    descriptor: Descriptor
    revision: str
    born: float
    session: str = ""
    offered: bool = False
    claimed: bool = False
    ending: bool = False
    labelled: bool = False
    doubtful: bool = False  # claimed in a ledger that was lost: its volume may hold a session's files
    scratch: bool = False  # `workspace.fileSystem: false`: its files end with it


@dataclass(eq=False)
class RevisionState:
    """One revision: whether it is prepared, whether it ever served, and what went wrong last."""

    revision: Revision
    prepared: bool = False
    proven: bool = False
    failures: Failures = field(default_factory=Failures)
    error: str = ""
    dying: bool = False  # its ready sandboxes end by themselves: getting ready again proves nothing

    def served(self) -> None:
        """A sandbox of it got ready."""
        self.proven = True
        if not self.dying:
            self.error, self.failures = "", Failures()


@dataclass(eq=False)
class AgentState:
    """One agent: its revisions, newest first, and the conditions people see."""

    tenant: str
    agent: str
    revisions: list[RevisionState] = field(default_factory=list)
    conditions: Conditions = field(default_factory=lambda: conditions.begin(0))
    spec: dict[str, Any] = field(default_factory=dict)
    published: str = ""
    published_of: tuple[object, ...] = ()  # what `published` was made of
    plans: tuple[decide.RevisionPlan, ...] = ()  # what its revisions were last for, and what that was decided by
    planned_of: tuple[object, ...] = ()
    marked_of: tuple[object, ...] = ()  # what its conditions were last marked by, and they themselves

    @property
    def key(self) -> tuple[str, str]:
        """How the agent is found."""
        return self.tenant, self.agent

    @property
    def newest(self) -> RevisionState | None:
        """The revision new sessions should get."""
        return self.revisions[0] if self.revisions else None

    def find(self, revision: str) -> RevisionState | None:
        """The revision by its name, or None."""
        return next((state for state in self.revisions if state.revision.revision == revision), None)

    def is_settled(self, revision: str | None) -> bool:
        """Whether that revision (None: the newest) served or failed, or its source was refused."""
        newest = self.newest
        source = self.conditions.get(conditions.SOURCE_RESOLVED)
        if source is not None and source.status == "False":
            return True
        if newest is None or (revision is not None and newest.revision.revision != revision):
            return False
        return (newest.proven or bool(newest.error)) and bool(self.published)


class Sandboxes(MutableMapping[str, Held]):
    """Sandboxes by their id, in the order they came; by revision, since a look asks each for its own, and by agent, for its status."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._of: dict[str, dict[str, Held]] = {}
        self._of_agent: dict[tuple[str, str], dict[str, Held]] = {}

    def of(self, revision: str) -> list[Held]:
        """Those of one revision, oldest first."""
        return list(self._of.get(revision, {}).values())

    def of_agent(self, tenant: str, agent: str) -> list[Held]:
        """Those of one agent, oldest first."""
        return list(self._of_agent.get((tenant, agent), {}).values())

    def __getitem__(self, sandbox: str) -> Held:
        return self._held[sandbox]

    def __setitem__(self, sandbox: str, held: Held) -> None:
        if sandbox in self._held:
            del self[sandbox]
        self._held[sandbox] = held
        self._of.setdefault(held.revision, {})[sandbox] = held
        self._of_agent.setdefault(_agent_of(held), {})[sandbox] = held

    def __delitem__(self, sandbox: str) -> None:
        held = self._held.pop(sandbox)
        of, of_agent = self._of[held.revision], self._of_agent[_agent_of(held)]
        del of[sandbox], of_agent[sandbox]
        if not of:
            del self._of[held.revision]
        if not of_agent:
            del self._of_agent[_agent_of(held)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def values(self) -> ValuesView[Held]:
        """As a dict's, and as quick."""
        return self._held.values()

    def items(self) -> ItemsView[str, Held]:
        """As a dict's, and as quick."""
        return self._held.items()


def _agent_of(held: Held) -> tuple[str, str]:
    return held.descriptor.tenant, held.descriptor.agent


class Fleet:
    """All agents and all sandboxes of one provider."""

    def __init__(self) -> None:
        self.agents: dict[tuple[str, str], AgentState] = {}
        self.sandboxes = Sandboxes()

    def agent(self, tenant: str, agent: str) -> AgentState:
        """The agent's state; made if absent."""
        return self.agents.setdefault((tenant, agent), AgentState(tenant, agent))

    def knows(self, state: RevisionState) -> bool:
        """Whether that revision is still one of its agent's."""
        agent = self.agents.get((state.revision.tenant, state.revision.agent))
        return agent is not None and state in agent.revisions

    def all_revisions(self) -> Iterator[tuple[AgentState, RevisionState]]:
        """Every revision of every agent."""
        for agent in self.agents.values():
            for state in agent.revisions:
                yield agent, state

    def of_revision(self, key: str) -> list[Held]:
        """Sandboxes of one revision, oldest first."""
        return self.sandboxes.of(key)

    def ready(self, key: str) -> list[Held]:
        """Sandboxes of one revision that wait in its pool."""
        return [h for h in self.of_revision(key) if not h.session and not h.claimed and not h.ending]

    def on_volume(self, volume: str) -> Held | None:
        """The sandbox that runs on a volume, or None."""
        return next((h for h in self.sandboxes.values() if h.descriptor.volume == volume), None)

    def plans(self, agent: AgentState) -> tuple[decide.RevisionPlan, ...]:
        """What each revision of an agent is for now; decided when something of it is new."""
        newest = agent.newest
        seen = tuple(
            [(one.revision, one.proven, 0 if one is newest else self._running(one)) for one in agent.revisions]
        )
        if agent.planned_of != seen:
            weight = newest.revision.spec.rollout.weight if newest is not None else 100
            revisions = [decide.RevisionSeen(one.revision, proven, running) for one, proven, running in seen]
            agent.plans, agent.planned_of = tuple(decide.revisions(revisions, weight=weight)), seen
        return agent.plans

    def _running(self, state: RevisionState) -> int:
        return sum(1 for h in self.of_revision(state.revision.key) if h.claimed or h.session)

    def made_of(self, agent: AgentState, plans: Sequence[decide.RevisionPlan]) -> tuple[object, ...]:
        """All that `entry` reads: while it is the same, so is the entry. What is unchanged in it is the very same object."""
        return (agent.conditions, agent.spec, agent.planned_of, plans)

    def entry(self, agent: AgentState, plans: Sequence[decide.RevisionPlan]) -> AgentEntry | None:
        """What gateways are told of an agent whose revisions are for `plans`; None before it ever had a revision or an error to show."""
        newest = agent.newest
        if newest is None and not agent.spec:
            return None
        shares = [plan for plan in plans if plan.pooled]
        spec = newest.revision.wire_spec if newest is not None else agent.spec
        listed = []
        for plan in shares:
            state = agent.find(plan.revision)
            listed.append(RevisionEntry(plan.revision, plan.weight, ready=state is not None and state.proven))
        return AgentEntry(
            tenant=agent.tenant,
            agent=agent.agent,
            revisions=tuple(listed),
            protocols=frozenset(spec.get("protocols", ())),
            contract=newest.revision.contract if newest is not None else str(spec.get("contract", "auto")),
            spec=spec,
            conditions=agent.conditions.to_list(),
            message=agent.conditions.message,
        )


def mark_pool(agent: AgentState, *, now: float) -> None:
    """Brings `PoolReady`, `Published` and `Ready` to what the newest revision shows.

    newest    | error | min | PoolReady
    ----------|-------|-----|------------------------------------------
    proven    | no    | any | True
    any       | yes   | any | False, with the message and last log lines
    prepared  | no    | 0   | True (on demand)
    otherwise |       |     | Unknown
    """
    seen, newest = agent.conditions, agent.newest
    shown = (newest, newest.error, newest.proven) if newest is not None else ()
    if agent.marked_of == (*shown, seen):  # most looks: nothing of it is new
        return
    if newest is None:
        agent.conditions = conditions.propagate_ready(seen, now=now)
        agent.marked_of = (*shown, agent.conditions)
        return
    kind = conditions.POOL_READY
    if newest.error:
        seen = conditions.mark_false(seen, kind, conditions.AGENT_BROKEN, newest.error, now=now)
    elif newest.proven:
        seen = conditions.mark_true(seen, kind, conditions.FILLED, "Sandboxes get ready.", now=now)
    else:
        seen = conditions.mark_unknown(seen, kind, conditions.FILLING, "The first sandbox is being started.", now=now)
    seen = conditions.mark_true(seen, conditions.PUBLISHED, conditions.IN_CATALOG, "Gateways know this agent.", now=now)
    agent.conditions = conditions.propagate_ready(seen, now=now)
    agent.marked_of = (*shown, agent.conditions)
